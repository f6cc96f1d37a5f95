"""Progress of a batch run on standard error: a bar, plain lines, JSON lines, or nothing."""

from __future__ import annotations

import sys
from collections import Counter
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
    """A line a model with a bar over its cells, under them the analyses of the present model.

    So the screen holds a run of many models. The texts of the current cell stand beside its line.
    """

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._totals: dict[str, dict[str, int]] = {}
        self._models: dict[str, TaskID] = {}
        self._analyses: dict[str, TaskID] = {}
        self._ended: dict[str, Counter[str]] = {}
        self._present: str | None = None
        self._current: Cell | None = None

    def plan(self, cells: Sequence[Cell]) -> None:
        """A line for every model, so that the whole plan is on the screen."""
        for cell in cells:
            totals = self._totals.setdefault(cell.model, {})
            totals[cell.analysis] = totals.get(cell.analysis, 0) + 1
        for model, totals in self._totals.items():
            total = sum(totals.values())
            self._models[model] = self._bar.add_task(model, total=total, start=False)
            self._ended[model] = Counter()

    def start(self, cell: Cell) -> None:
        """The clock of its analysis starts."""
        self._turn_to(cell.model)
        self._current = cell
        self._bar.start_task(self._analyses[cell.analysis])
        self._line(cell.analysis, cell.part)

    def step(self, done: int, total: int) -> None:
        """Texts of the current cell."""
        if self._current is not None:
            self._line(self._current.analysis, f"{self._current.part} {done}/{total}")

    def finish(self, cell: Cell, *, reused: bool) -> None:
        """The bars move."""
        self._turn_to(cell.model)
        self._bar.advance(self._analyses[cell.analysis])
        self._bar.advance(self._models[cell.model])

    def ended(self, result: CellResult) -> None:
        """The line shows how the analysis ended, its model's how many did not end well."""
        self._turn_to(result.model)
        self._line(result.analysis, result.status)
        self._bar.stop_task(self._analyses[result.analysis])
        ended = self._ended[result.model]
        ended[result.status] += 1
        told = [f"{n} {status}" for status, n in ended.items() if status != "done"]
        line = self._models[result.model]
        if told:
            self._bar.update(line, description=f"{result.model}: {', '.join(told)}")
        if ended.total() == len(self._totals[result.model]):
            self._bar.stop_task(line)

    def _turn_to(self, model: str) -> None:
        """The lines of the model before go, those of this one come."""
        if model == self._present:
            return
        for line in self._analyses.values():
            self._bar.remove_task(line)
        self._present = model
        self._bar.start_task(self._models[model])
        self._analyses = {
            name: self._bar.add_task(f"  {name}", total=total, start=False)
            for name, total in self._totals[model].items()
        }

    def _line(self, analysis: str, what: str) -> None:
        self._bar.update(self._analyses[analysis], description=f"  {analysis}: {what}")


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
