"""Rates: how often something happens per token, and how many tokens that really rests on."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaincinv, ndtri

from moetui.stats.bootstrap import LEVEL, RESAMPLES, document_intervals
from moetui.stats.statistic import MIN_DOCUMENTS, Statistic, joined
from moetui.stats.strata import DocumentStrata, mixed_rates

# −ln 0.05, rounded as usual: zero hits in n independent trials leave rates up to 3/n plausible.
RULE_OF_THREE = 3.0


def rate(
    hits: ArrayLike,
    tokens: ArrayLike,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    design_effect: float | None = None,
    strata: DocumentStrata | None = None,
) -> Statistic:
    """Σ hits / Σ tokens over documents, with an interval over documents.

    hits, tokens: [D] per document, hits ≤ tokens. `design_effect` is taken from the data; give
    one (from comparable rates) where there are no hits, since then the data hold none: without
    it every document counts as one token. Zero hits: upper limit 3 / n_effective, lower limit 0;
    all hits: the mirror image. strata: [D], whose shares of the tokens are taken as given (see
    `domain_strata`). Raises ValueError where hits or tokens are impossible.
    """
    y, n = np.asarray(hits, float), np.asarray(tokens, float)
    if y.shape != n.shape or y.ndim != 1 or not len(y) or (y < 0).any() or (y > n).any():
        raise ValueError("hits and tokens are one number per document, 0 <= hits <= tokens")
    size, documents = int(n.sum()), len(n)
    if not size:
        return Statistic(n_tokens=0, n_documents=documents, seed=seed, caveat="no tokens")
    mixed = mixed_rates(y, n, strata)
    found = document_intervals(mixed, documents, seed=seed, resamples=resamples)
    measured = binary_design_effect(y, n, strata)
    effect = design_effect if design_effect is not None else measured
    if y.sum() not in (0, size) or documents < MIN_DOCUMENTS:
        effective = None if effect is None else size / effect
        return found.statistic(n_tokens=size, n_effective=effective)
    effective = documents if effect is None else size / effect
    return _all_or_nothing(float(found.value), effective, size, documents, seed, effect is None)


def _all_or_nothing(
    value: float, effective: float, size: int, documents: int, seed: int, unknown: bool
) -> Statistic:
    """The rule of three at rate 0 or 1, where the bootstrap sees no variation."""
    bound = min(1.0, RULE_OF_THREE / effective)
    seen = (
        "no hits: upper limit 3/n_effective"
        if value == 0
        else "all hits: lower limit 1 − 3/n_effective"
    )
    guess = "design effect unknown, each document counted as one token" if unknown else None
    return Statistic(
        value=value,
        ci_low=max(0.0, value - bound),
        ci_high=min(1.0, value + bound),
        n_tokens=size,
        n_documents=documents,
        n_effective=float(effective),
        seed=seed,
        caveat=joined(seen, guess),
    )


def most_plausible(share: ArrayLike, effective: ArrayLike) -> NDArray[np.float64]:
    """The highest rate that still gives so few hits in one of twenty samples.

    share: the rate seen, of `effective` independent tokens: its hits are taken as a Poisson
    number, whole or not. The rule of three where there are none (−ln 0.05 hits), and what a
    bootstrap cannot see where there are few: hits that did not come.
    """
    n = np.asarray(effective, float)
    return np.asarray(gammaincinv(np.asarray(share, float) * n + 1, 0.95) / n, float)


def binary_design_effect(
    hits: ArrayLike, tokens: ArrayLike, strata: DocumentStrata | None = None
) -> float | None:
    """How much wider the variance of a rate is than for independent tokens; at least 1.

    The ratio estimator's between-document variance over r(1 − r)/n. strata: [D], the group of each
    document, 0 … H − 1; then the variance is that within groups, whose shares of the tokens are
    taken as given. None where r is 0 or 1 (no variance to compare) or there is one document only.
    """
    y, n = np.asarray(hits, float), np.asarray(tokens, float)
    r = y.sum() / n.sum()
    of = np.zeros(len(y), np.intp) if strata is None else strata
    rates = np.bincount(of, y) / np.bincount(of, n)
    return design_effect(y - rates[of] * n, n.sum(), r * (1 - r) * n.sum(), strata=len(rates))


def design_effect(
    residuals: ArrayLike, size: float, squares: float, *, strata: int = 1
) -> float | None:
    """Design effect of a mean or ratio over `size` tokens in D documents; at least 1.

    residuals: [D], per-document sums of the tokens' deviations from the estimate, or from that of
    the document's stratum (they sum to 0 in each). squares: the sum over all tokens of the squared
    deviations from the estimate. strata: how many, of about as many documents each.
    Between-document variance D/(D−strata)·Σ_d residual² against Σ_t deviation²·n/(n−1). Values
    below 1 are not claimed: more certainty than independent tokens give would be an accident of
    the data. None where it cannot be estimated.
    """
    r = np.asarray(residuals, float)
    if len(r) <= strata or size < 2 or squares <= 0:
        return None
    between = len(r) / (len(r) - strata) * float((r**2).sum())
    within = squares * size / (size - 1)
    return max(1.0, between / within)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % Wilson interval of hits/n for independent items (an accuracy; never a load f_e)."""
    if n < 1 or not 0 <= hits <= n:
        raise ValueError("0 <= hits <= n and n >= 1")
    z = float(ndtri(0.5 + LEVEL / 2))
    centre = (hits + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * float(np.sqrt(hits * (n - hits) / n + z**2 / 4))
    return max(0.0, centre - half), min(1.0, centre + half)
