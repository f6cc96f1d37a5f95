"""A suite run on the model that is open already, by whoever watches it: how the explorer does it.

It writes what `moetui batch` writes, and keeps its finished cells where that keeps them: either
takes up what the other left.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from moetui.errors import ModelError, UsageError
from moetui.suites import run_prepared, suite
from moetui.suites.models import Loaded, ModelRef
from moetui.suites.names import Preset
from moetui.suites.plan import Suite
from moetui.suites.results import Cell, CellResult, SuiteResult, result_name, write_result
from moetui.trace import Forward, Study, Watcher


@dataclass(frozen=True, kw_only=True)
class SuiteRequest:
    """What to run, and where it goes.

    name: of the suite or study. model: the one that is open. preset: None for the default plan.
    null_model: run it again with random weights. resume: take up finished cells. folder: of the
    result; the cells are in its .cells.
    """

    name: str
    model: str
    preset: Preset | None = None
    null_model: bool = False
    resume: bool = True
    folder: Path

    def suite(self) -> Suite:
        """The suite with its parameters set. Raises UsageError."""
        return suite(self.name, {"models": [self.model]}, preset=self.preset)


@dataclass(frozen=True, kw_only=True)
class SuiteRun:
    """How far a run is; with a result, how it ended and where that was written.

    cells, done: in all, and finished; reused: those of them that were there from an earlier run.
    tokens, tokens_done: through the models, as far as the plan knows; unplanned: whether some
    cells' tokens show only when they run. current: the cell under way, with texts done of it.
    ended: the analyses that have ended. started: by time.monotonic(); seconds: since then.
    """

    request: SuiteRequest
    cells: int = 0
    done: int = 0
    reused: int = 0
    tokens: int = 0
    tokens_done: int = 0
    unplanned: bool = False
    current: Cell | None = None
    texts: tuple[int, int] | None = None
    ended: tuple[CellResult, ...] = ()
    started: float
    seconds: float = 0.0
    result: SuiteResult | None = None
    file: Path | None = None


def suite_study(request: SuiteRequest) -> Study:
    """The study that runs `request` on the open model and shows a `SuiteRun` at every step.

    Raises UsageError or ModelError where nothing could be run, and what fails beside other
    results is in the result. When it is stopped, its finished cells stay.
    """

    def study(forward: Forward, watcher: Watcher) -> None:
        progress = _Shown(request, watcher)
        _make(request.folder)
        result = run_prepared(
            request.suite(),
            null_model=request.null_model,
            cells=request.folder,
            resume=request.resume,
            progress=progress,
            source=OpenModel(forward, watcher.go_on),
        )
        file = request.folder / result_name(result.suite, datetime.now())
        write_result(result, file)
        progress.deliver(result, file)

    return study


class OpenModel(Loaded):
    """The model that is open, and beside it what else a run needs, from the disk.

    go_on: called while these load and before each of their passes; may raise to end the run.
    """

    def __init__(self, forward: Forward, go_on: Callable[[], None]) -> None:
        super().__init__(go_on)
        self._forward = forward

    def open(self, ref: ModelRef) -> Forward:
        """The open model itself: there is no second copy of its weights."""
        if ref == ModelRef(self._forward.info.name):
            return self._forward
        try:
            return super().open(ref)
        except ModelError as error:
            raise ModelError(
                error.message,
                f"{error.hint}; `moetui batch`, in a terminal, has one model at a time in memory",
            ) from error


class _Shown:
    """Progress as the newest `SuiteRun`; see `moetui.suites.progress.Progress`."""

    def __init__(self, request: SuiteRequest, watcher: Watcher) -> None:
        self._watcher = watcher
        self._run = SuiteRun(request=request, started=time.monotonic())
        self._left: Counter[tuple[str, str]] = Counter()
        self._finished_tokens = 0
        self._show()

    def plan(self, cells: Sequence[Cell]) -> None:
        """How much there is to do."""
        self._left.update((cell.model, cell.analysis) for cell in cells)
        known = [cell.tokens for cell in cells if cell.tokens is not None]
        self._show(cells=len(cells), tokens=sum(known), unplanned=len(known) < len(cells))

    def start(self, cell: Cell) -> None:
        """A cell begins."""
        self._show(current=cell, texts=None)

    def step(self, done: int, total: int) -> None:
        """Its tokens go on with its texts."""
        cell = self._run.current
        of_cell = (cell.tokens or 0) * done // max(total, 1) if cell is not None else 0
        self._show(texts=(done, total), tokens_done=self._finished_tokens + of_cell)

    def finish(self, cell: Cell, *, reused: bool) -> None:
        """One less to do."""
        self._left[cell.model, cell.analysis] -= 1
        self._finished_tokens += cell.tokens or 0
        self._show(reused=self._run.reused + reused, tokens_done=self._finished_tokens)

    def ended(self, result: CellResult) -> None:
        """What an analysis that failed has left undone will not be done."""
        self._left[result.model, result.analysis] = 0
        self._show(ended=(*self._run.ended, result), current=None, texts=None)

    def deliver(self, result: SuiteResult, file: Path) -> None:
        """The end."""
        self._show(result=result, file=file)

    def _show(self, **changes: object) -> None:
        run = replace(self._run, **changes)  # type: ignore[arg-type]
        done = run.cells - self._left.total()
        self._run = replace(run, done=done, seconds=time.monotonic() - run.started)
        self._watcher.show(self._run)


def _make(folder: Path) -> None:
    """Make the folder of the result before anything runs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".moetui").touch()
        (folder / ".moetui").unlink()
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror}",
            "start moetui in a folder that you may write to, or set export_dir in the settings",
        ) from error
