"""Parameters by name: what a suite accepts, and an answer to those that it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec

from moetui.errors import UsageError

P = TypeVar("P", bound=msgspec.Struct)


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of a suite, for people.

    value: as set, in JSON types. default: likewise. description: what it means.
    """

    name: str
    value: Any
    default: Any
    description: str


def described(parameters: msgspec.Struct) -> tuple[Parameter, ...]:
    """The parameters as set, with the description that each field's `msgspec.Meta` gives."""
    kind = msgspec.inspect.type_info(type(parameters))
    assert isinstance(kind, msgspec.inspect.StructType)
    values = _json_types(parameters)
    return tuple(
        Parameter(
            name=field.name,
            value=values[field.name],
            default=_default(field),
            description=_description(field.type),
        )
        for field in kind.fields
    )


def _default(field: msgspec.inspect.Field) -> Any:
    made = field.default_factory
    return _json_types(field.default if made is msgspec.NODEFAULT else made())


def _json_types(value: object) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def _description(kind: msgspec.inspect.Type) -> str:
    schema = kind.extra_json_schema if isinstance(kind, msgspec.inspect.Metadata) else None
    return str((schema or {}).get("description", ""))


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
        said, _, where = str(error).partition(" - at `$.")
        named = f"parameter {where.rstrip('`')} of {suite}" if where else f"parameter of {suite}"
        raise UsageError(
            f"{named}: {said[:1].lower()}{said[1:]}", f"see `moetui batch {suite} --describe`"
        ) from error


def nearest(name: str, known: tuple[str, ...]) -> str:
    """The known name that is most like `name`."""
    return get_close_matches(name, known, n=1, cutoff=0.0)[0]
