"""YAML in and out: strict where PyYAML is lenient, and what is written reads back the same."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moetui.errors import UsageError

_WIDTH = 100
_EXAMPLE = "write `key: value` lines, as `moetui batch SUITE --print-config` does"


@dataclass(frozen=True)
class Source:
    """A parsed file: its mapping, and the nodes that know their lines."""

    path: Path
    content: dict[Any, Any]
    root: yaml.Node

    def refusal(self, steps: tuple[Any, ...], what: str, hint: str) -> UsageError:
        """An error about what lies at the end of `steps` (keys and indices), with its line."""
        return UsageError(f"{self.path}, line {self._line(steps)}: {what}", hint)

    def _line(self, steps: tuple[Any, ...]) -> int:
        """Of the last step that can be followed."""
        node, line = self.root, self.root.start_mark.line
        for step in steps:
            if isinstance(node, yaml.MappingNode):
                found = next((pair for pair in node.value if pair[0].value == str(step)), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                node = node.value[step]
                line = node.start_mark.line
        return line + 1


def parsed(path: Path) -> Source:
    """The one mapping in the file at `path`. Raises UsageError with file, line and column."""
    text = _text(path)
    try:
        root, content = _composed(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UsageError(
            f"{path}, line {line}: YAML forbids the character U+{ord(text[error.position]):04X}",
            r'write it in quotes as an escape, as in "\x1b"',
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"{path}{place}: {_problem(error)}", _EXAMPLE) from error
    except (RecursionError, ValueError) as error:  # ValueError: a date that does not exist
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"{path}: {reason}", _EXAMPLE) from error
    if root is None or not isinstance(content, dict):
        what = "nothing" if root is None else "no mapping"
        raise UsageError(f"{path}: there is {what} in it", _EXAMPLE)
    return Source(path, content, root)


def _composed(text: str) -> tuple[yaml.Node | None, Any]:
    """The tree of the one document, and what it stands for."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        return root, None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _problem(error: yaml.MarkedYAMLError) -> str:
    several = (error.context or "").startswith("expected a single document")
    return "a second document begins here" if several else str(error.problem)


def rendered(name: str, value: Any, meaning: str, *, indent: int = 0) -> list[str]:
    """`name: value` in YAML below a comment; texts are always quoted, so that they stay texts."""
    printable = "".join(sign if sign.isprintable() else " " for sign in meaning)
    comment = textwrap.wrap(printable, _WIDTH - indent - 2)
    body = yaml.dump(
        {_Name(name): value},
        Dumper=_Dumper,
        allow_unicode=True,
        sort_keys=False,
        width=math.inf,
        default_flow_style=False,
    )
    lines = [*(f"# {line}" for line in comment), *body.removesuffix("\n").split("\n")]
    return [" " * indent + line for line in lines]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}, line {line}: not UTF-8 text (byte {error.object[error.start]:#04x})",
            "convert it, as in `iconv -f latin1 -t utf-8`",
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"cannot read the configuration {path}: {reason}",
            "make one with `moetui batch SUITE --print-config`",
        ) from error


class _Loader(yaml.SafeLoader):
    """Refuses what would be lost or would not come back from a result: repeated keys, NaN."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_finite(self, node: yaml.ScalarNode) -> float:
        """A float that JSON has too."""
        value = self.construct_yaml_float(node)
        if not math.isfinite(value):
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value} is no finite number", node.start_mark
            )
        return float(value)


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_finite)


class _Name(str):
    """A key that needs no quotes."""


class _Dumper(yaml.SafeDumper):
    """Texts in double quotes on one line, lists of numbers on one line, others a line an item."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_node(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


def _name_node(dumper: _Dumper, name: _Name) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(name))


def _list_node(dumper: _Dumper, items: list[Any]) -> yaml.Node:
    plain = not any(isinstance(item, str | list | dict) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=plain)


_Dumper.add_representer(str, _text_node)
_Dumper.add_representer(_Name, _name_node)
_Dumper.add_representer(list, _list_node)
