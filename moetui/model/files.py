"""Which files of a checkpoint may be opened, and JSON read without trusting it.

mlx-lm and transformers open whatever lies under a name that they know. A pipe would make them
wait for ever, and a link may lead anywhere: so every such name is looked at before they run.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from moetui.errors import ModelError

AGAIN = "copy or download the checkpoint again"
# What mlx-lm and the tokenizers of transformers read. Other files stay closed, whatever they are.
_READ = frozenset(
    (".json", ".safetensors", ".model", ".txt", ".jinja", ".tiktoken", ".bpe", ".codes")
)
_TEMPLATES = "additional_chat_templates"
_POINTER = b"version https://git-lfs"
_JSON_LIMIT = 64 << 20  # config files have kilobytes, an index of 100,000 tensors 10 MB
_DEPTH = 64


def check_files(folder: Path) -> None:
    """Every file of `folder` that a library may open is a regular file of this checkpoint.

    Raises ModelError for pipes and folders in a file's place, for links that lead nowhere or out
    of the checkpoint, for files that may not be read, and for Git LFS pointers.
    """
    for place in (folder, folder / _TEMPLATES):
        for path in _entries(place):
            if path.suffix in _READ:
                _check_file(path, folder)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, in which no key occurs twice.

    Raises ModelError naming the file and what is wrong with it.
    """
    try:
        if path.stat().st_size > _JSON_LIMIT:
            raise ModelError(f"{path} is too large for what it should hold", AGAIN)
        raw = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", AGAIN) from error
    content = parse_json(raw, str(path))
    if not isinstance(content, dict):
        raise ModelError(f"{path} does not hold an object", AGAIN)
    return content


def parse_json(raw: bytes, where: str) -> Any:
    """`raw` as JSON; ModelError saying that `where` is not, or says something twice."""
    if raw.startswith(b"\xef\xbb\xbf"):
        raise ModelError(f"{where} starts with a byte-order mark", "save it as UTF-8 without one")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            raise ModelError(
                f"{where} says {shown(counts.most_common(1)[0][0])} twice", "remove one of the two"
            )
        return content

    try:
        content = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise ModelError(f"{where} is not UTF-8 text", AGAIN) from error
    except ValueError as error:  # bad syntax, or a number of thousands of digits
        raise ModelError(f"{where} is not valid JSON: {str(error)[:100]}", AGAIN) from error
    except RecursionError as error:
        raise ModelError(f"{where} is nested too deeply to be read", AGAIN) from error
    if _deeper_than(content, _DEPTH):
        raise ModelError(f"{where} is nested too deeply: over {_DEPTH} levels", AGAIN)
    return content


def shown(value: object) -> str:
    """Something from a checkpoint as part of an error line: no line breaks, not endless."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def first_line(error: BaseException) -> str:
    """What an error of a library says, as part of one line: its kind too unless it is plain."""
    text = "".join(c if c.isprintable() else _escaped(c) for c in " ".join(str(error).split()))
    text = text if len(text) <= 200 else f"{text[:197]}..."
    if isinstance(error, ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ModelError(f"cannot read {folder}: {error.strerror}", "check its rights") from error


def _check_file(path: Path, folder: Path) -> None:
    try:
        real = Path(os.path.realpath(path, strict=True))
        kind = real.stat().st_mode
    except OSError as error:
        raise ModelError(f"{path} is a link that leads nowhere", AGAIN) from error
    if not any(real.is_relative_to(home) for home in _homes(folder)):
        raise ModelError(
            f"{path} is a link to {real}, outside the checkpoint", "copy the file into the folder"
        )
    if stat.S_ISDIR(kind):
        raise ModelError(f"{path} is a folder where a file should be", AGAIN)
    if not stat.S_ISREG(kind):
        raise ModelError(f"{path} is not a regular file (a pipe or a device?)", AGAIN)
    try:
        with real.open("rb") as file:
            start = file.read(len(_POINTER))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", "check its rights") from error
    if start == _POINTER:
        raise ModelError(
            f"{path} is a Git LFS pointer, not the file itself",
            "run `git lfs pull` in the folder, or download the checkpoint",
        )


def _homes(folder: Path) -> Iterator[Path]:
    """Where files of a checkpoint may really lie: its folder, and beside a snapshot in the
    Hugging Face cache the same repository's blobs."""
    home = folder.resolve()
    yield home
    if home.parent.name == "snapshots":
        yield home.parent.parent / "blobs"


def _deeper_than(content: Any, levels: int) -> bool:
    """Whether containers are nested in more than `levels`; without recursion."""
    level = [content]
    for _ in range(levels + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(content: Any) -> Iterable[Any]:
    if isinstance(content, dict):
        return content.values()
    return content if isinstance(content, list) else ()
