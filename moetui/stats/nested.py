"""Intervals over units that come in groups: the wordings of a template, the pages of a book.

Units of one group are alike, so a bootstrap over units sees less variation than other groups would
bring. Where groups are too few to be drawn themselves, the interval is widened by what the groups'
own sums vary more than independent units' would.
"""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

from moetui.stats.bootstrap import LEVEL
from moetui.stats.statistic import Statistic, joined

TAIL = 0.5 + LEVEL / 2


def widened(
    found: Statistic,
    sums: ArrayLike,
    sizes: ArrayLike,
    groups: ArrayLike,
    *,
    name: str,
    low: float | None = None,
    high: float | None = None,
) -> Statistic:
    """`found`, the ratio Σ sums / Σ sizes over W units with an interval over them, for G groups.

    sums, sizes, groups: [W]; name: what a group is called; low, high: least and largest possible
    value. The distance of either limit from the value is multiplied by √(design effect of the
    groups) times the quotient of Student's quantile for G − 1 degrees of freedom and the normal
    one (the variance between few groups is itself uncertain), and never made smaller. As it
    stands where each group is one unit, or all units are one group.
    """
    y, n = np.asarray(sums, float), np.asarray(sizes, float)
    _, of = np.unique(np.asarray(groups), return_inverse=True)
    G, W = int(of.max(initial=-1)) + 1, len(y)
    limits = (found.value, found.ci_low, found.ci_high)
    if G < 2 or G == W or None in limits:
        return found
    value, below, above = (x or 0.0 for x in limits)
    residuals = y - y.sum() / n.sum() * n
    within = W / (W - 1) * float((residuals**2).sum())
    between = G / (G - 1) * float((np.bincount(of, residuals) ** 2).sum())
    effect = between / within if within > 0 else 1.0
    factor = float(np.sqrt(effect)) * float(stdtrit(G - 1, TAIL) / ndtri(TAIL))
    if factor <= 1:
        return found
    least, most = (-np.inf if low is None else low), (np.inf if high is None else high)
    told = f"interval widened ×{factor:.2f}: {G} {name}, units of one are alike"
    return replace(
        found,
        ci_low=max(least, value - (value - below) * factor),
        ci_high=min(most, value + (above - value) * factor),
        n_effective=None if found.n_effective is None else found.n_effective / max(1.0, effect),
        caveat=joined(found.caveat, told),
    )
