"""Experts that hardly work, of the whole session."""

from __future__ import annotations

from moetui.analyses.cold_experts import ColdExperts, Evenness, LayerLoad, cold_experts
from moetui.tui.moment import Moment
from moetui.tui.panes.pane import LinePane
from moetui.tui.panes.reasons import no_routing
from moetui.tui.widgets.lines import Line


class ColdExpertsPane(LinePane):
    """Never fired, little used, and how even the load is: each beside its chance level."""

    pane_id = "cold"
    title = "cold experts"
    help = (
        "Counts over the session's prompts; in brackets what an even router would show on as many "
        "tokens. From 20 prompts on, cold means: the upper limit is under the threshold."
    )

    view: ColdExperts | None = None

    def view_of(self, moment: Moment) -> ColdExperts | None:
        """The session's load."""
        return cold_experts(moment.runs, intervals=False)

    def empty_reason(self, moment: Moment) -> str:
        """Why nothing is counted."""
        return no_routing(moment)

    def lines(self) -> list[Line]:
        """All layers together, then one row a layer."""
        view, paint = self.view, self.paint
        assert view is not None
        title = f"{view.prompts} prompts, {view.prefill_tokens} + {view.decode_tokens} tokens"
        rows: list[Line] = [((title, paint.head), (f"  {view.caveat or ''}", paint.muted))]
        heads = "".join(f"{'<' + t.name:>12}" for t in view.thresholds)
        rows.append(
            ((f"{'layer':>6}{'never':>12}{heads}{'for 90%':>12}{'entropy':>14}", paint.muted),)
        )
        rows += [self._row(load) for load in (view.pooled, *view.layers)]
        return rows[: self.size.height]

    def _row(self, load: LayerLoad) -> Line:
        name = "all" if load.layer is None else str(load.layer)
        cells = [(load.never_fired, load.never_fired_chance)]
        cells += list(zip(load.below, load.below_chance, strict=True))
        cells.append((load.for_90, load.for_90_chance))
        text = "".join(f"{f'{n} ({chance:.0f})':>12}" for n, chance in cells)
        here = load.layer == self.moment.cursor.layer
        style = self.paint.head if here or load.layer is None else self.paint.text
        return ((f"{'▶' if here else ' '}{name:>5}{text}{_told(load.all_tokens):>14}", style),)


def _told(evenness: Evenness) -> str:
    if evenness.entropy is None or evenness.chance is None:
        return "—"
    return f"{evenness.entropy:.2f} ({evenness.chance:.2f})"
