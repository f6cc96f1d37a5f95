"""Intervals by bootstrap over documents, never over tokens: tokens of a text are not independent.

An estimator is a function of how often each document was drawn, so it works on sums that were
taken once per document, and a resample costs one matrix product whatever the corpus holds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.stats.statistic import APPROXIMATE, MIN_DOCUMENTS, Statistic, finite, joined

Numbers = NDArray[np.float64]

# Multiplicities [R, D] of D documents in R resamples -> estimates [..., R].
Estimator = Callable[[Numbers], Numbers]

RESAMPLES = 1000
LEVEL = 0.95
# Resamples evaluated at once: bounds memory at BATCH times the size of one resample's sums.
BATCH = 125


@dataclass(frozen=True, eq=False)
class Intervals:
    """Estimates and their intervals.

    value, low, high: float64 [...]; low and high are NaN where no interval can be given.
    caveats: str [...], why not, or how far to trust it; "" where there is nothing to say.
    n_documents, seed: as in `Statistic`.
    """

    value: Numbers
    low: Numbers
    high: Numbers
    caveats: NDArray[np.str_]
    n_documents: int
    seed: int

    def statistic(
        self,
        index: tuple[int, ...] = (),
        *,
        n_tokens: int | None = None,
        n_effective: float | None = None,
        caveat: str | None = None,
    ) -> Statistic:
        """The estimate at `index` as a Statistic; `caveat` is put before the interval's own."""
        value = finite(float(self.value[index]))
        return Statistic(
            value=value,
            ci_low=finite(float(self.low[index])) if value is not None else None,
            ci_high=finite(float(self.high[index])) if value is not None else None,
            n_tokens=n_tokens,
            n_documents=self.n_documents,
            n_effective=None if n_effective is None else finite(n_effective),
            seed=self.seed,
            caveat=joined(caveat, str(self.caveats[index])),
        )


def document_intervals(
    estimator: Estimator, n_documents: int, *, seed: int, resamples: int = RESAMPLES
) -> Intervals:
    """95 % BCa intervals of `estimator` over `n_documents` documents.

    Below 20 documents no interval; from 20 to 99 it is labelled approximate. Where BCa is
    undefined (its bias correction is infinite) the percentile interval stands in and says so;
    where every resample gives the same value there is no interval.
    Raises ValueError for fewer than 1,000 resamples or no documents.
    """
    if n_documents < 1 or resamples < RESAMPLES:
        raise ValueError("a bootstrap needs a document and at least 1,000 resamples")
    value = np.asarray(estimator(np.ones((1, n_documents))))[..., 0]
    nowhere = np.full(value.shape, np.nan)
    if n_documents < MIN_DOCUMENTS:
        caveat = f"no interval: {n_documents} documents, {MIN_DOCUMENTS} needed"
        caveats = np.full(value.shape, caveat)
        return Intervals(value, nowhere, nowhere.copy(), caveats, n_documents, seed)
    low, high, draws = _bca(estimator, n_documents, seed, resamples)
    return _explained(value, low, high, draws, n_documents, seed)


def document_bootstrap(
    estimator: Estimator,
    n_documents: int,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    n_tokens: int | None = None,
    n_effective: float | None = None,
    caveat: str | None = None,
) -> Statistic:
    """`document_intervals` of an estimator that gives one number per resample ([R, D] -> [R])."""
    found = document_intervals(estimator, n_documents, seed=seed, resamples=resamples)
    return found.statistic(n_tokens=n_tokens, n_effective=n_effective, caveat=caveat)


def ratio_of_sums(numerators: ArrayLike, denominators: ArrayLike) -> Estimator:
    """The estimator Σ_d w_d y_d / Σ_d w_d x_d of per-document sums y and x, both [D].

    The rate of a corpus, not the mean of its documents' rates: long documents count as long.
    """
    pairs = np.stack([np.asarray(numerators, float), np.asarray(denominators, float)], axis=1)

    def estimate(weights: Numbers) -> Numbers:
        sums = weights @ pairs
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio: Numbers = sums[..., 0] / sums[..., 1]
        return ratio

    return estimate


def multiplicities(draws: NDArray[np.intp], n_documents: int) -> Numbers:
    """How often each of D documents occurs in draws [..., n]: float64 [..., D]."""
    rows = draws.reshape(-1, draws.shape[-1])
    offsets = np.arange(len(rows))[:, None] * n_documents
    counts = np.bincount((rows + offsets).ravel(), minlength=len(rows) * n_documents)
    return counts.reshape(*draws.shape[:-1], n_documents).astype(np.float64)


def _bca(
    estimator: Estimator, n_documents: int, seed: int, resamples: int
) -> tuple[Numbers, Numbers, Numbers]:
    def of_draws(draws: NDArray[np.intp], axis: int) -> Numbers:
        rows = np.moveaxis(draws, axis, -1)
        found = estimator(multiplicities(np.atleast_2d(rows), n_documents))
        return found if rows.ndim > 1 else found[..., 0]

    # Imported here: scipy.stats takes most of a second, and the explorer's first frame none of it.
    from scipy import stats

    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore")  # degenerate data is found and explained below
        result = stats.bootstrap(
            (np.arange(n_documents),),
            of_draws,
            n_resamples=resamples,
            confidence_level=LEVEL,
            method="BCa",
            vectorized=True,
            axis=-1,
            batch=BATCH,
            rng=np.random.default_rng(seed),
        )
    interval = result.confidence_interval
    return (
        np.array(interval.low, dtype=np.float64),
        np.array(interval.high, dtype=np.float64),
        np.asarray(result.bootstrap_distribution, dtype=np.float64),
    )


def _explained(
    value: Numbers, low: Numbers, high: Numbers, draws: Numbers, n_documents: int, seed: int
) -> Intervals:
    spread = draws.max(axis=-1) - draws.min(axis=-1)
    undefined = ~np.isfinite(spread) | ~np.isfinite(value)
    # Weighted sums of equal numbers differ in their last bits; that is no spread.
    constant = ~undefined & (spread <= 1e-12 * np.maximum(1.0, np.abs(value)))
    no_bca = ~undefined & ~constant & ~(np.isfinite(low) & np.isfinite(high))
    tail = (1 - LEVEL) / 2
    low = np.where(no_bca, np.quantile(draws, tail, axis=-1), low)
    high = np.where(no_bca, np.quantile(draws, 1 - tail, axis=-1), high)
    low[undefined | constant] = high[undefined | constant] = np.nan
    usual = f"approximate interval: {n_documents} documents" if n_documents < APPROXIMATE else ""
    caveats = np.full(value.shape, usual, dtype="<U160")
    caveats[no_bca] = joined("percentile interval, BCa is undefined here", usual)
    caveats[constant] = "no interval: every resample of the documents gives the same value"
    caveats[undefined] = "no interval: undefined in some resamples of the documents"
    return Intervals(value, low, high, caveats, n_documents, seed)
