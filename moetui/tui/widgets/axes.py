"""Which layers and experts stand on which row and column of a map, as pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

# Experts that may share a column before the axis scrolls instead.
MOST_FOLDED = 4
# Cells of one expert where there is room for more.
WIDEST = 4


@dataclass(frozen=True)
class LayerAxis:
    """Decoder layers on rows: `per_row` layers each, `rows` rows from layer `first` on."""

    first: int
    rows: int
    per_row: int
    num_layers: int

    def layers(self, row: int) -> range:
        """The layers on `row` (empty below the last)."""
        start = self.first + row * self.per_row
        return range(start, min(start + self.per_row, self.num_layers))

    def row_of(self, layer: int) -> int:
        """The row of `layer`, which may lie outside."""
        return (layer - self.first) // self.per_row

    @property
    def shown(self) -> range:
        """The layers on the screen."""
        last = min(self.first + self.rows * self.per_row, self.num_layers)
        return range(self.first, last)


def layer_axis(num_layers: int, rows: int, cursor: int, packings: tuple[int, ...]) -> LayerAxis:
    """The axis for `rows` rows: the smallest packing that shows all layers, else the last one
    scrolled so that the cursor stands in the middle.

    The offset follows from the cursor alone, so panes of equal height that stand side by side
    scroll together without knowing of each other.
    """
    rows = max(rows, 1)
    per_row = next((p for p in packings if num_layers <= rows * p), packings[-1])
    total = -(-num_layers // per_row)
    first = min(max(cursor // per_row - rows // 2, 0), max(total - rows, 0))
    return LayerAxis(first * per_row, min(rows, total), per_row, num_layers)


@dataclass(frozen=True)
class ExpertAxis:
    """Experts on columns: `fold` experts share one, or one takes `width` cells.

    first: the first expert shown; columns: how many columns; num_experts: E.
    """

    first: int
    columns: int
    fold: int
    width: int
    num_experts: int

    @property
    def cells(self) -> int:
        """Cells that the axis takes."""
        return self.columns * self.width

    @property
    def experts(self) -> range:
        """The experts on the screen."""
        return range(self.first, min(self.first + self.columns * self.fold, self.num_experts))

    def column_of(self, expert: int) -> int | None:
        """The column of `expert`; None where it is scrolled out."""
        return (expert - self.first) // self.fold if expert in self.experts else None

    def expert_at(self, x: int) -> int | None:
        """The first expert of the column under cell `x`."""
        expert = self.first + x // self.width * self.fold
        return expert if 0 <= x < self.cells and expert < self.num_experts else None


def expert_axis(num_experts: int, cells: int, cursor: int, widest: int = WIDEST) -> ExpertAxis:
    """The axis for `cells` cells: wide columns if there is room, else folded, else scrolled so
    that the cursor stands in the middle."""
    cells = max(cells, 1)
    if num_experts <= cells:
        width = max(1, min(widest, cells // max(num_experts, 1)))
        return ExpertAxis(0, num_experts, 1, width, num_experts)
    fold = min(-(-num_experts // cells), MOST_FOLDED)
    total = -(-num_experts // fold)
    columns = min(cells, total)
    first = min(max(cursor // fold - columns // 2, 0), total - columns)
    return ExpertAxis(first * fold, columns, fold, 1, num_experts)
