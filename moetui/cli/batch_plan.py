"""What a batch run is made of, from the command line: suites, parameters, the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moetui.suites.names import Preset
    from moetui.suites.plan import Suite
    from moetui.suites.results import Cell

_MEANING = " " * 6
_HEAD = ("each of them", "cells", "tokens", "a cell", "parts")
DYNAMICS = "moe_dynamics"


def chosen(
    names: tuple[str, ...],
    given: Mapping[str, Mapping[str, Any]],
    corpus: str | None,
    preset: Preset | None,
    analyses: tuple[str, ...],
) -> list[Suite]:
    """The suites `names` with the parameters `given` to each, else those of `preset`.

    analyses: of `moe_dynamics` only these. Raises UsageError before anything is loaded.
    """
    from moetui.errors import UsageError
    from moetui.suites import suite

    if analyses and DYNAMICS not in names:
        raise UsageError("--analysis picks from moe_dynamics, which is not among the suites",
                         f"write `moetui batch {DYNAMICS} --analysis {analyses[0]}`")  # fmt: skip
    return [
        suite(
            name,
            given[name],
            corpus=corpus,
            preset=preset,
            analyses=analyses if name == DYNAMICS else (),
        )
        for name in names
    ]


def description(suite: Suite) -> str:
    """What a suite asks, what can be set and what that means, what it costs."""
    import msgspec

    from moetui.suites.parameters import described

    lines = [f"{suite.name}: {suite.question}", "", "Parameters:"]
    for parameter in described(suite.parameters):
        lines.append(f"  {parameter.name} = {msgspec.json.encode(parameter.value).decode()}")
        lines += wrap(
            parameter.description, 96, initial_indent=_MEANING, subsequent_indent=_MEANING
        )
    names = ", ".join(analysis.name for analysis in suite.analyses)
    return "\n".join([*lines, "", f"Analyses: {names}", f"Cost: {suite.cost}"])


def plan_lines(suite: Suite, null_model: bool, seed: int) -> list[str]:
    """The plan: the models, then for every analysis the cells that each of them takes."""
    from moetui.suites.models import Loaded, with_nulls
    from moetui.suites.runner import plan

    refs = with_nulls(suite.models, Loaded(), null_model=null_model, seed=seed)
    cells = plan(suite, refs, seed=seed)
    # What a part is does not depend on the model: the first one's plan is that of all.
    first = [cell for cell in cells if cell.model == refs[0].label]
    total = sum(cell.tokens or 0 for cell in cells)
    unknown = any(cell.tokens is None for cell in cells)
    more = " and those that show only when it runs (?)" if unknown else ""
    return [
        f"{suite.name}: {len(refs)} × {len(first)} = {len(cells)} cells",
        f"about {total:,} tokens through the models{more}",
        *(f"  {ref.label}" for ref in refs),
        "",
        *_columns([_HEAD, *_analysis_rows(first)]),
        "",
    ]


def _analysis_rows(cells: Sequence[Cell]) -> Iterator[tuple[str, ...]]:
    """An analysis a row: the cells and tokens of one model, what one of its cells takes (at
    most; the statistics take none), and what its parts are."""
    from moetui.suites.work import STATISTICS

    for name in dict.fromkeys(cell.analysis for cell in cells):
        own = [cell for cell in cells if cell.analysis == name]
        parts = [cell.part for cell in own if cell.part != STATISTICS]
        ends = " … ".join(dict.fromkeys([parts[0], parts[-1]])) if parts else ""
        known = [cell.tokens for cell in own if cell.tokens is not None]
        mark = " + ?" if len(known) < len(own) else ""
        told = f"{sum(known):,}{mark}".removeprefix("0 + ")
        each = [cell.tokens for cell in own if cell.part != STATISTICS and cell.tokens is not None]
        most = f"{'≤' if min(each) < max(each) else ''}{max(each):,}" if each else "?"
        yield name, str(len(own)), told, most, ends


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Words to the left, the numbers in the columns between them to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for name, *numbers, parts in rows:
        right = (f"{n:>{width}}" for n, width in zip(numbers, widths[1:-1], strict=True))
        yield f"{name:<{widths[0]}}  {'  '.join(right)}  {parts}".rstrip()
