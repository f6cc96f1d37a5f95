"""Overlap of two sets of chosen experts, and how much of it chance gives.

Two random sets of k out of E experts share k²/E of them on average, so a bare overlap says
nothing: 8 of 64 experts give one shared expert for free.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from moetui.stats.permutation import PERMUTATIONS, permutation_p
from moetui.stats.statistic import MIN_DOCUMENTS, Statistic

# Sums of probabilities that should be equal differ by less.
_ROUNDING = 1e-9


def overlap_chance(n_experts: int, size_a: int, size_b: int) -> NDArray[np.float64]:
    """P(|A ∩ B| = i) for i = 0 … min(a, b): random subsets of `n_experts` (hypergeometric)."""
    shared = np.arange(min(size_a, size_b) + 1)
    # As scipy.stats.hypergeom.pmf, whose import takes most of a second that the explorer has not.
    ways = _log_choose(size_a, shared) + _log_choose(n_experts - size_a, size_b - shared)
    chance: NDArray[np.float64] = np.exp(ways - _log_choose(n_experts, np.array(size_b)))
    return chance


def central_band(chance: ArrayLike) -> tuple[int, int]:
    """The numbers of shared experts between which chance lies in 95 % of cases or more.

    chance: P(|A ∩ B| = i), i = 0 …; at most 2.5 % lie below the first and above the second.
    """
    below = np.cumsum(np.asarray(chance, float))
    low, high = (int(np.searchsorted(below, q - _ROUNDING)) for q in (0.025, 0.975))
    return low, min(high, len(below) - 1)


def expected_overlap(n_experts: int, size_a: int, size_b: int) -> float:
    """E|A ∩ B| = a·b/E of two random subsets."""
    return size_a * size_b / n_experts


def expected_jaccard(n_experts: int, size_a: int, size_b: int) -> float:
    """E[|A ∩ B| / |A ∪ B|] of two random subsets, summed over the exact overlap distribution."""
    return mean_jaccard(overlap_chance(n_experts, size_a, size_b), size_a, size_b)


def mean_jaccard(chance: ArrayLike, size_a: int, size_b: int) -> float:
    """The same of sets that share i experts with probability `chance[i]`, whatever their law."""
    p = np.asarray(chance, float)
    return float(p @ _jaccard(np.arange(len(p)), size_a, size_b))


def jaccard(a: ArrayLike, b: ArrayLike) -> float:
    """|A ∩ B| / |A ∪ B| of two lists of expert ids; ids below 0 are padding."""
    first, second = _members(a), _members(b)
    union = first | second
    if not union:
        raise ValueError("two empty sets have no overlap")
    return len(first & second) / len(union)


def variation_chance(
    a: ArrayLike, b: ArrayLike, chance: ArrayLike, *, seed: int, draws: int = PERMUTATIONS
) -> tuple[float, float, float]:
    """Mean and central 95 % of the total variation ½ Σ_e |a_e − b_e| = 1 − Σ_e min(a_e, b_e).

    a, b: mixing weights of two sets of experts, each summing to 1; chance: P(i shared experts).
    Which of the weights meet at a shared expert is random too. The mean is exact, as every pair
    of weights meets equally often; the limits come from `draws` pairings. Symmetric in a and b.
    """
    first, second = sorted(tuple(np.asarray(w, float).tolist()) for w in (a, b))
    p = np.asarray(chance, float)
    one, two = np.array(first), np.array(second)
    mean = 1 - float(p @ np.arange(len(p))) * float(np.minimum(one[:, None], two).mean())
    orders, uniform = _pairings(len(one), len(two), seed, draws)
    met = np.minimum(one[orders[0]], two[orders[1]])
    sums = np.concatenate([np.zeros((draws, 1)), met.cumsum(axis=-1)], axis=-1)
    shared = np.minimum(np.searchsorted(np.cumsum(p), uniform), len(p) - 1)
    low, high = np.quantile(1 - sums[np.arange(draws), shared], [0.025, 0.975])
    return mean, float(low), float(high)


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


@lru_cache(maxsize=16)
def _pairings(
    size_a: int, size_b: int, seed: int, draws: int
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]:
    """Random orders [draws, min(a, b)] of two lists of weights, and a uniform number [draws]."""
    rng = np.random.default_rng(seed)
    both = tuple(
        rng.permuted(np.broadcast_to(np.arange(n), (draws, n)), axis=-1) for n in (size_a, size_b)
    )
    kept = min(size_a, size_b)
    return (both[0][:, :kept], both[1][:, :kept]), rng.random(draws)


def _log_choose(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
    """ln C(n, k), −∞ outside 0 … n."""
    ways: NDArray[np.float64] = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return ways


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
