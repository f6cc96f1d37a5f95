"""Finished cells on disk, each under a hash of everything that it depends on.

A cell is one file: magic, SHA-256 of the rest, then its content. Files appear whole or not at
all; one that was damaged since is no cell, and its work is done again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from moetui.errors import UsageError
from moetui.trace.file import write_atomically

FOLDER = ".cells"
# What all cells of a folder may take together; the oldest go first.
LIMIT_BYTES = 1 << 30

_MAGIC = b"moetui cell 1\n"
_SUFFIX = ".cell"
# Numbers may differ between releases of what computes them.
_COMPUTES = ("mlx", "mlx-lm", "transformers", "tokenizers", "numpy", "scipy", "scikit-learn")


class CellStore:
    """The cells under `folder`/.cells. `reuse`: whether finished ones are taken up again."""

    def __init__(self, folder: Path, *, reuse: bool) -> None:
        self.folder = folder / FOLDER
        self._reuse = reuse

    def get(self, key: str) -> bytes | None:
        """The content kept under `key`, None where there is none that is whole."""
        if not self._reuse:
            return None
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        head, rest = data[: len(_MAGIC)], data[len(_MAGIC) :]
        if head != _MAGIC or hashlib.sha256(rest[32:]).digest() != rest[:32]:
            return None
        os.utime(self._path(key))  # what is in use is not what `prune` takes first
        return rest[32:]

    def put(self, key: str, content: bytes) -> None:
        """Keep `content`. Raises UsageError where the folder cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot make the folder {self.folder}: {error.strerror}", "give -o another folder"
            ) from error
        write_atomically(self._path(key), _MAGIC + hashlib.sha256(content).digest() + content)

    def prune(self, keep: Iterable[str], limit: int = LIMIT_BYTES) -> None:
        """Delete the oldest cells beyond `limit` bytes, never those of `keep`."""
        kept = {self._path(key) for key in keep}
        cells = [(path.stat(), path) for path in self.folder.glob(f"*{_SUFFIX}")]
        total = sum(stat.st_size for stat, _ in cells)
        for stat, path in sorted(cells, key=lambda cell: cell[0].st_mtime):
            if total <= limit:
                return
            if path not in kept:
                path.unlink(missing_ok=True)
                total -= stat.st_size

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"


class NoStore:
    """Keeps nothing."""

    def get(self, key: str) -> bytes | None:
        """Nothing."""
        return None

    def put(self, key: str, content: bytes) -> None:
        """Nothing."""

    def prune(self, keep: Iterable[str]) -> None:
        """Nothing."""


def cell_key(**depends: Any) -> str:
    """The hash under which a cell is kept: of `depends`, this program and what it computes with."""
    content = {**depends, "code": code_digest(), "versions": _versions()}
    raw = msgspec.json.encode(content, order="deterministic")
    return hashlib.sha256(raw).hexdigest()[:32]


@cache
def code_digest() -> str:
    """SHA-256 over the sources that results depend on: all but the command line and explorer."""
    package = Path(__file__).parents[1]
    hasher = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        if inside.parts[0] not in ("cli", "tui"):
            hasher.update(f"\0{inside.as_posix()}\0".encode())
            hasher.update(path.read_bytes())
    return hasher.hexdigest()


@cache
def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in _COMPUTES}
