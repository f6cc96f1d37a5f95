"""Experiment suites: a question, its parameters, a plan of cells, and two verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moetui.suites.results import SuiteResult, read_result, result_json, write_result

if TYPE_CHECKING:
    from moetui.suites.progress import Progress
    from moetui.suites.runner import Opener, Suite, Tracer

NAMES = ("attention_router",)

__all__ = [
    "NAMES",
    "SuiteResult",
    "read_result",
    "result_json",
    "run_prepared",
    "run_suite",
    "suite",
    "write_result",
]


def run_suite(
    name: str,
    *,
    models: Sequence[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    open_model: Opener | None = None,
) -> SuiteResult:
    """Run the suite `name` on `models` and return its result; nothing is written.

    models: names, folders or Hugging Face ids (default: the parameter `models`, else the demo
    model). parameters: by name, others keep their defaults. seed: of every random draw.
    open_model: how a name becomes a model (default: `moetui.load`, without downloading).

    Raises UsageError for an unknown suite or parameter, and where nothing succeeded whatever made
    the first cell fail; a model that fails beside others is in `SuiteResult.failures`.
    """
    given = dict(parameters or {})
    if models is not None:
        given["models"] = list(models)
    return run_prepared(suite(name, given), seed=seed, progress=progress, open_model=open_model)


def run_prepared(
    prepared: Suite,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    open_model: Opener | None = None,
) -> SuiteResult:
    """`run_suite` for a suite that `suite` has made."""
    from moetui.suites.progress import Silent
    from moetui.suites.runner import run

    return run(
        prepared,
        prepared.models,
        seed=seed,
        progress=progress or Silent(),
        open_model=open_model or _open_model,
    )


def suite(name: str, parameters: Mapping[str, Any] | None = None) -> Suite:
    """The suite `name` with `parameters` set.

    Raises UsageError naming the nearest suite or parameter.
    """
    from moetui.errors import UsageError
    from moetui.suites.attention_router import AttentionRouter, Parameters
    from moetui.suites.parameters import nearest, parameters_of

    if name not in NAMES:
        raise UsageError(
            f"no suite {name!r}", f"did you mean {nearest(name, NAMES)}? see `moetui batch --help`"
        )
    return AttentionRouter(parameters_of(Parameters, parameters or {}, name))


def _open_model(name: str) -> Tracer:
    from moetui.model import load

    return load(name)
