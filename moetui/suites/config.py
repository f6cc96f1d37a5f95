"""Configuration files of batch runs: YAML with the options of a run and the parameters by suite.

    seed: 1
    attention_router:
      layers: [0, 4]

What is said on the command line goes before what stands here, and that before the defaults.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from moetui import suites
from moetui.errors import UsageError
from moetui.suites.config_yaml import Source, parsed, rendered
from moetui.suites.parameters import described, nearest, parameters_of, unknown
from moetui.suites.plan import Suite

Text = Annotated[str, msgspec.Meta(min_length=1)]


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of `moetui batch` that a file may set; UNSET where it does not.

    models: those of every suite. The others are the command's own.
    """

    models: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    corpus: Text | msgspec.UnsetType | None = msgspec.UNSET
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] | msgspec.UnsetType = msgspec.UNSET
    null_model: bool | msgspec.UnsetType = msgspec.UNSET
    output: Text | msgspec.UnsetType = msgspec.UNSET
    report: bool | msgspec.UnsetType = msgspec.UNSET


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says. sections: the parameters that it gives, by suite; they are checked."""

    options: Options
    sections: dict[str, dict[str, Any]]

    def parameters(self, name: str) -> dict[str, Any]:
        """Parameters of the suite `name`, among them the models of the whole file."""
        given = dict(self.sections.get(name, {}))
        if not isinstance(self.options.models, msgspec.UnsetType):
            given["models"] = list(self.options.models)
        return given


def read_config(path: Path) -> Config:
    """The file at `path`, checked whole: sections of suites that will not run too.

    Raises UsageError with file and line: what is not YAML, not one mapping, a key that nobody
    knows (naming the nearest that somebody does) or a value of the wrong type.
    """
    source = parsed(path)
    options, sections = {}, {}
    for key, value in source.content.items():
        if key in suites.NAMES:
            sections[key] = _section(source, key, value)
        elif key in Options.__struct_fields__:
            options[key] = value
        else:
            known = (*Options.__struct_fields__, *suites.NAMES)
            raise source.refusal((key,), f"there is no {key!r}", _did_you_mean(key, known))
    for name, given in sections.items():
        if "models" in options and "models" in given:
            raise source.refusal(
                (name, "models"), "models are given here and for the whole file", "give one of them"
            )
    return Config(options=_options(source, options), sections=sections)


def config_text(
    prepared: Sequence[Suite], options: Sequence[tuple[str, Any, str]], command: str
) -> str:
    """A file that sets everything to what is set now, each with what it means.

    options: (name, value, meaning) of the fields of `Options`, models apart, which stand with the
    suites. command: what the file is for, in the first comment.
    """
    lines = [f"# {command}", "# A list `models` at this level would be for every suite.", ""]
    lines += [line for name, value, meaning in options for line in rendered(name, value, meaning)]
    for suite in prepared:
        lines += ["", f"# {suite.question}", f"{suite.name}:", *_settings(suite)]
    return "\n".join(lines) + "\n"


def _settings(suite: Suite) -> Iterator[str]:
    """The parameters of a suite; those of one of its parts below the part's name."""
    within = ""
    for parameter in described(suite.parameters):
        part, _, name = parameter.name.rpartition(".")
        if part != within:
            within = part
            yield f"  {part}:"
        meaning = parameter.description
        if parameter.value != parameter.default:
            default = msgspec.json.encode(parameter.default).decode()
            meaning = f"{meaning} (default: {default})"
        yield from rendered(name, parameter.value, meaning, indent=4 if part else 2)


def _section(source: Source, name: str, value: Any) -> dict[str, Any]:
    """The parameters of one suite as the file gives them."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise source.refusal(
            (name,), f"{name} is {_kind(value)}, not parameters", "below it goes `parameter: value`"
        )
    kind = type(suites.suite(name).parameters)
    if (found := unknown(kind, value)) is not None:
        path, known = found
        key = ".".join(path)
        raise source.refusal(
            (name, *path), f"{name} has no parameter {key!r}", _did_you_mean(key, known)
        )
    try:
        parameters_of(kind, value, name)
    except UsageError as error:
        raise _refused_value(source, (name,), error.__cause__ or error) from error
    return dict(value)


def _options(source: Source, given: Mapping[str, Any]) -> Options:
    try:
        return msgspec.convert(given, Options)
    except msgspec.ValidationError as error:
        raise _refused_value(source, (), error) from error


def _refused_value(source: Source, within: tuple[str, ...], error: BaseException) -> UsageError:
    """msgspec's refusal, its path as names and its place as a line."""
    what, _, steps = str(error).partition(" - at ")
    inside = steps.removeprefix("`key` in ").strip("`").removeprefix("$")
    names = ".".join(within)
    path = f"{names}{inside}" if names else inside.removeprefix(".")
    return source.refusal(
        (*within, *_names(inside)),
        f"{path}: {what[:1].lower()}{what[1:]}",
        "a text that reads as a number, a date or yes and no needs quotes; see --print-config",
    )


def _names(path: str) -> tuple[str | int, ...]:
    """`.a[3].b` as ("a", 3, "b"), as far as it names what it means."""
    found: list[str | int] = []
    for step in path.replace("[", ".[").split(".")[1:]:
        if step == "[...]" or not step:
            break
        found.append(int(step[1:-1]) if step.startswith("[") else step)
    return tuple(found)


def _did_you_mean(key: object, known: tuple[str, ...]) -> str:
    return f"did you mean {nearest(str(key), known)!r}? there are {', '.join(known)}"


def _kind(value: object) -> str:
    kinds = {list: "a list", str: "a text", bool: "yes or no", int: "a number", float: "a number"}
    return kinds.get(type(value), f"a {type(value).__name__}")
