"""How alike the experts of a layer are, pair by pair, beside pairs of experts of different layers.

Experts of different layers were never meant to do the same, so what they have in common is what
the measure itself, or the layout of the weights, makes alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.stats import Statistic, finite, joined, permutation_p

Numbers = NDArray[np.float64]

DRAWS = 999
NULL = (
    "null: pairs of experts of two layers: of the mean, with the experts of both layers resampled; "
    "of the largest, the mean of the largest of as many of those pairs (no band, no p: these pairs "
    "are one sample, and redrawing it hides how far samples differ: of independent experts the "
    "largest lay above the central 95 % of such draws in three layers of ten). Where a measure's "
    "mean over a layer's pairs is fixed by construction, about −1/(E − 1) for rows less their "
    "mean, that is the null of the mean, without a test, and pairs across layers are lowered by "
    "as much"
)
FIXED = "no test: construction alone makes it this null, whatever the experts are"


class PairSimilarity(msgspec.Struct, frozen=True, kw_only=True):
    """One measure over the pairs of a layer's experts. Statistics are cosines or correlations.

    what: the measure. pairs: how many were compared. mean: over them. largest: of the most
    similar pair, whose numbers are `experts`; its null is the mean of the largest of as many
    pairs across layers. above: how many pairs lie above the central 95 % of pairs across layers.
    """

    what: str
    pairs: int
    mean: Statistic
    largest: Statistic
    experts: tuple[int, int]
    above: int | None


def partners(layers: Sequence[int], moe_layers: Sequence[int]) -> dict[int, int | None]:
    """The layer with whose experts those of each layer are compared for the null: the next of
    `layers`, for the last one that before; the nearest that routes where it is alone; None where
    no other layer routes."""
    among = layers if len(layers) > 1 else moe_layers
    found: dict[int, int | None] = {}
    for layer in layers:
        at = among.index(layer)
        near = among[at + 1 : at + 2] or among[max(at - 1, 0) : at]
        found[layer] = near[0] if near else None
    return found


def pair_similarity(
    what: str,
    within: Numbers,
    across: Numbers | None,
    *,
    experts: Sequence[int] | None = None,
    intervals: Mapping[str, Statistic] | None = None,
    fixed: float | None = None,
    seed: int,
    caveat: str | None = None,
) -> PairSimilarity | None:
    """Pairs of the symmetric matrix `within` [E, E] against all of `across` [E, B].

    experts: their numbers, where the rows are not 0 … E − 1. intervals: "mean" and "largest" with
    what is known of them from documents. fixed: what construction makes the mean of `within`,
    whatever the experts are, where it does. NaN is a pair that could not be compared; None where
    there is no other.
    """
    i, j = np.triu_indices(len(within), 1)
    values = within[i, j]
    known = np.isfinite(values)
    if not known.any():
        return None
    i, j, values = i[known], j[known], values[known]
    best = int(np.argmax(values))
    named = range(len(within)) if experts is None else experts
    told = intervals or {}
    base = Statistic(caveat=caveat, seed=seed)
    mean = msgspec.structs.replace(told.get("mean", base), value=finite(values.mean()))
    largest = msgspec.structs.replace(told.get("largest", base), value=finite(values[best]))
    pool = np.empty(0) if across is None else across[np.isfinite(across)] + (fixed or 0.0)
    above = None
    if fixed is not None:
        mean = msgspec.structs.replace(mean, null_mean=fixed, caveat=joined(mean.caveat, FIXED))
    elif across is not None and len(pool):
        mean = _tested(mean, float(values.mean()), _means(across, seed))
    if len(pool):
        expected = float(_maxima(pool, len(values), seed).mean())
        largest = msgspec.structs.replace(largest, null_mean=expected)
        above = int((values > np.quantile(pool, 0.975)).sum())
    return PairSimilarity(
        what=what,
        pairs=len(values),
        mean=mean,
        largest=largest,
        experts=(int(named[i[best]]), int(named[j[best]])),
        above=above,
    )


def most_similar(within: Numbers) -> tuple[int, int] | None:
    """The pair of the largest entry above the diagonal, the first of equals; None of none."""
    upper = np.where(np.triu(np.ones_like(within), 1) > 0, within, np.nan)
    if not np.isfinite(upper).any():
        return None
    i, j = np.unravel_index(np.nanargmax(upper), upper.shape)
    return int(i), int(j)


def _means(across: Numbers, seed: int) -> Numbers:
    """[DRAWS], mean over pairs across layers, experts of both layers resampled."""
    rng = np.random.default_rng(seed)
    A, B = across.shape
    means = np.empty(DRAWS)
    for draw in range(DRAWS):
        values = across[np.ix_(rng.integers(0, A, A), rng.integers(0, B, B))]
        # What could be compared may have been left out by chance.
        means[draw] = np.nanmean(values if np.isfinite(values).any() else across)
    return means


def _maxima(pool: Numbers, pairs: int, seed: int) -> Numbers:
    """[DRAWS], largest of `pairs` of the pool, none of them twice: so that the share of draws
    below any number is right on average. Of all of them where there are no more."""
    rng = np.random.default_rng(seed)
    size = min(pairs, len(pool))
    return np.array([rng.choice(pool, size, replace=False).max() for _ in range(DRAWS)])


def _tested(known: Statistic, value: float, draws: Numbers) -> Statistic:
    low, high = np.quantile(draws, [0.025, 0.975])
    return msgspec.structs.replace(
        known,
        null_mean=float(draws.mean()),
        null_low=float(low),
        null_high=float(high),
        p=permutation_p(value, draws),
    )
