"""The answers of a suite as sections: both rules, why they differ, what random weights get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from moetui.stats import Statistic
from moetui.suites import against_null
from moetui.suites.results import SuiteResult, Verdict, Verdicts
from moetui.suites.tables import Section, Table, Value


def verdicts(result: SuiteResult) -> tuple[Section, ...]:
    """The seed's verdict beside the corrected one, with rule and evidence, question by question."""
    return tuple(
        Section(
            heading=heading(found),
            text=(*answers(result, found), *_rules(found)),
            tables=(*outcomes(result, found), *_evidence(found)),
        )
        for found in result.verdicts
    )


def short_verdicts(result: SuiteResult) -> tuple[Section, ...]:
    """The same without the rules, for a terminal."""
    return tuple(
        Section(
            heading=heading(found),
            text=answers(result, found),
            tables=(*outcomes(result, found), *_short_evidence(found)),
        )
        for found in result.verdicts
    )


def overview(results: Sequence[SuiteResult], failures: Mapping[str, str]) -> Section:
    """The verdicts of several suites in one table; failures: why a suite has no result."""
    rows: list[tuple[Value, ...]] = [
        (
            result.suite if found.topic in (None, result.suite) else found.topic,
            found.seed.outcome,
            found.corrected.outcome,
            _of_nulls(result, found),
        )
        for result in results
        for found in result.verdicts
    ]
    rows += [(name, "failed", "failed", None) for name in failures]
    columns = ("question", "seed rule", "corrected", "corrected, random weights")
    return Section(
        heading="Overview",
        text=(
            "What the published rule says, what the corrected evidence says, and what that says of "
            "the same models with random weights. Reasons, intervals and nulls follow.",
            *(f"{name} failed: {why}." for name, why in failures.items()),
        ),
        tables=(Table(title="All verdicts", columns=columns, rows=tuple(rows)),),
    )


def _of_nulls(result: SuiteResult, found: Verdicts) -> str:
    outcomes = dict.fromkeys(of.corrected.outcome for _, of in _nulls(result, found))
    return "; ".join(outcomes) or "not run"


def heading(found: Verdicts) -> str:
    """“Verdicts”, with the topic where a suite has several."""
    return "Verdicts" if found.topic is None else f"Verdicts: {found.topic}"


def answers(result: SuiteResult, found: Verdicts) -> tuple[str, ...]:
    """Both verdicts in words, why they differ, and what they are worth beside random weights."""
    return (
        *map(_answer, _both(found)),
        f"Why they differ: {found.why_they_differ}",
        *_of_random_weights(result, found),
    )


def outcomes(result: SuiteResult, found: Verdicts) -> Iterator[Table]:
    """What both rules say of the trained models and of the same models with random weights."""
    nulls = _nulls(result, found)
    if not nulls:
        return
    trained = tuple(record.name for record in result.models if record.null_of is None)
    yield Table(
        title="The same rules on random weights",
        columns=("weights", found.seed.label, found.corrected.label),
        rows=tuple(
            (", ".join(names), of.seed.outcome, of.corrected.outcome)
            for names, of in [(trained, found), *nulls]
        ),
    )


def _both(found: Verdicts) -> tuple[Verdict, Verdict]:
    return found.seed, found.corrected


def _nulls(result: SuiteResult, found: Verdicts) -> list[tuple[tuple[str, ...], Verdicts]]:
    """Models with random weights, and what is said of them on the same question."""
    return [
        (null.models, of)
        for null in result.null_verdicts
        for of in null.verdicts
        if of.topic == found.topic
    ]


def _of_random_weights(result: SuiteResult, found: Verdicts) -> Iterator[str]:
    """An answer that random weights get too is no finding about training."""
    null_of = {record.name: record.null_of or "" for record in result.models}
    nulls = _nulls(result, found)
    for verdict in _both(found):
        alike = [
            against_null.short(models[0], null_of.get(models[0], ""))
            for models, of in nulls
            for theirs in _both(of)
            if (theirs.label, theirs.outcome) == (verdict.label, verdict.outcome)
        ]
        label = _capital(verdict.label)
        if alike:
            yield (
                f"{label}: with {' and with '.join(alike)} the answer is {verdict.outcome} as "
                "well; it says nothing about what training did."
            )
        elif nulls:
            yield f"{label}: no random weights get this answer ({verdict.outcome})."


def _rules(found: Verdicts) -> Iterator[str]:
    for verdict in _both(found):
        yield f"{_capital(verdict.label).removesuffix(' rule')} rule in full: {verdict.rule}."


def _evidence(found: Verdicts) -> Iterator[Table]:
    """What the verdicts rest on, all that is known of it."""
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (verdict.label, measure.model, measure.name, measure.statistic)
        for verdict in _both(found)
        for measure in verdict.evidence
    )
    if rows:
        columns = ("rule", "model", "measure", "value")
        yield Table(title="What the verdicts rest on", columns=columns, rows=rows)


def _short_evidence(found: Verdicts) -> Iterator[Table]:
    """What the verdicts rest on, with interval, mean under chance and size."""
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (
            f"{verdict.label}, {measure.model}: {measure.name}",
            _beside_mean(measure.statistic),
            measure.statistic.n_documents,
        )
        for verdict in _both(found)
        for measure in verdict.evidence
    )
    if rows:
        yield Table(
            title="What the verdicts rest on",
            columns=("measure", "value", "documents"),
            rows=rows,
            together=True,
        )


def _beside_mean(statistic: Statistic) -> Statistic:
    """Without its test, and with no more of its null than the mean: for a narrow column."""
    return msgspec.structs.replace(statistic, null_low=None, null_high=None, p=None, q=None)


def _answer(verdict: Verdict) -> str:
    """Whose rule, and what it says."""
    said = verdict.statement.removeprefix(f"{verdict.outcome}: ")
    return f"{_capital(verdict.label)}: {verdict.outcome}: {said}."


def _capital(label: str) -> str:
    return f"{label[:1].upper()}{label[1:]}"
