"""The only package that imports mlx: loading, capture, lens, generation, the engine thread.

Importing it is cheap; mlx itself is imported by the first `load`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moetui.model.load import load

if TYPE_CHECKING:
    from moetui.model.generate import Generation
    from moetui.model.model import Model

__all__ = ["Generation", "Model", "load"]


def __getattr__(name: str) -> Any:
    if name == "Model":
        from moetui.model.model import Model

        return Model
    if name == "Generation":
        from moetui.model.generate import Generation

        return Generation
    raise AttributeError(f"module 'moetui.model' has no attribute {name!r}")
