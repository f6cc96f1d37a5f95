"""Parameters by name: what a suite accepts, and an answer to those that it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec

from moetui.errors import UsageError

P = TypeVar("P", bound=msgspec.Struct)


def parameters_of(kind: type[P], given: Mapping[str, Any], suite: str) -> P:
    """`given` as the suite's parameter type, defaults filled in.

    Raises UsageError naming the nearest parameter, or the value that does not fit.
    """
    known = kind.__struct_fields__
    for name in given:
        if name not in known:
            raise UsageError(
                f"{suite} has no parameter {name!r}",
                f"did you mean {nearest(name, known)!r}? there are {', '.join(known)}",
            )
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"parameter of {suite}: {error}", f"see `moetui batch {suite} --describe`"
        ) from error


def nearest(name: str, known: tuple[str, ...]) -> str:
    """The known name that is most like `name`."""
    return get_close_matches(name, known, n=1, cutoff=0.0)[0]
