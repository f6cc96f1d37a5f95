"""Rates of a given mix: documents vary within their domains, whose shares are as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.stats.bootstrap import Estimator
from moetui.stats.statistic import MIN_DOCUMENTS

Numbers = NDArray[np.float64]
DocumentStrata = NDArray[np.intp]


def domain_strata(domains: Sequence[str]) -> DocumentStrata | None:
    """[D], the number of each document's domain; None where there is one only, or one has too few
    documents to resample."""
    names, of, sizes = np.unique(np.asarray(domains), return_inverse=True, return_counts=True)
    return of if len(names) > 1 and sizes.min() >= MIN_DOCUMENTS else None


def mixed_rates(hits: ArrayLike, tokens: ArrayLike, strata: DocumentStrata | None) -> Estimator:
    """The estimator of poststratified rates, Σ_h (share of stratum h in all tokens) · its rate.

    hits: [D, E], or [D] for one rate; tokens: [D]; strata: [D], None for one. Weights [R, D] give
    [E, R], or [R]: with equal weights plain ratios of sums.
    """
    y, n = np.asarray(hits, float), np.asarray(tokens, float)
    of = np.zeros(len(n), np.intp) if strata is None else strata
    groups = [np.flatnonzero(of == stratum) for stratum in range(int(of.max()) + 1)]

    def estimate(weights: Numbers) -> Numbers:
        found: Numbers = np.zeros((*y.shape[1:], len(weights)))
        for rows in groups:
            w, part = weights[:, rows], n[rows].sum() / n.sum()
            with np.errstate(invalid="ignore", divide="ignore"):
                found += part * ((w @ y[rows]).T / (w @ n[rows]))
        return found

    return estimate
