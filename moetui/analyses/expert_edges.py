"""Edges between experts of two layers: found on some documents, confirmed on others.

The same tokens pass through all layers, so experts of neighbouring layers meet more often than
their loads say in any model whose layers read the same stream, trained or not. So an edge names
the shuffle that it beat, and says nothing of cause: `causal_edges` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.edge_domains import EdgeDomain, edge_domains
from moetui.analyses.edge_tests import (
    Counted,
    Flags,
    Members,
    Pairs,
    ShuffleTest,
    counted,
    shuffle_test,
    testable,
)
from moetui.analyses.expert_paths import ExpertPaths, expert_paths
from moetui.analyses.layer_information import LayerInformation, layer_information
from moetui.analyses.one_thread import one_thread
from moetui.analyses.routed import RoutedDocument
from moetui.analyses.routing_sets import members
from moetui.stats import (
    Statistic,
    association,
    document_intervals,
    finite,
    plug_in_information,
)
from moetui.stats.minimum import LAYER_INFORMATION, enough, warning

Beaten = Literal["both", "within documents", "among equal tokens"]

# So many edges are listed, the strongest; all are counted.
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
    "same token id, which keeps all that token identity explains. Expected counts and variances "
    "are exact; an edge beats both unless its table says otherwise. Each shuffle keeps one of the "
    "two causes: what token and document bring about together, neither takes out"
)


class EdgeHalf(msgspec.Struct, frozen=True, kw_only=True):
    """An edge in one half of the documents.

    together: tokens that chose both. lift, pmi (nats), g2: against independent layers.
    over_documents, over_tokens: how many times more often than under the shuffle within documents
    and among equal tokens; documents_q and tokens_q: family-wise, of these.
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
    beyond_both: int
    beyond_documents: int
    beyond_tokens: int
    information: LayerInformation


class ExpertEdges(msgspec.Struct, frozen=True, kw_only=True, tag="expert_edges"):
    """All edges of a model.

    lift, level: as in `definition`. cells: how many were tested; beyond_both, only_documents,
    only_tokens: edges by the shuffles that they beat. movable_tokens: share of evaluation tokens
    that the shuffle among equal tokens can move. edges: at most 200, those that stand out most
    from it first. paths: of the edges that beat both. information: over all pairs of layers.
    reason: why no verdict may rest on this. warnings: sizes below the minimum.
    """

    definition: str
    nulls: str
    lift: float
    level: float
    permutations: int
    layers: tuple[LayerEdges, ...]
    cells: int
    beyond_both: Statistic
    only_documents: int
    only_tokens: int
    movable_tokens: float
    edges: tuple[Edge, ...]
    paths: ExpertPaths
    information: LayerInformation
    reason: str | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Half:
    """Documents of one half as one table of tokens. document, token: [T]; members [T, L, E]."""

    documents: tuple[RoutedDocument, ...]
    document: NDArray[np.int64]
    token: NDArray[np.int64]
    members: Members

    @classmethod
    def of(cls, documents: Sequence[RoutedDocument], experts: int) -> Half:
        """All tokens of `documents`, at least one."""
        sizes = [len(one.ids) for one in documents]
        return cls(
            documents=tuple(documents),
            document=np.repeat(np.arange(len(sizes)), sizes),
            token=np.concatenate([one.ids for one in documents]).astype(np.int64),
            members=members(np.concatenate([one.experts for one in documents]), experts),
        )

    def by_document(self, rows: NDArray[np.generic]) -> NDArray[np.float64]:
        """[D, C]: sums over each document's tokens of rows [T, C]."""
        starts = np.searchsorted(self.document, np.arange(len(self.documents)))
        return np.add.reduceat(np.asarray(rows, float), starts, axis=0)


@dataclass(frozen=True, eq=False)
class _Judged:
    """One half with both tests."""

    half: Half
    found: Counted
    documents: ShuffleTest
    tokens: ShuffleTest

    def beats(self, test: ShuffleTest, lift: float, level: float) -> Flags:
        with np.errstate(invalid="ignore", divide="ignore"):
            strong = self.found.joint > lift * self.found.independent
            return np.asarray(strong & (test.q <= level))


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

    step: called after each of the shuffles of every block of layers, of two halves and two nulls.
    """
    pairs = layer_pairs(len(layers), distance)
    first, second = (
        _judged(Half.of(half, experts), pairs, permutations, seed + at, step)
        for at, half in enumerate((calibration, evaluation))
    )
    beats = {
        name: first.beats(getattr(first, name), lift, level)
        & second.beats(getattr(second, name), lift, level)
        for name in ("documents", "tokens")
    }
    both = beats["documents"] & beats["tokens"]
    order = _strongest(second, beats["documents"] | beats["tokens"])
    edges = _edges(first, second, beats, order[:LISTED], pairs, layers, seed)
    information = [layer_information(first.half, second.half, [pair], seed=seed) for pair in pairs]
    tested = testable(first.found) & testable(second.found)
    sizes = {"tokens": first.found.tokens + second.found.tokens}
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
                beyond_both=int(both[at].sum()),
                beyond_documents=int(beats["documents"][at].sum()),
                beyond_tokens=int(beats["tokens"][at].sum()),
                information=msgspec.structs.replace(
                    information[at],
                    mutual=_mutual(second, at, second.documents),
                    mutual_tokens=_mutual(second, at, second.tokens),
                ),
            )
            for at, (a, b) in enumerate(pairs)
        ),
        cells=int(tested.sum()),
        beyond_both=Statistic(
            value=float(both.sum()),
            n_tokens=sizes["tokens"],
            n_documents=len(calibration) + len(evaluation),
            seed=seed,
            caveat=f"of {int(tested.sum()):,} pairs of experts; a count, without an interval: one "
            f"false edge or more has a chance of at most {level:g}",
        ),
        only_documents=int((beats["documents"] & ~both).sum()),
        only_tokens=int((beats["tokens"] & ~both).sum()),
        movable_tokens=second.tokens.movable,
        edges=edges,
        paths=expert_paths(both, tested, _path_lift(second), pairs, layers, second.half, seed=seed),
        information=layer_information(first.half, second.half, pairs, seed=seed),
        reason=(
            warning(LAYER_INFORMATION, **sizes)
            if enough(LAYER_INFORMATION, **sizes) == "inconclusive"
            else None
        ),
        warnings=tuple(told for told in (warning(LAYER_INFORMATION, **sizes),) if told),
    )


def _judged(
    half: Half, pairs: Pairs, permutations: int, seed: int, step: Callable[[], None]
) -> _Judged:
    with one_thread():
        found = counted(half.members, pairs)
        tests = [
            shuffle_test(
                half.members, found, groups, pairs, testable(found),
                permutations=permutations, seed=seed, step=step,
            )
            for groups in (half.document, half.token)
        ]  # fmt: skip
    return _Judged(half, found, *tests)


def _path_lift(judged: _Judged) -> NDArray[np.float64]:
    """[P, E, E]: how many times more often than among equal tokens."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: NDArray[np.float64] = judged.found.joint / judged.tokens.expected
    return ratio


def _strongest(judged: _Judged, edges: Flags) -> list[tuple[int, int, int]]:
    """The cells of `edges`, those that stand out most from equal tokens first."""
    ratio = _path_lift(judged)
    cells = [(int(p), int(i), int(j)) for p, i, j in np.argwhere(edges)]
    return sorted(cells, key=lambda cell: (-ratio[cell], cell))


def _edges(
    first: _Judged,
    second: _Judged,
    beats: dict[str, Flags],
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
        beaten: Beaten = "both"
        if not (beats["documents"] & beats["tokens"])[cell]:
            beaten = "within documents" if beats["documents"][cell] else "among equal tokens"
        found.append(
            Edge(
                source_layer=layers[a],
                source=cell[1],
                target_layer=layers[b],
                target=cell[2],
                beaten=beaten,
                lift=lifts[at],
                calibration=_half(first, cell),
                evaluation=_half(second, cell),
                domain=domains[at] if domains else None,
            )
        )
    return tuple(found)


def _half(judged: _Judged, cell: tuple[int, int, int]) -> EdgeHalf:
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
        over_tokens=float(found.joint[cell] / judged.tokens.expected[cell]),
        tokens_q=float(judged.tokens.q[cell]),
    )


def _lifts(
    judged: _Judged, cells: Sequence[tuple[int, int, int]], pairs: Pairs, seed: int
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


def _mutual(judged: _Judged, at: int, test: ShuffleTest) -> Statistic:
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
