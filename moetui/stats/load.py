"""How evenly a layer's experts are used."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import ArrayLike


class LoadIndices(msgspec.Struct, frozen=True, kw_only=True):
    """Load of one layer's E experts; two shares that must not be mixed up, and their summaries.

    token_share: [E] f_e = N_e / T, the share of tokens that use expert e; sums to k, uniform k/E.
    assignment_share: [E] p_e = N_e / (k·T), the share of all choices; sums to 1, uniform 1/E.
    entropy_normalized: H(p) / ln E in [0, 1], 1 = even.
    effective_experts: exp H(p) in [1, E].
    cv: standard deviation (population) over mean of p, 0 = even.
    gini: in [0, 1 − 1/E], 0 = even.
    max_violation: E · max p − 1, 0 = even (MaxVio, arXiv 2408.15664).
    """

    token_share: tuple[float, ...]
    assignment_share: tuple[float, ...]
    entropy_normalized: float
    effective_experts: float
    cv: float
    gini: float
    max_violation: float


def load_indices(counts: ArrayLike, k: int) -> LoadIndices | None:
    """Load indices of counts [E], in how many tokens each expert was among the k chosen.

    None where nothing was counted. Raises ValueError for negative counts, fewer than two experts,
    or k outside 1 … E.
    """
    n = np.asarray(counts, float)
    experts = len(n)
    if n.ndim != 1 or experts < 2 or (n < 0).any() or not 1 <= k <= experts:
        raise ValueError("counts are one non-negative number for each of 2 or more experts")
    if not n.sum():
        return None
    p = n / n.sum()
    used = p[p > 0]
    entropy = float(-(used * np.log(used)).sum())
    rank = np.arange(1, experts + 1)
    return LoadIndices(
        token_share=tuple((k * p).tolist()),
        assignment_share=tuple(p.tolist()),
        entropy_normalized=entropy / float(np.log(experts)),
        effective_experts=float(np.exp(entropy)),
        cv=float(p.std() * experts),
        gini=float(((2 * rank - experts - 1) * np.sort(p)).sum() / experts),
        max_violation=float(experts * p.max() - 1),
    )
