"""What a change would do at one token, beside the same change made at random."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from statistics import median

from rich.cells import cell_len

from moetui.analyses.what_if import LayerShift, Measure, NextToken, WhatIf
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
_TOKEN, _LONGEST_TOKEN = 24, 24  # cells of a next token's numbers, and the most of its text
_LEAST_LAYERS = 19
_GAP = "   "


class WhatIfPane(LinePane[WhatIf]):
    """One intervention: KL, ΔNLL, next tokens and later routing, with its random controls."""

    pane_id = "what_if"
    title = "what if"
    help = (
        "What the model would have said after the cursor's token if an expert (or k, or a part of "
        "a layer) were changed for every token read. x measures the change chosen last at the "
        "cursor, w here chooses another, p pins several experts. KL is the divergence of the "
        "changed next-token distribution from the unchanged one (0 = equal), ΔNLL the mean rise of "
        "−ln p of the tokens that followed, routing 1−J the mean over later layers of 1 − Jaccard "
        "of the experts before and after (0 = the same). Beside each stand the smallest, middle "
        "and largest of up to 20 controls: the same change made to random experts of the layer "
        "(to other layers where no expert is named), how many of them it exceeds, and p = (1 + "
        "those at least as large) / (1 + controls). In the strip · is one control, : up to three, "
        "┇ more. A control whose experts no token uses does exactly nothing. It is one prompt: a "
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
            ((fitted(_where(view, width), width), self.paint.muted),),
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
        if view.done and view.possible <= view.request.controls:
            return f"only {_counted(view.possible)}" if view.possible else "no control exists"
        if view.done:
            return f"{view.planned} controls · seed {view.request.seed}"
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
        here: Span = (f"{number(value, signed=signed, digits=1):>{_VALUE}}", paint.head)
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
        width = max(self.size.width, 1)
        rows = wrapped(sentence(view, width), width)
        return [((row, self.paint.text),) for row in rows]

    def _details(self, view: WhatIf, room: int) -> list[Line]:
        """Next tokens and later layers: side by side, or the tokens alone where it is narrow."""
        width, paint = self.size.width, self.paint
        longest = max((cell_len(plain(token.text)) for token in view.next_tokens), default=0)
        least = 10 + _TOKEN + len(_GAP) + _LEAST_LAYERS
        spare = max(width - least, 0)
        column = min(max(longest, 10), 10 + spare, _LONGEST_TOKEN) + _TOKEN
        tokens = self._tokens(view, min(column, width), room)
        if width < least:
            return tokens
        layers = self._layers(view, width - column - len(_GAP), room)
        blank: Line = ((" " * column, paint.text),)
        rows = zip_longest(tokens, layers, fillvalue=())
        return [(*(left or blank), (_GAP, paint.text), *right) for left, right in rows]

    def _tokens(self, view: WhatIf, width: int, room: int) -> list[Line]:
        """A row for each next token: probability and rank, before and after."""
        text = max(width - _TOKEN, 1)
        head = f"{'next token':<{text}}{'before':>7}{'after':>7}{'rank':>10}"
        rows: list[Line] = [((fitted(head, width), self.paint.muted),)]
        for token in view.next_tokens[: max(room - 1, 0)]:
            style = self.paint.text if token.before != token.after else self.paint.muted
            rows.append(((fitted(_token_row(token, text), width), style),))
        return rows[:room]

    def _layers(self, view: WhatIf, width: int, room: int) -> list[Line]:
        """1 - Jaccard of every later layer and the controls' mean: a row each where there is room,
        with the experts that went and came."""
        paint, shifts = self.paint, view.layers
        if not shifts:
            nothing: Line = (("no routing layer follows", paint.muted),)
            return [nothing]
        edited = " *edited itself" if any(shift.direct for shift in shifts) else ""
        heads = ("later layers, 1−Jaccard (controls' mean)", "later 1−J (control)")
        head = next((h + edited for h in heads if len(h + edited) <= width), heads[-1])
        lines: list[Line] = [((fitted(head, width).rstrip(), paint.muted),)]
        if len(shifts) < room:
            return [*lines, *(self._exchanged(shift, width) for shift in shifts)]
        return [*lines, *self._flowed(shifts, width, room - 1)]

    def _flowed(self, shifts: Sequence[LayerShift], width: int, room: int) -> list[Line]:
        """As many layers as fit, several on a row; the last row says how many are left out."""
        each = max(line_width(self._shift(shift)) for shift in shifts)
        per_row = max((width + len(_GAP)) // (each + len(_GAP)), 1)
        if len(shifts) > per_row * room:
            room -= 1
        shown = shifts[: per_row * max(room, 0)]
        lines: list[Line] = []
        for start in range(0, len(shown), per_row):
            row: Line = ()
            for shift in shown[start : start + per_row]:
                item = self._shift(shift)
                row = (*row, *item, (" " * (each - line_width(item)) + _GAP, self.paint.text))
            lines.append(row)
        more = len(shifts) - len(shown)
        return [*lines, ((f"… and {more} more", self.paint.muted),)] if more else lines

    def _shift(self, shift: LayerShift) -> Line:
        paint = self.paint
        control = "" if shift.control is None else f" ({_short(shift.control)})"
        digits = len(str(self.view.layers[-1].layer)) if self.view is not None else 0
        name = f"L{shift.layer}{'*' if shift.direct else ''}".ljust(digits + 2 + shift.direct)
        style = paint.head if shift.change else paint.text
        return (name, paint.muted), (_short(shift.change), style), (control, paint.muted)

    def _exchanged(self, shift: LayerShift, width: int) -> Line:
        """A layer with the experts that no longer run, and those that do instead."""
        went = [f"−E{e}" for e in shift.before if e not in shift.after]
        came = [f"+E{e}" for e in shift.after if e not in shift.before]
        row, told = self._shift(shift), _GAP + " ".join([*went, *came])
        fits = line_width(row) + len(told) <= width
        return (*row, (told, self.paint.muted)) if fits else row

    def _next(self) -> Line:
        """What the keys would do now."""
        paint, moment = self.paint, self.moment
        model, cursor = moment.snapshot.model, moment.cursor
        right: Line = (("w", paint.head), (" another  ", paint.muted))
        right = (*right, ("p", paint.head), (" pin", paint.muted))
        room = max(self.size.width - line_width(right) - 4, 1)
        reason = moment.choice.impossible(model, cursor.layer) if model is not None else None
        would = described(moment.choice.changes(cursor.layer, cursor.expert))
        where = f", token {cursor.token}"
        told = fitted(reason or would + where * (len(would + where) <= room), room).rstrip()
        key = "" if reason else "x "
        return spread(((key, paint.head), (told, paint.muted)), right, self.size.width)


def number(value: float, *, signed: bool = False, digits: int = 0) -> str:
    """At most 6 cells (small ones 1 + `digits` more); only what is exactly nothing is 0."""
    if value == 0:
        return "0"
    sign = "+" if signed else ""
    if abs(value) < 0.001:
        return f"{value:{sign}.{digits}e}"
    return f"{value:{sign}.3f}" if abs(value) < 100 else f"{value:{sign}.0f}"


def sentence(view: WhatIf, width: int) -> str:
    """What may be said of one prompt; a shorter wording where `width` cells are too few."""
    controls = view.kl.controls
    if view.identical:
        unused = " No token read selects it." if view.tokens_using == 0 else ""
        idle = sum(value == 0 for value in controls)
        do = "does" if idle == 1 else "do"
        also = f" So {do} {idle} of {len(controls)} controls." if controls else ""
        return f"The change leaves the next-token logits as they were, bit for bit.{unused}{also}"
    kl = f"KL {number(view.kl.statistic.value or 0.0, digits=1)}"
    if not controls:
        return f"{kl}." if view.planned else f"{kl}. There is nothing to draw as a control."
    larger = f"larger than {view.kl.larger_than} of {len(controls)} {view.control}"
    if view.controls[0].tokens is None:
        return f"{kl}: {larger}."
    used = sum(bool(control.tokens) for control in view.controls)
    of_used = f"{view.kl.larger_than_used} of the {used}" if used else "none of them"
    long = f"{kl}: {larger} ({of_used} in use here)."
    return long if len(long) <= width else f"KL {larger}, {of_used} used"


def _where(view: WhatIf, width: int) -> str:
    """Where it is judged, on how much text; a shorter wording where it is narrow."""
    token = f"token {view.request.row} {plain(view.token)}"
    read = f"{view.request.row + 1} read"
    if view.tokens_using is not None:
        read += f", {view.tokens_using} use it"
    long, short = f"after {token} ({read})", f"{token}: {read}"
    if view.followed:
        own = view.followed_generated
        long += f" · {view.followed} followed" + (f" ({own} its own)" if own else "")
        short += f"; {view.followed} followed" + (f", {own} own" if own else "")
    return long if cell_len(long) <= width else short


def _token_row(token: NextToken, width: int) -> str:
    ranks = f"{token.rank_before + 1} → {token.rank_after + 1}"
    before, after = probability(token.before), probability(token.after)
    return f"{plain(token.text, width)}{before:>7}{after:>7}{ranks:>10}"


def _counted(controls: int) -> str:
    return "1 control exists" if controls == 1 else f"{controls} controls exist"


def _short(share: float) -> str:
    return "0" if share == 0 else f"{share:.2f}"
