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
        TextColumn("cells"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


class BarProgress:
    """One line an analysis, with a bar over its cells; the texts of the current cell beside it."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._lines: dict[tuple[str, str], TaskID] = {}
        self._current: Cell | None = None

    def plan(self, cells: Sequence[Cell]) -> None:
        """A line for every analysis of every model, so that the whole plan is on the screen."""
        totals: dict[tuple[str, str], int] = {}
        for cell in cells:
            key = (cell.model, cell.analysis)
            totals[key] = totals.get(key, 0) + 1
        for key, total in totals.items():
            self._lines[key] = self._bar.add_task(" ".join(key), total=total, start=False)

    def start(self, cell: Cell) -> None:
        """The clock of its analysis starts."""
        self._current = cell
        self._bar.start_task(self._lines[cell.model, cell.analysis])
        self._describe(cell, cell.part)

    def step(self, done: int, total: int) -> None:
        """Texts of the current cell."""
        if self._current is not None:
            self._describe(self._current, f"{self._current.part} {done}/{total}")

    def finish(self, cell: Cell, *, reused: bool) -> None:
        """The bar moves."""
        self._bar.advance(self._lines[cell.model, cell.analysis])

    def ended(self, result: CellResult) -> None:
        """The line shows how the analysis ended."""
        line = self._lines[result.model, result.analysis]
        self._bar.update(line, description=f"{result.model} {result.analysis}: {result.status}")
        self._bar.stop_task(line)

    def _describe(self, cell: Cell, what: str) -> None:
        line = self._lines[cell.model, cell.analysis]
        self._bar.update(line, description=f"{cell.model} {cell.analysis}: {what}")


class PlainLines:
    """One line when an analysis ends; for log files."""

    def __init__(self) -> None:
        self._reused = 0

    def plan(self, cells: Sequence[Cell]) -> None:
        """How many cells there are."""
        click.echo(f"{len(cells)} cells", err=True)

    def start(self, cell: Cell) -> None:
        """Nothing to say yet."""

    def step(self, done: int, total: int) -> None:
        """Nothing to say yet."""

    def finish(self, cell: Cell, *, reused: bool) -> None:
        """Counts those that were there."""
        self._reused += reused

    def ended(self, result: CellResult) -> None:
        """How the analysis ended, and why if it did not end well."""
        why = f": {result.reason}" if result.reason else ""
        kept = f", {self._reused} cells from an earlier run" if self._reused else ""
        self._reused = 0
        line = f"{result.model} {result.analysis}: {result.status} ({result.seconds:.1f} s{kept})"
        click.echo(line + why, err=True)


class JsonLines:
    """One JSON object a line: {"event": "plan" | "start" | "step" | "finish" | "ended", …}."""

    def plan(self, cells: Sequence[Cell]) -> None:
        """Every cell of the run."""
        _emit("plan", cells=list(cells))

    def start(self, cell: Cell) -> None:
        """A cell begins."""
        _emit("start", cell=cell)

    def step(self, done: int, total: int) -> None:
        """Texts done so far."""
        _emit("step", done=done, total=total)

    def finish(self, cell: Cell, *, reused: bool) -> None:
        """A cell has ended; reused: it was there from an earlier run."""
        _emit("finish", cell=cell, reused=reused)

    def ended(self, result: CellResult) -> None:
        """An analysis has ended; its result goes to the result document only."""
        _emit(
            "ended",
            model=result.model,
            analysis=result.analysis,
            status=result.status,
            reason=result.reason,
            seconds=result.seconds,
        )


def _emit(event: str, **fields: Any) -> None:
    import msgspec

    click.echo(msgspec.json.encode({"event": event, **fields}).decode(), err=True)
