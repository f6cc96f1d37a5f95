"""Experts that hardly work, of the whole session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Thread

from textual.message import Message

from moetui.analyses.cold_experts import ColdExperts, LayerLoad, cold_experts
from moetui.analyses.expert_load import RunLoad
from moetui.stats import MIN_DOCUMENTS, Statistic
from moetui.trace import Phase
from moetui.tui.moment import Moment
from moetui.tui.panes.pane import LinePane
from moetui.tui.panes.reasons import no_routing
from moetui.tui.text import fitted
from moetui.tui.widgets.lines import Line, Span, line_width

_NAME, _COUNT, _ENTROPY = 6, 12, 13


class ColdExpertsPane(LinePane[ColdExperts]):
    """Never fired, little used, and how even the load is: each beside its chance level."""

    pane_id = "cold"
    title = "cold experts"
    help = (
        "Experts of the session that never fired, or were used by less than a threshold of the "
        "tokens (× uniform k/E, or 1 %); how many carry 90 % of the load; entropy of the load "
        "over ln E. In brackets what an even router shows on as many tokens: on few tokens every "
        "model looks cold. From 20 prompts on, cold needs an upper limit under the threshold and "
        "hits enough to tell, ? counts the undecided, † the experts that are dead."
    )

    @dataclass
    class Judged(Message):
        """The intervals over prompts have been computed."""

        runs: Sequence[RunLoad]
        view: ColdExperts

    _judging: Sequence[RunLoad] | None = None

    def view_of(self, moment: Moment) -> ColdExperts | None:
        """The session's load; verdicts follow from another thread once the run has ended."""
        runs, resting = moment.runs, moment.snapshot.phase is not Phase.RUNNING
        if len(runs) >= MIN_DOCUMENTS and resting and runs is not self._judging:
            self._judging = runs
            # Not a Textual worker: quitting would wait for it.
            Thread(target=partial(self._judge, runs), daemon=True).start()
        return cold_experts(runs, intervals=False)

    def depends_on(self, moment: Moment) -> object:
        """The runs."""
        return moment.runs, moment.snapshot.phase is Phase.RUNNING

    def on_cold_experts_pane_judged(self, message: Judged) -> None:
        """Show the verdicts, unless the session has gone on."""
        if message.runs is self.moment.runs:
            self.view = message.view
            self.draw()

    def empty_reason(self, moment: Moment) -> str:
        """Why nothing is counted."""
        return no_routing(moment)

    def lines(self, view: ColdExperts) -> list[Line]:
        """All layers together, the layers around the cursor, and what the numbers mean."""
        paint, (width, height) = self.paint, self.size
        wide = width >= _NAME + 6 * _COUNT + 3 * _ENTROPY
        heads = [*("<" + t.name for t in view.thresholds), "for 90%"]
        line = f"{'layer':>{_NAME}}{'never':>{_COUNT}}"
        line += "".join(f"{head:>{_COUNT}}" for head in heads[: self._counts(width)])
        line += f"{'entropy':>{_ENTROPY}}"
        line += f"{'prompt':>{_ENTROPY}}{'generated':>{_ENTROPY}}" if wide else ""
        rows: list[Line] = [self._title(view, width), ((line, paint.muted),)]
        rows.append(self._row(view.pooled, wide, width))
        room = max(height - len(rows) - 3, 1)
        rows += [self._row(load, wide, width) for load in self._around(view.layers, room)]
        room = height - len(rows) - 1
        below = self._cursor_layer(view, width, room, split=not wide)
        rows += [()] * (room - len(below))
        return [*rows[: max(height - len(below) - 1, 0)], *below, self._meaning(view)]

    def _judge(self, runs: Sequence[RunLoad]) -> None:
        view = cold_experts(runs)
        if view is not None and self.is_attached:
            self.post_message(self.Judged(runs, view))

    def _counts(self, width: int) -> int:
        """How many columns of counts fit between "never" and the entropy."""
        return max(0, min(5, (width - _NAME - _COUNT - _ENTROPY) // _COUNT))

    def _title(self, view: ColdExperts, width: int) -> Line:
        paint = self.paint
        tokens = f" · {view.prefill_tokens} + {view.decode_tokens} tokens"
        told = f" · {view.caveat}" if view.caveat else ""
        noun = "prompt" if view.prompts == 1 else "prompts"
        title: Line = ((f"{view.prompts} {noun}", paint.head), (tokens, paint.muted))
        return (*title, (fitted(told, width - line_width(title)), paint.text))

    def _around(self, layers: Sequence[LayerLoad], room: int) -> Sequence[LayerLoad]:
        """The layers that fit, the cursor's among them."""
        cursor = self.moment.cursor.layer
        here = next((i for i, load in enumerate(layers) if (load.layer or 0) >= cursor), 0)
        first = min(max(here - room // 2, 0), max(len(layers) - room, 0))
        return layers[first : first + room]

    def _row(self, load: LayerLoad, wide: bool, width: int) -> Line:
        paint = self.paint
        here = load.layer is not None and load.layer == self.moment.cursor.layer
        name = "all" if load.layer is None else str(load.layer)
        strong = load.layer is None or here
        spans: list[Span] = [
            (f"{'▶' if here else ' '}{name:>{_NAME - 1}}", paint.cursor if here else paint.muted)
        ]
        dead = f" †{load.dead}" if load.dead else ""
        never, chance = _count(load.never_fired)
        cells = [(never + dead, chance)]
        cells += self._below(load)
        cells.append(_count(load.for_90))
        for value, chance in cells[: 1 + self._counts(width)]:
            spans += self._cell(value, chance, _COUNT, strong)
        shown = [load.entropy, *([load.entropy_prefill, load.entropy_decode] if wide else [])]
        for entropy in shown:
            spans += self._cell(*_told(entropy), _ENTROPY, strong)
        return tuple(spans)

    def _below(self, load: LayerLoad) -> list[tuple[str, str]]:
        """Observed below each threshold (chance), or cold and undecided where that is known."""
        if load.cold is None or load.undecided is None:
            return [_count(below) for below in load.below]
        verdicts = zip(load.cold, load.undecided, strict=True)
        return [(str(n), f"?{open_}") for n, open_ in verdicts]

    def _cell(self, value: str, chance: str, width: int, strong: bool) -> list[Span]:
        paint = self.paint
        gap = " " * max(width - len(value) - len(chance) - 1, 1)
        style = paint.head if strong else paint.text
        return [(f"{gap}{value} ", style), (chance, paint.faint if chance else paint.muted)]

    def _cursor_layer(self, view: ColdExperts, width: int, room: int, *, split: bool) -> list[Line]:
        """The cursor's layer in at most `room` lines: evenness of prompt and generation (where
        the table has no columns for them), and its experts, the least used first."""
        paint, layer = self.paint, self.moment.cursor.layer
        row = next((i for i, load in enumerate(view.layers) if load.layer == layer), None)
        if row is None:
            return [((f"L{layer} is dense", paint.muted),)]
        load = view.layers[row]
        lines: list[Line] = []
        if split and room > 1:
            parts = (("prompt", load.entropy_prefill), ("generated", load.entropy_decode))
            told = "   ".join(f"{name} {' '.join(_told(entropy))}" for name, entropy in parts)
            lines.append(((f"L{layer} entropy ", paint.muted), (told, paint.text)))
        lines.append(((f"L{layer} least used", paint.muted),))
        for item in self._by_use(view, row):
            if line_width(lines[-1]) + line_width(item) > width:
                if len(lines) >= room:
                    break
                lines.append(())
            lines[-1] = (*lines[-1], *item)
        return lines

    def _by_use(self, view: ColdExperts, row: int) -> Iterator[Line]:
        """Expert, hits/n and upper limit where known; the least used first."""
        paint, hits = self.paint, view.hits[row][: view.layers[row].experts]
        tokens = view.prefill_tokens + view.decode_tokens
        for expert in sorted(range(len(hits)), key=lambda e: (hits[e], e)):
            limit = "" if view.high is None else f" ≤{view.high[row][expert]:.1%}"
            yield (f"  E{expert} ", paint.text), (f"{hits[expert]}/{tokens}{limit}", paint.muted)

    def _meaning(self, view: ColdExperts) -> Line:
        paint = self.paint
        uniform = view.thresholds[0].share / (view.thresholds[0].times_uniform or 1)
        told = f"(n) even router · × uniform {uniform:.1%} of tokens"
        if view.pooled.cold is not None:
            told = f"cold ?undecided · †dead · {told}"
        return ((told, paint.muted),)


def _count(found: Statistic) -> tuple[str, str]:
    """A number of experts and what chance gives, as in "12 (3.4)"."""
    chance = found.null_mean or 0.0
    return f"{found.value or 0:.0f}", f"({chance:.1f})" if chance < 9.95 else f"({chance:.0f})"


def _told(entropy: Statistic) -> tuple[str, str]:
    if entropy.value is None or entropy.null_mean is None:
        return "—", ""
    return f"{entropy.value:.2f}", f"({entropy.null_mean:.2f})"
