"""moetui: which experts does every layer choose, and why.

    import moetui
    model = moetui.load("demo")
    trace = model.trace("127 + 45 =")
    trace.expert_ids[-1]      # the experts of the last token, one row per layer

Importing the package costs nothing: mlx and transformers are imported on the first `load`.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

TYPE_CHECKING = False  # not from typing: before the command line begins, nothing takes a while
if TYPE_CHECKING:
    from typing import Any

    from moetui.analyses.virtual_router import VirtualExpertRouter
    from moetui.errors import MoetuiError
    from moetui.model import Model, load
    from moetui.suites import run_suite
    from moetui.trace import (
        AddLogits,
        AddToPart,
        Ban,
        Deselect,
        Drop,
        Force,
        Merge,
        PatchPart,
        Remap,
        Reweigh,
        ScalePart,
        TopK,
        Trace,
        open_trace,
    )

_WHERE = {
    "load": "moetui.model",
    "Model": "moetui.model",
    "Trace": "moetui.trace",
    "open_trace": "moetui.trace",
    "run_suite": "moetui.suites",
    "MoetuiError": "moetui.errors",
    "VirtualExpertRouter": "moetui.analyses.virtual_router",
    # Interventions: what a pass is made to do differently.
    "AddLogits": "moetui.trace",
    "AddToPart": "moetui.trace",
    "Ban": "moetui.trace",
    "Deselect": "moetui.trace",
    "Drop": "moetui.trace",
    "Force": "moetui.trace",
    "Merge": "moetui.trace",
    "PatchPart": "moetui.trace",
    "Remap": "moetui.trace",
    "Reweigh": "moetui.trace",
    "ScalePart": "moetui.trace",
    "TopK": "moetui.trace",
}

__all__ = [
    "AddLogits",
    "AddToPart",
    "Ban",
    "Deselect",
    "Drop",
    "Force",
    "Merge",
    "Model",
    "MoetuiError",
    "PatchPart",
    "Remap",
    "Reweigh",
    "ScalePart",
    "TopK",
    "Trace",
    "VirtualExpertRouter",
    "__version__",
    "load",
    "open_trace",
    "run_suite",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'moetui' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
