"""What a run ends with on a terminal: the answers, the numbers behind them, what speaks against."""

from __future__ import annotations

from collections.abc import Iterator

from moetui.suites import against_null, shortfalls
from moetui.suites.against_null import SHORT, Found, by_model, short
from moetui.suites.results import Separation, SuiteResult
from moetui.suites.sections import answers, outcomes
from moetui.suites.tables import Section, Table, Value, estimate


def summary(result: SuiteResult) -> tuple[Section, ...]:
    """The shorter selection of the result's sections; rules and all numbers are in the report."""
    return (
        Section(
            heading="Verdicts",
            text=answers(result),
            tables=(*outcomes(result), *_evidence(result)),
        ),
        _against_null(result),
        *shortfalls.sections(result),
    )


def _evidence(result: SuiteResult) -> Iterator[Table]:
    """What the verdicts rest on, with interval and size."""
    verdicts = (result.verdict.seed, result.verdict.corrected)
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (
            f"{verdict.label}, {measure.model}: {measure.name}",
            estimate(measure.statistic),
            measure.statistic.n_documents,
        )
        for verdict in verdicts
        for measure in verdict.evidence
    )
    if rows:
        yield Table(
            title="What the verdicts rest on",
            columns=("measure", "value", "documents"),
            rows=rows,
            together=True,
        )


def _against_null(result: SuiteResult) -> Section:
    """How many measures are not told apart from random weights, and which."""
    if not result.separation:
        return against_null.not_run()
    tables = tuple(
        table for model, found in by_model(result).items() for table in _missed(model, found)
    )
    return Section(heading=against_null.HEADING, text=against_null.counts(result), tables=tables)


def _missed(model: str, found: Found) -> Iterator[Table]:
    """The measures of a model that are not told apart from all of its null models."""
    said: dict[str, dict[str, Separation]] = {}
    for null_model, ones in found.items():
        for one in ones:
            said.setdefault(f"{one.label}: {one.name}", {})[null_model] = one
    rows = tuple(
        (name, *(SHORT[of[null].verdict] if null in of else None for null in found))
        for name, of in said.items()
        if any(one.verdict != "separates" for one in of.values())
    )
    if rows:
        yield Table(
            title=f"{model}: measures that do not tell training from random weights",
            columns=("measure", *(short(null, model) for null in found)),
            rows=rows,
        )
