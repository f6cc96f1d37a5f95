"""A saved result read back, or two clear lines on why a file is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from moetui.errors import UsageError
from moetui.suites.results import SCHEMA_VERSION, SuiteResult

_MADE_OTHERWISE = "it was changed, or written by another moetui: run the suite again"
_AGAIN = "results are written by `moetui batch SUITE`, traces by `moetui trace -o NAME.moetrace`"


class ResultFileError(UsageError):
    """A file that is not a batch result, is damaged, or is of another version."""


def open_result(path: Path) -> SuiteResult:
    """The result saved at `path`. Raises ResultFileError for anything else, saying what it is."""
    raw = _read(path)
    document = _document(raw, path)
    if "suite" not in document or "cells" not in document:
        raise ResultFileError(f"{path} is JSON, but {_other(document)}", _hint(document))
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ResultFileError(
            f"{path} has result format {version}; this moetui reads {SCHEMA_VERSION}",
            "open it with the moetui version that wrote it, or run the suite again",
        )
    try:
        return msgspec.json.decode(raw, type=SuiteResult)
    except (msgspec.ValidationError, ValueError) as error:
        raise ResultFileError(f"{path} is no valid result: {error}", _MADE_OTHERWISE) from error


def read_start(path: Path, size: int = 64) -> bytes:
    """The first bytes of a regular file. Raises ResultFileError."""
    return _read(path, size)


def _read(path: Path, size: int = -1) -> bytes:
    """`size` bytes of a regular file, all of it by default."""
    if path.is_dir():
        raise ResultFileError(f"{path} is a folder", "name one file in it")
    if not path.exists():
        raise ResultFileError(f"no such file: {path}", "check the path")
    if not path.is_file():
        raise ResultFileError(f"{path} is no regular file", "name a file")
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise ResultFileError(f"cannot read {path}: {error.strerror}", "check the path") from error


def _document(raw: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in `raw`, whatever it describes."""
    if not raw.strip():
        raise ResultFileError(f"{path} is empty", _AGAIN)
    try:
        document = msgspec.json.decode(raw)
    except RecursionError as error:
        raise ResultFileError(f"{path} is nested too deeply for a result", _AGAIN) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        cut = raw.lstrip().startswith(b"{") and "truncated" in str(error)
        cause = "is cut off: its JSON has no end" if cut else f"is not JSON ({error})"
        raise ResultFileError(f"{path} {cause}", _AGAIN) from error
    if not isinstance(document, dict):
        raise ResultFileError(f"{path} is JSON, but no result of a suite", _AGAIN)
    return document


def _other(document: dict[str, Any]) -> str:
    """What moetui itself may have written, if it is not a result."""
    if "router_logits" in document:
        return "a trace, not a result of a suite"
    if "pane" in document or "panes" in document:
        return "an export of the explorer, not a result of a suite"
    if "measures" in document and "first" in document:
        return "a comparison, not a result of a suite"
    return "no result of a suite"


def _hint(document: dict[str, Any]) -> str:
    if "router_logits" in document:
        return "the binary form of a trace opens: `moetui trace -o NAME.moetrace`"
    return _AGAIN
