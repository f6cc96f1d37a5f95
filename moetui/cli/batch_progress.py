"""Progress of a batch run on standard error: a bar, plain lines, JSON lines, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from moetui.suites.progress import Progress
    from moetui.suites.results import Cell, CellResult


@contextmanager
def drawn(mode: str) -> Iterator[Progress]:
    """The progress for `mode` (auto, json, off); what it draws is cleared up on leaving."""
    from moetui.suites.progress import Silent

    if mode == "off":
        yield Silent()
    elif mode == "json":
        yield JsonLines()
    elif sys.stderr.isatty():
        with _bar() as bar:
            yield BarProgress(bar)
    else:
        yield PlainLines()


def _bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


class BarProgress:
    """One line a cell, with a bar over its texts."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._lines: dict[tuple[str, str], TaskID] = {}
        self._current: TaskID | None = None

    def plan(self, cells: Sequence[Cell]) -> None:
        """A line for every cell, so that the whole plan is on the screen."""
        for cell in cells:
            text = f"{cell.model} {cell.analysis}"
            self._lines[cell.model, cell.analysis] = self._bar.add_task(
                text, total=None, start=False
            )

    def start(self, cell: Cell) -> None:
        """The cell's clock starts."""
        self._current = self._lines[cell.model, cell.analysis]
        self._bar.start_task(self._current)

    def step(self, done: int, total: int) -> None:
        """The bar moves."""
        if self._current is not None:
            self._bar.update(self._current, completed=done, total=total)

    def finish(self, result: CellResult) -> None:
        """The line shows how the cell ended."""
        line = self._lines[result.model, result.analysis]
        self._bar.update(line, description=f"{result.model} {result.analysis}: {result.status}")
        self._bar.stop_task(line)


class PlainLines:
    """One line when a cell ends; for log files."""

    def plan(self, cells: Sequence[Cell]) -> None:
        """How many cells there are."""
        click.echo(f"{len(cells)} cells", err=True)

    def start(self, cell: Cell) -> None:
        """Nothing to say yet."""

    def step(self, done: int, total: int) -> None:
        """Nothing to say yet."""

    def finish(self, result: CellResult) -> None:
        """How the cell ended, and why if it did not end well."""
        why = f": {result.reason}" if result.reason else ""
        click.echo(
            f"{result.model} {result.analysis}: {result.status} ({result.seconds:.1f} s){why}",
            err=True,
        )


class JsonLines:
    """One JSON object a line: {"event": "plan" | "start" | "step" | "finish", …}."""

    def plan(self, cells: Sequence[Cell]) -> None:
        """Every cell of the run."""
        _emit("plan", cells=[{"model": c.model, "analysis": c.analysis} for c in cells])

    def start(self, cell: Cell) -> None:
        """A cell begins."""
        _emit("start", model=cell.model, analysis=cell.analysis)

    def step(self, done: int, total: int) -> None:
        """Texts traced so far."""
        _emit("step", done=done, total=total)

    def finish(self, result: CellResult) -> None:
        """A cell has ended; its result goes to the result document only."""
        _emit(
            "finish",
            model=result.model,
            analysis=result.analysis,
            status=result.status,
            reason=result.reason,
            seconds=result.seconds,
        )


def _emit(event: str, **fields: Any) -> None:
    import msgspec

    click.echo(msgspec.json.encode({"event": event, **fields}).decode(), err=True)
