"""Two results side by side: their measures with the difference, and what else differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from moetui.errors import UsageError
from moetui.stats import Statistic
from moetui.suites import wording
from moetui.suites.results import Measure, ModelRecord, SeparationVerdict, SuiteResult
from moetui.suites.separation import compared, judged
from moetui.suites.tables import Section, Table, Value, estimate

SCHEMA_VERSION = 1

Difference = Literal["differ", "no difference found", "not comparable"]
# By the rule that tells trained from null models; not to find a difference does not show there is
# none.
_VERDICTS: dict[SeparationVerdict, Difference] = {
    "separates": "differ",
    "does not separate": "no difference found",
    "inconclusive": "not comparable",
}


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of both results. difference: first − second, with its interval or its p."""

    label: Literal["seed", "corrected"]
    name: str
    first_model: str
    second_model: str
    first: Statistic
    second: Statistic
    difference: Statistic
    verdict: Difference


class Unpaired(msgspec.Struct, frozen=True, kw_only=True):
    """A measure that only one of the results has."""

    of: Literal["first", "second"]
    measure: Measure


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not the same in both: a parameter, a model, a version; as JSON text."""

    name: str
    first: str | None
    second: str | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two results of one suite. first, second: what they are called, as a rule their files.

    warnings: why their numbers may not be about the same thing. settings: only what differs.
    """

    schema_version: int
    suite: str
    first: str
    second: str
    warnings: tuple[str, ...]
    settings: tuple[Setting, ...]
    measures: tuple[Pair, ...]
    unpaired: tuple[Unpaired, ...]


def compare(
    first: SuiteResult, second: SuiteResult, *, names: tuple[str, str], seed: int = 0
) -> Comparison:
    """`first` beside `second`. names: what to call them. seed: of the permutations.

    Models are paired by name; where each result has one trained model, these two are compared
    whatever they are called, and so are their null models.

    Raises UsageError for results of different suites.
    """
    if first.suite != second.suite:
        raise UsageError(
            f"results of different suites: {first.suite} and {second.suite}",
            "compare two results of the same suite",
        )
    pairs, unpaired = _pairs(first, second, seed)
    return Comparison(
        schema_version=SCHEMA_VERSION,
        suite=first.suite,
        first=names[0],
        second=names[1],
        warnings=tuple(_warnings(first, second)),
        settings=tuple(_settings(first, second)),
        measures=tuple(pairs),
        unpaired=tuple(unpaired),
    )


def partners(first: SuiteResult, second: SuiteResult) -> dict[str, str]:
    """Model of `first` → the model of `second` that it is compared with."""
    there = {record.name for record in second.models}
    found = {record.name: record.name for record in first.models if record.name in there}
    for null in (False, True):
        ours, theirs = (_of_kind(result, null=null) for result in (first, second))
        if len(ours) == len(theirs) == 1:
            found[ours[0].name] = theirs[0].name
    return found


def _of_kind(result: SuiteResult, *, null: bool) -> list[ModelRecord]:
    return [record for record in result.models if (record.null_of is not None) is null]


def _pairs(first: SuiteResult, second: SuiteResult, seed: int) -> tuple[list[Pair], list[Unpaired]]:
    models = partners(first, second)
    theirs = {(m.model, m.label, m.name): m for m in second.measures}
    pairs: list[Pair] = []
    alone: list[Unpaired] = []
    for measure in first.measures:
        key = (models.get(measure.model, ""), measure.label, measure.name)
        other = theirs.pop(key, None)
        if other is None:
            alone.append(Unpaired(of="first", measure=measure))
        else:
            pairs.append(_pair(measure, other, seed))
    alone += [Unpaired(of="second", measure=measure) for measure in theirs.values()]
    return pairs, alone


def _pair(first: Measure, second: Measure, seed: int) -> Pair:
    found = compared(first, second, seed=seed)
    return Pair(
        label=first.label,
        name=first.name,
        first_model=first.model,
        second_model=second.model,
        first=first.statistic,
        second=second.statistic,
        difference=found,
        verdict=_VERDICTS[judged(found)[0]],
    )


def _warnings(first: SuiteResult, second: SuiteResult) -> Iterator[str]:
    """Why the numbers may not be about the same thing."""
    if first.prompts_digest != second.prompts_digest:
        yield "the prompts differ: a difference may be theirs"
    for name in sorted(_digests(first).keys() & _digests(second).keys()):
        if _digests(first)[name] != _digests(second)[name]:
            yield f"the documents of {name} differ: a difference may be theirs"
    if _trained(first) == _trained(second):
        yield (
            "both are about the same model and weights: intervals of independent samples are too "
            "wide for runs over the same documents"
        )
    if "seed" in _differing(_circumstances(first), _circumstances(second)):
        yield "the seeds of the random draws differ"
    if len(first.models) > 1 and len(_of_kind(first, null=False)) > 1:
        yield "several models were run: those of equal names are compared"
    for which, result in (("first", first), ("second", second)):
        for cell in result.failures:
            yield f"{which}: {cell.analysis} of {cell.model} failed: {cell.reason}"


def _digests(result: SuiteResult) -> dict[str, str]:
    """Analysis → digest of the documents that it read, where its result says so."""
    found: dict[str, str] = {}
    for cell in result.cells:
        fields = () if cell.result is None else cell.result.__struct_fields__
        if cell.result is not None and "documents_digest" in fields:
            digest = msgspec.structs.asdict(cell.result)["documents_digest"]
            found[cell.analysis] = str(digest)
    return found


def _trained(result: SuiteResult) -> list[str | None]:
    return [
        None if record.info is None else record.info.digest
        for record in _of_kind(result, null=False)
    ]


def _settings(first: SuiteResult, second: SuiteResult) -> Iterator[Setting]:
    """Parameters, models and circumstances that are not the same in both."""
    for a, b in (
        (_parameters(first), _parameters(second)),
        (_circumstances(first), _circumstances(second)),
    ):
        for name in _differing(a, b):
            yield Setting(name=name, first=a.get(name), second=b.get(name))


def _differing(a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    return [name for name in dict.fromkeys((*a, *b)) if a.get(name) != b.get(name)]


def _parameters(result: SuiteResult) -> dict[str, str]:
    return {f"parameter {name}": _text(value) for name, value in result.parameters.items()}


def _circumstances(result: SuiteResult) -> dict[str, str]:
    """What the numbers depend on besides parameters; not times."""
    found = {"seed": str(result.seed), "digest of the prompts": result.prompts_digest}
    for name, digest in _digests(result).items():
        found[f"documents of {name}"] = digest
    for number, record in enumerate(result.models, start=1):
        info = record.info
        told = [record.name, *([info.digest[:12], info.dtype, info.backend] if info else [])]
        found[f"model {number}"] = ", ".join(told)
    found |= {f"version of {name}": version for name, version in result.versions.items()}
    return found | result.environment


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def sections(comparison: Comparison) -> tuple[Section, ...]:
    """What is compared, the measures, and what else differs."""
    said = f"A is {comparison.first}, B is {comparison.second}. Suite: {comparison.suite}."
    return (
        Section(heading="Two results", text=(said, *_said(comparison))),
        *_measures(comparison),
        *_alone(comparison),
        *_differences(comparison),
    )


def _said(comparison: Comparison) -> Iterator[str]:
    for warning in comparison.warnings:
        yield f"Warning: {warning}."
    if not comparison.measures:
        yield "No measure is in both: nothing can be compared."


def _measures(comparison: Comparison) -> Iterator[Section]:
    """A table for each pair of models, and one of what chance gives, where that is known."""
    grouped: dict[tuple[str, str], list[Pair]] = {}
    for pair in comparison.measures:
        grouped.setdefault((pair.first_model, pair.second_model), []).append(pair)
    tables = [
        Table(
            title=f"A: {a}, B: {b}",
            columns=("definition", "measure", "verdict", "A", "B", "A − B"),
            rows=tuple(
                (
                    pair.label,
                    pair.name,
                    pair.verdict,
                    estimate(pair.first),
                    estimate(pair.second),
                    pair.difference,
                )
                for pair in pairs
            ),
            caption="in brackets the 95 % interval; A − B by MOVER from both intervals",
        )
        for (a, b), pairs in grouped.items()
    ]
    nulls = [table for (a, b), pairs in grouped.items() for table in _nulls(a, b, pairs)]
    if tables:
        yield Section(heading="Measures", tables=(*tables, *nulls))


def _nulls(a: str, b: str, pairs: Sequence[Pair]) -> Iterator[Table]:
    """What each measure is to be read beside; A − B compares values, not their distances to it."""
    rows = tuple(
        (pair.label, pair.name, wording.null(pair.first), wording.null(pair.second))
        for pair in pairs
        if {wording.null(pair.first), wording.null(pair.second)} != {wording.ABSENT}
    )
    if rows:
        yield Table(
            title=f"The same by chance; A: {a}, B: {b}",
            columns=("definition", "measure", "null of A [95 %]", "null of B [95 %]"),
            rows=rows,
            caption="A − B is of the values, whatever their nulls",
        )


def _alone(comparison: Comparison) -> Iterator[Section]:
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (
            "A" if one.of == "first" else "B",
            one.measure.model,
            one.measure.label,
            one.measure.name,
            one.measure.statistic,
        )
        for one in comparison.unpaired
    )
    if rows:
        columns = ("in", "model", "definition", "measure", "value")
        table = Table(title="Measures of one result only", columns=columns, rows=rows)
        yield Section(heading="In one only", tables=(table,))


def _differences(comparison: Comparison) -> Iterator[Section]:
    rows = tuple((one.name, one.first, one.second) for one in comparison.settings)
    text = () if rows else ("Parameters, models, seeds and versions are the same.",)
    table = Table(title="What is not the same", columns=("what", "A", "B"), rows=rows)
    yield Section(heading="Settings", text=text, tables=(table,) if rows else ())
