"""Why each layer's router decided as it did: one stacked bar of signed shares a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moetui.analyses.why import Why, why
from moetui.tui.moment import Moment
from moetui.tui.palette import PartMark, part_marks
from moetui.tui.panes.linked import LayerPane, spread
from moetui.tui.panes.reasons import no_routing
from moetui.tui.text import fitted, plain
from moetui.tui.widgets.axes import LayerAxis
from moetui.tui.widgets.lines import Line, Span
from moetui.tui.widgets.stack import stack

_NUMBER = 5  # cells of a share in percent: " -123"
_LEAST_BAR = 12


class WhyPane(LayerPane):
    """Signed shares of the router's decision by source."""

    pane_id = "why"
    title = "why"
    help = (
        "Shares of each router's decision by source: they sum to 100 %; what stands left of the "
        "line worked against the decision. `seed` is the published ratio of norms, no share."
    )

    view: Why | None = None

    def view_of(self, moment: Moment) -> Why | None:
        """The shares at the cursor's token."""
        return why(*moment.located) if moment.located else None

    def empty_reason(self, moment: Moment) -> str:
        """Why there are no shares."""
        model = moment.snapshot.model
        if model is None or not model.is_moe or moment.located is None:
            return no_routing(moment)
        return model.decomposition_error or (
            "This trace holds no split of the router's logits by source. "
            "Traces made by moetui hold one; run the prompt here to see it."
        )

    def num_layers(self) -> int:
        """N of the model in view."""
        return self.view.num_layers if self.view else 0

    def heading(self) -> tuple[Line, Line]:
        """The sources with their letters; the heads of the columns."""
        view, paint = self.view, self.paint
        assert view is not None
        spans: list[Span] = []
        for mark, name in zip(self._marks, view.parts, strict=True):
            spans += [(f" {mark.letter} ", mark.style), (f" {plain(name)}  ", paint.muted)]
        heads = "".join(f"{mark.letter:>{_NUMBER}}" for mark in self._marks)
        heads = heads + self._tail_heads() if self._numbers else self._tail_heads()
        at = " " * (self.label_width + self._bar + 1)
        return tuple(spans), ((at + heads, paint.muted),)

    def layer_rows(self, axis: LayerAxis) -> Sequence[Line]:
        """A bar and its numbers for every layer."""
        assert self.view is not None
        index = {layer: row for row, layer in enumerate(self.view.layers)}
        return [
            self._row(index[layer]) if (layer := axis.layers(y).start) in index else self._dense()
            for y in range(axis.rows)
        ]

    def legend(self) -> Line:
        """The decision at the cursor in words."""
        view, paint, layer = self.view, self.paint, self.moment.cursor.layer
        assert view is not None
        if layer not in view.layers:
            return ((f" layer {layer}: dense", paint.muted),)
        row = view.layers.index(layer)
        told = (
            f" L{layer} cancels {_told(view.cancellation[row], '.1f')}× "
            f"(unrelated {_told(view.cancellation_unrelated[row], '.1f')}×)"
        )
        complete = f"parts miss {_told(view.completeness[row], '.0e')}"
        return spread(((told, paint.muted),), ((complete, paint.muted),), self.size.width)

    @property
    def _marks(self) -> list[PartMark]:
        assert self.view is not None
        return part_marks(self.view.parts, self.paint.depth, self.paint.text)

    @property
    def _numbers(self) -> bool:
        """Whether the shares fit as numbers beside the bar."""
        assert self.view is not None
        room = self.size.width - self.label_width - len(self._tail_heads()) - 1
        return room - _NUMBER * len(self.view.parts) >= _LEAST_BAR

    @property
    def _bar(self) -> int:
        """Cells of the bars."""
        assert self.view is not None
        numbers = _NUMBER * len(self.view.parts) if self._numbers else 0
        return max(1, self.size.width - self.label_width - len(self._tail_heads()) - numbers - 1)

    def _tail_heads(self) -> str:
        return "   seed" if self.view and self.view.seed_ratio is not None else ""

    def _row(self, row: int) -> Line:
        view, paint = self.view, self.paint
        assert view is not None
        shares = view.shares[row]
        bar = stack(shares, self._marks, self._bar, self._reach, paint.faint)
        numbers = "".join(f"{_percent(s):>{_NUMBER}}" for s in shares) if self._numbers else ""
        seed = ""
        if view.seed_ratio is not None:
            seed = f"   {_told(view.seed_ratio[row], '4.2f')}"
        return (*bar, (" " + numbers, paint.text), (seed, paint.muted))

    def _dense(self) -> Line:
        return ((fitted("dense", self._bar), self.paint.faint),)

    @property
    def _reach(self) -> tuple[float, float]:
        """How far the bars go left and right of zero, over all layers: one scale for the pane."""
        assert self.view is not None
        rows = [[s for s in row if math.isfinite(s)] for row in self.view.shares]
        left = max((-sum(s for s in row if s < 0) for row in rows), default=0.0)
        right = max((sum(s for s in row if s > 0) for row in rows), default=1.0)
        return left, max(right, 1.0)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if math.isfinite(share) else "—"


def _told(number: float, form: str) -> str:
    return format(number, form) if math.isfinite(number) else "—"
