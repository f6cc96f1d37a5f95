"""Whether an expert brings about the choice of another one later: it is silenced, and one looks.

Experts that meet often may do so because both answer to the same stream. And any disturbance makes
a likely choice less likely, so a fall alone shows nothing: an edge is causal where silencing its
source lowers the choice of its target more than silencing other experts of the very same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.routed import RoutedDocument
from moetui.stats import (
    MIN_DOCUMENTS,
    Statistic,
    benjamini_hochberg,
    document_intervals,
    ratio_of_sums,
    sign_flip,
)
from moetui.trace import Drop, Forward
from moetui.trace.types import ExpertIds

Numbers = NDArray[np.float64]
CausalVerdict = Literal["causal", "not causal", "inconclusive"]
# An edge between decoder layers: source layer, source, target layer, target.
EdgeKey = tuple[int, int, int, int]

LEVEL = 0.05
# Tokens below which a control by itself says nothing: it is left out of the controls' range.
_RANGED = 20
DEFINITION = (
    "the source is silenced in its layer (mixing weight 0) and the pass is made again; effect = "
    "change of the share of the source's tokens that choose the target; control = the same change "
    "made to random other experts of that layer, on those tokens of the source that chose them "
    "too. Causal: the effect is below that of the controls by an interval over documents that "
    "leaves out 0, and q of the sign-flip test over documents (false discovery rate over the "
    f"edges) is at most {LEVEL}"
)


class CausalEdge(msgspec.Struct, frozen=True, kw_only=True):
    """One edge put to the test.

    before: share of the source's tokens that choose the target, untouched. effect: its change
    with the source silenced, with mean and range of the controls' as null (a control of fewer
    than 20 tokens is in the mean only). over_controls: effect
    less the controls' on the same tokens, with an interval over documents, p and q. controls:
    how many experts were silenced instead. source_weight, control_weight: mean mixing weight of
    what was silenced, over the tokens compared: how large the disturbance was.
    """

    source_layer: int
    source: int
    target_layer: int
    target: int
    before: Statistic
    effect: Statistic
    over_controls: Statistic
    controls: int
    source_weight: float | None
    control_weight: float | None
    verdict: CausalVerdict
    reason: str | None


class CausalEdges(msgspec.Struct, frozen=True, kw_only=True, tag="causal_edges"):
    """The edges tested, of `eligible` whose source is in one of `layers`.

    mean: effect over controls, mean over the edges tested, with an interval over documents.
    """

    definition: str
    layers: tuple[int, ...]
    eligible: int
    edges: tuple[CausalEdge, ...]
    mean: Statistic
    n_documents: int
    n_tokens: int
    reason: str | None


@dataclass(frozen=True, eq=False, kw_only=True)
class SilencedSums:
    """Sums over the tokens of one document for one edge and one silenced expert.

    expert: the one silenced. tokens: those that chose the source and it; before, after: those of
    them that chose the target without and with the change; source_tokens … source_after: the same
    tokens with the source silenced instead. weight, source_weight: summed mixing weights of the
    two on them.
    """

    edge: EdgeKey
    expert: int
    document: int
    tokens: int
    before: int
    after: int
    source_after: int
    weight: float
    source_weight: float


def controls_of(
    edges: Sequence[EdgeKey], experts: int, wanted: int, *, seed: int
) -> dict[int, tuple[int, ...]]:
    """By source layer the experts that are silenced besides the sources, drawn at random."""
    rng = np.random.default_rng(seed)
    return {
        layer: tuple(int(e) for e in np.sort(rng.choice(experts, min(wanted, experts), False)))
        for layer in sorted({edge[0] for edge in edges})
    }


def silenced_sums(
    model: Forward,
    document: RoutedDocument,
    index: int,
    edges: Sequence[EdgeKey],
    controls: dict[int, tuple[int, ...]],
    step: Callable[[], None] = lambda: None,
) -> Iterator[SilencedSums]:
    """What silencing sources and controls does in one document; one pass for each expert of a
    source layer that it uses (for others the pass would be the same, bit for bit).

    step: called after every expert, whether it took a pass or not.
    """
    rows = {layer: row for row, layer in enumerate(model.info.moe_layers)}
    for layer, others in controls.items():
        here = [edge for edge in edges if edge[0] == layer]
        sources = sorted({edge[1] for edge in here})
        chosen = document.experts[:, rows[layer]]
        after: dict[int, ExpertIds] = {}
        for expert in sorted({*sources, *others}):
            if (chosen == expert).any():
                change = Drop(experts=(expert,), layers=(layer,))
                trace = model.trace(document.ids, lens=0, residuals=False, interventions=(change,))
                after[expert] = trace.expert_ids
            step()
        for edge in here:
            for expert in sorted({edge[1], *others}):
                if edge[1] in after and expert in after:
                    yield _sums(document, index, edge, expert, after, rows)


def _sums(
    document: RoutedDocument,
    index: int,
    edge: EdgeKey,
    expert: int,
    after: dict[int, ExpertIds],
    rows: dict[int, int],
) -> SilencedSums:
    layer, source, target_layer, target = edge
    chosen, to = document.experts[:, rows[layer]], rows[target_layer]
    both = (chosen == source).any(axis=-1) & (chosen == expert).any(axis=-1)
    weights = np.nan_to_num(document.weights[both, rows[layer]])

    def choosing(experts: ExpertIds) -> int:
        return int((experts[both, to] == target).any(axis=-1).sum())

    def weight(of: int) -> float:
        return float(np.where(chosen[both] == of, weights, 0.0).sum())

    return SilencedSums(
        edge=edge,
        expert=expert,
        document=index,
        tokens=int(both.sum()),
        before=choosing(document.experts),
        after=choosing(after[expert]),
        source_after=choosing(after[source]),
        weight=weight(expert),
        source_weight=weight(source),
    )


def causal_edges(
    edges: Sequence[EdgeKey],
    sums: Sequence[SilencedSums],
    *,
    layers: Sequence[int],
    eligible: int,
    n_documents: int,
    n_tokens: int,
    seed: int,
) -> CausalEdges:
    """The verdicts on `edges` from the sums of all documents."""
    found = [
        _judged(edge, [one for one in sums if one.edge == edge], n_documents, seed)
        for edge in edges
    ]
    known = [at for at, one in enumerate(found) if one.over_controls.p is not None]
    q = benjamini_hochberg([found[at].over_controls.p or 1.0 for at in known])
    for at, value in zip(known, q.tolist(), strict=True):
        found[at] = _decided(found[at], value)
    return CausalEdges(
        definition=DEFINITION,
        layers=tuple(layers),
        eligible=eligible,
        edges=tuple(found),
        mean=_mean(edges, sums, n_documents, seed),
        n_documents=n_documents,
        n_tokens=n_tokens,
        reason=_reason(found),
    )


def _judged(edge: EdgeKey, sums: Sequence[SilencedSums], n_documents: int, seed: int) -> CausalEdge:
    own = [one for one in sums if one.expert == edge[1]]
    others = [one for one in sums if one.expert != edge[1] and one.tokens]
    controls = sorted({one.expert for one in others})
    difference, used = _over_controls(others, n_documents, seed)
    compared = sum(one.tokens for one in others)
    return CausalEdge(
        source_layer=edge[0],
        source=edge[1],
        target_layer=edge[2],
        target=edge[3],
        before=_share(own, lambda one: one.before, n_documents, seed),
        effect=_with_controls(
            _share(own, lambda one: one.after - one.before, n_documents, seed), others, controls
        ),
        over_controls=difference,
        controls=len(controls),
        source_weight=sum(o.source_weight for o in others) / compared if compared else None,
        control_weight=sum(o.weight for o in others) / compared if compared else None,
        verdict="inconclusive",
        reason=_too_little(len(controls), used),
    )


def _too_little(controls: int, documents: int) -> str | None:
    if not controls:
        return "no token chose a control expert beside the source"
    if documents < MIN_DOCUMENTS:
        return f"{documents} documents with such tokens, {MIN_DOCUMENTS} needed"
    return None


def _share(
    sums: Sequence[SilencedSums],
    value: Callable[[SilencedSums], float],
    n_documents: int,
    seed: int,
) -> Statistic:
    """Σ value / Σ tokens, with an interval over documents."""
    above, below = np.zeros(n_documents), np.zeros(n_documents)
    for one in sums:
        above[one.document] += value(one)
        below[one.document] += one.tokens
    if not below.any():
        return Statistic(n_tokens=0, caveat="no token chose the source")
    kept = below > 0
    intervals = document_intervals(
        ratio_of_sums(above[kept], below[kept]), int(kept.sum()), seed=seed
    )
    return intervals.statistic(n_tokens=int(below.sum()))


def _with_controls(
    effect: Statistic, others: Sequence[SilencedSums], controls: Sequence[int]
) -> Statistic:
    """`effect` beside the mean and the range of what the controls do."""
    each = []
    for expert in controls:
        own = [one for one in others if one.expert == expert]
        if (tokens := sum(o.tokens for o in own)) >= _RANGED:
            each.append(sum(o.after - o.before for o in own) / tokens)
    compared = sum(o.tokens for o in others)
    if not compared:
        return effect
    return msgspec.structs.replace(
        effect,
        null_mean=sum(o.after - o.before for o in others) / compared,
        null_low=float(min(each)) if each else None,
        null_high=float(max(each)) if each else None,
    )


def _excess(others: Sequence[SilencedSums], n_documents: int) -> tuple[Numbers, Numbers]:
    """[D] twice: Σ over controls and their tokens of (source's effect − control's), and tokens."""
    above, below = np.zeros(n_documents), np.zeros(n_documents)
    for one in others:
        above[one.document] += one.source_after - one.after
        below[one.document] += one.tokens
    return above, below


def _over_controls(
    others: Sequence[SilencedSums], n_documents: int, seed: int
) -> tuple[Statistic, int]:
    """The difference, and how many documents it rests on."""
    above, below = _excess(others, n_documents)
    kept = below > 0
    used = int(kept.sum())
    if not used:
        return Statistic(n_tokens=0, n_documents=0, caveat="no token to compare on"), 0
    found = document_intervals(ratio_of_sums(above[kept], below[kept]), used, seed=seed)
    statistic = found.statistic(n_tokens=int(below.sum()))
    if used < MIN_DOCUMENTS:
        return statistic, used
    p = sign_flip(above[kept], seed=seed)
    return msgspec.structs.replace(statistic, null_mean=0.0, p=p), used


def _decided(edge: CausalEdge, q: float) -> CausalEdge:
    """The same with its q, and a verdict where it can be given."""
    over = msgspec.structs.replace(edge.over_controls, q=q)
    if edge.reason is not None:
        return msgspec.structs.replace(edge, over_controls=over)
    # Without a spread over documents there is no interval: then nothing, or everything, changed.
    below = over.ci_high < 0 if over.ci_high is not None else (over.value or 0.0) < 0
    verdict: CausalVerdict = "causal" if below and q <= LEVEL else "not causal"
    return msgspec.structs.replace(edge, over_controls=over, verdict=verdict)


def _mean(
    edges: Sequence[EdgeKey], sums: Sequence[SilencedSums], n_documents: int, seed: int
) -> Statistic:
    """The mean over edges of the effect over controls, each edge counting alike."""
    parts = []
    for edge in edges:
        others = [o for o in sums if o.edge == edge and o.expert != edge[1] and o.tokens]
        above, below = _excess(others, n_documents)
        if below.any():
            parts.append(np.stack([above, below]))
    if not parts:
        return Statistic(n_documents=n_documents, caveat="no edge could be tested")
    table = np.stack(parts)  # [edges, 2, D]

    def mean(weights: Numbers) -> Numbers:
        drawn = table @ weights.T  # [edges, 2, R]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((drawn[:, 0] / drawn[:, 1]).mean(axis=0), float)

    found = document_intervals(mean, n_documents, seed=seed)
    statistic = found.statistic(n_tokens=int(table[:, 1].sum()))
    return msgspec.structs.replace(
        statistic,
        caveat=f"mean of {len(parts)} edges"
        if statistic.caveat is None
        else f"mean of {len(parts)} edges; {statistic.caveat}",
    )


def _reason(edges: Sequence[CausalEdge]) -> str | None:
    if not edges:
        return "there is no edge whose source is in a layer where interventions are made"
    if all(edge.verdict == "inconclusive" for edge in edges):
        return edges[0].reason
    return None
