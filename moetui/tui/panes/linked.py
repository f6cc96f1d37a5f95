"""Panes whose rows are decoder layers: side by side, the eye runs along one layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events

from moetui.tui.panes.pane import LinePane, Pane, View
from moetui.tui.widgets.axes import LayerAxis, layer_axis
from moetui.tui.widgets.lines import Line


class LayerPane(LinePane[View]):
    """Lines of heading, one row for each layer, lines of legend below.

    Every such pane places its layers by the cursor and its height alone, so panes of equal
    height always show the same layers on the same rows. `linked` forbids packing several layers
    into one row.
    """

    HEADING: ClassVar[int] = 2
    LEGEND: ClassVar[int] = 1
    PACKINGS: ClassVar[tuple[int, ...]] = (1,)

    linked: bool = False

    def num_layers(self, view: View) -> int:
        """N, decoder layers of the model in view."""
        raise NotImplementedError

    def heading(self, view: View) -> Sequence[Line]:
        """The HEADING lines above the layers."""
        raise NotImplementedError

    def layer_rows(self, view: View, axis: LayerAxis) -> Sequence[Line]:
        """The rows of the layers on `axis`, without their labels."""
        raise NotImplementedError

    def legend(self, view: View) -> Line:
        """The line below the layers."""
        raise NotImplementedError

    def below(self, view: View) -> Sequence[Line]:
        """All lines below the layers."""
        return (self.legend(view),)

    def room(self, view: View) -> int:
        """Rows that are left for the layers."""
        return self.size.height - self.HEADING - self.LEGEND

    def axis(self, view: View) -> LayerAxis:
        """Which layer stands on which row."""
        layer, packings = self.moment.cursor.layer, self.packings(view)
        return layer_axis(self.num_layers(view), self.room(view), layer, packings)

    def packings(self, view: View) -> tuple[int, ...]:
        """How many layers may share a row."""
        return (1,) if self.linked else self.PACKINGS

    def label_width(self, view: View) -> int:
        """Cells of the layer numbers at the left, with their pointer and a space."""
        return len(str(max(self.num_layers(view) - 1, 0))) + 2

    def lines(self, view: View) -> list[Line]:
        """Heading, labelled rows, legend on the last lines."""
        axis = self.axis(view)
        digits = self.label_width(view) - 2
        rows = [
            (*self._label(axis.layers(y), digits), *row)
            for y, row in enumerate(self.layer_rows(view, axis))
        ]
        space: list[Line] = [()] * (self.room(view) - len(rows))
        return [*self.heading(view), *rows, *space, *self.below(view)]

    def _label(self, layers: range, digits: int) -> Line:
        """The layer's number; the cursor's row has a pointer too, so that it needs no colour."""
        cursor = self.moment.cursor.layer
        if cursor in layers:
            return ((f"▶{cursor:>{digits}}", self.paint.cursor), (" ", self.paint.text))
        return ((f" {layers.start:>{digits}} ", self.paint.muted),)

    def layer_at(self, event: events.MouseEvent) -> int | None:
        """The (first) layer on the line under the mouse."""
        at = event.get_content_offset(self)
        if self.view is None or at is None:
            return None
        axis, row = self.axis(self.view), at.y - self.HEADING
        layers = axis.layers(row) if 0 <= row < axis.rows else range(0)
        return layers.start if layers else None

    def pointed(self, event: events.MouseEvent) -> Pane.CursorMoved | None:
        """Where the cursor goes when the mouse is clicked there."""
        layer = self.layer_at(event)
        return None if layer is None else self.CursorMoved(layer=layer)

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on what was clicked."""
        if (move := self.pointed(event)) is not None:
            self.post_message(move)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel moves the cursor along the layers, and all panes follow."""
        self._move_layer(1)
        event.stop()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel moves the cursor along the layers, and all panes follow."""
        self._move_layer(-1)
        event.stop()

    def _move_layer(self, by: int) -> None:
        if self.view is not None:
            layer = self.moment.cursor.layer + by
            last = self.num_layers(self.view) - 1
            self.post_message(self.CursorMoved(layer=max(0, min(layer, last))))
