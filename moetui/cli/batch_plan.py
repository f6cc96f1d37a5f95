"""What a batch run is made of, from the command line: suites, parameters, the plan."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moetui.suites.config import Config
    from moetui.suites.plan import Suite

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

    names = tuple(dict.fromkeys(suites))
    for name in names:
        suite(name)
    given: dict[str, dict[str, Any]] = {name: {} for name in names}
    for text in assignments:
        scope, key, value = _assignment(text, names)
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
    """The plan, a cell a line, with the tokens that each runs through the model."""
    from moetui.suites.models import Loaded, with_nulls
    from moetui.suites.runner import plan

    refs = with_nulls(suite.models, Loaded(), null_model=null_model, seed=seed)
    cells = plan(suite, refs, seed=seed)
    lines = [
        f"{suite.name}\t{cell.model}\t{cell.analysis}\t{cell.part}\t{_tokens(cell.tokens)}"
        for cell in cells
    ]
    total = sum(cell.tokens or 0 for cell in cells)
    return [*lines, f"{suite.name}: {len(cells)} cells, about {total:,} tokens"]


def _tokens(tokens: int | None) -> str:
    return "? tokens" if tokens is None else f"{tokens:,} tokens"


def _assignment(text: str, names: tuple[str, ...]) -> tuple[tuple[str, ...], str, Any]:
    """[SUITE.]KEY=JSON as (suites it is for, key, value)."""
    import msgspec

    from moetui.errors import UsageError
    from moetui.suites.parameters import nearest

    name, equals, raw = text.partition("=")
    scope, dot, key = name.strip().rpartition(".")
    if not equals or not key:
        raise UsageError(f"--parameter {text!r} is not KEY=JSON", "write e.g. layers='[0,4]'")
    if dot and scope not in names:
        raise UsageError(
            f"--parameter {text!r}: {scope!r} is not among the suites to run",
            f"did you mean {nearest(scope, names)}.{key}?",
        )
    try:
        return (scope,) if dot else names, key, msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"parameter {key}: {raw!r} is not JSON", f"""a text needs its quotes: {key}='"text"'"""
        ) from error


def _refuse_two_sources(parameters: dict[str, Any]) -> None:
    from moetui.errors import UsageError

    if "models" in parameters:
        raise UsageError("models are given by -m and by --parameter", "give them one way only")
