"""Shares of single sources in the logits of one router: of experts, of attention heads.

`moetui.analyses.source_shares` stops at the layer; here the part of a layer l is split further,
into z_{l,c} at the tokens at which source c is there and 0 at all others. Summed over the sources
of a layer these are its part.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.stats import MIN_DOCUMENTS, Intervals, Statistic, document_intervals, family_test
from moetui.trace.shares import centred
from moetui.trace.types import ExpertIds, Floats, Ints

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

PERMUTATIONS = 999
# Permutations of one document evaluated at once: bounds memory.
_BATCH = 64
# Of shares: powers under permutation are kept in single precision.
_ROUNDING = 1e-6


class Split(Protocol):
    """The logits [T, E] of one router over a document, and what single sources of M layers added
    to them: ids [T, M, k], -1 for none, and logits [T, M, k, E]; completeness [T, M]."""

    @property
    def layers(self) -> Ints:
        """int32 [M]."""

    @property
    def router_logits(self) -> Floats:
        """float32 [T, E]."""

    @property
    def ids(self) -> ExpertIds:
        """int16 [T, M, k]."""

    @property
    def logits(self) -> Floats:
        """float32 [T, M, k, E]."""

    @property
    def completeness(self) -> Floats:
        """float32 [T, M]: what the sources of a layer miss of it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SingleSums:
    """Sums over the tokens of one document, for the M layers before a router with E experts
    and X sources in each of these layers; z̃ is centred where a common shift changes nothing.

    tokens: that count. total: [E], Σ_t z̃; total_power: Σ_t ‖z̃‖².
    power, share: [M, X], Σ_t ⟨z̃_c, z̃⟩ and Σ_t s_c. mean: float32 [M, X, E], Σ_t z̃_c.
    tokens_of: int32 [M, X], tokens at which the source is there. completeness: of the worst token.
    """

    tokens: int
    total: Numbers
    total_power: float
    power: Numbers
    share: Numbers
    mean: Floats
    tokens_of: Ints
    completeness: float


@dataclass(frozen=True, kw_only=True)
class SingleShare:
    """What source `source` of the `row`-th layer is of a later router's logits.

    across_tokens: S, under permutation too; per_token: mean s. tokens: those at which it is there.
    """

    row: int
    source: int
    across_tokens: Statistic
    per_token: Statistic
    tokens: int


@dataclass(frozen=True, kw_only=True)
class SingleShares:
    """Sources that were there at some token, the largest share across tokens first, whatever its
    sign. together: the across-token share of all. completeness: of the worst token and layer."""

    shares: tuple[SingleShare, ...]
    together: Statistic
    completeness: float
    documents: int
    tokens: int


class _Slots:
    """Every source of one document in the order of `codes`, row of its layer · X + source.

    keep: bool [T], tokens that count. z: [T, E]. tokens, codes: [n]. added: [n, E], z̃ of each.
    """

    def __init__(self, found: Split, num_sources: int, *, shift_invariant: bool) -> None:
        z = centred(found.router_logits, shift_invariant=shift_invariant)
        finite = np.isfinite(z).all(axis=-1), np.isfinite(found.logits).all(axis=(1, 2, 3))
        self.keep: Flags = np.all([*finite, z.any(axis=-1)], axis=0)
        self.z = np.where(self.keep[:, None], z, 0.0)
        used = (found.ids >= 0) & self.keep[:, None, None]
        tokens, rows, _ = np.nonzero(used)
        codes = rows * num_sources + found.ids[used]
        order = np.argsort(codes, kind="stable")
        self.tokens, self.codes = tokens[order], codes[order]
        added = centred(found.logits[used], shift_invariant=shift_invariant)
        self.added: Numbers = added[order]

    def sums(self, values: Numbers, size: int) -> Numbers:
        """[size, …]: values [n, …] added up by code."""
        whole = np.zeros((size, *values.shape[1:]))
        codes, starts = np.unique(self.codes, return_index=True)
        if len(codes):
            whole[codes] = np.add.reduceat(values, starts, axis=0)
        return whole


def single_sums(found: Split, num_sources: int, *, shift_invariant: bool = True) -> SingleSums:
    """The sums of one document. num_sources: X, of the layer that has most."""
    slots = _Slots(found, num_sources, shift_invariant=shift_invariant)
    M, X = len(found.layers), num_sources
    squares = (slots.z**2).sum(axis=-1)
    products = (slots.added * slots.z[slots.tokens]).sum(axis=-1)
    shares = products / squares[slots.tokens]
    error = found.completeness[slots.keep]
    return SingleSums(
        tokens=int(slots.keep.sum()),
        total=slots.z.sum(axis=0),
        total_power=float(squares.sum()),
        power=slots.sums(products, M * X).reshape(M, X),
        share=slots.sums(shares, M * X).reshape(M, X),
        mean=slots.sums(slots.added, M * X).reshape(M, X, -1).astype(np.float32),
        tokens_of=np.bincount(slots.codes, minlength=M * X).reshape(M, X).astype(np.int32),
        completeness=float(error.max(initial=0.0)),
    )


def permuted_powers(
    found: Split,
    num_sources: int,
    text: str,
    *,
    seed: int,
    shift_invariant: bool = True,
) -> Numbers:
    """float64 [999, M, X]: Σ_t ⟨z̃_c(π t), z̃(t)⟩, all sources by the same permutation π of the
    document's tokens, drawn by seed and the document's text."""
    slots = _Slots(found, num_sources, shift_invariant=shift_invariant)
    M, X = len(found.layers), num_sources
    rows = np.flatnonzero(slots.keep)
    # Row t of z̃_c stands beside row π t of z̃; tokens that do not count are not exchanged.
    rng = np.random.default_rng([seed, zlib.crc32(text.encode())])
    orders = rng.permuted(np.tile(np.arange(len(rows)), (PERMUTATIONS, 1)), axis=1)
    place = np.searchsorted(rows, slots.tokens)
    powers = np.zeros((PERMUTATIONS, M * X))
    ends = np.searchsorted(slots.codes, np.arange(M + 1) * X).tolist()
    for of_layer in (slice(*pair) for pair in pairwise(ends)):
        codes, starts = np.unique(slots.codes[of_layer], return_index=True)
        products = slots.added[of_layer] @ slots.z[rows].T
        first = np.arange(len(products)) * len(rows)
        for start in range(0, PERMUTATIONS if len(codes) else 0, _BATCH):
            columns = orders[start : start + _BATCH].take(place[of_layer], axis=1)
            drawn = np.add.reduceat(products.take(first + columns), starts, axis=1)
            powers[start : start + _BATCH, codes] = drawn
    return powers.reshape(PERMUTATIONS, M, X)


def single_shares(documents: Sequence[SingleSums], permuted: Numbers, *, seed: int) -> SingleShares:
    """Shares of all sources.

    permuted: [999, M, X], `permuted_powers` summed over the documents. Interval, null and test
    need 20 documents. Raises ValueError for no documents.
    """
    if not documents:
        raise ValueError("shares need documents")
    table = _Table(documents)
    tokens_of = np.sum([one.tokens_of for one in documents], axis=0)
    found = [table.sources(row, seed=seed) for row in range(len(tokens_of))]
    known = np.argwhere(tokens_of > 0).tolist()
    across = [found[row].statistic((source, 0), n_tokens=table.tokens) for row, source in known]
    if len(documents) >= MIN_DOCUMENTS:
        across = _tested(across, table.null(permuted)[:, tokens_of > 0], seed=seed)
    shares = [
        SingleShare(
            row=row,
            source=source,
            across_tokens=share,
            per_token=found[row].statistic((source, 1), n_tokens=table.tokens),
            tokens=int(tokens_of[row, source]),
        )
        for (row, source), share in zip(known, across, strict=True)
    ]
    return SingleShares(
        shares=tuple(sorted(shares, key=lambda one: -abs(one.across_tokens.value or 0.0))),
        together=table.together(seed=seed).statistic((0,), n_tokens=table.tokens),
        completeness=max(one.completeness for one in documents),
        documents=len(documents),
        tokens=table.tokens,
    )


class _Table:
    """The sums of D documents; z̃ of a source enters a covariance by its products with z̃ alone,
    so that no [documents, sources, E] of resamples is ever made."""

    def __init__(self, documents: Sequence[SingleSums]) -> None:
        self._documents = documents
        self._n = np.array([one.tokens for one in documents], float)
        self._total = np.stack([one.total for one in documents])
        self._total_power = np.array([one.total_power for one in documents])
        self.tokens = int(self._n.sum())

    def sources(self, row: int, *, seed: int) -> Intervals:
        """[X, 2], the shares of the sources of one layer: across tokens, of the token."""
        power, share, mean = (
            np.stack([getattr(one, name)[row] for one in self._documents]).astype(float)
            for name in ("power", "share", "mean")
        )
        across = self._across(power, mean)

        def shares(weights: Numbers) -> Numbers:
            with np.errstate(invalid="ignore", divide="ignore"):
                of_token = weights @ share / (weights @ self._n)[:, None]
            return np.moveaxis(np.stack([across(weights), of_token], axis=-1), 0, -1)

        return document_intervals(shares, len(self._documents), seed=seed)

    def together(self, *, seed: int) -> Intervals:
        """[1], the share across tokens of all sources."""
        power = np.array([[one.power.sum()] for one in self._documents])
        mean = np.stack([one.mean.sum(axis=(0, 1), dtype=float)[None] for one in self._documents])
        across = self._across(power, mean)
        return document_intervals(lambda w: across(w).T, len(self._documents), seed=seed)

    def null(self, permuted: Numbers) -> Numbers:
        """[P, M, X]: S from powers under permutation, which changes neither means nor Var(z)."""
        mean = np.sum([one.mean for one in self._documents], axis=0, dtype=float)
        expected = mean @ self._total.sum(axis=0) / self.tokens
        share: Numbers = (permuted - expected) / self._variance(np.ones((1, len(self._n))))[0]
        return share

    def _across(self, power: Numbers, mean: Numbers) -> Callable[[Numbers], Numbers]:
        """[R, D] -> [R, C]: S of C sources from power [D, C] and mean [D, C, E]."""
        D, C = power.shape
        products = np.einsum("dce,fe->dfc", mean, self._total).reshape(D, D * C)

        def shares(weights: Numbers) -> Numbers:
            both = (weights @ products).reshape(len(weights), D, C)
            with np.errstate(invalid="ignore", divide="ignore"):
                expected = np.einsum("rfc,rf->rc", both, weights) / (weights @ self._n)[:, None]
                share: Numbers = (weights @ power - expected) / self._variance(weights)[:, None]
            return share

        return shares

    def _variance(self, weights: Numbers) -> Numbers:
        """[R], n Σ_e Var(z̃_e); NaN where rounding is all that varies."""
        power = weights @ self._total_power
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = power - ((weights @ self._total) ** 2).sum(axis=-1) / (weights @ self._n)
        return np.where(variance > 1e-9 * power, variance, np.nan)


def _tested(found: Sequence[Statistic], draws: Numbers, *, seed: int) -> list[Statistic]:
    """F shares with their null [P, F] and a test of them all, each in units of its own null."""
    tested = list(found)
    values = np.array([np.nan if one.value is None else one.value for one in found])
    centre, spread = draws.mean(axis=0), draws.std(axis=0)
    # What is the same at every token of a document cannot be exchanged; the rest is rounding.
    fit = np.flatnonzero(np.isfinite(values) & (spread > _ROUNDING))
    if not len(fit):
        return tested
    away = iter(np.abs(draws[:, fit] - centre[fit]) / spread[fit])
    family = family_test(
        np.abs(values[fit] - centre[fit]) / spread[fit],
        lambda _: next(away),
        permutations=len(draws),
        seed=seed,
    )
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    for index, at in enumerate(fit.tolist()):
        tested[at] = msgspec.structs.replace(
            found[at],
            null_mean=float(centre[at]),
            null_low=float(low[at]),
            null_high=float(high[at]),
            p=float(family.p[index]),
            q=float(family.q[index]),
        )
    return tested
