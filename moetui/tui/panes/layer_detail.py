"""One router decision in full."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from moetui.analyses.layer_detail import ChosenExpert, LayerDetail, layer_detail
from moetui.tui.moment import Moment
from moetui.tui.panes.pane import LinePane
from moetui.tui.panes.reasons import no_routing
from moetui.tui.widgets.gauge import gauge
from moetui.tui.widgets.lines import Line, line_width

_ROW = 38  # cells of an expert's numbers
_SHORTEST_BAR, _LONGEST_BAR = 16, 32
_GAP = "   "


class LayerDetailPane(LinePane[LayerDetail]):
    """The chosen experts of the cursor's layer, and how sure the router was."""

    pane_id = "detail"
    title = "layer detail"
    help = (
        "The decision at the cursor's layer: experts by rank with router logit, the score that "
        "was ranked and the weight that was used; below the line those passed over. The margin is "
        "the gap between the last chosen and the first passed over, chance is what a router with "
        "random weights shows. Entropy is that of the router's whole distribution; unexplained is "
        "what of the logits the sources in pane 2 miss."
    )

    def view_of(self, moment: Moment) -> LayerDetail | None:
        """The decision at the cursor's token and layer."""
        return layer_detail(*moment.located, moment.cursor.layer) if moment.located else None

    def depends_on(self, moment: Moment) -> object:
        """The row and the layer looked at."""
        return moment.snapshot.model, moment.located, moment.cursor.layer

    def empty_reason(self, moment: Moment) -> str:
        """Why there is no decision."""
        model = moment.snapshot.model
        if model is None or not model.is_moe or moment.located is None:
            return no_routing(moment)
        routing = ", ".join(map(str, model.moe_layers[:8]))
        more = " …" if len(model.moe_layers) > 8 else ""
        return f"Layer {moment.cursor.layer} is dense. Layers that route: {routing}{more}."

    def lines(self, view: LayerDetail) -> list[Line]:
        """The summary, then the experts; those passed over stand beside where it is wide."""
        width, height = self.size
        summary = self._summary(view, width)
        room = max(height - len(summary) - 1, 1)
        beside = width >= 2 * _ROW + len(_GAP) + _SHORTEST_BAR
        column = min(width - _ROW, _ROW + _LONGEST_BAR) - len(_GAP) if beside else width
        chosen = [self._expert(n, e, view, column) for n, e in enumerate(view.chosen, 1)]
        passed = [self._passed(e) for e in view.passed_over]
        head: Line = ((f"{_heads('chosen')} {'weight':>7}", self.paint.muted),)
        if not beside:
            kept = chosen[: max(room - 1, 1)] if passed else chosen[:room]
            return [*summary, head, *kept, *self._fitting(passed, room - len(kept))]
        left: list[Line] = [head, *chosen]
        right_head: Line = ((_heads("passed over"), self.paint.muted),)
        right = [right_head, *self._fitting(passed, room)]
        pairs = zip_longest(left, right, fillvalue=())
        return [*summary, *(self._pair(a, b, column) for a, b in pairs)]

    def _summary(self, view: LayerDetail, width: int) -> list[Line]:
        """Facts about the decision, in as many lines as they need."""
        paint = self.paint
        margin = ("margin", "—", "every eligible expert ran")
        if view.margin is not None:
            chance = "" if view.margin_chance is None else f"chance {view.margin_chance:.3f}"
            margin = ("margin", f"{view.margin:.3f}", chance)
            if view.margin_chance is None and view.score_margin is not None:
                margin = ("score margin", f"{view.score_margin:.3f}", "not by the logits alone")
        even = f"{view.entropy_normalized:.0%} of even"
        facts = [
            (f"L{view.layer}", f"{len(view.chosen)} of {view.num_experts}", ""),
            ("Σ weights", f"{view.weight_sum:.3f}", ""),
            margin,
            ("entropy", f"{view.entropy:.2f} nats", even),
        ]
        if view.completeness is not None:
            facts.append(("unexplained", f"{view.completeness:.0e}", ""))
        lines: list[Line] = [()]
        for name, value, note in facts:
            told = f" ({note})" if note else ""
            fact: Line = ((f"{name} ", paint.muted), (value, paint.head), (told, paint.muted))
            if lines[-1] and line_width(lines[-1]) + len(_GAP) + line_width(fact) > width:
                lines.append(())
            gap: Line = ((_GAP, paint.text),) if lines[-1] else ()
            lines[-1] = (*lines[-1], *gap, *fact)
        return lines

    def _expert(self, rank: int, expert: ChosenExpert, view: LayerDetail, width: int) -> Line:
        """An expert that ran, with its weight as a bar over the largest."""
        paint, weight = self.paint, expert.weight or 0.0
        most = max((e.weight or 0.0 for e in view.chosen), default=1.0)
        room = min(_LONGEST_BAR, max(0, width - _ROW))
        return (
            *self._label(f"{rank:>2}", expert),
            (f"{_numbers(expert)} {weight:>7.3f} ", paint.text),
            *gauge(weight / most if most > 0 else 0.0, room, paint.ramp.strong, paint.faint),
        )

    def _passed(self, expert: ChosenExpert) -> Line:
        return *self._label(" –", expert), (_numbers(expert), self.paint.muted)

    def _fitting(self, passed: Sequence[Line], room: int) -> list[Line]:
        """At most `room` rows of those passed over; the last says how many it leaves out."""
        if len(passed) <= room or room < 2:
            return [*passed[: max(room, 0)]]
        more = len(passed) - room + 1
        return [*passed[: room - 1], ((f"   … and {more} more", self.paint.muted),)]

    def _label(self, rank: str, expert: ChosenExpert) -> Line:
        paint = self.paint
        here = expert.expert == self.moment.cursor.expert
        name = f"{'▶' if here else ' '}{rank}  E{expert.expert:<5} "
        return ((name, paint.cursor if here else paint.text),)

    def _pair(self, left: Line, right: Line, column: int) -> Line:
        return *left, (" " * (column - line_width(left)) + _GAP, self.paint.text), *right


def _heads(title: str) -> str:
    return f" {title:<11}{'logit':>8} {'score':>8}"


def _numbers(expert: ChosenExpert) -> str:
    score = "—" if expert.score is None else f"{expert.score:.4f}"
    return f"{expert.logit:>8.3f} {score:>8}"
