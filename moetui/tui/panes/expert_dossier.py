"""One expert on one page: load, tokens, what it writes, whom it works with, what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from math import exp
from typing import ClassVar

from textual.binding import Binding, BindingType

from moetui.analyses.expert_dossier import DossierSoFar, ExpertDossier
from moetui.stats import MIN_DOCUMENTS, Statistic
from moetui.trace import Phase
from moetui.tui.moment import Moment
from moetui.tui.panes.pane import LinePane, wrapped
from moetui.tui.panes.reasons import no_routing
from moetui.tui.text import fitted, plain
from moetui.tui.widgets.gauge import probability
from moetui.tui.widgets.lines import Line, line_width, spread

_WIDEST, _NARROWEST = 32, 22  # cells of a list
_GAP = "  "
_INDENT = 11  # cells before what is told of a fact


class ExpertDossierPane(LinePane[ExpertDossier]):
    """The newest dossier, ever more complete while it is being made."""

    pane_id = "dossier"
    title = "expert dossier"
    help = (
        "Everything known of one expert, over documents of the bundled corpus. d (here) makes the "
        "dossier of the expert under the cursor: its share of tokens with a 95 % interval beside "
        "the uniform share; tokens that go to it more often than their documents foretell (lift, "
        "found on calibration documents, judged on evaluation documents, the largest first); what "
        "it writes, its mean output through the model's own norm and head, beside that of the "
        "whole layer; its partners, how often a token that uses it uses them too, beside random "
        "sets of equally popular experts; and the rise of −ln p without it (nats a token), beside "
        "the same without up to 20 random and 20 equally loaded experts. [—] is an interval that "
        "too few documents leave open. Esc stops; what is found stays, the loss on the documents "
        "measured so far too. PgUp and PgDn turn the page where it is longer than the pane."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup", "page(-1)", "page up", show=False),
        Binding("pagedown", "page(1)", "page down", show=False),
    ]

    _top = 0
    _of: tuple[int, int] | None = None

    def view_of(self, moment: Moment) -> ExpertDossier | None:
        """The newest dossier."""
        found = moment.dossier_so_far
        return found.dossier if found is not None else None

    def depends_on(self, moment: Moment) -> object:
        """The dossier."""
        return moment.dossier_so_far

    def empty_reason(self, moment: Moment) -> str:
        """Why there is none, and how to get one."""
        model, found, cursor = moment.snapshot.model, moment.dossier_so_far, moment.cursor
        if model is None or not model.is_moe:
            return no_routing(moment)
        if found is not None:
            stopped = "" if self._going_on else ", stopped: d begins again"
            said = f"{found.doing}, {found.done} of {found.of}{stopped}"
            return f"E{found.expert} at L{found.layer}: {said}."
        if not model.num_experts or cursor.layer not in model.moe_layers:
            return f"Layer {cursor.layer} is dense: it has no expert to look at."
        return (
            f"d makes the dossier of E{cursor.expert} at L{cursor.layer}: its load, its tokens, "
            "what it writes, its partners and what the model loses without it, on 200 + 200 "
            "documents of the bundled corpus. Esc stops it at any moment."
        )

    def lines(self, view: ExpertDossier) -> list[Line]:
        """A page of it, or all of it; the last row says what d does and what is not in sight."""
        if self._of != (view.layer, view.expert):
            self._top, self._of = 0, (view.layer, view.expert)
        rows, room = self._rows(view), self._room
        self._top = max(0, min(self._top, len(rows) - room))
        space: list[Line] = [()] * (room - len(rows))
        shown = rows[self._top : self._top + room]
        last = self._last(len(rows))
        return [*shown, *space, last] if self.size.height > 1 else [last]

    def action_page(self, by: int) -> None:
        """Turn the page, a row of the one before staying in sight."""
        if self.view is not None:
            self._top += by * max(self._room - 1, 1)
            self.draw()

    @property
    def _room(self) -> int:
        return max(self.size.height - 1, 1)

    def _rows(self, view: ExpertDossier) -> list[Line]:
        """Title, load, loss; then tokens, writing and partners side by side where it is wide."""
        rows = [self._title(view), *self._load(view), *self._loss(view)]
        blocks = [self._triggers(view), self._writes(view), self._partners(view)]
        for start in range(0, len(blocks), self._across):
            rows += [(), *self._beside(blocks[start : start + self._across])]
        return rows

    @property
    def _across(self) -> int:
        """How many lists stand side by side."""
        width = self.size.width + len(_GAP)
        return max(min(width // (_NARROWEST + len(_GAP)), 3), 1)

    @property
    def _column(self) -> int:
        """Cells of a list."""
        width = self.size.width + len(_GAP)
        return max(min(width // self._across - len(_GAP), _WIDEST), 1)

    @property
    def _going_on(self) -> bool:
        snapshot = self.moment.snapshot
        return snapshot.phase is Phase.STUDYING and isinstance(snapshot.finding, DossierSoFar)

    def _title(self, view: ExpertDossier) -> Line:
        """Whose it is, and how far; what the layer has gives way to that."""
        paint, found, width = self.paint, self.moment.dossier_so_far, self.size.width
        told = f"{view.load.n_documents} documents"
        if found is not None and not found.finished:
            how = "Esc stops" if self._going_on else "stopped"
            told = f"{found.doing} {found.done}/{found.of} · {how}"
        right: Line = ((told, paint.muted),)
        left: Line = ((f"E{view.expert} at L{view.layer}", paint.head),)
        more: Line = (*left, (f"  {view.top_k} of {view.num_experts} a token", paint.muted))
        fits = line_width(more) + line_width(right) < width
        return spread(more if fits else left, right, width)

    def _load(self, view: ExpertDossier) -> list[Line]:
        share = _told(view.load, _percent)
        even = f"uniform {_percent(view.load.null_mean)}"
        domains = [f"{plain(d.domain)} {_told(d.share, _points)}" for d in view.domains]
        sizes = [d.share.n_documents or 0 for d in view.domains]
        if domains:
            domains[-1] += " %"
            domains.append(f"{_between(sizes)} documents each")
        return [
            *self._fact("used by", share, f"of {view.load.n_tokens:,} tokens · {even}"),
            *self._listed(domains),
            *(self._fact("", "", view.load.caveat) if view.load.caveat else []),
        ]

    def _loss(self, view: ExpertDossier) -> list[Line]:
        """ΔNLL beside both kinds of controls, whether it is as good as none, and where it is."""
        causal = view.causal
        if causal is None:
            return self._fact("without it", "—", "the loss is not measured yet")
        delta = f"{_told(causal.delta_nll, _nats)} nats a token"
        judged = f"within ±{causal.equivalence.margin:g} nats: {causal.equivalence.outcome}"
        lines = self._fact("without it", delta, judged)
        random, matched = _controls(causal.delta_nll), _controls(causal.matched)
        controls = {"random": random, "of like load": matched}
        if random == matched:  # the layer has so few that either are all the others
            controls = {"random and of like load": random}
        for name, told in controls.items():
            lines += self._fact("", "", f"experts {name}: {told}")
        if causal.delta_nll.caveat:
            lines += self._fact("", "", causal.delta_nll.caveat)
        by_domain = sorted(causal.domains, key=lambda d: -(d.delta_nll.value or 0.0))
        parts = [f"{plain(d.domain)} {_told(d.delta_nll, _short)}" for d in by_domain]
        return [*lines, *self._listed(parts)]

    def _listed(self, items: Sequence[str]) -> list[Line]:
        """Items with commas, in rows that begin with an item."""
        room = max(self.size.width - _INDENT, 1)
        rows: list[str] = []
        for item in items:
            if rows and len(rows[-1]) + 2 + len(item) < room:
                rows[-1] += f", {item}"
            else:
                rows[-1:] = [f"{rows[-1]},", item] if rows else [item]
        return [((" " * _INDENT + fitted(row, room), self.paint.muted),) for row in rows]

    def _fact(self, name: str, value: str, note: str) -> list[Line]:
        """A name, what is claimed, and what stands beside it, in as many rows as it needs."""
        paint, width, indent = self.paint, max(self.size.width, 12), _INDENT
        if not value or not note or len(value) + indent + len(note) + 2 <= width:
            rows = wrapped(note, max(width - indent - (len(value) + 2 if value else 0), 1))
            gap = "  " if value else ""
            first: Line = ((f"{name:<{indent}}", paint.muted), (value + gap, paint.head))
            rest: list[Line] = [((" " * indent + row, paint.muted),) for row in rows[1:]]
            return [(*first, (rows[0], paint.muted)), *rest]
        return [*self._fact(name, value, ""), *self._fact("", "", note)]

    def _triggers(self, view: ExpertDossier) -> list[Line]:
        """Tokens by lift."""
        found = view.triggers.experts[0] if view.triggers.experts else None
        tokens = found.tokens if found is not None else ()
        tried = f"{view.triggers.token_ids:,} tokens"
        if found is None or not tokens:
            return self._block("tokens", "", [], f"none of {tried} stands out")
        rows = [self._row(plain(one.token), _told(one.lift, _times)) for one in tokens]
        told = f"{found.discovered:,} of {tried} stand out"
        if any(one.lift.ci_low is None for one in tokens):
            told += f"; [—]: in fewer than {MIN_DOCUMENTS} documents"
        return self._block("tokens", "by lift ↓", rows, told)

    def _writes(self, view: ExpertDossier) -> list[Line]:
        """Tokens that it writes, beside the layer."""
        writes = view.writes
        if writes is None:
            return self._block("writes", "", [], view.writes_reason or "")
        rows = [
            self._row(plain(one.text), f"{_p(one.logprob)} ({_p(one.typical)})")
            for one in writes.tokens
        ]
        agree = writes.agreement
        told = f"halves agree {_points(agree.value)}%"
        if agree.null_mean is not None:
            told += f" (chance {100 * agree.null_mean:.2g}%)"
        return self._block("writes", "p (layer)", rows, f"{told}; of {writes.n_tokens:,} tokens")

    def _partners(self, view: ExpertDossier) -> list[Line]:
        """Who comes along more, and less, than by chance."""
        if view.partners is None:
            return self._block("partners", "", [], view.partners_reason or "")
        rows = []
        for one in view.partners:
            told = f"{_told(one.together, _points)} ({_points(one.together.null_mean)}) %"
            rows.append(self._row(f"E{one.expert}", told))
        if not rows:
            return self._block("partners", "", [], "the layer has no other expert")
        told = f"by share over chance; of its {view.partners[0].together.n_tokens or 0:,} tokens"
        return self._block("partners", "share (chance)", rows, told)

    def _block(self, title: str, note: str, rows: Sequence[Line], below: str) -> list[Line]:
        """A list under its title; below it what holds for all of it, or why it is empty."""
        paint = self.paint
        head = spread(((title, paint.head),), ((note, paint.muted),), self._column)
        told = [fitted(row, self._column) for row in wrapped(below, self._column)] if below else []
        return [
            (*head, (" " * (self._column - line_width(head)), paint.text)),
            *rows,
            *(((row, paint.muted),) for row in told),
        ]

    def _row(self, name: str, value: str) -> Line:
        room = max(self._column - len(value) - 1, 1)
        return ((fitted(name, room) + " ", self.paint.text), (value, self.paint.muted))

    def _beside(self, blocks: Sequence[list[Line]]) -> list[Line]:
        """Blocks in columns."""
        blank: Line = ((" " * self._column, self.paint.text),)
        lines: list[Line] = []
        for rows in zip_longest(*blocks, fillvalue=blank):
            line: Line = ()
            for row in rows:
                gap: Line = ((_GAP, self.paint.text),) if line else ()
                line = (*line, *gap, *row)
            lines.append(line)
        return lines

    def _last(self, rows: int) -> Line:
        """What d would do now; where it is not all in sight, which rows are."""
        paint, cursor, width = self.paint, self.moment.cursor, self.size.width
        hidden = rows > self._room
        sight = f"{self._top + 1}-{self._top + self._room} of {rows} rows · PgUp PgDn"
        told = f" dossier of E{cursor.expert} at L{cursor.layer}"
        room = width - 1 - (len(sight) + 2 if hidden else 0)
        left: Line = (("d", paint.head), (fitted(told, room), paint.muted)) if room > 2 else ()
        if not hidden:
            return left
        return (*left, ("  " if left else "", paint.muted), (sight, paint.head))


def _percent(value: float | None) -> str:
    return "—" if value is None else f"{value:.1%}"


def _p(logprob: float) -> str:
    p = exp(logprob)
    return "<.001" if p < 0.0005 else probability(p)


def _between(sizes: Sequence[int]) -> str:
    low, high = min(sizes), max(sizes)
    return f"{low}" if low == high else f"{low}-{high}"


def _controls(beside: Statistic) -> str:
    """What the same does to other experts."""
    p = "—" if beside.p is None else f"{beside.p:.3f}"
    band = f"[{_nats(beside.null_low)}, {_nats(beside.null_high)}]"
    return f"{_nats(beside.null_mean)} {band}, p {p}"


def _times(value: float | None) -> str:
    return "—" if value is None else f"{value:.1f}"


def _points(value: float | None) -> str:
    return "—" if value is None else f"{100 * value:.0f}"


def _nats(value: float | None) -> str:
    return "—" if value is None else f"{value:+.4f}"


def _short(value: float | None) -> str:
    return "—" if value is None else f"{value:+.3f}"


def _told(found: Statistic, form: Callable[[float | None], str]) -> str:
    """A value with its interval, [—] where there is none."""
    if found.value is None:
        return "—"
    if found.ci_low is None or found.ci_high is None:
        return f"{form(found.value)} [—]"
    return f"{form(found.value)} [{form(found.ci_low)}, {form(found.ci_high)}]"
