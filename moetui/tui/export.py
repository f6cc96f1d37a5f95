"""What `e`, `E` and `s` write: the very objects on the screen, over no file that exists."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from datetime import datetime
from itertools import count
from pathlib import Path

import msgspec

from moetui.errors import MoetuiError
from moetui.trace import TraceDocument, to_json, trace_document
from moetui.trace.types import ModelInfo
from moetui.tui.moment import Cursor, Moment

SCHEMA_VERSION = 1


class ExportError(MoetuiError):
    """The file cannot be written."""


class PaneDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One pane as it stands on the screen; `view` is the result object that it draws."""

    schema_version: int
    model: ModelInfo | None
    cursor: Cursor
    mode: str
    pane: str
    view: msgspec.Struct | None


class ScreenDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The whole screen: the trace of all rows shown, and what every pane draws from it."""

    schema_version: int
    model: ModelInfo | None
    cursor: Cursor
    mode: str
    trace: TraceDocument | None
    panes: Mapping[str, msgspec.Struct | None]


def pane_json(moment: Moment, pane_id: str, view: msgspec.Struct | None) -> bytes:
    """The JSON of one pane."""
    return to_json(
        PaneDocument(
            schema_version=SCHEMA_VERSION,
            model=moment.snapshot.model,
            cursor=moment.cursor,
            mode=moment.mode.value,
            pane=pane_id,
            view=view,
        )
    )


def screen_json(moment: Moment, views: Mapping[str, msgspec.Struct | None]) -> bytes:
    """The JSON of the whole screen."""
    recording, rows = moment.snapshot.recording, moment.snapshot.rows
    trace = recording.trace(rows) if recording is not None and rows else None
    return to_json(
        ScreenDocument(
            schema_version=SCHEMA_VERSION,
            model=moment.snapshot.model,
            cursor=moment.cursor,
            mode=moment.mode.value,
            trace=None if trace is None else trace_document(trace),
            panes=dict(views),
        )
    )


def write_new(folder: Path, subject: str, suffix: str, data: bytes, now: datetime) -> Path:
    """Write `moetui-SUBJECT-YYYYMMDD-HHMMSS.SUFFIX`, whole or not at all, over nothing.

    A name that is taken gets a number: `…-2.json`. Raises ExportError.
    """
    stem = f"moetui-{subject}-{now:%Y%m%d-%H%M%S}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{stem}.") as file:
            file.write(data)
            file.flush()
            umask = os.umask(0)
            os.umask(umask)
            Path(file.name).chmod(0o666 & ~umask)
            return _claim(Path(file.name), folder, stem, suffix)
    except OSError as error:
        raise ExportError(
            f"cannot write to {folder}: {error.strerror}",
            "start moetui in a folder that you may write to, or set export_dir in the settings",
        ) from error


def _claim(written: Path, folder: Path, stem: str, suffix: str) -> Path:
    """Give the finished file the first free name."""
    for number in count(1):
        path = folder / (f"{stem}.{suffix}" if number == 1 else f"{stem}-{number}.{suffix}")
        try:
            _give_name(written, path)
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable: numbers do not end")


def _give_name(written: Path, path: Path) -> None:
    """Put the finished file at `path`: a link, unlike a rename, replaces nothing."""
    try:
        path.hardlink_to(written)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        # A file system without links (exFAT): reserve the name, then fill it.
        with path.open("xb") as file:
            file.write(written.read_bytes())
