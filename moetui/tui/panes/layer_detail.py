"""One router decision in full."""

from __future__ import annotations

from moetui.analyses.layer_detail import ChosenExpert, LayerDetail, layer_detail
from moetui.tui.moment import Moment
from moetui.tui.panes.logit_lens import gauge
from moetui.tui.panes.pane import LinePane
from moetui.tui.panes.reasons import no_routing
from moetui.tui.widgets.lines import Line

_FIXED = 36


class LayerDetailPane(LinePane):
    """The chosen experts of the cursor's layer, and how sure the router was."""

    pane_id = "detail"
    title = "layer"
    help = (
        "The decision at the cursor's layer: experts by rank with router logit, the score that was "
        "ranked and the weight that was used; the margin to the best expert that was not chosen."
    )

    view: LayerDetail | None = None

    def view_of(self, moment: Moment) -> LayerDetail | None:
        """The decision at the cursor's token and layer."""
        return layer_detail(*moment.located, moment.cursor.layer) if moment.located else None

    def empty_reason(self, moment: Moment) -> str:
        """Why there is no decision."""
        model = moment.snapshot.model
        if model is None or not model.is_moe or moment.located is None:
            return no_routing(moment)
        routing = ", ".join(map(str, model.moe_layers[:8]))
        more = " …" if len(model.moe_layers) > 8 else ""
        return f"Layer {moment.cursor.layer} is dense. Layers that route: {routing}{more}."

    def lines(self) -> list[Line]:
        """Summary above, one row an expert below."""
        view, paint = self.view, self.paint
        assert view is not None
        rows = [*self._summary(view), ((self._heads(), paint.muted),)]
        rows += [self._expert(rank, chosen) for rank, chosen in enumerate(view.chosen, 1)]
        if view.runner_up is not None:
            rows.append(self._expert(None, view.runner_up))
        return rows

    def _summary(self, view: LayerDetail) -> list[Line]:
        paint = self.paint
        title = f"layer {view.layer}  {len(view.chosen)} of {view.num_experts}"
        margin = "margin — (every eligible expert ran)"
        if view.margin is not None:
            chance = "" if view.margin_chance is None else f" (chance {view.margin_chance:.3f})"
            margin = f"margin {view.margin:.3f}{chance}"
        entropy = f"entropy {view.entropy:.2f} nats, {view.entropy_normalized:.0%} of even"
        complete = ""
        if view.completeness is not None:
            complete = f"parts miss {view.completeness:.0e}"
        return [
            ((title, paint.head), (f"   Σ weights {view.weight_sum:.3f}", paint.muted)),
            ((f"{margin}   {entropy}   {complete}", paint.text),),
        ]

    def _heads(self) -> str:
        return f"{'':3}{'expert':>6} {'logit':>8} {'score':>8} {'weight':>7}"

    def _expert(self, rank: int | None, expert: ChosenExpert) -> Line:
        paint = self.paint
        here = expert.expert == self.moment.cursor.expert
        score = "—" if expert.score is None else f"{expert.score:.4f}"
        weight = "" if expert.weight is None else f"{expert.weight:.3f}"
        pointer = "▶" if here else " "
        head = f"{pointer}{rank or '–':>2} {expert.expert:>5}"
        numbers = f" {expert.logit:>8.3f} {score:>8} {weight:>7} "
        if expert.weight is None:
            note = (numbers + "not chosen: next by score", paint.muted)
            return (head, paint.cursor if here else paint.muted), note
        room = min(40, max(0, self.size.width - _FIXED))
        bar = gauge(expert.weight / max(self._most, 1e-9), room)
        return (
            (head, paint.cursor if here else paint.text),
            (numbers, paint.text),
            (bar, paint.ramp.cells[5]),
        )

    @property
    def _most(self) -> float:
        weights = [c.weight for c in self.view.chosen if c.weight is not None] if self.view else []
        return max(weights, default=1.0)
