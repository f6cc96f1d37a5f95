"""Which single experts a later router reads: the share of every expert in its logits.

`moetui.analyses.source_shares` stops at the layer; here the routed part of a layer is split by
expert, z_{l,e} = ρ W̃ (weight · output) at the tokens that chose e in layer l and 0 at all others.
Summed over the experts of a layer these are the layer's routed part. Attention is not split
further: its shares are by layer, not by head.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.stats import MIN_DOCUMENTS, Intervals, Statistic, document_intervals, family_test
from moetui.trace import ExpertSources
from moetui.trace.shares import centred
from moetui.trace.types import Floats, Ints

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

PERMUTATIONS = 999
# Permutations of one document evaluated at once: bounds memory.
_BATCH = 64
# Of shares: powers under permutation are kept in single precision.
_ROUNDING = 1e-6
DEFINITION = (
    "z_{l,e} is what expert e of layer l added to the router's logits, 0 at tokens that did not "
    "choose it. Across tokens: Σ Cov(z_{l,e}, z) / Σ Var(z), its own variance included. Of the "
    "token: mean of ⟨z_{l,e}, z⟩ / ‖z‖²"
)
NULL = (
    "null: what the earlier experts added, exchanged between the tokens of every document; q is "
    "family-wise over all experts, for shares of either sign"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class ExpertSums:
    """Sums over the tokens of one document, for the M earlier layers of a router with E experts
    and X experts in each of these layers; z̃ is centred where a common shift changes nothing.

    tokens: that count. total: [E], Σ_t z̃; total_power: Σ_t ‖z̃‖².
    power, share: [M, X], Σ_t ⟨z̃_c, z̃⟩ and Σ_t s_c. mean: float32 [M, X, E], Σ_t z̃_c.
    chosen: int32 [M, X], tokens that chose the expert. completeness: of the worst token.
    """

    tokens: int
    total: Numbers
    total_power: float
    power: Numbers
    share: Numbers
    mean: Floats
    chosen: Ints
    completeness: float


class ExpertShare(msgspec.Struct, frozen=True, kw_only=True):
    """What expert `expert` of decoder layer `layer` is of a later router's logits.

    across_tokens: S, under permutation too; per_token: mean s. chosen: tokens that chose it.
    """

    layer: int
    expert: int
    across_tokens: Statistic
    per_token: Statistic
    chosen: int


class ExpertShares(msgspec.Struct, frozen=True, kw_only=True):
    """The experts before the router of decoder layer `layer`.

    experts: all that some token chose, the largest share across tokens first, whatever its sign.
    together: their across-token share, which is that of the routed experts. earlier: the layers
    that they are of. completeness: max over tokens and layers of what the experts of a layer miss
    of its routed part, over the router's largest logit.
    """

    layer: int
    earlier: tuple[int, ...]
    experts: tuple[ExpertShare, ...]
    never_chosen: int
    together: Statistic
    completeness: float
    documents: int
    tokens: int


class SourceExperts(msgspec.Struct, frozen=True, kw_only=True, tag="source_experts"):
    """The shares of single experts over a sample of documents of `corpus`, each cut to max_tokens
    tokens. documents_digest: SHA-256 over their ids and texts. caveat: of the corpus."""

    definition: str
    null: str
    shares: ExpertShares
    corpus: str
    max_tokens: int
    documents_digest: str
    caveat: str | None = None


class _Slots:
    """Every chosen expert of one document in the order of `codes`, earlier layer · X + expert.

    keep: bool [T], tokens that count. z: [T, E]. tokens, codes: [n]. added: [n, E], z̃ of each.
    """

    def __init__(self, found: ExpertSources, num_experts: int, *, shift_invariant: bool) -> None:
        z = centred(found.router_logits, shift_invariant=shift_invariant)
        finite = np.isfinite(z).all(axis=-1), np.isfinite(found.logits).all(axis=(1, 2, 3))
        self.keep: Flags = np.all([*finite, z.any(axis=-1)], axis=0)
        self.z = np.where(self.keep[:, None], z, 0.0)
        used = (found.expert_ids >= 0) & self.keep[:, None, None]
        tokens, rows, _ = np.nonzero(used)
        codes = rows * num_experts + found.expert_ids[used]
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


def expert_sums(
    found: ExpertSources, num_experts: int, *, shift_invariant: bool = True
) -> ExpertSums:
    """The sums of one document. num_experts: X, of the layer that has most."""
    slots = _Slots(found, num_experts, shift_invariant=shift_invariant)
    M, X = len(found.layers), num_experts
    squares = (slots.z**2).sum(axis=-1)
    products = (slots.added * slots.z[slots.tokens]).sum(axis=-1)
    shares = products / squares[slots.tokens]
    error = found.completeness[slots.keep]
    return ExpertSums(
        tokens=int(slots.keep.sum()),
        total=slots.z.sum(axis=0),
        total_power=float(squares.sum()),
        power=slots.sums(products, M * X).reshape(M, X),
        share=slots.sums(shares, M * X).reshape(M, X),
        mean=slots.sums(slots.added, M * X).reshape(M, X, -1).astype(np.float32),
        chosen=np.bincount(slots.codes, minlength=M * X).reshape(M, X).astype(np.int32),
        completeness=float(error.max(initial=0.0)),
    )


def permuted_powers(
    found: ExpertSources,
    num_experts: int,
    text: str,
    *,
    seed: int,
    shift_invariant: bool = True,
) -> Numbers:
    """float64 [999, M, X]: Σ_t ⟨z̃_c(π t), z̃(t)⟩, all experts by the same permutation π of the
    document's tokens, drawn by seed and the document's text."""
    slots = _Slots(found, num_experts, shift_invariant=shift_invariant)
    M, X = len(found.layers), num_experts
    rows = np.flatnonzero(slots.keep)
    # Row t of z̃_c stands beside row π t of z̃; tokens that do not count are not exchanged.
    rng = np.random.default_rng([seed, zlib.crc32(text.encode())])
    orders = rng.permuted(np.tile(np.arange(len(rows)), (PERMUTATIONS, 1)), axis=1)
    place = np.searchsorted(rows, slots.tokens)
    products = slots.added @ slots.z[rows].T
    first = np.arange(len(place)) * len(rows)
    powers = np.zeros((PERMUTATIONS, M * X))
    codes, starts = np.unique(slots.codes, return_index=True)
    for start in range(0, PERMUTATIONS if len(codes) else 0, _BATCH):
        drawn = products.take(first + orders[start : start + _BATCH].take(place, axis=1))
        powers[start : start + _BATCH, codes] = np.add.reduceat(drawn, starts, axis=1)
    return powers.reshape(PERMUTATIONS, M, X)


def expert_shares(
    documents: Sequence[ExpertSums],
    permuted: Numbers,
    layer: int,
    earlier: Sequence[int],
    *,
    seed: int,
) -> ExpertShares:
    """Shares of all experts of the decoder layers `earlier` at the router of `layer`.

    permuted: [999, M, X], `permuted_powers` summed over the documents. Interval, null and test
    need 20 documents. Raises ValueError for no documents.
    """
    if not documents:
        raise ValueError("shares need documents")
    table = _Table(documents)
    found = [table.experts(row, seed=seed) for row in range(len(earlier))]
    chosen = np.sum([one.chosen for one in documents], axis=0)
    known = np.argwhere(chosen > 0).tolist()
    across = [found[row].statistic((expert, 0), n_tokens=table.tokens) for row, expert in known]
    if len(documents) >= MIN_DOCUMENTS:
        across = _tested(across, table.null(permuted)[:, chosen > 0], seed=seed)
    experts = [
        ExpertShare(
            layer=earlier[row],
            expert=expert,
            across_tokens=share,
            per_token=found[row].statistic((expert, 1), n_tokens=table.tokens),
            chosen=int(chosen[row, expert]),
        )
        for (row, expert), share in zip(known, across, strict=True)
    ]
    return ExpertShares(
        layer=layer,
        earlier=tuple(earlier),
        experts=tuple(sorted(experts, key=lambda one: -abs(one.across_tokens.value or 0.0))),
        never_chosen=int((chosen == 0).sum()),
        together=table.together(seed=seed).statistic((0,), n_tokens=table.tokens),
        completeness=max(one.completeness for one in documents),
        documents=len(documents),
        tokens=table.tokens,
    )


class _Table:
    """The sums of D documents; z̃ of an expert enters a covariance by its products with z̃ alone,
    so that no [documents, experts, E] of resamples is ever made."""

    def __init__(self, documents: Sequence[ExpertSums]) -> None:
        self._documents = documents
        self._n = np.array([one.tokens for one in documents], float)
        self._total = np.stack([one.total for one in documents])
        self._total_power = np.array([one.total_power for one in documents])
        self.tokens = int(self._n.sum())

    def experts(self, row: int, *, seed: int) -> Intervals:
        """[X, 2], the shares of the experts of one earlier layer: across tokens, of the token."""
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
        """[1], the share across tokens of all experts."""
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
