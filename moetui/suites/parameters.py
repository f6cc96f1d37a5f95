"""Parameters by name: what a suite accepts, and an answer to those that it does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """The parameters as set, with the description that each field's `msgspec.Meta` gives; those
    of a part of the suite under the part's name and a dot."""
    kind = msgspec.inspect.type_info(type(parameters))
    assert isinstance(kind, msgspec.inspect.StructType)
    return tuple(_described(kind, _json_types(parameters), ""))


def names(parameters: msgspec.Struct) -> tuple[str, ...]:
    """The names of `described`."""
    return tuple(parameter.name for parameter in described(parameters))


def placed(given: dict[str, Any], name: str, value: Any) -> None:
    """Set `name`, dotted where it belongs to a part of the suite, in `given`."""
    part, dot, own = name.partition(".")
    if not dot:
        given[name] = value
        return
    given.setdefault(part, {})[own] = value


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """What is said in `above`, else in `below`; parts of a suite parameter by parameter."""
    parts = (key for key, value in below.items() if isinstance(value, dict))
    both = {
        key: {**below[key], **above[key]} for key in parts if isinstance(above.get(key), Mapping)
    }
    return {**below, **above, **both}


def _described(
    kind: msgspec.inspect.StructType, values: Mapping[str, Any], prefix: str
) -> Iterator[Parameter]:
    for field in kind.fields:
        if isinstance(field.type, msgspec.inspect.StructType):
            yield from _described(field.type, values[field.name], f"{prefix}{field.name}.")
            continue
        yield Parameter(
            name=f"{prefix}{field.name}",
            value=values[field.name],
            default=_default(field),
            description=_description(field.type),
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
    if (found := unknown(kind, given)) is not None:
        path, known = found
        name = ".".join(path)
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


def unknown(
    kind: type[msgspec.Struct], given: Mapping[Any, Any], within: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The path to the first name that is no parameter, and the names that could stand there, both
    from the top; None where all are known. Parts of a suite are looked into."""
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for name, value in given.items():
        if name not in fields:
            known = tuple(".".join((*within, field)) for field in fields)
            return (*within, str(name)), known
        part = fields[name]
        is_part = isinstance(part, type) and issubclass(part, msgspec.Struct)
        if is_part and isinstance(value, Mapping):
            found = unknown(part, value, (*within, name))
            if found is not None:
                return found
    return None


def nearest(name: str, known: tuple[str, ...]) -> str:
    """The known name that is most like `name`."""
    return get_close_matches(name, known, n=1, cutoff=0.0)[0]
