"""The p-value of a permutation test."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

Tail = Literal["greater", "less"]


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
