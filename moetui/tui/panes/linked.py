"""Panes whose rows are decoder layers: side by side, the eye runs along one layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from textual import events

from moetui.tui.panes.pane import LinePane
from moetui.tui.widgets.axes import LayerAxis, layer_axis
from moetui.tui.widgets.lines import Line, line_width


class LayerPane(LinePane):
    """Two lines of heading, one row for each layer, one line of legend.

    Every such pane places its layers by the cursor and its height alone, so panes of equal
    height always show the same layers on the same rows. `linked` forbids packing several layers
    into one row.
    """

    HEADING: ClassVar[int] = 2
    LEGEND: ClassVar[int] = 1
    PACKINGS: ClassVar[tuple[int, ...]] = (1,)

    linked: bool = False

    def num_layers(self) -> int:
        """N, decoder layers of the model in view."""
        raise NotImplementedError

    def heading(self) -> tuple[Line, Line]:
        """The two lines above the layers."""
        raise NotImplementedError

    def layer_rows(self, axis: LayerAxis) -> Sequence[Line]:
        """The rows of the layers on `axis`, without their labels."""
        raise NotImplementedError

    def legend(self) -> Line:
        """The line below the layers."""
        raise NotImplementedError

    @property
    def axis(self) -> LayerAxis:
        """Which layer stands on which row."""
        rows = self.size.height - self.HEADING - self.LEGEND
        packings = (1,) if self.linked else self.PACKINGS
        return layer_axis(self.num_layers(), rows, self.moment.cursor.layer, packings)

    @property
    def label_width(self) -> int:
        """Cells of the layer numbers at the left."""
        return len(str(max(self.num_layers() - 1, 0))) + 3

    def lines(self) -> list[Line]:
        """Heading, labelled rows, legend on the last line."""
        axis = self.axis
        rows = [(*self.label(axis, y), *row) for y, row in enumerate(self.layer_rows(axis))]
        space: list[Line] = [()] * (self.size.height - self.HEADING - self.LEGEND - len(rows))
        return [*self.heading(), *rows, *space, self.legend()]

    def label(self, axis: LayerAxis, row: int) -> Line:
        """The layer's number; the cursor's row has a pointer too, so that it needs no colour."""
        layers, cursor = axis.layers(row), self.moment.cursor.layer
        digits = self.label_width - 3
        if cursor in layers:
            return ((f"▶{cursor:>{digits}}", self.paint.cursor), ("  ", self.paint.text))
        return ((f" {layers.start:>{digits}}  ", self.paint.muted),)

    def layer_at(self, y: int) -> int | None:
        """The (first) layer on line `y` of the pane."""
        axis, row = self.axis, y - self.HEADING
        layers = axis.layers(row) if 0 <= row < axis.rows else range(0)
        return layers.start if layers else None

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the layer that was clicked."""
        if self.view is not None and (layer := self.layer_at(event.y)) is not None:
            self.post_message(self.CursorMoved(layer=layer))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel moves along the layers, in all panes that show them."""
        self._scroll_layers(1)
        event.stop()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel moves along the layers, in all panes that show them."""
        self._scroll_layers(-1)
        event.stop()

    def _scroll_layers(self, by: int) -> None:
        if self.view is not None:
            layer = self.moment.cursor.layer + by
            self.post_message(self.CursorMoved(layer=max(0, min(layer, self.num_layers() - 1))))


def spread(left: Line, right: Line, width: int) -> Line:
    """`left` at the left and `right` at the right edge; `right` gives way where both do not fit."""
    gap = width - line_width(left) - line_width(right)
    return (*left, (" " * gap, Style()), *right) if gap > 0 else left


def ticks(labels: Sequence[tuple[int, str]], width: int) -> str:
    """Texts placed at their columns, those that would touch the one before left out."""
    line, end = "", 0
    for at, text in labels:
        if at >= end and at + cell_len(text) <= width:
            line += " " * (at - len(line)) + text
            end = len(line) + 1
    return line + " " * (width - len(line))
