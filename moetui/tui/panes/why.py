"""Why each layer's router decided as it did: one stacked bar of signed shares a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from moetui.analyses.why import Why, why
from moetui.tui.moment import Moment
from moetui.tui.palette import PartMark, part_marks
from moetui.tui.panes.linked import LayerPane
from moetui.tui.panes.reasons import no_routing, sentence
from moetui.tui.text import plain
from moetui.tui.widgets.axes import LayerAxis
from moetui.tui.widgets.lines import Line, Span, line_width, spread, ticks
from moetui.tui.widgets.stack import Scale, stack

_SHARE = 5  # cells of a share in percent, as in "  -12"
_SIZE = 6  # cells of what unrelated parts would give, as in " (123)"
_SEED = 6
_LEAST_BAR = 14
# The sources in fewer cells.
_SHORT = {
    "embedding": "embed",
    "attention": "attn",
    "attention, combined": "attn",
    "routed experts": "routed",
    "experts, combined": "experts",
    "experts and attention, combined": "experts+attn",
    "shared expert": "shared",
    "dense MLP": "dense",
    "static bias": "bias",
}


@dataclass(frozen=True)
class _Columns:
    """Cells of the bar, and whether shares and unrelated shares stand beside it as numbers."""

    bar: int
    shares: bool
    sizes: bool
    seed: bool


class WhyPane(LayerPane[Why]):
    """Signed shares of the router's decision by source."""

    pane_id = "why"
    title = "why"
    help = (
        "Shares of each router's decision by source, in percent; they sum to 100. What stands "
        "left of the line opposed the decision. In brackets: the shares of parts of these sizes "
        "that neither help nor oppose each other. Below: how many times larger the parts are than "
        "their sum (cancels; beside it for unrelated parts), and what of the logits they miss "
        "(unexplained). `seed` is the published ratio of norms ‖Wd‖ / (‖We‖ + ‖Wd‖), which is no "
        "share of a sum."
    )

    def view_of(self, moment: Moment) -> Why | None:
        """The shares at the cursor's token."""
        return why(*moment.located) if moment.located else None

    def depends_on(self, moment: Moment) -> object:
        """The row looked at."""
        return moment.snapshot.model, moment.located

    def empty_reason(self, moment: Moment) -> str:
        """Why there are no shares."""
        model = moment.snapshot.model
        if model is None or not model.is_moe or moment.located is None:
            return no_routing(moment)
        if model.decomposition_error is not None:
            return sentence(model.decomposition_error)
        return (
            "This trace holds no split of the router's logits by source. "
            "Run the prompt with a model to see one."
        )

    def num_layers(self, view: Why) -> int:
        """N of the model in view."""
        return view.num_layers

    def heading(self, view: Why) -> tuple[Line, Line]:
        """The sources with their letters; zero, 100 % and the heads of the columns."""
        paint, marks, columns = self.paint, self._marks(view), self._columns(view)
        key = self._key(view)
        scale = self._scale(view, columns)
        at = scale.left + round(scale.cells_per_share)
        bar = ticks([(scale.left, "0"), (max(at - 3, 0), "100%")], columns.bar)
        heads = ""
        for mark in marks:
            heads += f"{mark.letter:>{_SHARE}}" if columns.shares else ""
            heads += " " * _SIZE if columns.sizes else ""
        heads += f"{'seed':>{_SEED}}" if columns.seed else ""
        return key, ((" " * self.label_width(view) + bar + heads, paint.muted),)

    def _key(self, view: Why) -> Line:
        """The letters and what they stand for, in fewer words where room is short: a source whose
        name is cut off is one that nobody can look up."""
        short = [_SHORT.get(name, name) for name in view.parts]
        wordings = [
            tuple(
                span
                for mark, name in zip(self._marks(view), names, strict=True)
                for span in (
                    (f" {mark.letter} ", mark.style),
                    (f" {plain(name)}{gap}", self.paint.muted),
                )
            )
            for names, gap in ((view.parts, "  "), (short, "  "), (short, " "), (short, ""))
        ]
        room = self.size.width
        return next((key for key in wordings if line_width(key) <= room), wordings[-1])

    def layer_rows(self, view: Why, axis: LayerAxis) -> Sequence[Line]:
        """A bar and its numbers for every layer."""
        columns, marks = self._columns(view), self._marks(view)
        scale = self._scale(view, columns)
        index = {layer: row for row, layer in enumerate(view.layers)}
        rows: list[Line] = []
        for y in range(axis.rows):
            row = index.get(axis.layers(y).start)
            if row is None:
                rows.append((("· dense ·", self.paint.faint),))
            else:
                bar = stack(view.shares[row], marks, scale, self.paint.faint)
                rows.append((*bar, *self._numbers(view, row, columns)))
        return rows

    def legend(self, view: Why) -> Line:
        """How the parts of the cursor's layer go together."""
        paint, layer = self.paint, self.moment.cursor.layer
        if layer not in view.layers:
            return ((f"L{layer} is dense", paint.muted),)
        row = view.layers.index(layer)
        cancelled = _told(view.cancellation[row], ".2f")
        unrelated = f" (unrelated {_told(view.cancellation_unrelated[row], '.2f')}×)"
        missed = _told(view.completeness[row], ".0e")
        left: Line = ((f"L{layer} cancels ", paint.muted), (f"{cancelled}×", paint.text))
        right: Line = (("unexplained ", paint.muted), (missed, paint.text))
        # The chance level gives way first, completeness never before it.
        if line_width(left) + len(unrelated) + line_width(right) < self.size.width:
            left = (*left, (unrelated, paint.muted))
        return spread(left, right, self.size.width)

    def _marks(self, view: Why) -> tuple[PartMark, ...]:
        paint = self.paint
        return part_marks(tuple(view.parts), paint.depth, paint.dark, paint.text)

    def _columns(self, view: Why) -> _Columns:
        """As many columns of numbers as leave room for a bar."""
        G, seed = len(view.parts), view.seed_ratio is not None
        room = self.size.width - self.label_width(view) - (_SEED if seed else 0)
        shares = room - _SHARE * G >= _LEAST_BAR
        sizes = room - (_SHARE + _SIZE) * G >= 2 * _LEAST_BAR
        taken = (_SHARE * shares + _SIZE * sizes) * G
        return _Columns(max(room - taken, 1), shares, sizes, seed)

    def _scale(self, view: Why, columns: _Columns) -> Scale:
        """One scale for all layers, so that bars compare."""
        rows = [[s for s in row if math.isfinite(s)] for row in view.shares]
        left = max((-sum(s for s in row if s < 0) for row in rows), default=0.0)
        right = max((sum(s for s in row if s > 0) for row in rows), default=1.0)
        return Scale.fitting(columns.bar, left, max(right, 1.0))

    def _numbers(self, view: Why, row: int, columns: _Columns) -> Line:
        paint = self.paint
        spans: list[Span] = []
        for share, size in zip(view.shares[row], view.sizes[row], strict=True):
            if columns.shares:
                style = paint.head if share < 0 else paint.text
                spans.append((f"{_percent(share):>{_SHARE}}", style))
            if columns.sizes:
                spans.append((f"{f'({_percent(size)})':>{_SIZE}}", paint.faint))
        if columns.seed and view.seed_ratio is not None:
            spans.append((f"{_told(view.seed_ratio[row], '.2f'):>{_SEED}}", paint.muted))
        return tuple(spans)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if math.isfinite(share) else "—"


def _told(number: float, form: str) -> str:
    return format(number, form) if math.isfinite(number) else "—"
