"""How much two labels tell of each other, and how far distributions over experts are apart."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from moetui.stats.permutation import PERMUTATIONS, family_test, permutation_test
from moetui.stats.statistic import Statistic, joined

Numbers = NDArray[np.float64]


class MutualInformation(msgspec.Struct, frozen=True, kw_only=True):
    """Mutual information of a table of counts, in nats.

    plug_in: of the observed shares, ≥ 0 and too high by `bias` on average; corrected: less that
    (it may be below 0). n: observations in the table.
    """

    plug_in: float
    bias: float
    corrected: float
    n: int


class DomainInformation(msgspec.Struct, frozen=True, kw_only=True):
    """How the use of experts differs between domains.

    information: of domain and expert, in nats. divergence: [domains][domains], Jensen-Shannon in
    bits. by_chance: [domains][domains], what two samples of one distribution show of it. to_pool:
    [domains], divergence of each domain from all the others together. specialization:
    [domains][E], share of an expert's choices that fall in each domain, NaN for unused experts.
    """

    information: MutualInformation
    divergence: list[list[float]]
    by_chance: list[list[float]]
    to_pool: list[float]
    specialization: list[list[float]]


class DomainTest(msgspec.Struct, frozen=True, kw_only=True):
    """Whether domains use experts differently, by permuting the domains of documents.

    information: of domain and expert in nats, less its mean under permutation. divergence: of
    each domain (in the order of `domains`) from all the others, Jensen-Shannon in bits, less its
    mean too, with q over the domains.
    """

    domains: tuple[str, ...]
    information: Statistic
    divergence: tuple[Statistic, ...]


def mutual_information(table: ArrayLike) -> MutualInformation:
    """Mutual information of rows and columns of a table of counts [R, C], one label each.

    Bias by Miller and Madow, (cells − rows − cols + 1)/(2n) of those that occur; it holds where
    every observation is one independent pair of labels. For tables of k experts a token, or of
    tokens of documents, it does not: subtract the mean over permutations of documents instead
    (`domain_test`). Raises ValueError for tables without counts.
    """
    counts = _table(table)
    n, rows, columns = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
    occurring = [int((part > 0).sum()) for part in (counts, rows, columns)]
    bias = (occurring[0] - occurring[1] - occurring[2] + 1) / (2 * n)
    plug_in = float(plug_in_information(counts))
    return MutualInformation(
        plug_in=plug_in, bias=float(bias), corrected=plug_in - float(bias), n=round(float(n))
    )


def plug_in_information(tables: ArrayLike) -> Numbers:
    """[...]: mutual information in nats of tables of counts [..., R, C], as observed; NaN for a
    table without counts. Too high by chance: see `mutual_information`."""
    counts = np.asarray(tables, float)
    rows, columns, n = counts.sum(axis=-1), counts.sum(axis=-2), counts.sum(axis=(-1, -2))
    terms = xlogy(counts, counts).sum(axis=(-1, -2))
    terms -= xlogy(rows, rows).sum(axis=-1) + xlogy(columns, columns).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = terms / n + np.log(n)
    return np.asarray(np.where(found < 0, 0.0, found), float)  # below 0 by rounding only


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> float:
    """Jensen-Shannon divergence of two distributions [E], in bits: 0 where equal, at most 1.

    p, q: shares or counts, each scaled to sum 1. Two samples of one distribution are apart too:
    `expected_jensen_shannon`, and a permutation of documents for a p. Raises ValueError where one
    holds nothing.
    """
    a, b = np.asarray(p, float), np.asarray(q, float)
    if a.shape != b.shape or a.ndim != 1 or min(a.sum(), b.sum()) <= 0 or min(a.min(), b.min()) < 0:
        raise ValueError("two distributions over the same experts, neither of them empty")
    return float(_divergence(a / a.sum(), b / b.sum()))


def expected_jensen_shannon(n_p: float, n_q: float, support: int, k: int = 1) -> float:
    """About what two samples of one distribution show, in bits: a hint, no null.

    (E − 1)/(8 ln 2) · (1/(k·n_p) + 1/(k·n_q)) for samples of n_p and n_q tokens with k choices each
    among `support` experts that occur; (E − 1)/(4·n·k·ln 2) where both have n. Tokens of a
    document are not independent, so the true level is higher: permute documents to test.
    """
    return (support - 1) / (8 * float(np.log(2)) * k) * (1 / n_p + 1 / n_q)


def domain_information(counts: ArrayLike) -> DomainInformation:
    """Of counts [domains, E], choices of each expert in each domain.

    Descriptions, without intervals; `domain_test` says whether there is a difference. Raises
    ValueError for fewer than two domains, or one without counts.
    """
    n = _table(counts)
    if len(n) < 2 or not n.sum(axis=1).all():
        raise ValueError("counts of experts in two domains or more, none of them empty")
    shares, totals = n / n.sum(axis=1, keepdims=True), n.sum(axis=1)
    others = n.sum(axis=0) - n
    with np.errstate(invalid="ignore", divide="ignore"):
        specialization = n / n.sum(axis=0)
    support = int((n.sum(axis=0) > 0).sum())
    D = range(len(n))
    chance = [
        [0.0 if a == b else expected_jensen_shannon(totals[a], totals[b], support) for b in D]
        for a in D
    ]
    return DomainInformation(
        information=mutual_information(n),
        divergence=_divergence(shares[:, None], shares[None, :]).tolist(),
        by_chance=[[float(value) for value in row] for row in chance],
        to_pool=[jensen_shannon(own, rest) for own, rest in zip(n, others, strict=True)],
        specialization=specialization.tolist(),
    )


def domain_test(
    counts: ArrayLike,
    domains: Sequence[str],
    *,
    permutations: int = PERMUTATIONS,
    seed: int,
) -> DomainTest:
    """Of counts [D, E], choices of each expert in each of D documents; domains: [D].

    Documents, not tokens, are shuffled between domains, which keeps every document's own taste and
    the number of documents of a domain. What remains above the mean of the shuffles is what
    domains add. No intervals. Raises ValueError as `domain_information` and `permutation_test`.
    """
    n = _table(counts)
    names = tuple(dict.fromkeys(domains))
    of = np.array([[domain == name for domain in domains] for name in names], float)
    if of.shape[1:] != n.shape[:1] or len(names) < 2 or not n.sum(axis=1).all():
        raise ValueError("counts and one domain for each document, two domains, none empty")

    def apart(members: Numbers) -> Numbers:
        table = members @ n
        rest = table.sum(axis=0) - table
        own, others = (part / part.sum(axis=1, keepdims=True) for part in (table, rest))
        return _divergence(own, others)

    def shuffled(rng: np.random.Generator) -> Numbers:
        return rng.permutation(of, axis=1)

    information = permutation_test(
        mutual_information(of @ n).plug_in,
        lambda rng: mutual_information(shuffled(rng) @ n).plug_in,
        permutations=permutations,
        seed=seed,
    )
    family = family_test(
        apart(of), lambda rng: apart(shuffled(rng)), permutations=permutations, seed=seed
    )
    return DomainTest(
        domains=names,
        information=_above_chance(information, len(n), "nats"),
        divergence=tuple(
            _above_chance(family.statistic(index), int(of[index].sum()), "bits")
            for index in range(len(names))
        ),
    )


def _above_chance(found: Statistic, documents: int, unit: str) -> Statistic:
    """The same less what permutation shows on average."""
    chance = found.null_mean or 0.0
    limits = [None if x is None else x - chance for x in (found.null_low, found.null_high)]
    told = (
        f"{found.value or 0.0:.3g} {unit} less {chance:.3g} under permutation of documents; "
        "no interval"
    )
    return msgspec.structs.replace(
        found,
        value=(found.value or 0.0) - chance,
        null_mean=0.0,
        null_low=limits[0],
        null_high=limits[1],
        n_documents=documents,
        caveat=joined(told, found.caveat),
    )


def _divergence(p: Numbers, q: Numbers) -> Numbers:
    """½ KL(p ‖ m) + ½ KL(q ‖ m) in bits over the last axis, m their mean."""
    m = (p + q) / 2
    entropies = [-xlogy(x, x).sum(axis=-1) for x in (m, p, q)]
    apart = (entropies[0] - (entropies[1] + entropies[2]) / 2) / np.log(2)
    # Entropies of equal distributions cancel to their last bit only.
    return np.asarray(np.clip(np.where(apart < 1e-15, 0.0, apart), 0.0, 1.0), float)


def _table(counts: ArrayLike) -> Numbers:
    table = np.asarray(counts, float)
    if table.ndim != 2 or (table < 0).any() or not np.isfinite(table).all() or not table.sum():
        raise ValueError("a table of counts, none of them negative, not all of them 0")
    return table
