"""How a running suite tells whoever draws it what it is doing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from moetui.suites.results import Cell, CellResult


class Progress(Protocol):
    """Called in this order: plan once; for every cell start, any number of steps, finish; after
    the cells of an analysis, ended."""

    def plan(self, cells: Sequence[Cell]) -> None:
        """All cells that will be run."""

    def start(self, cell: Cell) -> None:
        """`cell` begins; its model may have to be loaded first."""

    def step(self, done: int, total: int) -> None:
        """`done` of `total` texts of the current cell are done."""

    def finish(self, cell: Cell, *, reused: bool) -> None:
        """The cell has ended, or was there from an earlier run."""

    def ended(self, result: CellResult) -> None:
        """An analysis has ended, with or without a result."""


class Silent:
    """Progress that nobody watches."""

    def plan(self, cells: Sequence[Cell]) -> None:
        """Nothing to do."""

    def start(self, cell: Cell) -> None:
        """Nothing to do."""

    def step(self, done: int, total: int) -> None:
        """Nothing to do."""

    def finish(self, cell: Cell, *, reused: bool) -> None:
        """Nothing to do."""

    def ended(self, result: CellResult) -> None:
        """Nothing to do."""
