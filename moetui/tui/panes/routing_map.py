"""The routing map: every layer's experts at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from textual import events

from moetui.analyses.routing_map import RoutingMap, routing_map, session_map
from moetui.tui.moment import Mode, Moment
from moetui.tui.palette import BARS
from moetui.tui.panes.linked import LayerPane, spread, ticks
from moetui.tui.panes.reasons import no_routing
from moetui.tui.text import plain
from moetui.tui.widgets.axes import ExpertAxis, LayerAxis, expert_axis
from moetui.tui.widgets.heat import Levels, bar_row, dot_row, folded, half_row, levels_of
from moetui.tui.widgets.lines import Line, Span

# Room for this many cells of "E12 .34" beside the map makes a list of the chosen worth its place.
_LIST_WIDTH = 18
_BRAILLE = 4


class RoutingMapPane(LayerPane):
    """Layers × experts: the weights of the cursor's token, or the session's load."""

    pane_id = "map"
    title = "routing map"
    help = (
        "Rows are layers, columns experts; the higher and brighter a bar, the larger the weight "
        "that the expert's output got (Σ: the share of tokens that used it)."
    )
    PACKINGS = (1, 2, _BRAILLE)

    view: RoutingMap | None = None
    _hovered: tuple[int, int] | None = None

    def view_of(self, moment: Moment) -> RoutingMap | None:
        """The map at the cursor's token, or of the session in Σ mode."""
        model, located = moment.snapshot.model, moment.located
        if model is None or not model.is_moe:
            return None
        if moment.mode is Mode.SESSION:
            return session_map(moment.runs, model.num_layers) if moment.runs else None
        return routing_map(*located) if located else None

    def empty_reason(self, moment: Moment) -> str:
        """Why there is no map."""
        return no_routing(moment)

    def num_layers(self) -> int:
        """N of the model in view."""
        return self.view.num_layers if self.view else 0

    @property
    def experts(self) -> ExpertAxis:
        """Which expert stands on which column; in braille two columns share a cell."""
        view, cursor = self.view, self.moment.cursor.expert
        room = self.size.width - self.label_width
        if view is None or self.axis.per_row == _BRAILLE:
            axis = expert_axis(view.num_experts if view else 0, 2 * room, cursor)
            return ExpertAxis(axis.first, axis.columns, axis.fold, 1, axis.num_experts)
        return expert_axis(view.num_experts, room, cursor)

    def heading(self) -> tuple[Line, Line]:
        """What the map shows, and the experts' numbers with a pointer at the cursor."""
        view, paint = self.view, self.paint
        assert view is not None
        notes = self._notes()
        left: Line = ((self._subject(), paint.head),)
        right: Line = ((notes, paint.muted),) if notes else ()
        return spread(left, right, self.size.width), self._ruler()

    def layer_rows(self, axis: LayerAxis) -> Sequence[Line]:
        """The map itself."""
        view = self.view
        assert view is not None
        experts = self.experts
        levels = folded(self._levels(), experts)
        column = experts.column_of(self.moment.cursor.expert)
        here = axis.row_of(self.moment.cursor.layer)
        return [
            self._row(axis.layers(y), levels, experts, column if y == here else None)
            for y in range(axis.rows)
        ]

    def legend(self) -> Line:
        """The scale, the level of an even router, and the value at the cursor."""
        view, paint = self.view, self.paint
        assert view is not None
        bars = tuple((BARS[n], paint.ramp.cells[n]) for n in range(1, len(BARS)))
        even = np.nanmean(view.uniform) if view.uniform else float("nan")
        scale: Line = (
            (" 0 ", paint.muted),
            *bars,
            (f" {view.full:g}", paint.muted),
            (f"  even {even:.3f}", paint.muted),
        )
        return spread(scale, self._readout(), self.size.width)

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the layer and expert that were clicked."""
        if self.view is not None and (layer := self.layer_at(event.y)) is not None:
            self.post_message(self.CursorMoved(layer=layer, expert=self._expert_at(event.x)))

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Show the value under the mouse in the legend."""
        layer, expert = self.layer_at(event.y), self._expert_at(event.x)
        self._hover((layer, expert) if layer is not None and expert is not None else None)

    def on_leave(self, event: events.Leave) -> None:
        """Show the value at the cursor again."""
        self._hover(None)

    def _hover(self, cell: tuple[int, int] | None) -> None:
        if cell != self._hovered:
            self._hovered = cell
            self.draw()

    def _expert_at(self, x: int) -> int | None:
        cell = x - self.label_width
        return self.experts.expert_at(cell * self._columns_per_cell)

    @property
    def _columns_per_cell(self) -> int:
        return 2 if self.axis.per_row == _BRAILLE else 1

    def _levels(self) -> Levels:
        """[N, E], decoder layers without routing absent."""
        view = self.view
        assert view is not None
        values = np.full((view.num_layers, view.num_experts), np.nan)
        values[view.layers] = view.values
        return levels_of(values, view.full)

    def _row(self, layers: range, levels: Levels, experts: ExpertAxis, marked: int | None) -> Line:
        ramp, per_row = self.paint.ramp, self.axis.per_row
        shown = levels[layers.start : layers.stop]
        if per_row == 1:
            layer = layers.start
            if layer not in self._routing:
                return (("dense", self.paint.faint),)
            return (*bar_row(shown[0], experts.width, ramp, marked), *self._beside(layer))
        missing = per_row - len(shown)
        shown = np.pad(shown, ((0, missing), (0, experts.columns % 2)), constant_values=-1)
        if per_row == _BRAILLE:
            return dot_row(shown, ramp, None if marked is None else marked // 2)
        return half_row(shown[:, : experts.columns], experts.width, ramp, marked)

    @property
    def _routing(self) -> dict[int, int]:
        """Decoder layer → its index among the layers that route."""
        return {layer: row for row, layer in enumerate(self.view.layers)} if self.view else {}

    def _beside(self, layer: int) -> Line:
        """The chosen experts as numbers, where the map leaves room."""
        view, paint = self.view, self.paint
        room = self.size.width - self.label_width - self.experts.cells
        if view is None or room < _LIST_WIDTH:
            return ()
        row = self._routing[layer]
        spans: list[Span] = [("  ", paint.text)]
        for expert, weight in zip(view.chosen[row], view.weights[row], strict=True):
            room -= 10
            if room < 2:
                break
            spans += [(f"{expert:>4} ", paint.muted), (f"{weight:.2f} "[-5:], paint.text)]
        return tuple(spans)

    def _subject(self) -> str:
        view, moment = self.view, self.moment
        assert view is not None
        if view.quantity == "load":
            return f"Σ {view.prompts} prompts, {view.tokens} tokens: share that used the expert"
        located = moment.located
        text = plain(located[0].tokens[located[1]]) if located else ""
        return f"{moment.cursor.token} {text}"

    def _notes(self) -> str:
        """How the map had to be packed."""
        experts, per_row = self.experts, self.axis.per_row
        assert self.view is not None
        notes = [f"{self.view.top_k} of {self.view.num_experts}"]
        if experts.fold > 1:
            notes.append(f"{experts.fold} experts a {'dot' if per_row == _BRAILLE else 'column'}")
        if per_row > 1:
            notes.append(f"{per_row} layers a row")
        return " · ".join(notes)

    def _ruler(self) -> Line:
        """The experts' numbers; ▼ and the number stand at the cursor's column."""
        experts, paint, per_cell = self.experts, self.paint, self._columns_per_cell
        width = self.size.width - self.label_width
        step = next(
            s
            for s in (1, 2, 4, 8, 16, 32, 64, 128)
            if s // experts.fold * experts.width >= 4 * per_cell
        )
        marks = [
            ((column * experts.width) // per_cell, str(e))
            for e in experts.experts
            if e % step == 0 and (column := experts.column_of(e)) is not None
        ]
        line = ticks(marks, width)
        column = experts.column_of(self.moment.cursor.expert)
        indent: Span = (" " * self.label_width, paint.text)
        if column is None:
            return indent, (line, paint.muted)
        at = column * experts.width // per_cell
        return (
            indent,
            (line[:at], paint.muted),
            ("▼", paint.head),
            (line[at + 1 :], paint.muted),
        )

    def _readout(self) -> Line:
        """The value under the mouse, else at the cursor."""
        view, paint = self.view, self.paint
        cursor = self.moment.cursor
        layer, expert = self._hovered or (cursor.layer, cursor.expert)
        row = self._routing.get(layer)
        if view is None or row is None:
            return ((f"layer {layer}: dense", paint.muted),)
        value = view.values[row][expert]
        told = "no such expert" if np.isnan(value) else f"{value:.3f}"
        return ((f"L{layer} E{expert} ", paint.muted), (told, paint.head))
