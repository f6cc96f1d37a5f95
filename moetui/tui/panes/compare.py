"""Two contexts side by side: A, a token that was kept, and B, the one at the cursor."""

from __future__ import annotations

from collections.abc import Sequence

from moetui.analyses.compare_contexts import ComparedContexts, LayerPair, Side, compare_contexts
from moetui.tui.moment import Moment
from moetui.tui.panes.compare_columns import Column, Row, columns
from moetui.tui.panes.linked import LayerPane
from moetui.tui.panes.pane import wrapped
from moetui.tui.panes.reasons import no_routing, nothing_yet
from moetui.tui.text import fitted, plain
from moetui.tui.widgets.axes import LayerAxis
from moetui.tui.widgets.lines import Line, Span, line_width

# Lines below the layers that are never given up for a layer: the experts, the verdict, its null.
_LEAST_BELOW = 3
_KEEP = (
    "Press c to keep this token as A. Then run another prompt, or move the cursor: its token is B, "
    "and the two are compared here."
)

_CHANCE = (
    "By chance: mean and 95 % of two independent choices, any k of E experts or experts as popular "
    "as in the session's other prompts. Layers are not independent of each other."
)


class ComparePane(LayerPane[ComparedContexts]):
    """Shared experts, weights and lens of A and B, each beside its chance level."""

    pane_id = "compare"
    title = "compare"
    help = (
        "A, a token kept with c, beside B, the token at the cursor. Shared counts the experts that "
        "ran at both; beside it what two independent choices share, mean and 95 % band. ○ lies "
        "within the band and says nothing, ● and ↑ or ↓ outside of it. TV is the total variation "
        "of the weights (0 = equal), in brackets by chance. The lens shows each layer's top token, "
        "A in B the place of A's answer among B's guesses. Jaccard: shared experts over all that "
        "ran at either, (n) by chance; aligned: its mean over the other tokens that are equal in "
        "both. C keeps another A, m shows B − A in the map."
    )
    HEADING = 4

    def view_of(self, moment: Moment) -> ComparedContexts | None:
        """A beside B."""
        if moment.pair is None or self._of_another_model(moment):
            return None
        # The run at the cursor is left out: it shall be judged by the others.
        return compare_contexts(*moment.pair, moment.runs[:-1])

    def depends_on(self, moment: Moment) -> object:
        """A, B, and the loads that say what chance is."""
        return moment.snapshot.model, moment.pair, moment.runs[:-1]

    def empty_reason(self, moment: Moment) -> str:
        """What is missing, and how to get it."""
        model = moment.snapshot.model
        if moment.located is None:
            return nothing_yet(moment)
        if self._of_another_model(moment):
            return f"A is of another model. {_KEEP}"
        if model is not None and not model.is_moe:
            return f"{_KEEP} {no_routing(moment)}"
        return _KEEP

    def num_layers(self, view: ComparedContexts) -> int:
        """N of the model in view."""
        return view.num_layers

    def heading(self, view: ComparedContexts) -> Sequence[Line]:
        """A, B, whether they can be compared, and the heads of the columns."""
        paint, columns_ = self.paint, self._columns(view)
        label = " " * self.label_width(view)
        heads = "".join(fitted(column.head, column.width) for column in columns_)
        related = fitted(relation(view), self.size.width)
        style = paint.text if view.same_id else paint.head
        return (
            self._side("A", view.a),
            self._side("B", view.b),
            ((related, style),),
            ((label + heads, paint.muted),),
        )

    def layer_rows(self, view: ComparedContexts, axis: LayerAxis) -> Sequence[Line]:
        """A row for every layer."""
        routing = {pair.layer: pair for pair in view.layers}
        lens = {pair.layer: pair for pair in view.lens}
        shown = self._columns(view)
        rows = [axis.layers(y).start for y in range(axis.rows)]
        return [
            tuple(
                span
                for column in shown
                for span in column.cell(Row(routing.get(layer), lens.get(layer)), self.paint)
            )
            for layer in rows
        ]

    def below(self, view: ComparedContexts) -> Sequence[Line]:
        """The cursor's layer, what may be said, and what chance means; more where there is room."""
        paint, width = self.paint, self.size.width
        room = max(_LEAST_BELOW, self.size.height - self.HEADING - view.num_layers)
        rows: list[Line] = [self._experts(view)] if view.layers else []
        rows += [((text, paint.text),) for text in wrapped(verdict(view), width)]
        for text in notes(view):
            more = wrapped(text, width)
            if len(rows) + len(more) > room:  # half a sentence says less than none
                rows[-1] = ((fitted(f"{rows[-1][0][0]} …", width), rows[-1][0][1]),)
                break
            rows += [((row, paint.muted),) for row in more]
        return rows[:room]

    def room(self, view: ComparedContexts) -> int:
        """Rows that are left for the layers."""
        return self.size.height - self.HEADING - len(self.below(view))

    def _of_another_model(self, moment: Moment) -> bool:
        model, kept = moment.snapshot.model, moment.kept
        if model is None or kept is None:
            return False
        return kept.recording.prompt.model.digest != model.digest

    def _columns(self, view: ComparedContexts) -> list[Column]:
        return columns(view, self.size.width - self.label_width(view))

    def _side(self, name: str, side: Side) -> Line:
        paint = self.paint
        line: Line = (
            (f"{name} ", paint.cursor if name == "B" else paint.head),
            (" ", paint.text),
            (plain(side.text), paint.head),
            (f"  token {side.token} of {side.rows}, id {side.token_id}, in ", paint.muted),
        )
        return (*line, (fitted(plain(side.prompt), self.size.width - line_width(line)), paint.text))

    def _experts(self, view: ComparedContexts) -> Line:
        """The experts of the cursor's layer: first those that differ, as many as fit."""
        paint, layer = self.paint, self.moment.cursor.layer
        pair = next((pair for pair in view.layers if pair.layer == layer), None)
        if pair is None:
            return ((f"L{layer} is dense", paint.muted),)
        spans: list[Span] = [(f"L{layer}", paint.head)]
        for text, muted in _told(pair):
            if line_width(tuple(spans)) + len(text) > self.size.width - 2:
                spans.append((" …", paint.muted))
                break
            spans.append((text, paint.muted if muted else paint.text))
        return tuple(spans)


def _told(pair: LayerPair) -> list[tuple[str, bool]]:
    """Texts and whether each is only a heading: lost, gained, both, with their weights."""
    told: list[tuple[str, bool]] = []
    for name, experts in (("lost", pair.lost), ("gained", pair.gained), ("both", pair.both)):
        told.append((f"  {name}{'' if experts else ' none'}", True))
        for used in experts:
            weights = "→".join(f"{w:.2f}" for w in (used.a, used.b) if w is not None)
            told.append((f" E{used.expert} {weights}", False))
    return told


def relation(view: ComparedContexts) -> str:
    """Whether A and B are the same token, in one line."""
    if view.same_context:
        return "same token, same beginning: equal by construction"
    if view.same_id:
        return "equal token ids in two contexts"
    told = "two ids that read alike" if view.alike else "two different tokens"
    if not view.elsewhere:
        return f"{told}: not one token in two contexts"
    where = ", ".join(map(str, view.elsewhere[:4])) + (" …" if len(view.elsewhere) > 4 else "")
    return f"{told}; A's token is in B at {where}"


def verdict(view: ComparedContexts) -> str:
    """What may be said of the shared experts, and no more."""
    if view.routing_reason:
        return f"{view.routing_reason}; the lens is compared"
    if view.same_context:
        return "A model that reads from left to right does the same in both: nothing to find here."
    L = sum(pair.level is not None for pair in view.layers)
    told = (
        f"↑ above chance in {view.above} of {L} layers" if view.above else "No layer above chance"
    )
    fewer = f", ↓ below it in {view.below}" if view.below else ""
    return f"{told}{fewer} (by chance {view.above_expected:.1f} above)."


def notes(view: ComparedContexts) -> list[str]:
    """What chance means, what was aligned, what the lens says; the caveats last."""
    told: list[str] = []
    if view.layers:
        looks = f"One pair, {len(view.layers)} looks: no test."
        told += [f"Chance: {chance_says(view)}. {looks}", _CHANCE]
        told += aligned_says(view)
    if view.lens:
        same = sum(pair.same for pair in view.lens)
        told.append(
            f"Lens: the same top token in {same} of {len(view.lens)} layers; a description, "
            "without a chance level."
        )
    elif view.lens_reason:
        told.append(f"Lens: {view.lens_reason}.")
    return [*told, *(f"{caveat[0].upper()}{caveat[1:]}." for caveat in view.caveats[1:])]


def chance_says(view: ComparedContexts) -> str:
    """The null, by name."""
    if view.null.name == "uniform":
        return f"any {view.top_k} of {view.num_experts}"
    return f"load of {view.null.prompts} prompts"


def aligned_says(view: ComparedContexts) -> list[str]:
    """Which other tokens were compared, and what was left out."""
    found, told = view.alignment, []
    if found.rows_a:
        where = "at equal places" if found.kind == "same length" else "of the common ending"
        told.append(f"{len(found.rows_a)} equal tokens {where} ({found.dropped} unequal dropped)")
    if found.beginning and found.beginning_overlap is not None:
        told.append(
            f"{found.beginning} of the common beginning left out: equal by construction (overlap "
            f"{found.beginning_overlap:.2f})"
        )
    return [f"Aligned: {'; '.join(told)}."] if told else []


def kept_says(moment: Moment) -> str:
    """What was kept as A, and what to do next."""
    if moment.kept is None:
        return _KEEP
    trace, row = moment.kept.located
    prompt = moment.kept.recording.prompt
    text = "".join(prompt.tokens[: prompt.prompt_tokens])
    return (
        f"token {moment.kept.token} {plain(trace.tokens[row])} of {plain(text)}\n"
        "Run another prompt or move the cursor; then c compares."
    )
