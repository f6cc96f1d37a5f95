"""Routing over the steps of a sequence: what stays from token to token, who hands over, and when
it changes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from threading import Thread

import numpy as np
from rich.cells import cell_len
from textual.message import Message

from moetui.analyses.expert_load import total_load
from moetui.analyses.generation_steps import GenerationSteps, generation_steps
from moetui.stats import Statistic
from moetui.trace import Phase
from moetui.tui.moment import Moment
from moetui.tui.palette import BARS, LEVELS
from moetui.tui.panes.linked import LayerPane
from moetui.tui.panes.reasons import no_routing
from moetui.tui.text import fitted, plain
from moetui.tui.widgets.axes import ExpertAxis, LayerAxis
from moetui.tui.widgets.gauge import probability
from moetui.tui.widgets.heat import ABSENT, Levels, bar_row
from moetui.tui.widgets.lines import Line, line_width, spread, ticks

_WIDEST = 3
_MEANS = 14  # cells of a layer's mean and its chance
_WITH_MEANS = 56
_TICK = 5
# Up to so many tokens × layers a sequence is read anew for every token (0.04 s on a slow core);
# longer ones more and more seldom, so that reading them never takes more of the time.
_EVERY = 4000
# Beyond it the shuffle of a sequence would take more than ten seconds.
_TESTED = 5000
_PERMUTATIONS = 999


class GenerationPane(LayerPane[GenerationSteps]):
    """Layers × steps: the share of experts kept from the token before."""

    pane_id = "generation"
    title = "generation"
    help = (
        "Routing over the steps of this run. A bar is the share of a layer's experts that the "
        "token has in common with the token before; at the right the mean of the layer and, in "
        "brackets, Σ f²/k, what two unrelated tokens share by the popularity of the experts in "
        "this session. Δ is the Hellinger distance of the experts of the 8 tokens before a step "
        "from those of the 8 from it on; ▲ marks where it is highest within its reach, ◆ where it "
        "beats, family-wise at .05, the same rows dealt out anew among equal tokens (tested once "
        "the run has ended, where enough tokens recur). The last line says who handed over to "
        "whom at the cursor. One sequence is a description: it has no interval."
    )

    HEADING = 2
    LEGEND = 4

    @dataclass
    class Tested(Message):
        """The test of a sequence, worked out on a thread of its own."""

        basis: object
        view: GenerationSteps

    _testing: object = None

    def view_of(self, moment: Moment) -> GenerationSteps | None:
        """The steps of the run, as far as it is."""
        return _steps(moment)

    def show(self, moment: Moment) -> None:
        """Show `moment`; whether the run changes follows from another thread once it has ended."""
        super().show(moment)
        basis = self.depends_on(moment)
        resting = moment.snapshot.phase is not Phase.RUNNING
        if resting and self.view is not None and basis != self._testing:
            self._testing = basis
            if _cells(moment) <= _TESTED:
                # Not a Textual worker: quitting would wait for it.
                Thread(target=partial(self._test, basis, moment), daemon=True).start()

    def depends_on(self, moment: Moment) -> object:
        """The rows and the runs; of a long sequence under way not every row."""
        snapshot = moment.snapshot
        running = snapshot.phase is Phase.RUNNING
        every = max(_cells(moment) // _EVERY, 1) ** 2 if running else 1
        return snapshot.model, snapshot.recording, snapshot.rows // every, len(moment.runs), running

    def on_generation_pane_tested(self, message: Tested) -> None:
        """Show the test, unless the run has gone on."""
        if message.basis == self.depends_on(self.moment):
            self.view = message.view
            self.draw()

    def empty_reason(self, moment: Moment) -> str:
        """Why there is no step."""
        model = moment.snapshot.model
        if model is not None and model.is_moe and moment.snapshot.rows == 1:
            return "One token has no token before it. Run a longer prompt."
        return no_routing(moment)

    def num_layers(self, view: GenerationSteps) -> int:
        """N of the model in view."""
        return view.num_layers

    def heading(self, view: GenerationSteps) -> tuple[Line, Line]:
        """The means beside their chance; the tokens."""
        paint, width = self.paint, self.size.width
        title = self._means(view, width)
        axis = self._tokens(view)
        step = -(-_TICK // axis.width)
        # Not a number in the middle of which the mark of the cursor would stand.
        numbered = [t for t in axis.experts if not t % step and not self._inside(t, axis.width)]
        marks = [((t - axis.first) * axis.width, str(t)) for t in numbered]
        line, column = ticks(marks, axis.cells), axis.column_of(self.moment.cursor.token)
        indent = " " * self.label_width(view)
        heads = f"{'mean (chance)':>{_MEANS}}" if self._has_means else ""
        if column is None:
            return title, ((indent + line + heads, paint.muted),)
        at = column * axis.width
        before, after = indent + line[:at], line[at + 1 :] + heads
        return title, ((before, paint.muted), ("▼", paint.head), (after, paint.muted))

    def _inside(self, token: int, width: int) -> bool:
        """Whether the cursor's column is among those that the number of `token` takes."""
        return 0 <= (self.moment.cursor.token - token) * width < len(str(token))

    def _means(self, view: GenerationSteps, width: int) -> Line:
        """Both means, and as much of their sizes and of the caveat as there is room for."""
        paint = self.paint
        parts = (("generated", view.decoded), ("prompt", view.prefill))
        known = [(name, of) for name, of in parts if of.value is not None]
        told = " · ".join(f"{name} {_beside(of)}" for name, of in known)
        sized = " · ".join(f"{name} {_beside(of)} in {of.n_tokens} steps" for name, of in known)
        claim = view.caveat.partition(";")[0]
        for text, note in ((sized, claim), (sized, claim.partition(":")[0]), (sized, "")):
            left: Line = (("kept: ", paint.muted), (text, paint.head))
            if line_width(left) + len(note) < width:
                return spread(left, ((note, paint.muted),), width)
        return (("kept: ", paint.muted), (fitted(told, max(width - 6, 0)), paint.head))

    def layer_rows(self, view: GenerationSteps, axis: LayerAxis) -> list[Line]:
        """A bar for each step, and the mean of the layer."""
        tokens, paint = self._tokens(view), self.paint
        levels = _levels(np.array(view.overlap, float).reshape(view.tokens - 1, -1))
        index = {layer: row for row, layer in enumerate(view.layers)}
        rows: list[Line] = []
        for layer in axis.shown:
            row = index.get(layer)
            if row is None:
                rows.append(((fitted("· dense ·", tokens.cells), paint.faint),))
                continue
            here = tokens.column_of(self.moment.cursor.token)
            marked = here if layer == self.moment.cursor.layer else None
            bars = bar_row(_shown(levels[:, row], tokens), tokens.width, paint.ramp, marked)
            means = f"{_beside(view.by_layer[row]):>{_MEANS}}" if self._has_means else ""
            rows.append((*bars, (means, paint.text)))
        return rows

    def below(self, view: GenerationSteps) -> list[Line]:
        """Distances, their peaks, what they mean, and the step at the cursor."""
        return [*self._distances(view), self._meaning(view), self._handoff(view)]

    def _distances(self, view: GenerationSteps) -> list[Line]:
        paint, tokens, changes = self.paint, self._tokens(view), view.changes
        label = "Δ".rjust(self.label_width(view) - 1) + " "
        if changes is None:
            return [((f"{label}too few tokens for two windows of 8", paint.muted),), ()]
        score = np.full((view.tokens - 1, 1), np.nan)
        score[np.array(changes.steps) - 1, 0] = changes.score
        bars = bar_row(_shown(_levels(score)[:, 0], tokens), tokens.width, paint.ramp, None)
        marks = [" "] * tokens.cells
        for sign, steps in (("▲", changes.peaks), ("◆", changes.changes or [])):
            for step in steps:
                if (column := tokens.column_of(step)) is not None:
                    marks[column * tokens.width] = sign
        indent = " " * len(label)
        return [((label, paint.muted), *bars), ((indent + "".join(marks), paint.head),)]

    def _meaning(self, view: GenerationSteps) -> Line:
        paint, changes = self.paint, view.changes
        scale: Line = (
            ("kept 0 ", paint.muted),
            *((BARS[n], paint.ramp.cells[n]) for n in range(LEVELS)),
            (" all", paint.muted),
        )
        told = ""
        if changes is not None:
            told = changes.reason or f"{len(changes.changes or ())} changes ◆ of the peaks ▲"
        room = self.size.width - line_width(scale) - 3
        return (*scale, ("   " + fitted(told, max(room, 0)), paint.muted))

    def _handoff(self, view: GenerationSteps) -> Line:
        """Who left and who came at the cursor."""
        paint, cursor, located = self.paint, self.moment.cursor, self.moment.located
        if located is None or cursor.layer not in view.layers:
            return ((f"L{cursor.layer} is dense", paint.muted),)
        trace, row = located
        where = f"L{cursor.layer} token {cursor.token} {plain(trace.tokens[row])} "
        if not 0 < cursor.token < view.tokens:
            told = "has no token before it" if cursor.token == 0 else "is being read"
            return ((where, paint.muted), (told, paint.text))
        at = view.layers.index(cursor.layer)
        step, k = view.handoffs[cursor.token - 1][at], view.top_k[at]
        kept = round(view.overlap[cursor.token - 1][at] * k)
        who = " ".join([*(f"−E{e}" for e in step.left), *(f"+E{e}" for e in step.came)])
        line = f"keeps {kept} of {k} (chance {view.chance[at] * k:.1f})  {who}".rstrip()
        room = max(self.size.width - cell_len(where), 0)
        if cell_len(line) > room:  # at the right end of the layer's row stands its chance too
            line = f"keeps {kept} of {k}  {who}".rstrip()
        return ((where, paint.muted), (fitted(line, room), paint.head))

    @property
    def _has_means(self) -> bool:
        return self.size.width >= _WITH_MEANS

    def _tokens(self, view: GenerationSteps) -> ExpertAxis:
        """The tokens on columns, scrolled so that the cursor is among them."""
        means = _MEANS if self._has_means else 0
        room = max(self.size.width - self.label_width(view) - means, 1)
        width = max(1, min(_WIDEST, room // view.tokens))
        columns = min(view.tokens, room // width)
        first = min(max(self.moment.cursor.token - columns // 2, 0), view.tokens - columns)
        return ExpertAxis(first, columns, 1, width, view.tokens)

    def _test(self, basis: object, moment: Moment) -> None:
        view = _steps(moment, permutations=_PERMUTATIONS)
        if view is not None and self.is_attached:
            self.post_message(self.Tested(basis, view))


def _cells(moment: Moment) -> int:
    """Tokens × layers of the run."""
    return moment.snapshot.rows * (len(moment.runs[0].layers) if moment.runs else 0)


def _steps(moment: Moment, permutations: int = 0) -> GenerationSteps | None:
    recording, rows = moment.snapshot.recording, moment.snapshot.rows
    if recording is None or not rows or not moment.runs:
        return None
    trace = recording.trace(rows)
    load = total_load(moment.runs)
    return generation_steps(trace, load, prompts=len(moment.runs), permutations=permutations)


def _levels(shares: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Levels:
    """0 for nothing, 1 … 7 for shares up to 1 in equal steps, ABSENT for NaN; any shape."""
    level = np.ceil(np.nan_to_num(shares) * (LEVELS - 1) - 1e-9)
    levels: Levels = np.where(np.isnan(shares), ABSENT, level).astype(np.int8)
    return levels


def _shown(levels: Levels, tokens: ExpertAxis) -> Levels:
    """Levels of the tokens on the axis, from those of the steps: the first token has none."""
    of_tokens: Levels = np.concatenate([np.array([ABSENT], np.int8), levels])
    return of_tokens[tokens.first : tokens.first + tokens.columns]


def _beside(found: Statistic) -> str:
    """A mean and its chance: `.62 (.41)`."""
    if found.value is None:
        return "—"
    chance = "—" if found.null_mean is None else probability(found.null_mean)
    return f"{probability(found.value)} ({chance})"
