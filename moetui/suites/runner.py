"""Runs a suite model by model; a model that fails takes only its own results along."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from moetui.errors import LostRankError, MoetuiError, RunFailedError
from moetui.suites.models import LazyModel, ModelRef, Models, with_nulls
from moetui.suites.plan import Suite
from moetui.suites.ranks import shared
from moetui.suites.results import (
    SCHEMA_VERSION,
    Cell,
    CellResult,
    Measure,
    ModelRecord,
    NullVerdict,
    SuiteResult,
    environment,
    versions,
)
from moetui.suites.separation import separation
from moetui.suites.work import STATISTICS, Left, Run, analyse, failed, model_info, reason


def run(suite: Suite, run: Run, models: Models, *, null_model: bool = False) -> SuiteResult:
    """Run every analysis of `suite` on every model, each null model after the one it belongs to.

    A model or analysis that fails is reported as failed beside the others' results. Raises the
    first failure where nothing at all succeeded; KeyboardInterrupt is never caught, and what was
    finished by then is in the store.
    """
    started = _now()
    refs = with_nulls(suite.models, models, null_model=null_model, seed=run.seed)
    run.progress.plan(plan(suite, refs, seed=run.seed))
    records: list[ModelRecord] = []
    cells: list[CellResult] = []
    causes: list[Exception] = []
    for ref in refs:
        record, found, failures = _run_model(suite, run, ref, models)
        models.free()
        records.append(record)
        cells.extend(found)
        causes.extend(failures)
    if causes and all(cell.status == "failed" for cell in cells):
        raise _whole_failure(causes[0])
    run.store.prune(run.keys)
    return _document(suite, run, refs, records, cells, started)


def plan(suite: Suite, refs: Sequence[ModelRef], *, seed: int) -> tuple[Cell, ...]:
    """The cells in the order in which they run."""
    analyses = [(analysis.name, analysis.parts(seed=seed)) for analysis in suite.analyses]
    cells: list[Cell] = []
    for ref in refs:
        for name, parts in analyses:
            cells += [
                Cell(model=ref.label, analysis=name, part=part.name, tokens=part.tokens)
                for part in parts
            ]
            cells.append(Cell(model=ref.label, analysis=name, part=STATISTICS, tokens=0))
    return tuple(cells)


def _run_model(
    suite: Suite, run: Run, ref: ModelRef, models: Models
) -> tuple[ModelRecord, list[CellResult], list[Exception]]:
    """All analyses of one model; nothing refers to it on return."""
    null_of = None if ref.initialisation is None else ref.name
    model = LazyModel(ref, models)

    def digest() -> bytes:
        return model_info(run, model).digest.encode()

    try:
        if len(set(shared(run.ranks, digest))) > 1:
            raise RunFailedError(
                f"{ref.name} is another checkpoint on other ranks", "copy one to all machines"
            )
    except LostRankError:
        raise
    except Exception as error:  # one model's defect must not cost the others' results
        _detach(error)
        cells = [failed(ref.label, analysis.name, error) for analysis in suite.analyses]
        for cell in cells:
            run.progress.ended(cell)
        record = ModelRecord(name=ref.label, info=None, failure=reason(error), null_of=null_of)
        return record, cells, [error]
    left: dict[str, Left] = {}
    cells, causes = [], []
    for analysis in suite.analyses:
        cell, cause = analyse(run, model, analysis, left)
        if cause is not None:
            _detach(cause)
            causes.append(cause)
        cells.append(cell)
        run.progress.ended(cell)
    record = ModelRecord(name=ref.label, info=model.info, failure=None, null_of=null_of)
    return record, cells, causes


def _detach(error: Exception) -> None:
    """Turn the traceback into a note: its frames would keep the model alive beside the next."""
    told = "".join(traceback.format_exception(error))
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    error.add_note(told)


def _document(
    suite: Suite,
    run: Run,
    refs: Sequence[ModelRef],
    records: Sequence[ModelRecord],
    cells: Sequence[CellResult],
    started: str,
) -> SuiteResult:
    trained = {ref.label for ref in refs if ref.initialisation is None}
    measures: list[Measure] = []
    for ref in refs:
        measures += suite.measures(ref.label, [c for c in cells if c.model == ref.label])
    of_trained = [cell for cell in cells if cell.model in trained]
    return SuiteResult(
        schema_version=SCHEMA_VERSION,
        suite=suite.name,
        question=suite.question,
        models=tuple(records),
        parameters=_parameters(suite),
        prompts_digest=suite.prompts_digest(),
        seed=run.seed,
        versions=versions(),
        environment=environment(),
        started=started,
        finished=_now(),
        cells=tuple(cells),
        measures=tuple(measures),
        separation=separation(measures, records, seed=run.seed),
        verdicts=suite.conclude(of_trained),
        null_verdicts=_null_verdicts(suite, refs, cells),
        published=suite.published,
        caveats=suite.caveats(cells),
    )


def _null_verdicts(
    suite: Suite, refs: Sequence[ModelRef], cells: Sequence[CellResult]
) -> tuple[NullVerdict, ...]:
    """One for every way in which weights were drawn anew, over the models that know it."""
    ways: dict[str, list[str]] = {}
    for ref in refs:
        if ref.initialisation is not None:
            ways.setdefault(ref.initialisation, []).append(ref.label)
    return tuple(
        NullVerdict(
            models=tuple(labels),
            verdicts=suite.conclude([cell for cell in cells if cell.model in labels]),
        )
        for labels in ways.values()
    )


def _whole_failure(cause: Exception) -> MoetuiError:
    if isinstance(cause, MoetuiError):
        return cause
    failure = RunFailedError(
        f"nothing succeeded: {reason(cause)}", "run again with `moetui --debug batch …`"
    )
    failure.__cause__ = cause
    return failure


def _parameters(suite: Suite) -> dict[str, Any]:
    # Through JSON, so that what is in memory equals what a reader of the file gets.
    given: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(suite.parameters))
    return {**given, "models": list(suite.models)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
