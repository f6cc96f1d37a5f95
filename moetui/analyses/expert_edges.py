"""Edges between experts of two layers: found on some documents, confirmed on others.

The same tokens pass through all layers, so experts of neighbouring layers meet more often than
their loads say in any model whose layers read the same stream, trained or not. So an edge names
the shuffle that it beat, and says nothing of cause: `causal_edges` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.edge_domains import EdgeDomain, edge_domains
from moetui.analyses.edge_halves import Beats, Half, Judged, judged_halves
from moetui.analyses.edge_tests import Flags, Members, Pairs, ShuffleTest, testable
from moetui.analyses.expert_paths import ExpertPaths, expert_paths
from moetui.analyses.layer_information import LayerInformation, layer_information
from moetui.analyses.one_thread import one_thread
from moetui.analyses.routed import RoutedDocument
from moetui.stats import (
    Statistic,
    association,
    document_intervals,
    finite,
    plug_in_information,
)
from moetui.stats.minimum import LAYER_INFORMATION, enough, warning

Beaten = Literal["all three", "both", "within documents", "among equal tokens"]

# So many edges are listed, those first on which verdicts rest; all are counted.
LISTED = 200

DEFINITION = (
    "an edge is a pair of experts of two layers that one token chooses together more than `lift` "
    "times as often as independent layers would, and more often than a shuffle allows at a "
    "family-wise p of `level` over all pairs of experts of all pairs of layers (maximum z-score), "
    "in the calibration and in the evaluation documents, each by themselves"
)
NULLS = (
    "within documents: the second layer's rows change places within their document, which keeps "
    "what a document as a whole prefers; among equal tokens: they change places with rows of the "
    "same token id, which keeps all that token identity explains. Each of the two keeps one cause "
    "only; among equal tokens of a document keeps all that token and document bring about "
    "together, but moves only tokens that a document has twice, so an edge that does not beat it "
    "may still be more than that. Each half tries by it the pairs that beat the first two in the "
    "other half, as one family. Expected counts and variances are exact"
)


class EdgeHalf(msgspec.Struct, frozen=True, kw_only=True):
    """An edge in one half of the documents.

    together: tokens that chose both. lift, pmi (nats), g2: against independent layers.
    over_documents, over_tokens: how many times more often than under the shuffle within documents
    and among equal tokens; over_together: than among equal tokens of a document, of the tokens
    that can move there, None where none can. documents_q, tokens_q, together_q: family-wise, of
    these; together_q is None where the other half has no reason to try it.
    """

    documents: int
    tokens: int
    together: int
    lift: float
    pmi: float
    g2: float
    over_documents: float
    documents_q: float
    over_tokens: float
    tokens_q: float
    over_together: float | None
    together_q: float | None


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """Expert `source` of decoder layer `source_layer`, and `target` of `target_layer`.

    lift: in the evaluation documents, with an interval over them; null: what the shuffle among
    equal tokens gives, with its family-wise q. beaten: which shuffles, in both halves. domain:
    where in the corpus the two meet most; None where there are no two domains.
    """

    source_layer: int
    source: int
    target_layer: int
    target: int
    beaten: Beaten
    lift: Statistic
    calibration: EdgeHalf
    evaluation: EdgeHalf
    domain: EdgeDomain | None


class LayerEdges(msgspec.Struct, frozen=True, kw_only=True):
    """Two layers: cells tested, edges found and what one layer tells of the other."""

    source_layer: int
    target_layer: int
    tested: int
    beyond_together: int
    beyond_both: int
    beyond_documents: int
    beyond_tokens: int
    information: LayerInformation


class ExpertEdges(msgspec.Struct, frozen=True, kw_only=True, tag="expert_edges"):
    """All edges of a model.

    lift, level: as in `definition`. cells: how many were tested. Edges by the shuffles that they
    beat: beyond_both, of within documents and among equal tokens, each by itself; of these
    beyond_together, also among equal tokens of a document; only_documents, only_tokens.
    movable_tokens, movable_together: share of evaluation tokens that the shuffle among equal
    tokens, and that among those of a document, can move. edges: at most 200, those beyond_together
    before the others, of each those that stand out most from equal tokens first. paths: of the
    edges beyond_together. information: over all pairs of layers. reason: why no verdict may rest
    on this. warnings: sizes below the minimum.
    """

    definition: str
    nulls: str
    lift: float
    level: float
    permutations: int
    layers: tuple[LayerEdges, ...]
    cells: int
    beyond_together: Statistic
    beyond_both: Statistic
    only_documents: int
    only_tokens: int
    movable_tokens: float
    movable_together: float
    edges: tuple[Edge, ...]
    paths: ExpertPaths
    information: LayerInformation
    reason: str | None
    warnings: tuple[str, ...]


def layer_pairs(layers: int, distance: int) -> list[tuple[int, int]]:
    """Rows of the L axis at most `distance` apart, the earlier first."""
    return [(a, b) for a in range(layers) for b in range(a + 1, min(a + distance, layers - 1) + 1)]


def expert_edges(
    calibration: Sequence[RoutedDocument],
    evaluation: Sequence[RoutedDocument],
    layers: Sequence[int],
    experts: int,
    *,
    lift: float = 2.0,
    level: float = 0.01,
    distance: int = 1,
    permutations: int = 999,
    seed: int,
    step: Callable[[], None] = lambda: None,
) -> ExpertEdges:
    """Edges between layers at most `distance` apart (of those that route: two at least).

    step: called after each of the shuffles of every block of layers, `SHUFFLES` of two halves.
    """
    pairs = layer_pairs(len(layers), distance)
    with one_thread():  # many small products
        first, second = judged_halves(
            [Half.of(half, experts) for half in (calibration, evaluation)], pairs,
            lift=lift, level=level, permutations=permutations, seed=seed, step=step,
        )  # fmt: skip
    beats = first.beats(lift, level).and_in(second.beats(lift, level))
    order = _ordered(second, beats)
    edges = _edges(first, second, beats, order[:LISTED], pairs, layers, seed)
    information = [layer_information(first.half, second.half, [pair], seed=seed) for pair in pairs]
    tested = testable(first.found) & testable(second.found)
    sizes = {"tokens": first.found.tokens + second.found.tokens}

    def count(edges: Flags) -> Statistic:
        return Statistic(
            value=float(edges.sum()),
            n_tokens=sizes["tokens"],
            n_documents=len(calibration) + len(evaluation),
            seed=seed,
            caveat=f"of {int(tested.sum()):,} pairs of experts; a count, without an interval: one "
            f"false edge or more has a chance of at most {level:g}",
        )

    return ExpertEdges(
        definition=DEFINITION,
        nulls=NULLS,
        lift=lift,
        level=level,
        permutations=permutations,
        layers=tuple(
            LayerEdges(
                source_layer=layers[a],
                target_layer=layers[b],
                tested=int(tested[at].sum()),
                beyond_together=int(beats.together[at].sum()),
                beyond_both=int(beats.both[at].sum()),
                beyond_documents=int(beats.documents[at].sum()),
                beyond_tokens=int(beats.tokens[at].sum()),
                information=msgspec.structs.replace(
                    information[at],
                    mutual=_mutual(second, at, second.documents),
                    mutual_tokens=_mutual(second, at, second.tokens),
                ),
            )
            for at, (a, b) in enumerate(pairs)
        ),
        cells=int(tested.sum()),
        beyond_together=count(beats.together),
        beyond_both=count(beats.both),
        only_documents=int((beats.documents & ~beats.tokens).sum()),
        only_tokens=int((beats.tokens & ~beats.documents).sum()),
        movable_tokens=second.tokens.movable,
        movable_together=second.together.movable,
        edges=edges,
        paths=expert_paths(
            beats.together, tested, second.over_tokens(), pairs, layers, second.half, seed=seed
        ),
        information=layer_information(first.half, second.half, pairs, seed=seed),
        reason=(
            warning(LAYER_INFORMATION, **sizes)
            if enough(LAYER_INFORMATION, **sizes) == "inconclusive"
            else None
        ),
        warnings=tuple(told for told in (warning(LAYER_INFORMATION, **sizes),) if told),
    )


def _ordered(judged: Judged, beats: Beats) -> list[tuple[int, int, int]]:
    """All edges: those that beat all three shuffles, then the others, of each those that stand out
    most from equal tokens first."""
    ratio, edges = judged.over_tokens(), beats.documents | beats.tokens
    cells = [(int(p), int(i), int(j)) for p, i, j in np.argwhere(edges)]
    return sorted(cells, key=lambda cell: (not beats.together[cell], -ratio[cell], cell))


def _edges(
    first: Judged,
    second: Judged,
    beats: Beats,
    cells: Sequence[tuple[int, int, int]],
    pairs: Pairs,
    layers: Sequence[int],
    seed: int,
) -> tuple[Edge, ...]:
    if not cells:
        return ()
    lifts = _lifts(second, cells, pairs, seed)
    domains = edge_domains(second.half, cells, pairs, seed=seed)
    found = []
    for at, cell in enumerate(cells):
        a, b = pairs[cell[0]]
        found.append(
            Edge(
                source_layer=layers[a],
                source=cell[1],
                target_layer=layers[b],
                target=cell[2],
                beaten=_beaten(beats, cell),
                lift=lifts[at],
                calibration=_half(first, cell),
                evaluation=_half(second, cell),
                domain=domains[at] if domains else None,
            )
        )
    return tuple(found)


def _beaten(beats: Beats, cell: tuple[int, int, int]) -> Beaten:
    if beats.together[cell]:
        return "all three"
    if beats.both[cell]:
        return "both"
    return "within documents" if beats.documents[cell] else "among equal tokens"


def _half(judged: Judged, cell: tuple[int, int, int]) -> EdgeHalf:
    p, i, j = cell
    found = judged.found
    told = association(found.joint[cell], found.first[p, i], found.second[p, j], found.tokens)
    return EdgeHalf(
        documents=len(judged.half.documents),
        tokens=found.tokens,
        together=int(found.joint[cell]),
        lift=float(told.lift),
        pmi=float(told.pmi),
        g2=float(told.g2),
        over_documents=float(found.joint[cell] / judged.documents.expected[cell]),
        documents_q=float(judged.documents.q[cell]),
        over_tokens=float(judged.over_tokens(cell)),
        tokens_q=float(judged.tokens.q[cell]),
        over_together=finite(float(judged.over_together(cell))),
        together_q=finite(float(judged.together.q[cell])),
    )


def _lifts(
    judged: Judged, cells: Sequence[tuple[int, int, int]], pairs: Pairs, seed: int
) -> list[Statistic]:
    """The lifts with intervals over documents."""
    half, found = judged.half, judged.found
    columns = list(_columns(half.members, cells, pairs))
    sums = np.stack([half.by_document(np.stack(c, axis=1)) for c in columns])  # [C, D, 3]
    tokens = np.bincount(half.document).astype(float)

    def lift(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        both, first, second = np.moveaxis(weights @ sums, -1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio: NDArray[np.float64] = both * (weights @ tokens) / (first * second)
        return ratio

    intervals = document_intervals(lift, len(tokens), seed=seed)
    listed = []
    for at, cell in enumerate(cells):
        chance = judged.tokens.expected[cell] / found.independent[cell]
        listed.append(
            msgspec.structs.replace(
                intervals.statistic((at,), n_tokens=found.tokens),
                null_mean=finite(float(chance)),
                q=float(judged.tokens.q[cell]),
            )
        )
    return listed


def _columns(
    chosen: Members, cells: Sequence[tuple[int, int, int]], pairs: Pairs
) -> Iterator[tuple[Members, Members, Members]]:
    """For every cell int8 [T]: both, the source, the target chosen."""
    for p, i, j in cells:
        a, b = pairs[p]
        source, target = chosen[:, a, i], chosen[:, b, j]
        yield source * target, source, target


def _mutual(judged: Judged, at: int, test: ShuffleTest) -> Statistic:
    """Plug-in information of two layers less its mean under a shuffle."""
    observed = float(plug_in_information(judged.found.joint[at]))
    chance = float(test.information[at])
    return Statistic(
        value=observed - chance,
        null_mean=0.0,
        p=float(test.information_p[at]),
        n_tokens=judged.found.tokens,
        n_documents=len(judged.half.documents),
        caveat=f"{observed:.3g} nats less {chance:.3g} under the shuffle; no interval",
    )
