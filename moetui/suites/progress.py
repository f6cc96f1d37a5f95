"""How a running suite tells whoever draws it what it is doing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from moetui.suites.results import Cell, CellResult


class Progress(Protocol):
    """Called in this order: plan once, then for every cell start, any number of steps, finish."""

    def plan(self, cells: Sequence[Cell]) -> None:
        """All cells that will be run."""

    def start(self, cell: Cell) -> None:
        """`cell` begins; its model may have to be loaded first."""

    def step(self, done: int, total: int) -> None:
        """`done` of `total` texts of the current cell are traced."""

    def finish(self, result: CellResult) -> None:
        """The current cell has ended, with or without a result."""


class Silent:
    """Progress that nobody watches."""

    def plan(self, cells: Sequence[Cell]) -> None:
        """Nothing to do."""

    def start(self, cell: Cell) -> None:
        """Nothing to do."""

    def step(self, done: int, total: int) -> None:
        """Nothing to do."""

    def finish(self, result: CellResult) -> None:
        """Nothing to do."""
