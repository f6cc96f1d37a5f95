"""What a run ends with on a terminal: the answers, the numbers behind them, what speaks against."""

from __future__ import annotations

from collections.abc import Iterator

from moetui.suites import against_null, shortfalls
from moetui.suites.against_null import SHORT, Found, by_model, short
from moetui.suites.results import Separation, SuiteResult
from moetui.suites.tables import Section, Table
from moetui.suites.verdict_sections import short_verdicts


def summary(result: SuiteResult) -> tuple[Section, ...]:
    """The shorter selection of the result's sections; rules and all numbers are in the report."""
    return (
        *short_verdicts(result),
        _against_null(result),
        *shortfalls.sections(result),
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
