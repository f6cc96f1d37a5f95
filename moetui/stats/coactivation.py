"""Experts that are chosen together, and how often their popularity alone brings them together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.stats.subsets import Subsets, fit_subsets

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CoActivation:
    """How often pairs of E experts were chosen by one token.

    pairs: int64 [E, E], N_ij; the diagonal is N_i. tokens: T.
    """

    pairs: Counts
    tokens: int

    @property
    def load(self) -> Numbers:
        """[E], f_i = N_i / T."""
        return np.asarray(self.pairs.diagonal() / self.tokens, float)

    @property
    def conditional(self) -> Numbers:
        """[E, E], N_ij / N_i, how often j is there where i is; NaN for unused i and i = j."""
        with np.errstate(invalid="ignore"):
            share = self.pairs / self.pairs.diagonal()[:, None].astype(float)
        np.fill_diagonal(share, np.nan)
        return np.asarray(share, float)

    def fitted(self) -> Subsets:
        """The law of sets in which each expert is as popular as here, and nothing else holds."""
        return fit_subsets(self.load)


def co_activation(expert_ids: ArrayLike, n_experts: int) -> CoActivation:
    """Pairs of experts in expert_ids [T, k], padded with −1. ValueError where T is 0."""
    ids = np.asarray(expert_ids)
    if ids.ndim != 2 or not len(ids) or ids.max(initial=-1) >= n_experts:
        raise ValueError(f"ids are [tokens, k] of {n_experts} experts, one token at least")
    members = np.zeros((len(ids), n_experts + 1), np.float32)
    np.put_along_axis(members, np.where(ids < 0, n_experts, ids).astype(np.int64), 1.0, axis=1)
    used = members[:, :n_experts]
    # Sums of ones are exact in float32 up to 2^24 tokens.
    rows = range(0, len(used), 2**24)
    pairs = sum((used[r : r + 2**24].T @ used[r : r + 2**24]).astype(np.int64) for r in rows)
    return CoActivation(np.asarray(pairs, np.int64), len(ids))


def lift(found: CoActivation, null: Subsets | None = None) -> Numbers:
    """[E, E], how many times more often pairs meet than expected; NaN where nothing is expected.

    Without a null the expectation is f_i·f_j, independent experts. That is too high on average: a
    member of a set of k has k − 1 companions, not Σ_j f_j = k − f_i. With the law from
    `CoActivation.fitted` it is the pair's exact frequency among random sets of the same loads.
    The diagonal is NaN. A description: a pair is a claim with a `family_test` only.
    """
    load = found.load
    expected = np.outer(load, load) if null is None else null.joint()
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(expected > 0, found.pairs / found.tokens / expected, np.nan)
    np.fill_diagonal(ratio, np.nan)
    return np.asarray(ratio, float)


def marginal_preserving_null(
    load: ArrayLike, k: int, tokens: int, rng: np.random.Generator
) -> Counts:
    """int [tokens, k]: random sets in which every expert is as popular as in `load` [E].

    load: f_e, Σ = k (or p_e, Σ = 1, which is scaled). Conditional Poisson sampling, fitted until
    the frequencies agree to a thousandth; experts with f_e = 1 are in every set. Drawing by
    Gumbel top-k on ln f_e would not do: it makes hot experts cooler. Raises ValueError for loads
    that no router of k experts has, ArithmeticError where the fit does not settle.
    """
    shares = np.asarray(load, float)
    if shares.ndim != 1 or not shares.sum() > 0:
        raise ValueError("load is one share for each expert, not all of them 0")
    shares = shares * (k / shares.sum())
    return fit_subsets(shares).sample(tokens, rng)
