"""Permutation tests: one number, a family of them, and what is left of many p-values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.stats.statistic import Statistic, finite

Numbers = NDArray[np.float64]
Tail = Literal["greater", "less"]

# The fewest permutations that a test may rest on.
PERMUTATIONS = 999


def extreme_draws(observed: float, null: ArrayLike, *, tail: Tail = "greater") -> int:
    """How many of the draws are at least as extreme as what was observed; null: [m]."""
    draws = np.asarray(null, float)
    # Equal values reached by sums in another order count as equal.
    slack = 1e-12 * max(1.0, abs(observed))
    extreme = draws >= observed - slack if tail == "greater" else draws <= observed + slack
    return int(extreme.sum())


def permutation_p(observed: float, null: ArrayLike, *, tail: Tail = "greater") -> float:
    """(1 + #{null at least as extreme}) / (1 + m), never 0; null: [m] permuted values.

    The observed arrangement is one of the possible ones, hence the 1 (arXiv 1603.05766).
    """
    return (1 + extreme_draws(observed, null, tail=tail)) / (1 + np.size(null))


def permutation_test(
    observed: float,
    null: ArrayLike | Callable[[np.random.Generator], float],
    *,
    tail: Tail | Literal["two-sided"] = "greater",
    permutations: int = PERMUTATIONS,
    seed: int | None = None,
) -> Statistic:
    """An observed number against its values under permutation.

    null: the permuted values [m], or a function that permutes with the generator it is given and
    returns the number; it is called `permutations` times with a generator of `seed`. Two-sided is
    twice the smaller tail. The result has value, null_mean, the null's central 95 %, and p.
    Raises ValueError below 999 permutations, for a number that is not finite, and for a function
    without a seed.
    """
    draws = _draws(null, permutations, seed)
    if draws.ndim != 1 or len(draws) < PERMUTATIONS:
        raise ValueError(f"a permutation test needs {PERMUTATIONS} permutations or more")
    if not np.isfinite(observed) or not np.isfinite(draws).all():
        raise ValueError("a permutation test needs numbers that are finite")
    if tail == "two-sided":
        tails = [permutation_p(observed, draws, tail=side) for side in ("greater", "less")]
        p = min(1.0, 2 * min(tails))
    else:
        p = permutation_p(observed, draws, tail=tail)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Statistic(
        value=float(observed),
        null_mean=float(draws.mean()),
        null_low=float(low),
        null_high=float(high),
        p=p,
        seed=seed,
    )


@dataclass(frozen=True, eq=False)
class Family:
    """F numbers tested together; all arrays [F] but `maxima`.

    p: of each alone; q: the chance that any member of the family reaches so much (family-wise
    error), by the maximum over the family in each of m permutations, `maxima` [m].
    """

    value: Numbers
    p: Numbers
    q: Numbers
    null_mean: Numbers
    maxima: Numbers
    seed: int

    def critical(self, level: float) -> float:
        """What a member must exceed for a family-wise error of at most `level`."""
        rank = int(np.floor(level * (1 + len(self.maxima)))) - 1
        return float(np.sort(self.maxima)[::-1][rank]) if rank >= 0 else float("inf")

    def statistic(self, index: int) -> Statistic:
        """One member as a Statistic."""
        return Statistic(
            value=finite(float(self.value[index])),
            null_mean=finite(float(self.null_mean[index])),
            p=float(self.p[index]),
            q=float(self.q[index]),
            seed=self.seed,
            caveat=f"q is family-wise over {len(self.value)} tests (maximum statistic)",
        )


def family_test(
    observed: ArrayLike,
    permuted: Callable[[np.random.Generator], ArrayLike],
    *,
    permutations: int = PERMUTATIONS,
    seed: int,
) -> Family:
    """Large values among F numbers, judged together by the maximum statistic.

    observed: [F]; permuted: permutes everything at once with the generator it is given and returns
    [F]. The way out where F is so large that m permutations cannot reach a corrected level
    (Westfall and Young 1993). Numbers should be on one scale, as z-scores: among raw counts the
    noisiest member sets the maximum for all. Only what is counted is kept, so memory grows with
    F, not with m·F. Raises ValueError below 999 permutations or where numbers are not finite.
    """
    value = np.asarray(observed, float)
    if value.ndim != 1 or not len(value) or permutations < PERMUTATIONS:
        raise ValueError(f"a family is [F] numbers, tested by {PERMUTATIONS} permutations or more")
    rng = np.random.default_rng(seed)
    slack = 1e-12 * np.maximum(1.0, np.abs(value))
    reached, sums = np.zeros(len(value), np.int64), np.zeros(len(value))
    maxima = np.empty(permutations)
    for index in range(permutations):
        drawn = np.asarray(permuted(rng), float)
        maxima[index] = drawn.max()
        reached += drawn >= value - slack
        sums += drawn
    if not np.isfinite(value).all() or not np.isfinite(sums).all():
        raise ValueError("a permutation test needs numbers that are finite")
    above = permutations - np.searchsorted(np.sort(maxima), value - slack)
    return Family(
        value=value,
        p=(1 + reached) / (1 + permutations),
        q=(1 + above) / (1 + permutations),
        null_mean=sums / permutations,
        maxima=maxima,
        seed=seed,
    )


def benjamini_hochberg(
    p: ArrayLike, *, permutations: int | None = None, level: float = 0.05
) -> Numbers:
    """q [F] of p-values [F]: the false discovery rate of calling everything up to each of them.

    scipy.stats.false_discovery_control. permutations: how many each p comes from, if it does; a
    p is then at least 1/(1 + m), which no correction for F tests brings under `level` unless
    m ≥ F/level: ValueError where it is less (use `family_test`).
    """
    values = np.asarray(p, float)
    if permutations is not None and permutations < values.size / level:
        raise ValueError(
            f"{permutations} permutations are too few for {values.size} tests at {level:g}: "
            f"{int(np.ceil(values.size / level))} needed, or the maximum statistic of the family"
        )
    if not values.size:
        return values
    # Imported here: scipy.stats takes most of a second, and the explorer's first frame none of it.
    from scipy import stats

    adjusted: Numbers = np.asarray(stats.false_discovery_control(values), float)
    return adjusted


def _draws(
    null: ArrayLike | Callable[[np.random.Generator], float], permutations: int, seed: int | None
) -> Numbers:
    if not callable(null):
        return np.asarray(null, float)
    if seed is None:
        raise ValueError("permutations are drawn with a seed")
    rng = np.random.default_rng(seed)
    return np.array([null(rng) for _ in range(permutations)], float)
