"""Whether a token's experts are those of the token before, beyond what chance and tokens give.

Greedy text repeats itself, and equal tokens choose alike: so the overlap of neighbours stands
beside that of unrelated tokens of the same loads, of two tokens of the same sequence, and of the
same two token ids met elsewhere. All three are exact expectations, not draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.decoded import Sequences
from moetui.analyses.generation_steps import mean_overlap
from moetui.analyses.routing_sets import chance_overlap, members, shared
from moetui.stats import (
    Statistic,
    Strata,
    document_intervals,
    family_test,
    movable_share,
    ratio_of_sums,
    token_stratified_shuffle,
)

Numbers = NDArray[np.float64]

DEFINITION = "|S_t ∩ S_(t−1)| / k, the share of a token's experts that the token before it has too"
NULLS = (
    "chance: Σ_e f_e²/k of these texts' own loads, two unrelated tokens; over the sequence: less "
    "the mean overlap of all pairs of different tokens of the sequence; over equal tokens: less "
    "the overlap of rows with the same two token ids, each drawn from all texts (token-stratified "
    "shuffle), with a permutation p"
)


class LayerPersistence(msgspec.Struct, frozen=True, kw_only=True):
    """One layer, or the mean over all (`layer` None).

    overlap: mean over steps, null_mean by chance. uniform: k/E. over_sequence, over_tokens: the
    same less what the sequence's tokens share on average, and what equal tokens do; p of the
    latter by the token-stratified shuffle, q family-wise over layers.
    """

    layer: int | None
    overlap: Statistic
    uniform: float
    over_sequence: Statistic
    over_tokens: Statistic


class Persistence(msgspec.Struct, frozen=True, kw_only=True):
    """Steps of many sequences. repeats: share of steps to the very same token. movable: share of
    tokens that the token-stratified shuffle can move. The first of `layers` is the mean of all."""

    sequences: int
    steps: int
    repeats: Statistic
    movable: float
    layers: tuple[LayerPersistence, ...]


def persistence(
    found: Sequences, layers: Sequence[int], *, permutations: int, seed: int
) -> Persistence:
    """Of sequences with at least one step; layers: the L decoder layers that route."""
    now, before = found.follows, found.follows - 1
    observed = shared(found.sets[now], found.sets[before]) / found.sizes  # [M, L]
    chosen = members(found.experts, found.num_experts)
    load = chosen.mean(axis=0)
    chance = chance_overlap(load, len(chosen))
    in_sequence = _within_sequences(found, chosen)
    by_token = _equal_tokens(found, chosen)
    # Less what the shuffle gives on average, so that layers are on one scale.
    usual = by_token.mean(axis=0)
    family = family_test(
        _with_mean(observed.mean(axis=0) - usual),
        lambda rng: _with_mean(_shuffled(found, rng) - usual),
        permutations=permutations,
        seed=seed,
    )
    steps = found.sums(np.ones(len(now)))

    def mean(values: Numbers) -> Statistic:
        kept = steps > 0
        estimator = ratio_of_sums(found.sums(values)[kept], steps[kept])
        intervals = document_intervals(estimator, int(kept.sum()), seed=seed)
        return intervals.statistic(n_tokens=len(now))

    def layer(index: int | None) -> LayerPersistence:
        at = slice(None) if index is None else slice(index, index + 1)
        value = observed[:, at].mean(axis=1)
        member = 0 if index is None else index + 1
        tested = msgspec.structs.replace(
            mean(value - by_token[:, at].mean(axis=1)),
            null_mean=0.0,
            p=float(family.p[member]),
            q=float(family.q[member]),
        )
        return LayerPersistence(
            layer=None if index is None else layers[index],
            overlap=mean_overlap(found.sums(value), steps, float(chance[at].mean()), seed=seed),
            uniform=float((found.sizes[at] / found.num_experts).mean()),
            over_sequence=mean(value - in_sequence[:, at].mean(axis=1)),
            over_tokens=tested,
        )

    return Persistence(
        sequences=found.count,
        steps=len(now),
        repeats=mean((found.token[now] == found.token[before]).astype(float)),
        movable=movable_share(found.token),
        layers=tuple(layer(index) for index in (None, *range(len(layers)))),
    )


def _with_mean(values: Numbers) -> Numbers:
    return np.concatenate([[values.mean()], values])


def _shuffled(found: Sequences, rng: np.random.Generator) -> Numbers:
    """[L]: the mean overlap with rows dealt out anew among equal tokens."""
    moved = found.sets[token_stratified_shuffle(found.token, rng)]
    both = shared(moved[found.follows], moved[found.follows - 1])
    return np.asarray(both.mean(axis=0) / found.sizes, float)


def _within_sequences(found: Sequences, chosen: NDArray[np.int8]) -> Numbers:
    """[M, L]: of each step the mean overlap of all pairs of different tokens of its sequence."""
    D, k = found.count, found.sizes
    n = np.bincount(found.sequence, minlength=D).astype(float)
    starts = np.searchsorted(found.sequence, np.arange(D))
    counts = np.add.reduceat(chosen.astype(np.int64), starts, axis=0)
    # A sequence of one token has no step, so its 0/0 is never read.
    pairs = ((counts**2).sum(axis=-1) - n[:, None] * k) / np.maximum(n * (n - 1), 1)[:, None]
    return np.asarray(pairs[found.sequence[found.follows]] / k, float)


def _equal_tokens(found: Sequences, chosen: NDArray[np.int8]) -> Numbers:
    """[M, L]: of each step the mean overlap after a token-stratified shuffle, exactly."""
    strata = Strata.of(found.token)
    L = chosen.shape[1]
    expected = np.empty((len(found.follows), L))
    n = strata.spread(strata.sizes[:, None].astype(float))[found.follows, 0]
    same = found.token[found.follows] == found.token[found.follows - 1]
    for layer in range(L):
        rate = strata.spread(strata.sums(chosen[:, layer]) / strata.sizes[:, None])
        product = (rate[found.follows] * rate[found.follows - 1]).sum(axis=1)
        # Two rows of one token are different rows of it: a row is not dealt out twice.
        distinct = (n * product - found.sizes[layer]) / np.maximum(n - 1, 1)
        expected[:, layer] = np.where(same, distinct, product) / found.sizes[layer]
    return expected
