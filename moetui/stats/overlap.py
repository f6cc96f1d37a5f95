"""Overlap of two sets of chosen experts, and how much of it chance gives.

Two random sets of k out of E experts share k²/E of them on average, so a bare overlap says
nothing: 8 of 64 experts give one shared expert for free.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.stats.permutation import permutation_p
from moetui.stats.statistic import MIN_DOCUMENTS, Statistic

PERMUTATIONS = 999


def overlap_chance(n_experts: int, size_a: int, size_b: int) -> NDArray[np.float64]:
    """P(|A ∩ B| = i) for i = 0 … min(a, b): random subsets of `n_experts` (hypergeometric)."""
    shared = np.arange(min(size_a, size_b) + 1)
    # Imported here: scipy.stats takes most of a second, and the explorer's first frame none of it.
    from scipy import stats

    chance: NDArray[np.float64] = stats.hypergeom.pmf(shared, n_experts, size_a, size_b)
    return chance


def expected_overlap(n_experts: int, size_a: int, size_b: int) -> float:
    """E|A ∩ B| = a·b/E of two random subsets."""
    return size_a * size_b / n_experts


def expected_jaccard(n_experts: int, size_a: int, size_b: int) -> float:
    """E[|A ∩ B| / |A ∪ B|] of two random subsets, summed over the exact overlap distribution."""
    chance = overlap_chance(n_experts, size_a, size_b)
    return float(chance @ _jaccard(np.arange(len(chance)), size_a, size_b))


def jaccard(a: ArrayLike, b: ArrayLike) -> float:
    """|A ∩ B| / |A ∪ B| of two lists of expert ids; ids below 0 are padding."""
    first, second = _members(a), _members(b)
    union = first | second
    if not union:
        raise ValueError("two empty sets have no overlap")
    return len(first & second) / len(union)


def set_overlap(
    a: ArrayLike, b: ArrayLike, n_experts: int, *, seed: int, permutations: int = PERMUTATIONS
) -> Statistic:
    """Mean Jaccard overlap of n pairs of expert sets against random sets of the same sizes.

    a, b: [n, k] (or [k]) expert ids, padded with −1. p tests "overlap above chance" by permuting
    expert labels within each pair, which leaves a hypergeometric number of shared experts.
    The pairs count as one document each; there is no interval below 20 of them (and none above:
    neighbouring tokens are not independent, so use `document_intervals` over texts).
    """
    first, second = np.atleast_2d(np.asarray(a)), np.atleast_2d(np.asarray(b))
    if len(first) != len(second) or not len(first):
        raise ValueError("a and b are as many sets each, at least one")
    sizes = [(len(_members(x)), len(_members(y))) for x, y in zip(first, second, strict=True)]
    observed = float(np.mean([jaccard(x, y) for x, y in zip(first, second, strict=True)]))
    rng = np.random.default_rng(seed)
    null = np.mean([_random_jaccard(rng, n_experts, *s, permutations) for s in sizes], axis=0)
    low, high = np.quantile(null, [0.025, 0.975])
    return Statistic(
        value=observed,
        null_mean=float(np.mean([expected_jaccard(n_experts, *s) for s in sizes])),
        null_low=float(low),
        null_high=float(high),
        p=permutation_p(observed, null),
        n_documents=len(sizes),
        seed=seed,
        caveat="too few pairs for an interval" if len(sizes) < MIN_DOCUMENTS else "no interval",
    )


def _random_jaccard(
    rng: np.random.Generator, n_experts: int, size_a: int, size_b: int, draws: int
) -> NDArray[np.float64]:
    shared = rng.hypergeometric(size_a, n_experts - size_a, size_b, draws)
    return _jaccard(shared, size_a, size_b)


def _jaccard(shared: NDArray[np.int64], size_a: int, size_b: int) -> NDArray[np.float64]:
    overlap: NDArray[np.float64] = shared / (size_a + size_b - shared)
    return overlap


def _members(ids: ArrayLike) -> set[int]:
    return {int(i) for i in np.asarray(ids).ravel() if i >= 0}
