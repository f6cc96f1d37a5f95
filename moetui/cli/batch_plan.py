"""What a batch run is made of, from the command line: suites, parameters, the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moetui.suites.config import Config
    from moetui.suites.plan import Suite
    from moetui.suites.results import Cell

_MEANING = " " * 6


def chosen(
    suites: tuple[str, ...],
    models: tuple[str, ...],
    assignments: tuple[str, ...],
    config: Config | None,
    corpus: str | None,
) -> list[Suite]:
    """The suites with their parameters: as given here, else in `config`, else the defaults.

    Every mistake shows before anything is loaded.
    """
    from moetui.suites import suite

    known = {name: suite(name).parameters.__struct_fields__ for name in dict.fromkeys(suites)}
    given: dict[str, dict[str, Any]] = {name: {} for name in known}
    for text in assignments:
        scope, key, value = _assignment(text, known)
        for name in scope:
            given[name][key] = value
    if models:
        for parameters in given.values():
            _refuse_two_sources(parameters)
            parameters["models"] = list(models)
    if config is not None:
        given = {name: config.parameters(name) | own for name, own in given.items()}
    return [suite(name, parameters, corpus=corpus) for name, parameters in given.items()]


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
        *_columns([("each of them", "cells", "tokens", "parts"), *_analysis_rows(first)]),
        "",
    ]


def _analysis_rows(cells: Sequence[Cell]) -> Iterator[tuple[str, ...]]:
    """An analysis a row: the cells and tokens of one model, and what its parts are."""
    from moetui.suites.work import STATISTICS

    for name in dict.fromkeys(cell.analysis for cell in cells):
        own = [cell for cell in cells if cell.analysis == name]
        parts = [cell.part for cell in own if cell.part != STATISTICS]
        ends = " … ".join(dict.fromkeys([parts[0], parts[-1]])) if parts else ""
        known = [cell.tokens for cell in own if cell.tokens is not None]
        mark = " + ?" if len(known) < len(own) else ""
        yield name, str(len(own)), f"{sum(known):,}{mark}".removeprefix("0 + "), ends


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Words to the left, the numbers in the second and third column to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for name, cells, tokens, parts in rows:
        numbers = f"{cells:>{widths[1]}}  {tokens:>{widths[2]}}"
        yield f"{name:<{widths[0]}}  {numbers}  {parts}".rstrip()


def _assignment(
    text: str, known: Mapping[str, tuple[str, ...]]
) -> tuple[tuple[str, ...], str, Any]:
    """[SUITE.]KEY=JSON as (suites it is for, key, value). Without a suite it is for all that have
    such a parameter; `known` has the parameters of every suite of the run."""
    import msgspec

    from moetui.errors import UsageError
    from moetui.suites.parameters import nearest

    name, equals, raw = text.partition("=")
    scope, dot, key = name.strip().rpartition(".")
    if not equals or not key:
        raise UsageError(f"--parameter {text!r} is not KEY=JSON", "write e.g. layers='[0,4]'")
    if dot and scope not in known:
        raise UsageError(
            f"--parameter {text!r}: {scope!r} is not among the suites to run",
            f"did you mean {nearest(scope, tuple(known))}.{key}?",
        )
    # A key that no suite has goes where the nearest one is known, and is refused there.
    near = nearest(key, tuple(one for keys in known.values() for one in keys))
    having = tuple(suite for suite, keys in known.items() if near in keys)
    try:
        return (scope,) if dot else having, key, msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"parameter {key}: {raw!r} is not JSON", f"""a text needs its quotes: {key}='"text"'"""
        ) from error


def _refuse_two_sources(parameters: dict[str, Any]) -> None:
    from moetui.errors import UsageError

    if "models" in parameters:
        raise UsageError("models are given by -m and by --parameter", "give them one way only")
