"""Parameters of the suites of a run, from `--parameter`, `-m` and `--config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moetui.suites.config import Config


def parameters(
    names: tuple[str, ...],
    models: tuple[str, ...],
    assignments: tuple[str, ...],
    config: Config | None,
) -> dict[str, dict[str, Any]]:
    """The parameters of every suite, as given on the command line, else in `config`."""
    from moetui.suites import suite
    from moetui.suites.parameters import names as names_of
    from moetui.suites.parameters import overlaid, placed

    known = {name: names_of(suite(name).parameters) for name in names}
    given: dict[str, dict[str, Any]] = {name: {} for name in known}
    for text in assignments:
        scope, key, value = _assignment(text, known)
        for name in scope:
            placed(given[name], key, value)
    if models:
        for own in given.values():
            _refuse_two_sources(own)
            own["models"] = list(models)
    if config is not None:
        given = {name: overlaid(config.parameters(name), own) for name, own in given.items()}
    return given


def _assignment(
    text: str, known: Mapping[str, tuple[str, ...]]
) -> tuple[tuple[str, ...], str, Any]:
    """[SUITE.]KEY=JSON as (suites it is for, key, value). Without a suite it is for all that have
    such a parameter; `known` has the parameters of every suite of the run. A key may itself have
    a dot, as in merging.threshold of moe_dynamics."""
    import msgspec

    from moetui.errors import UsageError
    from moetui.suites.parameters import nearest

    name, equals, raw = text.partition("=")
    path = name.strip()
    if not equals or not path or path.endswith("."):
        raise UsageError(f"--parameter {text!r} is not KEY=JSON", "write e.g. layers='[0,4]'")
    scope, dot, key = path.partition(".")
    parts = {one.partition(".")[0] for keys in known.values() for one in keys if "." in one}
    if dot and scope not in known and scope not in parts:
        raise UsageError(
            f"--parameter {text!r}: {scope!r} is not among the suites to run",
            f"did you mean {nearest(scope, (*known, *parts))}.{key}?",
        )
    named = dot != "" and scope in known
    key = key if named else path
    # A key that no suite has goes where the nearest one is known, and is refused there.
    near = nearest(key, tuple(one for keys in known.values() for one in keys))
    having = tuple(suite for suite, keys in known.items() if near in keys)
    try:
        return (scope,) if named else having, key, msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"parameter {key}: {raw!r} is not JSON", f"""a text needs its quotes: {key}='"text"'"""
        ) from error


def _refuse_two_sources(parameters: dict[str, Any]) -> None:
    from moetui.errors import UsageError

    if "models" in parameters:
        raise UsageError("models are given by -m and by --parameter", "give them one way only")
