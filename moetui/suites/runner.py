"""Runs the cells of a suite, model by model; a model that fails takes only its own cells along."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.errors import MoetuiError, RunFailedError
from moetui.suites.progress import Progress
from moetui.suites.results import (
    SCHEMA_VERSION,
    AnalysisResult,
    Cell,
    CellResult,
    ModelRecord,
    Published,
    SuiteResult,
    Verdicts,
    environment,
    versions,
)
from moetui.trace import ModelInfo, Trace

# Texts traced so far, texts in all.
Step = Callable[[int, int], None]


class Tracer(Protocol):
    """What a suite needs of a model; `moetui.model.Model` is one."""

    info: ModelInfo

    def tokenize(self, text: str) -> NDArray[np.int32]:
        """Token ids of `text`."""

    def trace(
        self,
        text_or_ids: str | Sequence[int] | NDArray[np.int32],
        *,
        lens: int = 5,
        residuals: bool = True,
    ) -> Trace:
        """One real forward pass."""


Opener = Callable[[str], Tracer]


class Outcome(msgspec.Struct, frozen=True):
    """What a cell found; with a reason it is inconclusive, and may still hold a partial result."""

    result: AnalysisResult | None
    reason: str | None = None


class Suite(Protocol):
    """An experiment with its parameters set.

    analyses: the cells that each model gets. cost: what a run takes, in words.
    """

    name: str
    question: str
    cost: str
    analyses: tuple[str, ...]
    published: tuple[Published, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models to run on."""

    @property
    def parameters(self) -> msgspec.Struct:
        """All parameters, defaults filled in."""

    def prompts_digest(self) -> str:
        """Digest of every text that the parameters name."""

    def run(self, analysis: str, model: Tracer, *, seed: int, step: Step) -> Outcome:
        """One cell."""

    def conclude(self, cells: Sequence[CellResult]) -> Verdicts:
        """What the cells together say."""

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """What a reader of the whole must know."""


def run(
    suite: Suite, models: Sequence[str], *, seed: int, progress: Progress, open_model: Opener
) -> SuiteResult:
    """Run every analysis of `suite` on every model.

    A model or cell that fails is reported as failed beside the others' results. Raises the first
    failure where nothing at all succeeded; KeyboardInterrupt is never caught.
    """
    started = _now()
    progress.plan(plan(suite, models))
    records: list[ModelRecord] = []
    cells: list[CellResult] = []
    causes: list[Exception] = []
    for name in models:
        record, found, failed = _run_model(suite, name, seed, progress, open_model)
        records.append(record)
        cells.extend(found)
        causes.extend(failed)
    if causes and all(cell.status == "failed" for cell in cells):
        raise _whole_failure(causes[0])
    return SuiteResult(
        schema_version=SCHEMA_VERSION,
        suite=suite.name,
        question=suite.question,
        models=tuple(records),
        parameters=_parameters(suite, models),
        prompts_digest=suite.prompts_digest(),
        seed=seed,
        versions=versions(),
        environment=environment(),
        started=started,
        finished=_now(),
        cells=tuple(cells),
        verdict=suite.conclude(cells),
        published=suite.published,
        caveats=suite.caveats(cells),
    )


def plan(suite: Suite, models: Sequence[str]) -> tuple[Cell, ...]:
    """The cells in the order in which they run."""
    return tuple(
        Cell(model=model, analysis=analysis) for model in models for analysis in suite.analyses
    )


def _run_model(
    suite: Suite, name: str, seed: int, progress: Progress, open_model: Opener
) -> tuple[ModelRecord, list[CellResult], list[Exception]]:
    """All cells of one model; it is freed on return, before the next one is loaded."""
    cells: list[CellResult] = []
    causes: list[Exception] = []
    model: Tracer | None = None
    unusable: Exception | None = None
    for cell in plan(suite, [name]):
        progress.start(cell)
        begun = time.monotonic()
        try:
            if unusable is not None:
                raise unusable
            if model is None:
                model = open_model(name)
            outcome = suite.run(cell.analysis, model, seed=seed, step=progress.step)
            result = _ended(cell, begun, outcome)
        except Exception as error:  # one model's defect must not cost the others' results
            unusable = error if model is None else None
            causes.append(error)
            result = _failed(cell, begun, error)
        cells.append(result)
        progress.finish(result)
    info = None if model is None else model.info
    failure = None if unusable is None else _reason(unusable)
    return ModelRecord(name=name, info=info, failure=failure), cells, causes


def _ended(cell: Cell, begun: float, outcome: Outcome) -> CellResult:
    return CellResult(
        model=cell.model,
        analysis=cell.analysis,
        status="done" if outcome.reason is None else "inconclusive",
        reason=outcome.reason,
        seconds=round(time.monotonic() - begun, 3),
        result=outcome.result,
    )


def _failed(cell: Cell, begun: float, error: Exception) -> CellResult:
    return CellResult(
        model=cell.model,
        analysis=cell.analysis,
        status="failed",
        reason=_reason(error),
        seconds=round(time.monotonic() - begun, 3),
        result=None,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, MoetuiError):
        return f"{error.message} ({error.hint})"
    return f"{type(error).__name__}: {error}"


def _whole_failure(cause: Exception) -> MoetuiError:
    if isinstance(cause, MoetuiError):
        return cause
    failure = RunFailedError(
        f"nothing succeeded: {_reason(cause)}", "run again with `moetui --debug batch …`"
    )
    failure.__cause__ = cause
    return failure


def _parameters(suite: Suite, models: Sequence[str]) -> dict[str, Any]:
    # Through JSON, so that what is in memory equals what a reader of the file gets.
    given: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(suite.parameters))
    return {**given, "models": list(models)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
