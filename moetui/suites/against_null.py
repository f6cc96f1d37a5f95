"""Which numbers of a trained model differ from those of random weights, as sections."""

from __future__ import annotations

from collections.abc import Iterator

from moetui.suites.results import Separation, SuiteResult
from moetui.suites.tables import Section, Table, Value, estimate

HEADING = "Against the null model"
# How a verdict reads in a narrow column.
SHORT = {"separates": "apart", "does not separate": "not apart", "inconclusive": "open"}
# Families are not corrected for here: a reader has to know how many would seem apart by chance.
EACH = (
    "Every measure is judged for itself at the 5 % level, in either direction: of twenty that tell "
    "nothing apart one will seem to."
)
_OPEN_FIRST = ("does not separate", "inconclusive", "separates")

Found = dict[str, list[Separation]]


def sections(result: SuiteResult) -> Iterator[Section]:
    """In words, then a table that names what separates, then the numbers of each comparison."""
    if not result.separation:
        yield not_run()
        return
    tables: list[Table] = []
    for model, found in by_model(result).items():
        tables.append(_overview(model, found))
        tables += [_numbers(model, null_model, ones) for null_model, ones in found.items()]
    yield Section(heading=HEADING, text=(*counts(result), EACH), tables=tuple(tables))


def not_run() -> Section:
    """What no number here shows without a null model."""
    return Section(
        heading=HEADING,
        text=(
            "No null model was run (--null-model). Nothing here shows that training made any "
            "of these numbers: a model with random weights may show the same.",
        ),
    )


def counts(result: SuiteResult) -> tuple[str, ...]:
    """How many measures tell each trained model from each of its null models."""
    return tuple(
        f"{model} against {short(null_model, model)}: {_count(ones, 'separates')} of {len(ones)} "
        f"measures apart, {_count(ones, 'does not separate')} not apart, "
        f"{_count(ones, 'inconclusive')} open."
        for model, found in by_model(result).items()
        for null_model, ones in found.items()
    )


def by_model(result: SuiteResult) -> dict[str, Found]:
    """The comparisons of each trained model, by null model."""
    grouped: dict[str, Found] = {}
    for one in result.separation:
        grouped.setdefault(one.model, {}).setdefault(one.null_model, []).append(one)
    return grouped


def short(null_model: str, model: str) -> str:
    """What distinguishes a null model from the model that it belongs to."""
    return null_model.removeprefix(model).strip(" ,()") or null_model


def _count(ones: list[Separation], verdict: str) -> int:
    return sum(one.verdict == verdict for one in ones)


def _overview(model: str, found: Found) -> Table:
    """A measure a row, a null model a column; first what is not told apart from one of them."""
    verdicts: dict[tuple[str, str], dict[str, Separation]] = {}
    for null_model, ones in found.items():
        for one in ones:
            verdicts.setdefault((one.label, one.name), {})[null_model] = one
    ranked = sorted(verdicts.items(), key=lambda item: min(map(_rank, item[1].values())))
    return Table(
        title=f"{model}: what training made of it, by comparison with random weights",
        columns=("definition", "measure", *(short(null, model) for null in found)),
        rows=tuple(
            (*named, *(SHORT[of[null].verdict] if null in of else None for null in found))
            for named, of in ranked
        ),
    )


def _rank(found: Separation) -> int:
    return _OPEN_FIRST.index(found.verdict)


def _numbers(model: str, null_model: str, found: list[Separation]) -> Table:
    return Table(
        title=f"{model}, trained, against {null_model}",
        columns=(
            "definition", "measure", "verdict", "trained", "null model", "trained − null",
        ),
        rows=tuple(map(_row, sorted(found, key=_rank))),
    )  # fmt: skip


def _row(found: Separation) -> tuple[Value, ...]:
    # What is said of the difference stands in the notes.
    told = found.reason is None or found.reason in (found.difference.caveat or "")
    why = "" if told else f": {found.reason}"
    return (
        found.label, found.name, f"{SHORT[found.verdict]}{why}", estimate(found.trained),
        estimate(found.null), found.difference,
    )  # fmt: skip
