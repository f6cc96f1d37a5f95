"""Experiment suites: a question, its parameters, a plan of cells, and two verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moetui.suites.names import MODULES, NAMES, STUDIES, Preset, canonical
from moetui.suites.results import SuiteResult, read_result, result_json, write_result

if TYPE_CHECKING:
    from moetui.suites.models import Models
    from moetui.suites.plan import Suite
    from moetui.suites.progress import Progress
    from moetui.suites.ranks import Ranks

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
    corpus: str | Path | None = None,
    preset: Preset | None = None,
    seed: int = 0,
    null_model: bool = False,
    cells: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    source: Models | None = None,
) -> SuiteResult:
    """Run the suite `name` on `models` and return its result; the result is not written.

    models: names, folders or Hugging Face ids (default: the parameter `models`, else the suite's
    own). parameters: by name, others keep their defaults. corpus: a file or folder of documents
    in place of the bundled ones. preset: quick or full plans; `parameters` go before them. seed: of
    every random draw. null_model: run each model again with random weights. cells: folder under
    which finished cells are kept (default: nowhere); resume: take up those that are there. source:
    how a name becomes a model (default: `moetui.load`, without downloading).

    Raises UsageError for an unknown suite or parameter, and where nothing succeeded whatever made
    the first cell fail; a model that fails beside others is in `SuiteResult.failures`.
    """
    given = dict(parameters or {})
    if models is not None:
        given["models"] = list(models)
    return run_prepared(
        suite(name, given, corpus=corpus, preset=preset),
        seed=seed,
        null_model=null_model,
        cells=cells,
        resume=resume,
        progress=progress,
        source=source,
    )


def run_prepared(
    prepared: Suite,
    *,
    seed: int = 0,
    null_model: bool = False,
    cells: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    source: Models | None = None,
    ranks: Ranks | None = None,
) -> SuiteResult:
    """`run_suite` for a suite that `suite` has made. ranks: the processes that share the run."""
    from moetui.suites.cells import CellStore, NoStore
    from moetui.suites.models import Loaded
    from moetui.suites.progress import Silent
    from moetui.suites.ranks import Alone
    from moetui.suites.runner import run
    from moetui.suites.work import Run

    circumstances = Run(
        seed=seed,
        progress=progress or Silent(),
        store=NoStore() if cells is None else CellStore(cells, reuse=resume),
        ranks=ranks or Alone(),
    )
    return run(prepared, circumstances, source or Loaded(), null_model=null_model)


def suite(
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    corpus: str | Path | None = None,
    preset: Preset | None = None,
    analyses: Sequence[str] = (),
) -> Suite:
    """The suite `name` with `parameters` set, on the documents of `corpus` (default: bundled).

    preset: quick or full plans; `parameters` go before them. analyses: the studies of
    `moe_dynamics` to run (default: all).

    Raises UsageError naming the nearest suite, study or parameter, or what is wrong with the
    corpus.
    """
    from moetui.errors import UsageError
    from moetui.suites.parameters import nearest, overlaid

    name = canonical(name)
    if name not in NAMES:
        raise UsageError(
            f"no suite {name!r}", f"did you mean {nearest(name, NAMES)}? see `moetui batch --help`"
        )
    module = import_module(f"moetui.suites.{MODULES.get(name, name)}")
    given = dict(parameters or {})
    if preset is not None:
        given = overlaid(module.preset(name, preset), given)
    if name in STUDIES:
        alone: Suite = module.study_suite(name, given, corpus=corpus)
        return alone
    if not analyses:
        whole: Suite = module.suite(given, corpus=corpus)
        return whole
    picked = tuple(map(canonical, analyses))
    if name != "moe_dynamics":
        raise UsageError(f"{name} has no analyses that run alone", "leave out --analysis")
    for one in picked:
        if one not in STUDIES:
            hint = f"did you mean {nearest(one, STUDIES)}? there are {', '.join(STUDIES)}"
            raise UsageError(f"{name} has no analysis {one!r}", hint)
    some: Suite = module.suite(given, corpus=corpus, studies=picked)
    return some
