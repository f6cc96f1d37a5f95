"""The routing map: every layer's experts at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from textual import events

from moetui.analyses.routing_map import RoutingMap, difference_map, routing_map, session_map
from moetui.tui.moment import Mode, Moment
from moetui.tui.palette import BARS, HANGING, LEVELS, Ramp
from moetui.tui.panes.linked import LayerPane
from moetui.tui.panes.pane import Pane
from moetui.tui.panes.reasons import no_routing
from moetui.tui.text import fitted, plain
from moetui.tui.widgets.axes import ExpertAxis, LayerAxis, expert_axis
from moetui.tui.widgets.heat import (
    ABSENT,
    Levels,
    bar_row,
    dot_row,
    folded,
    half_row,
    levels_of,
    signed_levels,
    strongest,
)
from moetui.tui.widgets.lines import Line, Span, line_width, spread, ticks

_BRAILLE = 4
# One expert in the list beside the map, as in "  127 0.35" or "  127 -0.35".
_ITEMS = {"weight": 10, "difference": 11}
_LIST_TITLES = {"weight": "  chosen, best first", "difference": "  changed most"}
# Cells between two numbers of the ruler.
_TICK = 4


class RoutingMapPane(LayerPane[RoutingMap]):
    """Layers × experts: the weights of the cursor's token, the session's load, or B − A."""

    pane_id = "map"
    title = "routing map"
    help = (
        "Rows are layers, columns are experts. The higher and brighter a bar, the larger the "
        "weight that the expert's output got; in Σ, the share of tokens that used the expert. "
        "A dot is an expert that was not used. In Δ, bars rise where the cursor's token B gave an "
        "expert more weight than A, and dots hang where it gave less. The scale is a square root "
        "(√), so that small weights show; even is the mean weight of the chosen, or in Σ k/E. Rows "
        "and columns are packed where room is short."
    )
    PACKINGS = (1, 2, _BRAILLE)

    _hovered: tuple[int, int] | None = None
    _levelled: tuple[RoutingMap, bool, Levels] | None = None

    def view_of(self, moment: Moment) -> RoutingMap | None:
        """The map at the cursor's token, of the session in Σ mode, of B − A in Δ mode."""
        model, located = moment.snapshot.model, moment.located
        if model is None or not model.is_moe:
            return None
        if moment.mode is Mode.SESSION:
            return session_map(moment.runs, model.num_layers) if moment.runs else None
        if moment.mode is Mode.DIFFERENCE and moment.pair:
            a, b = moment.pair
            return difference_map(*a.located, *b.located)
        return routing_map(*located) if located else None

    def depends_on(self, moment: Moment) -> object:
        """The row looked at, the runs, or A and B."""
        basis: dict[Mode, object] = {Mode.SESSION: moment.runs, Mode.DIFFERENCE: moment.pair}
        return moment.snapshot.model, moment.mode, basis.get(moment.mode, moment.located)

    def empty_reason(self, moment: Moment) -> str:
        """Why there is no map."""
        return no_routing(moment)

    def num_layers(self, view: RoutingMap) -> int:
        """N of the model in view."""
        return view.num_layers

    def packings(self, view: RoutingMap) -> tuple[int, ...]:
        """Differences have a row for each layer: a packed one could not show their signs."""
        return (1,) if view.quantity == "difference" else super().packings(view)

    def experts(self, view: RoutingMap, axis: LayerAxis) -> ExpertAxis:
        """Which expert stands on which column; in braille two columns share a cell."""
        room, cursor = self.size.width - self.label_width(view), self.moment.cursor.expert
        if axis.per_row == _BRAILLE:
            return expert_axis(view.num_experts, 2 * room, cursor, widest=1)
        return expert_axis(view.num_experts, room, cursor)

    def heading(self, view: RoutingMap) -> tuple[Line, Line]:
        """What the map shows and how it is packed; the experts' numbers."""
        axis = self.axis(view)
        experts = self.experts(view, axis)
        return self._subject(view, axis, experts), self._ruler(view, axis, experts)

    def layer_rows(self, view: RoutingMap, axis: LayerAxis) -> Sequence[Line]:
        """The map itself."""
        experts = self.experts(view, axis)
        fold = strongest if view.quantity == "difference" else folded
        levels, ramp = fold(self._levels(view, axis), experts), self._ramp(view)
        column = experts.column_of(self.moment.cursor.expert)
        here = axis.row_of(self.moment.cursor.layer)
        rows = [
            self._cells(levels, axis, y, experts, ramp, column if y == here else None)
            for y in range(axis.rows)
        ]
        if axis.per_row > 1:
            return rows
        index = {layer: row for row, layer in enumerate(view.layers)}
        return [
            (*row, *self._beside(view, experts, index.get(axis.layers(y).start), y == here))
            for y, row in enumerate(rows)
        ]

    def legend(self, view: RoutingMap) -> Line:
        """The scale, the level of an even router, and the value at the cursor."""
        if view.quantity == "difference":
            return spread(self._signed_scale(view), self._readout(view), self.size.width)
        paint = self.paint
        even = float(np.nanmean(view.uniform)) if view.uniform else float("nan")
        scale: Line = (
            ("0 ", paint.muted),
            *((BARS[n], paint.ramp.cells[n]) for n in range(len(BARS))),
            (f" {view.full:g}", paint.text),
            (" √", paint.faint),
            (f"  even {even:.3f}", paint.muted),
        )
        return spread(scale, self._readout(view), self.size.width)

    def _signed_scale(self, view: RoutingMap) -> Line:
        """Less at the left, more at the right."""
        paint, cells = self.paint, self.paint.signed.cells
        less = [(HANGING[n], cells[LEVELS + n]) for n in reversed(range(len(HANGING)))]
        return (
            (f"−{view.full:g} ", paint.text),
            *less,
            *((BARS[n], cells[n]) for n in range(LEVELS)),
            (f" +{view.full:g}", paint.text),
            (" √", paint.faint),
            ("  B − A in weight", paint.muted),
        )

    def _ramp(self, view: RoutingMap) -> Ramp:
        return self.paint.signed if view.quantity == "difference" else self.paint.ramp

    def pointed(self, event: events.MouseEvent) -> Pane.CursorMoved | None:
        """The layer and, on the map itself, the expert under the mouse."""
        cell = self._cell_at(event)
        return self.CursorMoved(layer=cell[0], expert=cell[1]) if cell else super().pointed(event)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Show the value under the mouse in the legend."""
        self._hover(self._cell_at(event))

    def on_leave(self) -> None:
        """Show the value at the cursor again."""
        self._hover(None)

    def _hover(self, cell: tuple[int, int] | None) -> None:
        if cell != self._hovered:
            self._hovered = cell
            self.draw()

    def _cell_at(self, event: events.MouseEvent) -> tuple[int, int] | None:
        """Layer and expert under the mouse."""
        view, layer, at = self.view, self.layer_at(event), event.get_content_offset(self)
        if view is None or layer is None or at is None:
            return None
        axis = self.axis(view)
        x = (at.x - self.label_width(view)) * (2 if axis.per_row == _BRAILLE else 1)
        expert = self.experts(view, axis).expert_at(x)
        return None if expert is None else (layer, expert)

    def _levels(self, view: RoutingMap, axis: LayerAxis) -> Levels:
        """[N, E], made once for a view; decoder layers without routing are absent."""
        busy = self._only_busy(view, axis)
        if self._levelled is None or self._levelled[0] is not view or self._levelled[1] != busy:
            values = np.full((view.num_layers, view.num_experts), np.nan)
            values[view.layers] = view.values
            make = signed_levels if view.quantity == "difference" else levels_of
            levels = make(values, view.full)
            if busy:
                even = np.full((view.num_layers, 1), np.nan)
                even[view.layers, 0] = view.uniform
                levels[values < even] = 0
            self._levelled = view, busy, levels
        return self._levelled[2]

    def _only_busy(self, view: RoutingMap, axis: LayerAxis) -> bool:
        """Whether only experts above the even level are drawn: where a shape can say no more than
        yes or no, nearly every expert of a session would be a yes."""
        shapes = axis.per_row == _BRAILLE or (axis.per_row > 1 and not self.paint.ramp.coloured)
        return view.quantity == "load" and shapes

    def _cells(
        self,
        levels: Levels,
        axis: LayerAxis,
        y: int,
        experts: ExpertAxis,
        ramp: Ramp,
        marked: int | None,
    ) -> Line:
        """One row of the map, from levels [N, columns]."""
        layers = axis.layers(y)
        shown = levels[layers.start : layers.stop]
        if axis.per_row == 1:
            if (shown == ABSENT).all():
                return ((fitted("· dense ·", experts.cells), self.paint.faint),)
            return bar_row(shown[0], experts.width, ramp, marked)
        missing = axis.per_row - len(shown)
        shown = np.pad(shown, ((0, missing), (0, 0)), constant_values=ABSENT)
        if axis.per_row == _BRAILLE:
            shown = np.pad(shown, ((0, 0), (0, experts.columns % 2)), constant_values=ABSENT)
            return dot_row(shown, ramp, None if marked is None else marked // 2)
        return half_row(shown, experts.width, ramp, marked)

    def _beside(self, view: RoutingMap, experts: ExpertAxis, row: int | None, here: bool) -> Line:
        """The chosen experts as numbers, where the map leaves room."""
        item = _ITEMS.get(view.quantity)
        if row is None or item is None:
            return ()
        room = (self.size.width - self.label_width(view) - experts.cells) // item
        if room < 2:
            return ()
        paint, form = self.paint, "<+5.2f" if view.quantity == "difference" else "<4.2f"
        spans: list[Span] = []
        for expert, weight in list(zip(view.chosen[row], view.weights[row], strict=True))[:room]:
            marked = here and expert == self.moment.cursor.expert
            style = paint.head if marked else paint.muted
            spans += [(f"{expert:>5} ", style), (format(weight, form), paint.text)]
        return tuple(spans)

    def _subject(self, view: RoutingMap, axis: LayerAxis, experts: ExpertAxis) -> Line:
        """What is shown at the left; at the right as many notes on the packing as fit."""
        paint, moment, width = self.paint, self.moment, self.size.width
        left: Line = ((f"Σ load of {view.prompts} prompts, {view.tokens} tokens", paint.head),)
        if view.quantity == "weight" and moment.located:
            trace, index = moment.located
            text = plain(trace.tokens[index])
            left = ((f"weights at {moment.cursor.token} ", paint.muted), (text, paint.head))
        if view.quantity == "difference" and moment.pair:
            left = ()
            for side, context in zip(("B", " − A"), reversed(moment.pair), strict=True):
                trace, index = context.located
                at: Span = (f"{side} {context.token} ", paint.muted)
                left = (*left, at, (plain(trace.tokens[index]), paint.head))
        notes = self._notes(view, axis, experts)
        while notes and line_width(left) + len(" · ".join(notes)) >= width:
            notes.pop(0)
        return spread(left, ((" · ".join(notes), paint.muted),), width)

    def _notes(self, view: RoutingMap, axis: LayerAxis, experts: ExpertAxis) -> list[str]:
        notes = [f"{view.top_k} of {view.num_experts} a layer"]
        if experts.fold > 1:
            column = "dot" if axis.per_row == _BRAILLE else "column"
            notes.append(f"{experts.fold} experts a {column}")
        if axis.per_row > 1:
            notes.append(f"{axis.per_row} layers a row")
        if self._only_busy(view, axis):
            notes.append("above even only")
        if len(experts.experts) < view.num_experts:
            notes.append(f"E{experts.first}–{experts.experts.stop - 1}")
        return notes

    def _ruler(self, view: RoutingMap, axis: LayerAxis, experts: ExpertAxis) -> Line:
        """The experts' numbers; ▼ stands over the cursor's column."""
        paint, per_cell = self.paint, 2 if axis.per_row == _BRAILLE else 1
        step = 1
        while step * experts.width < _TICK * per_cell * experts.fold:
            step *= 2
        marks = [
            (column * experts.width // per_cell, str(expert))
            for expert in experts.experts
            if expert % step == 0 and (column := experts.column_of(expert)) is not None
        ]
        width = self.size.width - self.label_width(view)
        line = ticks(marks, -(-experts.cells // per_cell))
        item = _ITEMS.get(view.quantity)
        if item and width - len(line) >= 2 * item and axis.per_row == 1:
            line += _LIST_TITLES[view.quantity]
        indent: Span = (" " * self.label_width(view), paint.text)
        column = experts.column_of(self.moment.cursor.expert)
        if column is None:
            return indent, (line, paint.muted)
        at = column * experts.width // per_cell
        return indent, (line[:at], paint.muted), ("▼", paint.head), (line[at + 1 :], paint.muted)

    def _readout(self, view: RoutingMap) -> Line:
        """The value under the mouse, else at the cursor."""
        paint, cursor = self.paint, self.moment.cursor
        layer, expert = self._hovered or (cursor.layer, cursor.expert)
        if layer not in view.layers:
            return ((f"L{layer} is dense", paint.muted),)
        value = view.values[view.layers.index(layer)][expert]
        form = "+.3f" if view.quantity == "difference" else ".3f"
        told = "no such expert" if np.isnan(value) else format(value, form)
        return ((f"L{layer} E{expert} ", paint.muted), (told, paint.head))
