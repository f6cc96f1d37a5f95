"""The logit lens: what the model would say if it stopped after each layer."""

from __future__ import annotations

from collections.abc import Sequence

from moetui.analyses.logit_lens import Guess, LensView, logit_lens
from moetui.tui.moment import Moment
from moetui.tui.panes.linked import LayerPane
from moetui.tui.panes.reasons import nothing_yet, sentence
from moetui.tui.text import fitted, plain
from moetui.tui.widgets.axes import LayerAxis
from moetui.tui.widgets.gauge import gauge, probability
from moetui.tui.widgets.lines import Line, Span, spread

_TOKEN, _LONGEST_TOKEN = 12, 24
_GAUGE = 8
_NEXT = _TOKEN + 6  # a further guess, as in "  ·Paris       .123"
_NTH = {2: "2nd", 3: "3rd"}
_ANSWER = 14  # rank, its change and the answer's probability, as in "  12345 ↑ .123"


class LensPane(LayerPane[LensView]):
    """Top next tokens after every layer, and the way of the model's answer through them."""

    pane_id = "lens"
    title = "logit lens"
    help = (
        "Each layer's best next tokens, read through the model's own final norm and head. ● marks "
        "the layers from which the model's answer stays on top. `rank` and `p` follow the answer "
        "through the layers (1 = top), ↑ and ↓ say that it rose or fell. The last line is what a "
        "token picked at random would show."
    )

    def view_of(self, moment: Moment) -> LensView | None:
        """The lens at the cursor's token."""
        return logit_lens(*moment.located) if moment.located else None

    def depends_on(self, moment: Moment) -> object:
        """The row looked at."""
        return moment.snapshot.model, moment.located

    def empty_reason(self, moment: Moment) -> str:
        """Why there is no lens here."""
        model, located = moment.snapshot.model, moment.located
        if model is None or located is None:
            return nothing_yet(moment)
        if model.lens_error:
            return sentence(model.lens_error)
        trace, _ = located
        if trace.lens is None or not len(trace.lens.positions):
            return "This trace holds no logit lens. Run the prompt with a model to see one."
        first, last = int(trace.lens.positions[0]), int(trace.lens.positions[-1])
        where = f"token {last}" if first == last else f"tokens {first} to {last}"
        return (
            f"The lens was not read at token {moment.cursor.token}: of this prompt it was read at "
            f"{where}. Move there, or to a generated token."
        )

    def num_layers(self, view: LensView) -> int:
        """N of the model in view."""
        return len(view.layers)

    def heading(self, view: LensView) -> tuple[Line, Line]:
        """The answer and where it settles; the heads of the columns."""
        paint = self.paint
        answer: Line = (
            ("answer ", paint.muted),
            (plain(view.answer.text), paint.head),
            (f" {probability(view.answer.probability)}", paint.text),
        )
        settled = f"on top from layer {view.settled}"
        width, further = self._room(view)
        token = fitted("top token", width)
        top = f"{'':{self.label_width(view)}}  {token}{'p':>5} {'answer':>{_GAUGE}}"
        places = [_NTH.get(n, f"{n}th") for n in range(2, len(view.top[0]) + 1)][:further]
        others = "".join(f"  {place:<{_TOKEN}}{'p':>4}" for place in places)
        heads = f"{top}{'rank':>7}{'p':>7}{others}"
        return spread(answer, ((settled, paint.muted),), self.size.width), ((heads, paint.muted),)

    def layer_rows(self, view: LensView, axis: LayerAxis) -> Sequence[Line]:
        """A row for every layer."""
        return [self._row(view, axis.layers(y).start) for y in range(axis.rows)]

    def legend(self, view: LensView) -> Line:
        """What a token picked at random shows. No level for a model with random weights: there
        too the answer climbs, because neighbouring layers share most of the stream."""
        size = view.vocabulary
        told = f"random token: p {1 / size:.1e}, rank {(size + 1) // 2} of {size}"
        return ((told, self.paint.muted),)

    def _room(self, view: LensView) -> tuple[int, int]:
        """Cells of the top token, and how many further guesses fit."""
        fixed = self.label_width(view) + _GAUGE + _ANSWER + 8
        spare = self.size.width - fixed - _TOKEN
        if spare >= _NEXT:
            return _TOKEN, spare // _NEXT
        return max(1, min(_TOKEN + spare, _LONGEST_TOKEN)), 0

    def _row(self, view: LensView, layer: int) -> Line:
        paint = self.paint
        width, further = self._room(view)
        best, *others = view.top[layer]
        settled = layer >= view.settled
        style = paint.head if settled else paint.text
        spans: list[Span] = [
            ("● " if settled else "  ", paint.head),
            (plain(best.text, width), style),
            (f" {probability(best.probability)} ", paint.text),
            *gauge(best.probability, _GAUGE, paint.ramp.strong, paint.faint),
            *self._answer(view, layer),
        ]
        return (*spans, *self._others(others[:further]))

    def _answer(self, view: LensView, layer: int) -> list[Span]:
        """Rank of the answer, whether it rose or fell, and its probability."""
        paint, rank = self.paint, view.answer_rank[layer]
        change = rank - view.answer_rank[layer - 1] if layer else 0
        sign = "↑" if change < 0 else "↓" if change > 0 else " "
        style = paint.head if rank == 0 else paint.text
        return [
            (f"{rank + 1:>7}", style),
            (f" {sign} ", paint.muted),
            (probability(view.answer_probability[layer]), paint.muted),
        ]

    def _others(self, guesses: Sequence[Guess]) -> list[Span]:
        spans: list[Span] = []
        for guess in guesses:
            spans += [
                ("  " + plain(guess.text, _TOKEN), self.paint.muted),
                (probability(guess.probability), self.paint.faint),
            ]
        return spans
