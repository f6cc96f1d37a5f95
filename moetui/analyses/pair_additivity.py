"""Do two experts of a layer do together what each does alone?

Dropping both costs Δ_ij nats a token, dropping one Δ_i or Δ_j. In the layer itself contributions
add up exactly, so Δ_ij − Δ_i − Δ_j shows what the rest of the model makes of it: above 0 where each
stands in for the other, below 0 where the loss of one leaves less for the other to do. Pairs that
are chosen together most often stand beside random pairs of the same layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.ablation import nll_of, nll_sums
from moetui.analyses.routed import RoutedDocument
from moetui.stats import Statistic, document_intervals, joined, permutation_p
from moetui.stats.minimum import ABLATION, warned
from moetui.trace import Drop, Forward

Numbers = NDArray[np.float64]
Pair = tuple[int, int]

DEFINITION = (
    "Δ_ij − Δ_i − Δ_j of the loss in nats a token, experts dropped with their weight at 0; null: "
    "random pairs of the layer. Pairs that are chosen together often have busier experts than "
    "random ones, so that all their Δ are larger; pairs of a table share experts"
)
FEW_DRAWS = "few random pairs: p cannot be below {:.2g}"


class Pairs(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs of experts of one decoder layer: those chosen together most often (on calibration
    text), and random other ones."""

    layer: int
    together: tuple[Pair, ...]
    random: tuple[Pair, ...]

    @property
    def all(self) -> tuple[Pair, ...]:
        """Both kinds."""
        return (*self.together, *self.random)

    @property
    def experts(self) -> tuple[int, ...]:
        """All that occur, ascending."""
        return tuple(sorted({expert for pair in self.all for expert in pair}))


@dataclass(frozen=True, eq=False, kw_only=True)
class PairSums:
    """Of one document: nats that it costs more to drop a single expert [S] or a pair [P], over
    its `tokens` predicted tokens; both: [P], tokens that chose both experts; read: all tokens."""

    document: str
    tokens: int
    read: int
    singles: Numbers
    pairs: Numbers
    both: Numbers


class PairEffect(msgspec.Struct, frozen=True, kw_only=True):
    """One pair. together: share of tokens that choose both. first_alone, second_alone, both:
    Δ_i, Δ_j, Δ_ij; beyond: Δ_ij − Δ_i − Δ_j; of pairs chosen together, its null is the random
    pairs' and p the share of them as far from 0."""

    first: int
    second: int
    kind: str
    together: float
    first_alone: Statistic
    second_alone: Statistic
    both: Statistic
    beyond: Statistic


class PairAdditivity(msgspec.Struct, frozen=True, kw_only=True, tag="pair_additivity"):
    """Pairs of experts of decoder layer `layer`, over `documents` documents.

    mean_together, mean_random: means of `beyond` over the pairs of either kind; difference: of the
    two, over the same documents.
    """

    definition: str
    layer: int
    documents: int
    tokens: int
    pairs: tuple[PairEffect, ...]
    mean_together: Statistic
    mean_random: Statistic
    difference: Statistic


def chosen_together(documents: Sequence[RoutedDocument], place: int, experts: int) -> Numbers:
    """[E, E]: tokens that choose both experts of a layer, at `place` on the documents' L axis; on
    the diagonal those that choose one."""
    found = np.zeros((experts, experts))
    for document in documents:
        member = _members(document, place, experts)
        found += member.T @ member
    return found


def pick_pairs(
    together: Numbers, layer: int, *, pairs: int, random: int, rng: np.random.Generator
) -> Pairs:
    """The `pairs` chosen together most often (ties: smaller ids), and `random` others among the
    experts that are chosen at all; fewer where there are no more."""
    first, second = np.triu_indices(len(together), 1)
    counts = together[first, second]
    order = np.lexsort((second, first, -counts))
    used = np.diag(together) > 0
    best = [int(i) for i in order if counts[i] > 0][:pairs]
    rest = [int(i) for i in order if i not in best and used[first[i]] and used[second[i]]]
    drawn = sorted(rng.choice(rest, min(random, len(rest)), replace=False).tolist()) if rest else []

    def named(rows: Sequence[int]) -> tuple[Pair, ...]:
        return tuple((int(first[i]), int(second[i])) for i in rows)

    return Pairs(layer=layer, together=named(best), random=named(drawn))


def pair_sums(
    model: Forward,
    documents: Sequence[RoutedDocument],
    pairs: Pairs,
    place: int,
    *,
    step: Callable[[], None] = lambda: None,
) -> list[PairSums]:
    """Every expert of `pairs` dropped alone, and every pair: a pass over each document for each.

    place: of the pairs' layer on the documents' L axis. step: called after every pass.
    """
    ids = [one.ids for one in documents]
    before = nll_sums([one.nll for one in documents])

    def cost(experts: tuple[int, ...]) -> Numbers:
        drop = Drop(experts=experts, layers=(pairs.layer,))
        return nll_sums(nll_of(model, ids, (drop,), step)) - before

    nothing = np.empty((0, len(documents)))
    singles = np.array([cost((expert,)) for expert in pairs.experts] or nothing)
    both = np.array([cost(pair) for pair in pairs.all] or nothing)
    members = [_members(one, place, model.info.num_experts) for one in documents]
    return [
        PairSums(
            document=one.id,
            tokens=len(one.nll),
            read=len(one.ids),
            singles=singles[:, d],
            pairs=both[:, d],
            both=np.array([(members[d][:, i] * members[d][:, j]).sum() for i, j in pairs.all]),
        )
        for d, one in enumerate(documents)
    ]


def pair_additivity(documents: Sequence[PairSums], pairs: Pairs, *, seed: int) -> PairAdditivity:
    """What the sums of all documents say. Raises ValueError for no documents or no pairs."""
    if not documents or not pairs.all:
        raise ValueError("pairs are judged on documents")
    found = _Costs(documents, pairs)
    intervals = document_intervals(found.estimate, len(documents), seed=seed)
    tokens, D = sum(one.tokens for one in documents), len(documents)

    def statistic(row: int) -> Statistic:
        return warned(intervals.statistic((row,), n_tokens=tokens), ABLATION, documents=D)

    S, P, n = len(pairs.experts), len(pairs.all), len(pairs.together)
    null = np.asarray(intervals.value[S + P + n : S + 2 * P], float)
    together, random, difference = (statistic(S + 2 * P + row) for row in range(3))
    return PairAdditivity(
        definition=DEFINITION,
        layer=pairs.layer,
        documents=D,
        tokens=tokens,
        pairs=tuple(
            PairEffect(
                first=i,
                second=j,
                kind="chosen together" if row < n else "random",
                together=found.together[row],
                first_alone=statistic(pairs.experts.index(i)),
                second_alone=statistic(pairs.experts.index(j)),
                both=statistic(S + row),
                beyond=_against(statistic(S + P + row), null if row < n else null[:0]),
            )
            for row, (i, j) in enumerate(pairs.all)
        ),
        mean_together=together,
        mean_random=random,
        difference=difference,
    )


class _Costs:
    """Rows of an estimate: S singles, P pairs, P non-additivities, the means of these over pairs
    chosen together and random ones, and their difference."""

    def __init__(self, documents: Sequence[PairSums], pairs: Pairs) -> None:
        singles = np.stack([one.singles for one in documents])  # [D, S]
        both = np.stack([one.pairs for one in documents])  # [D, P]
        place = {expert: row for row, expert in enumerate(pairs.experts)}
        first, second = (np.array([place[pair[side]] for pair in pairs.all]) for side in (0, 1))
        beyond = both - singles[:, first] - singles[:, second]
        n = len(pairs.together)
        means = [
            some.mean(axis=1) if some.shape[1] else np.full(len(documents), np.nan)
            for some in (beyond[:, :n], beyond[:, n:])
        ]
        self._sums = np.column_stack([singles, both, beyond, *means, means[0] - means[1]])
        self._tokens = np.array([one.tokens for one in documents], float)
        read = sum(one.read for one in documents)
        self.together = (np.sum([one.both for one in documents], axis=0) / max(read, 1)).tolist()

    def estimate(self, weights: Numbers) -> Numbers:
        """[rows, resamples]"""
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Numbers = (weights @ self._sums) / (weights @ self._tokens)[:, None]
        return found.T


def _against(beyond: Statistic, null: Numbers) -> Statistic:
    if beyond.value is None or not len(null):
        return beyond
    low, high = np.quantile(null, [0.025, 0.975]).tolist()
    return msgspec.structs.replace(
        beyond,
        null_mean=float(null.mean()),
        null_low=low,
        null_high=high,
        p=permutation_p(abs(beyond.value), np.abs(null)),
        caveat=joined(FEW_DRAWS.format(1 / (1 + len(null))), beyond.caveat),
    )


def _members(document: RoutedDocument, place: int, experts: int) -> Numbers:
    """[T, E]: 1 where a token chooses an expert."""
    found = np.zeros((len(document.ids), experts))
    rows, slots = np.nonzero(document.experts[:, place] >= 0)
    found[rows, document.experts[rows, place, slots]] = 1.0
    return found
