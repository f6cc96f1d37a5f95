""" "No effect" is a claim too: that a number lies within a margin that was stated before."""

from __future__ import annotations

from typing import Literal

import msgspec

from moetui.stats.statistic import Statistic

Equivalence = Literal["equivalent", "different", "undecided", "inconclusive"]


class EquivalenceTest(msgspec.Struct, frozen=True, kw_only=True):
    """Whether `statistic` is as good as zero; margin in its unit; reason where inconclusive."""

    outcome: Equivalence
    margin: float
    statistic: Statistic
    reason: str | None


def equivalent(statistic: Statistic, margin: float) -> EquivalenceTest:
    """Two one-sided tests of |value| < margin, by the 95 % interval that the statistic has.

    "equivalent" where the interval lies within ±margin, "different" where it lies wholly beyond
    one of them, else "undecided". The usual test of level 0.05 asks this of the 90 % interval
    (Schuirmann 1987); the 95 % one makes the level 0.025, so equivalence is claimed more rarely.
    A value of exactly 0 in every document has no interval, and is "inconclusive" as any other
    without one. Raises ValueError for a margin that is not positive.
    """
    if not margin > 0:
        raise ValueError("the margin within which a number counts as none is above 0")
    low, high = statistic.ci_low, statistic.ci_high
    if statistic.value is None or low is None or high is None:
        reason = statistic.caveat or "no interval"
        return EquivalenceTest(
            outcome="inconclusive", margin=margin, statistic=statistic, reason=reason
        )
    outcome: Equivalence = "undecided"
    if -margin < low and high < margin:
        outcome = "equivalent"
    elif low >= margin or high <= -margin:
        outcome = "different"
    return EquivalenceTest(outcome=outcome, margin=margin, statistic=statistic, reason=None)
