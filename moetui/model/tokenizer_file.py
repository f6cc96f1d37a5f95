"""What in a tokenizer.json would make the tokenizers library panic or swell, found beforehand.

It is a library in Rust: a panic writes to the terminal by itself, and memory that it cannot get
ends the process. So the settings that are known to lead there are refused before it reads them.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moetui.errors import ModelError
from moetui.model.files import AGAIN, shown

# How many characters one may become: replacements that feed each other multiply. Those of known
# tokenizers put one character in the place of one or more.
_MAX_GROWTH = 64


def check_tokenizer_file(path: Path) -> None:
    """Nothing in the tokenizer.json at `path` is known to bring its library down.

    Raises ModelError naming the setting.
    """
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {str(error)[:100]}", AGAIN) from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ModelError(f"{path} describes no tokenizer", AGAIN)
    growth = 1
    for part in _parts([content.get("normalizer"), content.get("pre_tokenizer")]):
        _check_part(part, path)
        if part.get("type") == "Replace":
            growth *= max(1, len(str(part.get("content"))))
    if growth > _MAX_GROWTH:
        raise _refused(path, f"may turn one character into {growth:,}")
    for part in _parts([content.get("post_processor")]):
        if part.get("type") == "TemplateProcessing":
            _check_template(part, path)


def _check_part(part: dict[str, Any], path: Path) -> None:
    """One step of what is done to a text before its tokens are looked up."""
    match part.get("type"):
        case "Replace":
            _check_replace(part, path)
        case "Precompiled":
            _check_charsmap(part.get("precompiled_charsmap"), path)
        case "Prepend":
            length = len(str(part.get("prepend")))
            if not 1 <= length <= _MAX_GROWTH:
                raise _refused(path, f"puts {length:,} characters before every text")
        case "FixedLength":
            size = part.get("length")
            if not isinstance(size, int) or size < 1:
                raise _refused(path, f"cuts text into pieces of {shown(size)}")


def _parts(roots: list[Any]) -> Iterator[dict[str, Any]]:
    """Every object below `roots`."""
    stack = roots
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack += node.values()
        elif isinstance(node, list):
            stack += node


def _check_replace(part: dict[str, Any], path: Path) -> None:
    """What is replaced is never the empty text, which is everywhere."""
    pattern = part.get("pattern")
    text = pattern.get("String") if isinstance(pattern, dict) else None
    expression = pattern.get("Regex") if isinstance(pattern, dict) else None
    if text == "" or (isinstance(expression, str) and _matches_nothing(expression)):
        raise _refused(path, f"replaces the empty text by {shown(part.get('content'))}")


def _matches_nothing(expression: str) -> bool:
    try:
        return any(match[0] == "" for match in re.finditer(expression, "a A-1"))
    except (re.error, OverflowError, RecursionError):  # another dialect: its own parser will judge
        return False


def _check_charsmap(charsmap: Any, path: Path) -> None:
    """A precompiled map of characters: a length, a trie of that many bytes, the replacements."""
    try:
        blob = base64.b64decode(charsmap, validate=True) if isinstance(charsmap, str) else b""
    except (binascii.Error, ValueError):
        blob = b""
    length = struct.unpack("<I", blob[:4])[0] if len(blob) >= 4 else 0
    if not 4 <= length <= len(blob) - 4 or length % 4:
        raise _refused(path, "has a precompiled_charsmap that is none")


def _check_template(part: dict[str, Any], path: Path) -> None:
    """Every special token that a template names is one that it defines."""
    defined = part.get("special_tokens")
    templates = [part.get("single"), part.get("pair")]
    for piece in _parts(templates):
        special = piece.get("SpecialToken")
        name = special.get("id") if isinstance(special, dict) else None
        if name is not None and not (isinstance(defined, dict) and name in defined):
            raise _refused(path, f"adds {shown(name)}, which its special_tokens lack")


def _refused(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} is damaged: it {what}", AGAIN)
