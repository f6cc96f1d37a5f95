"""The logit lens: what the model would say if it stopped after each layer."""

from __future__ import annotations

from collections.abc import Sequence

from moetui.analyses.logit_lens import Guess, LensView, logit_lens
from moetui.tui.moment import Moment
from moetui.tui.panes.linked import LayerPane, spread
from moetui.tui.panes.reasons import nothing_yet
from moetui.tui.text import plain
from moetui.tui.widgets.axes import LayerAxis
from moetui.tui.widgets.lines import Line, Span

_TOKEN = 12
_GUESS = _TOKEN + 5  # " .97 "
_GAUGE = 8
EIGHTHS = " ▏▎▍▌▋▊▉█"


class LensPane(LayerPane):
    """Top next tokens after every layer, and the way of the model's answer through them."""

    pane_id = "lens"
    title = "logit lens"
    help = (
        "Each layer's best next tokens through the model's own final norm and head. ● marks the "
        "layers from which the model's answer stays on top; `rank` is the answer's rank."
    )

    view: LensView | None = None

    def view_of(self, moment: Moment) -> LensView | None:
        """The lens at the cursor's token."""
        return logit_lens(*moment.located) if moment.located else None

    def empty_reason(self, moment: Moment) -> str:
        """Why there is no lens here."""
        model, located = moment.snapshot.model, moment.located
        if model is None or located is None:
            return nothing_yet(moment)
        if model.lens_error:
            return model.lens_error
        trace, _ = located
        if trace.lens is None or not len(trace.lens.positions):
            return "This trace holds no logit lens. Run the prompt here to see one."
        first, last = int(trace.lens.positions[0]), int(trace.lens.positions[-1])
        where = f"token {last}" if first == last else f"tokens {first} to {last}"
        return (
            f"The lens was not read at token {moment.cursor.token}: of this prompt it was read at "
            f"{where}. Move there with ← →, or to a generated token."
        )

    def num_layers(self) -> int:
        """N of the model in view."""
        return len(self.view.layers) if self.view else 0

    def heading(self) -> tuple[Line, Line]:
        """The answer and where it settles; the heads of the columns."""
        view, paint = self.view, self.paint
        assert view is not None
        answer = f"answer {plain(view.answer.text)} {view.answer.probability:.2f}"
        settled = f"on top from layer {view.settled}"
        heads = f"{'':{self.label_width}}  {'top token':<{_TOKEN}}    p {'':{_GAUGE}} {'rank':>5}"
        line = spread(((answer, paint.head),), ((settled, paint.muted),), self.size.width)
        return line, ((heads, paint.muted),)

    def layer_rows(self, axis: LayerAxis) -> Sequence[Line]:
        """A row for every layer."""
        return [self._row(axis.layers(y).start) for y in range(axis.rows)]

    def legend(self) -> Line:
        """What a model that knows nothing shows."""
        view, paint = self.view, self.paint
        assert view is not None
        size = view.vocabulary
        told = f" chance: p {1 / size:.0e}, rank {size // 2} of {size}"
        return ((told, paint.muted),)

    def _row(self, layer: int) -> Line:
        view, paint = self.view, self.paint
        assert view is not None
        best, *others = view.top[layer]
        settled = layer >= view.settled
        mark = "● " if settled else "  "
        spans: list[Span] = [
            (mark, paint.head),
            (plain(best.text, _TOKEN), paint.head if settled else paint.text),
            (f" {_probability(best.probability)} ", paint.text),
            (gauge(best.probability, _GAUGE), paint.muted),
            (f" {view.answer_rank[layer] + 1:>5}", paint.text if settled else paint.muted),
        ]
        room = self.size.width - self.label_width - _TOKEN - _GAUGE - 14
        return (*spans, *self._others(others, room))

    def _others(self, guesses: Sequence[Guess], room: int) -> list[Span]:
        spans: list[Span] = []
        for guess in guesses:
            room -= _GUESS + 1
            if room < 0:
                break
            spans += [
                ("  " + plain(guess.text, _TOKEN), self.paint.muted),
                (_probability(guess.probability), self.paint.faint),
            ]
        return spans


def _probability(p: float) -> str:
    """Four cells: .973 or 1.00."""
    return "1.00" if p >= 0.9995 else f"{p:.3f}"[1:]


def gauge(share: float, width: int) -> str:
    """A bar of `share` (0 … 1) of `width` cells, in eighths."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, part = divmod(eighths, 8)
    text = "█" * full + (EIGHTHS[part] if part else "")
    return text + " " * (width - len(text))
