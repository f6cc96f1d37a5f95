"""Two answers to the same questions: whose are right more often."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr

from moetui.stats.minimum import ACCURACY_PAIRS, warning
from moetui.stats.rate import wilson
from moetui.stats.statistic import Statistic, joined


class PairedAccuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Items that both got right, one of them only, or neither; difference: first − second."""

    both: int
    only_first: int
    only_second: int
    neither: int
    difference: Statistic


def mcnemar(first: ArrayLike, second: ArrayLike) -> PairedAccuracy:
    """McNemar's exact test of two answerers on n independent items; bool [n] each, right or wrong.

    Two-sided binomial on the items that only one got right. The interval is Newcombe's hybrid of
    Wilson intervals for paired proportions (Statistics in Medicine 17, 1998, 2635-2650), without
    correction for continuity.
    Raises ValueError where the lists are empty or of different lengths.
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError("first and second say of the same items whether they were right")
    n = len(a)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    low, high = _newcombe(a, b)
    return PairedAccuracy(
        both=int((a & b).sum()),
        only_first=only_a,
        only_second=only_b,
        neither=int((~a & ~b).sum()),
        difference=Statistic(
            value=(only_a - only_b) / n,
            ci_low=low,
            ci_high=high,
            null_mean=0.0,
            p=min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))),
            n_documents=n,
            caveat=joined(
                "exact McNemar test, interval for independent items",
                warning(ACCURACY_PAIRS, paired_items=n),
            ),
        ),
    )


def _newcombe(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[float, float]:
    """Limits of mean(a) − mean(b) from the two Wilson intervals and their correlation φ."""
    n, p, q = len(a), float(a.mean()), float(b.mean())
    (a_low, a_high), (b_low, b_high) = wilson(int(a.sum()), n), wilson(int(b.sum()), n)
    spread = np.sqrt(p * (1 - p) * q * (1 - q))
    phi = (float((a & b).mean()) - p * q) / spread if spread else 0.0

    def step(one: float, other: float) -> float:
        return float(np.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2)))

    return p - q - step(p - a_low, b_high - q), p - q + step(a_high - p, q - b_low)
