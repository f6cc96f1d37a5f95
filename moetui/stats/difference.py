"""How far two numbers are apart: two estimates with their intervals, or pair by pair."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from moetui.stats.permutation import permutation_p
from moetui.stats.statistic import Statistic, joined

# Up to so many pairs all 2^n signs are gone through, above them so many are drawn.
EXACT_PAIRS, SIGN_DRAWS = 14, 9999
# Sign vectors evaluated at once.
_BATCH = 1000
INDEPENDENT = "interval of the difference as if the two were independent"


def difference(a: Statistic, b: Statistic) -> Statistic:
    """a − b of two independently estimated statistics, with a 95 % interval where both have one.

    MOVER (Zou and Donner, Statistics in Medicine 27, 2008): with a in [l, u] and b in [l', u']
    the limits are d − √((a − l)² + (u' − b)²) and d + √((u − a)² + (b − l')²), so that uneven
    intervals stay uneven. Two models read on the same documents are not independent: where their
    numbers rise and fall together, as they mostly do, the interval is wider than need be.
    """
    if a.value is None or b.value is None:
        return Statistic(caveat=joined("no difference: a value is missing", a.caveat, b.caveat))
    value = a.value - b.value
    limits = _mover(a, b)
    told = INDEPENDENT if limits else "no interval: one of the two has none"
    low, high = limits or (None, None)
    return Statistic(
        value=value,
        ci_low=low,
        ci_high=high,
        n_tokens=_least(a.n_tokens, b.n_tokens),
        n_documents=_least(a.n_documents, b.n_documents),
        seed=a.seed,
        caveat=joined(told, *dict.fromkeys((a.caveat, b.caveat))),
    )


def sign_flip(differences: ArrayLike, *, seed: int) -> float:
    """Two-sided p of "the differences [n] of pairs lie about zero", by permutation of signs.

    Under the null either member of a pair could have been the first, so every sign is as likely
    as the other; compared is |mean|. All 2^n sign vectors up to 14 pairs (the observed one is
    among them, so p is never 0 and cannot be below 2^(1 − n)), else 9,999 draws. Raises
    ValueError for no pairs and for numbers that are not finite.
    """
    d = np.asarray(differences, float)
    if d.ndim != 1 or not len(d) or not np.isfinite(d).all():
        raise ValueError("a finite difference for each of one or more pairs")
    n, observed = len(d), float(abs(d.mean()))
    if n <= EXACT_PAIRS:
        patterns = np.arange(2**n)[:, None] >> np.arange(n) & 1
        # The observed signs are one of the patterns; permutation_p counts them itself.
        means = np.abs((1 - 2 * patterns[1:]) @ d) / n
        return permutation_p(observed, means)
    rng = np.random.default_rng(seed)
    drawn = [
        np.abs((1 - 2 * rng.integers(0, 2, (size, n))) @ d) / n for size in _batches(SIGN_DRAWS)
    ]
    return permutation_p(observed, np.concatenate(drawn))


def _mover(a: Statistic, b: Statistic) -> tuple[float, float] | None:
    limits = (a.ci_low, a.ci_high, b.ci_low, b.ci_high)
    if a.value is None or b.value is None or None in limits:
        return None
    a_low, a_high, b_low, b_high = (limit for limit in limits if limit is not None)
    d = a.value - b.value
    below = float(np.hypot(a.value - a_low, b_high - b.value))
    above = float(np.hypot(a_high - a.value, b.value - b_low))
    return d - below, d + above


def _least(one: int | None, other: int | None) -> int | None:
    """The smaller size is what the comparison rests on."""
    return one if other is None else other if one is None else min(one, other)


def _batches(total: int) -> list[int]:
    return [min(_BATCH, total - start) for start in range(0, total, _BATCH)]
