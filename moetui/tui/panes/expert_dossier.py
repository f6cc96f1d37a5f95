"""One expert on one page: load, tokens, what it writes, whom it works with, what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from math import exp

from moetui.analyses.expert_dossier import DossierSoFar, ExpertDossier
from moetui.stats import Statistic
from moetui.trace import Phase
from moetui.tui.moment import Moment
from moetui.tui.panes.pane import LinePane, wrapped
from moetui.tui.panes.reasons import no_routing
from moetui.tui.text import fitted, plain
from moetui.tui.widgets.gauge import probability
from moetui.tui.widgets.lines import Line, spread

_WIDEST, _NARROWEST = 32, 22  # cells of a list
_GAP = "  "


class ExpertDossierPane(LinePane[ExpertDossier]):
    """The newest dossier, ever more complete while it is being made."""

    pane_id = "dossier"
    title = "expert dossier"
    help = (
        "Everything known of one expert, over documents of the bundled corpus. d (here) makes the "
        "dossier of the expert under the cursor: its share of tokens with a 95 % interval beside "
        "the uniform share; tokens that go to it more often than their documents foretell (lift, "
        "found on calibration documents, judged on evaluation documents); what it writes, its "
        "mean output through the model's own norm and head, beside that of the whole layer; its "
        "partners, how often a token that uses it uses them too, beside random sets of equally "
        "popular experts; and the rise of −ln p without it (nats a token), beside the same "
        "without up to 20 random and 20 equally loaded experts. Esc stops; what is found stays."
    )

    def view_of(self, moment: Moment) -> ExpertDossier | None:
        """The newest dossier."""
        found = moment.snapshot.finding
        return found.dossier if isinstance(found, DossierSoFar) else None

    def depends_on(self, moment: Moment) -> object:
        """The finding."""
        return moment.snapshot.finding

    def empty_reason(self, moment: Moment) -> str:
        """Why there is none, and how to get one."""
        model, found, cursor = moment.snapshot.model, moment.snapshot.finding, moment.cursor
        if model is None or not model.is_moe:
            return no_routing(moment)
        if isinstance(found, DossierSoFar):
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
        """Title, load, loss; then tokens, writing and partners side by side where it is wide."""
        width, height = self.size
        above = [self._title(view), *self._load(view), *self._loss(view), ()]
        room = height - len(above) - 1
        blocks = [self._triggers(view), self._writes(view), self._partners(view)]
        across = max(min((width + len(_GAP)) // (_NARROWEST + len(_GAP)), len(blocks)), 1)
        below: list[Line] = []
        for start in range(0, len(blocks), across):
            below += [*self._beside(blocks[start : start + across]), ()]
        space: list[Line] = [()] * (room - len(below))
        return [*[*above, *below[: max(room, 0)], *space][: max(height - 1, 0)], self._next()]

    @property
    def _column(self) -> int:
        """Cells of a list: as many lists stand side by side as can."""
        width = self.size.width + len(_GAP)
        across = max(min(width // (_NARROWEST + len(_GAP)), 3), 1)
        return max(min(width // across - len(_GAP), _WIDEST), 1)

    @property
    def _going_on(self) -> bool:
        return self.moment.snapshot.phase is Phase.STUDYING

    def _title(self, view: ExpertDossier) -> Line:
        paint, found = self.paint, self.moment.snapshot.finding
        told = f"{view.load.n_documents} documents"
        if isinstance(found, DossierSoFar) and not found.finished:
            how = "Esc stops" if self._going_on else "stopped"
            told = f"{found.doing} {found.done}/{found.of} · {how}"
        left: Line = ((f"E{view.expert} at L{view.layer}", paint.head),)
        left = (*left, (f"  {view.top_k} of {view.num_experts} a token", paint.muted))
        return spread(left, ((told, paint.muted),), self.size.width)

    def _load(self, view: ExpertDossier) -> list[Line]:
        share = _told(view.load, _percent)
        even = f"uniform {_percent(view.load.null_mean)}"
        domains = ", ".join(f"{plain(d.domain)} {_percent(d.share.value)}" for d in view.domains)
        return [
            *self._fact("used by", share, f"of {view.load.n_tokens:,} tokens · {even}"),
            *self._fact("", "", domains),
        ]

    def _loss(self, view: ExpertDossier) -> list[Line]:
        """ΔNLL beside both kinds of controls, and whether it is as good as none."""
        causal = view.causal
        if causal is None:
            return self._fact("without it", "—", "the loss is not measured yet")
        delta = f"{_told(causal.delta_nll, _nats)} nats a token"
        judged = f"within ±{causal.equivalence.margin:g} nats: {causal.equivalence.outcome}"
        lines = self._fact("without it", delta, judged)
        for name, beside in (("random", causal.delta_nll), ("of like load", causal.matched)):
            band = f"[{_nats(beside.null_low)}, {_nats(beside.null_high)}]"
            p = "—" if beside.p is None else f"{beside.p:.3f}"
            lines += self._fact("", "", f"experts {name}: {_nats(beside.null_mean)} {band}, p {p}")
        if causal.delta_nll.caveat:
            lines += self._fact("", "", causal.delta_nll.caveat)
        return lines

    def _fact(self, name: str, value: str, note: str) -> list[Line]:
        """A name, what is claimed, and what stands beside it, in as many rows as it needs."""
        paint, width, indent = self.paint, max(self.size.width, 12), 11
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
        count = found.discovered if found is not None else 0
        rows = [self._row(plain(one.token), _told(one.lift, _times)) for one in tokens]
        none = f"none of {view.triggers.token_ids} tokens stands out"
        return self._block("tokens", f"{count}, lift", rows, none)

    def _writes(self, view: ExpertDossier) -> list[Line]:
        """Tokens that it writes, beside the layer."""
        writes = view.writes
        if writes is None:
            return self._block("writes", "", [], view.writes_reason or "")
        rows = [
            self._row(plain(one.text), f"{_p(one.logprob)} ({_p(one.typical)})")
            for one in writes.tokens
        ]
        agree = f"halves agree {_points(writes.agreement.value)} %"
        return self._block("writes", agree, rows, "")

    def _partners(self, view: ExpertDossier) -> list[Line]:
        """Who comes along more, and less, than by chance."""
        if view.partners is None:
            return self._block("partners", "", [], view.partners_reason or "")
        rows = []
        for one in view.partners:
            told = f"{_told(one.together, _points)} ({_points(one.together.null_mean)}) %"
            rows.append(self._row(f"E{one.expert}", told))
        return self._block("partners", "share (chance)", rows, "the layer has no other expert")

    def _block(self, title: str, note: str, rows: Sequence[Line], none: str) -> list[Line]:
        paint = self.paint
        head = spread(((title, paint.head),), ((note, paint.muted),), self._column)
        if rows:
            return [head, *rows]
        return [
            head,
            *(((fitted(row, self._column), paint.muted),) for row in wrapped(none, self._column)),
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

    def _next(self) -> Line:
        """What d would do now."""
        paint, cursor = self.paint, self.moment.cursor
        told = f" dossier of E{cursor.expert} at L{cursor.layer}"
        return (("d", paint.head), (fitted(told, max(self.size.width - 1, 0)), paint.muted))


def _percent(value: float | None) -> str:
    return "—" if value is None else f"{value:.1%}"


def _p(logprob: float) -> str:
    return probability(exp(logprob))


def _times(value: float | None) -> str:
    return "—" if value is None else f"{value:.1f}"


def _points(value: float | None) -> str:
    return "—" if value is None else f"{100 * value:.0f}"


def _nats(value: float | None) -> str:
    return "—" if value is None else f"{value:+.4f}"


def _told(found: Statistic, form: Callable[[float | None], str]) -> str:
    """A value with its interval."""
    if found.ci_low is None or found.ci_high is None:
        return form(found.value)
    return f"{form(found.value)} [{form(found.ci_low)}, {form(found.ci_high)}]"
