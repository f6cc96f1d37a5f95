"""What a change would do at one token, beside the same change made at random."""

from __future__ import annotations

from itertools import zip_longest
from statistics import median

from rich.cells import cell_len

from moetui.analyses.what_if import Measure, NextToken, WhatIf
from moetui.trace import Phase
from moetui.tui.change import control_count, described, manner
from moetui.tui.moment import Moment
from moetui.tui.panes.pane import LinePane, wrapped
from moetui.tui.panes.reasons import no_routing
from moetui.tui.text import fitted, plain
from moetui.tui.widgets.band import band
from moetui.tui.widgets.gauge import probability
from moetui.tui.widgets.lines import Line, Span, line_width, spread

_NAME, _VALUE, _BAND, _LARGER, _P = 12, 8, 7, 7, 7
_TABLE = _NAME + _VALUE + 3 * _BAND + _LARGER + _P
_LEAST_STRIP, _LONGEST_STRIP = 12, 60
_TOKEN, _LONGEST_TOKEN = 30, 24  # cells of a next token's numbers, and the most of its text
_LEAST_LAYERS = 30
_GAP = "   "


class WhatIfPane(LinePane[WhatIf]):
    """One intervention: KL, ΔNLL, next tokens and later routing, with its random controls."""

    pane_id = "what_if"
    title = "what if"
    help = (
        "What the model would have said after the cursor's token if an expert (or k, or a part of "
        "a layer) were changed for every token read. x measures the change chosen last at the "
        "cursor, w here chooses another, p pins several experts. Beside each number stand the "
        "smallest, middle and largest of up to 20 controls: the same change made to random "
        "experts of the layer (to other layers where no expert is named), how many of them it "
        "exceeds, and p = (1 + those at least as large) / (1 + controls). Most controls are "
        "experts that these tokens do not use, and do exactly nothing. It is one prompt: a "
        "description, not an effect."
    )

    def view_of(self, moment: Moment) -> WhatIf | None:
        """The newest finding, where it is one of what-if."""
        finding = moment.snapshot.finding
        return finding if isinstance(finding, WhatIf) else None

    def depends_on(self, moment: Moment) -> object:
        """The finding."""
        return moment.snapshot.finding

    def empty_reason(self, moment: Moment) -> str:
        """Why nothing is measured, and what would be."""
        model = moment.snapshot.model
        if model is None or not model.is_moe or moment.located is None:
            return no_routing(moment)
        if moment.snapshot.phase is Phase.STUDYING:
            return "Measuring: first the change itself, then its controls."
        cursor, choice = moment.cursor, moment.choice
        reason = choice.impossible(model, cursor.layer)
        would = described(choice.changes(cursor.layer, cursor.expert))
        return (
            f"Nothing is measured yet. {reason or f'x measures: {would}'}. "
            "w chooses another change, p pins experts to change together."
        )

    def lines(self, view: WhatIf) -> list[Line]:
        """What was changed, its numbers, next tokens, later layers, and what x does next."""
        width, height = self.size
        above = [
            self._title(view),
            ((fitted(_where(view), width), self.paint.muted),),
            *self._table(view),
            *self._told(view),
        ]
        room = height - len(above) - 1
        below = self._details(view, room) if room > 1 else []
        space: list[Line] = [()] * (room - len(below))
        return [*[*above, *below, *space][: max(height - 1, 0)], self._next()]

    def _title(self, view: WhatIf) -> Line:
        paint, changes = self.paint, view.request.changes
        right: Span = (self._progress(view), paint.muted if view.done else paint.head)
        room = self.size.width - cell_len(right[0]) - 1
        what, how = described(changes), manner(changes[0])
        left: Line = ((fitted(what, room).rstrip(), paint.head),)
        if how and cell_len(what) + cell_len(how) + 3 <= room:
            left = (*left, (f" · {how}", paint.muted))
        return spread(left, (right,), self.size.width)

    def _progress(self, view: WhatIf) -> str:
        """How many controls there are, or how far they are."""
        if view.done:
            noun = "control" if view.planned == 1 else "controls"
            return f"{view.planned} {noun} · seed {view.request.seed}"
        if self._going_on:
            return f"{control_count(view)} · Esc stops"
        return f"stopped after {len(view.controls)} of {view.planned} controls"

    def _table(self, view: WhatIf) -> list[Line]:
        strip = self._strip_width()
        heads = f"{'':<{_NAME}}{'here':>{_VALUE}}" + "".join(
            f"{head:>{_BAND}}" for head in ("min", "median", "max")
        )
        head: Line = ((f"{heads}{'larger':>{_LARGER}}{'p':>{_P}}", self.paint.muted),)
        if strip:
            told = f"◆ here  · {view.control}"
            told = told if len(told) <= strip else "◆ here"
            head = (*head, (_GAP + told, self.paint.muted))
        return [
            head,
            self._row("KL nats", view.kl, strip),
            self._row("ΔNLL nats", view.delta_nll, strip, missing="no token follows", signed=True),
            self._row("routing 1−J", view.routing, strip, missing="no layer follows"),
        ]

    def _strip_width(self) -> int:
        room = self.size.width - _TABLE - len(_GAP)
        return min(room, _LONGEST_STRIP) if room >= _LEAST_STRIP else 0

    def _row(
        self,
        name: str,
        measure: Measure | None,
        strip: int,
        *,
        missing: str = "",
        signed: bool = False,
    ) -> Line:
        """One number and its controls."""
        paint = self.paint
        label: Span = (f"{name:<{_NAME}}", paint.muted)
        if measure is None or measure.statistic.value is None:
            return label, (f"{'—':>{_VALUE}}  {missing}", paint.muted)
        value, controls = measure.statistic.value, measure.controls
        here: Span = (f"{number(value, signed=signed):>{_VALUE}}", paint.head)
        if not controls:
            return label, here, ("  no control yet" if self._going_on else "", paint.muted)
        spread_of = (min(controls), median(controls), max(controls))
        told = "".join(f"{number(n, signed=signed):>{_BAND}}" for n in spread_of)
        larger = f"{measure.larger_than}/{len(controls)}"
        told += f"{larger:>{_LARGER}}{measure.statistic.p:>{_P}.3f}"
        row: Line = (label, here, (told, paint.text))
        if not strip:
            return row
        drawn = band(value, controls, strip, paint.head, paint.muted)
        return (*row, (_GAP, paint.text), *drawn)

    @property
    def _going_on(self) -> bool:
        return self.moment.snapshot.phase is Phase.STUDYING

    def _told(self, view: WhatIf) -> list[Line]:
        """The finding in words."""
        rows = wrapped(sentence(view), max(self.size.width, 1))
        return [((row, self.paint.text),) for row in rows]

    def _details(self, view: WhatIf, room: int) -> list[Line]:
        """Next tokens and later layers: side by side where it is wide, else one below the other."""
        width, paint = self.size.width, self.paint
        longest = max((cell_len(plain(token.text)) for token in view.next_tokens), default=0)
        column = min(max(longest, 10), _LONGEST_TOKEN) + _TOKEN
        beside = width >= column + len(_GAP) + _LEAST_LAYERS
        layers = self._layers(view, width - column - len(_GAP) if beside else width)
        if not beside:
            kept = layers[: max(min(len(layers), room // 3), 0)] if room > 3 else []
            return [*self._tokens(view, min(column, width), room - len(kept)), *kept]
        tokens = self._tokens(view, column, room)
        rows = zip_longest(tokens, layers[:room], fillvalue=())
        blank = " " * column
        return [(*(left or ((blank, paint.text),)), (_GAP, paint.text), *r) for left, r in rows]

    def _tokens(self, view: WhatIf, width: int, room: int) -> list[Line]:
        """A row for each next token: probability and rank, before and after."""
        text = max(width - _TOKEN, 1)
        head = f"{'next token':<{text}}{'before':>8}{'after':>8}{'rank':>14}"
        rows: list[Line] = [((fitted(head, width), self.paint.muted),)]
        for token in view.next_tokens[: max(room - 1, 0)]:
            changed = token.before != token.after
            style = self.paint.text if changed else self.paint.muted
            rows.append(((fitted(_token_row(token, text), width), style),))
        return rows[:room]

    def _layers(self, view: WhatIf, width: int) -> list[Line]:
        """1 - Jaccard of every later layer, and the controls' mean."""
        paint = self.paint
        if not view.layers:
            return [(("no routing layer follows", paint.muted),)]
        edited = " *edited itself" if any(shift.direct for shift in view.layers) else ""
        heads = ("later layers, 1−Jaccard (controls' mean)", "later, 1−J (controls' mean)")
        head = next((h for h in heads if len(h + edited) <= width), heads[-1])
        lines: list[Line] = [((fitted(head + edited, width).rstrip(), paint.muted),), ()]
        for shift in view.layers:
            control = "" if shift.control is None else f" ({_short(shift.control)})"
            mark = "*" if shift.direct else ""
            item: Line = (
                (f"L{shift.layer}{mark} ", paint.muted),
                (_short(shift.change), paint.head if shift.change else paint.text),
                (f"{control}{_GAP}", paint.muted),
            )
            if lines[-1] and line_width(lines[-1]) + line_width(item) > width + len(_GAP):
                lines.append(())
            lines[-1] = (*lines[-1], *item)
        return lines

    def _next(self) -> Line:
        """What the keys would do now."""
        paint, moment = self.paint, self.moment
        model, cursor = moment.snapshot.model, moment.cursor
        right: Line = (("w", paint.head), (" another  ", paint.muted))
        right = (*right, ("p", paint.head), (" pin", paint.muted))
        room = max(self.size.width - line_width(right) - 4, 1)
        reason = moment.choice.impossible(model, cursor.layer) if model is not None else None
        would = described(moment.choice.changes(cursor.layer, cursor.expert))
        told = fitted(reason or f"{would}, token {cursor.token}", room).rstrip()
        key = "" if reason else "x "
        return spread(((key, paint.head), (told, paint.muted)), right, self.size.width)


def number(value: float, *, signed: bool = False) -> str:
    """At most six cells; only what is exactly nothing is written as 0."""
    if value == 0:
        return "0"
    sign = "+" if signed else ""
    if abs(value) < 0.001:
        return f"{value:{sign}.0e}"
    return f"{value:{sign}.3f}" if abs(value) < 100 else f"{value:{sign}.0f}"


def sentence(view: WhatIf) -> str:
    """What may be said of one prompt."""
    controls = view.kl.controls
    if view.identical:
        unused = " No token read selects it." if view.tokens_using == 0 else ""
        idle = sum(value == 0 for value in controls)
        also = f" So do {idle} of {len(controls)} controls." if controls else ""
        return f"The change leaves the next-token logits as they were, bit for bit.{unused}{also}"
    told = f"KL {number(view.kl.statistic.value or 0.0)}"
    if not controls:
        return f"{told}." if view.planned else f"{told}. There is nothing to draw as a control."
    told += f": larger than {view.kl.larger_than} of {len(controls)} {view.control}"
    if view.possible == len(controls):
        told += ", all there are"
    if view.controls[0].tokens is not None:
        used = sum(bool(control.tokens) for control in view.controls)
        of_used = f"{view.kl.larger_than_used} of the {used}" if used else "none of them is"
        told += f" ({of_used} in use here)"
    return f"{told}."


def _where(view: WhatIf) -> str:
    use = "" if view.tokens_using is None else f", {view.tokens_using} use it"
    told = f"after token {view.request.row} {plain(view.token)} ({view.request.row + 1} read{use})"
    if view.followed:
        own = f" ({view.followed_generated} its own)" if view.followed_generated else ""
        told += f" · {view.followed} followed{own}"
    return told


def _token_row(token: NextToken, width: int) -> str:
    ranks = f"{token.rank_before + 1} → {token.rank_after + 1}"
    before, after = probability(token.before), probability(token.after)
    return f"{plain(token.text, width)}{before:>8}{after:>8}{ranks:>14}"


def _short(share: float) -> str:
    return "0" if share == 0 else f"{share:.2f}"
