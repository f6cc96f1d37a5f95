"""What the user has chosen to change: kinds of change, where, in words, and as a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from moetui.analyses.what_if import WhatIf, WhatIfRequest
from moetui.analyses.what_if_changes import Change, ExpertChange
from moetui.trace import Ban, Deselect, Drop, Force, Recording, ScalePart, TopK
from moetui.trace.types import ModelInfo

# Tokens after the judged one that are scored: more would make every pass longer.
MOST_FOLLOWED = 64


class Kind(StrEnum):
    """The kinds of change, named as they are shown."""

    DROP = "drop"
    RENORMALISE = "drop, renormalise"
    DESELECT = "de-select"
    BAN = "ban"
    FORCE = "force"
    TOP_K = "change k"
    NO_ATTENTION = "no attention"
    NO_EXPERTS = "no experts"


# Kind → the letter that chooses it in the dialog, and what it does to an expert or a layer.
KINDS: dict[Kind, tuple[str, str]] = {
    Kind.DROP: ("d", "its output counts nothing, other weights stay"),
    Kind.RENORMALISE: ("r", "and the other weights grow to the same sum"),
    Kind.DESELECT: ("n", "the next best by score works instead"),
    Kind.BAN: ("b", "router logit −1e9: softmax rescales the weights"),
    Kind.FORCE: ("f", "every token uses it, its weakest gives way"),
    Kind.TOP_K: ("k", "every token uses so many experts"),
    Kind.NO_ATTENTION: ("a", "the layer's attention adds nothing"),
    Kind.NO_EXPERTS: ("e", "the layer's feed-forward part adds nothing"),
}
OF_EXPERTS = (Kind.DROP, Kind.RENORMALISE, Kind.DESELECT, Kind.BAN, Kind.FORCE)


@dataclass(frozen=True)
class Choice:
    """What the next measurement changes.

    everywhere: in every layer (that routes) instead of the cursor's. pinned: (layer, expert)
    pairs that are changed instead of the expert under the cursor. k: for Kind.TOP_K.
    """

    kind: Kind = Kind.DROP
    k: int = 1
    everywhere: bool = False
    pinned: tuple[tuple[int, int], ...] = ()

    def changes(self, layer: int, expert: int) -> tuple[Change, ...]:
        """The interventions, with the cursor at `layer` and `expert`."""
        layers = None if self.everywhere else (layer,)
        if self.kind is Kind.TOP_K:
            return (TopK(k=self.k, layers=layers),)
        if self.kind is Kind.NO_ATTENTION:
            return (ScalePart(part="attention", factor=0.0, layers=layers),)
        if self.kind is Kind.NO_EXPERTS:
            return (ScalePart(part="experts", factor=0.0, layers=layers),)
        cells = self.pinned or ((layer, expert),)
        if self.everywhere:
            return (self._of(tuple(sorted({e for _, e in cells})), None),)
        return tuple(
            self._of(tuple(sorted(e for at, e in cells if at == where)), (where,))
            for where in sorted({at for at, _ in cells})
        )

    def _of(self, experts: tuple[int, ...], layers: tuple[int, ...] | None) -> Change:
        if self.kind is Kind.DESELECT:
            return Deselect(experts=experts, layers=layers)
        if self.kind is Kind.BAN:
            return Ban(experts=experts, layers=layers)
        if self.kind is Kind.FORCE:
            return Force(experts=experts, layers=layers)
        renormalise = self.kind is Kind.RENORMALISE
        return Drop(experts=experts, layers=layers, renormalise=renormalise)

    def impossible(self, model: ModelInfo, layer: int) -> str | None:
        """Why this cannot be measured with the cursor at `layer`; None where it can."""
        pinned = self.pinned and self.kind in OF_EXPERTS
        routes = layer in model.moe_layers or self.everywhere or pinned
        if routes or self.kind in (Kind.NO_ATTENTION, Kind.NO_EXPERTS):
            return None
        return f"layer {layer} is dense: {self.kind} needs a layer that routes"


def other_ks(model: ModelInfo) -> list[int]:
    """The numbers of experts worth trying instead of k: 1, one fewer, one more, twice as many."""
    k = model.top_k
    return sorted({n for n in (1, k - 1, k + 1, 2 * k) if 1 <= n <= model.num_experts} - {k})


def request_at(
    recording: Recording, rows: int, token: int, changes: tuple[Change, ...]
) -> WhatIfRequest:
    """The request to make `changes` in the first `rows` rows, judged at `token`."""
    read = min(rows, token + 1 + MOST_FOLLOWED)
    return WhatIfRequest(
        token_ids=tuple(recording.token_ids(read).tolist()),
        row=token,
        prompt_tokens=len(recording.prompt),
        changes=changes,
    )


def control_count(finding: WhatIf) -> str:
    """What is being measured: `control 7 of 20`."""
    return f"control {min(len(finding.controls) + 1, finding.planned)} of {finding.planned}"


def described(changes: Sequence[Change]) -> str:
    """The changes in words: `drop E7 at L3`."""
    first, *_ = changes
    return f"{_verb(first)} {', '.join(_object(change) for change in changes)}".strip()


def manner(change: Change) -> str:
    """How it is done, where there are several ways; empty where there is one."""
    if isinstance(change, Drop):
        return "weights renormalised" if change.renormalise else "weights kept"
    if isinstance(change, Deselect):
        return "the next best works"
    if isinstance(change, Ban):
        return "logit −1e9"
    return ""


def _verb(change: Change) -> str:
    if isinstance(change, ScalePart):
        return "remove"
    if isinstance(change, TopK):
        return "use"
    return "de-select" if isinstance(change, Deselect) else type(change).__name__.lower()


def _object(change: Change) -> str:
    layers = "in every layer"
    if change.layers is not None:
        layers = "at " + "+".join(f"L{layer}" for layer in change.layers)
    if isinstance(change, ExpertChange):
        return f"{'+'.join(f'E{expert}' for expert in change.experts)} {layers}"
    if isinstance(change, TopK):
        return f"k = {change.k} {layers}"
    return f"{change.part} {layers}"
