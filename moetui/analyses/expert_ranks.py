"""How well a prediction of a token's experts does: how many of them are among its first m."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.analyses.ablation import few_draws
from moetui.stats import Statistic, document_intervals, joined, permutation_p, ratio_of_sums
from moetui.stats.minimum import PREDICTION, warned

Numbers = NDArray[np.float64]
Ranks = NDArray[np.int64]

# The rank of a slot that no expert fills: among the first of nothing.
NOWHERE = np.iinfo(np.int64).max


def multi_hot(experts: ArrayLike, E: int) -> Numbers:
    """float64 [n, E], 1 where an expert of `experts` [n, k] is (ids below 0 are padding)."""
    ids = np.asarray(experts, np.int64)
    rows, slots = np.nonzero(ids >= 0)
    hot = np.zeros((len(ids), E))
    hot[rows, ids[rows, slots]] = 1.0
    return hot


def ranks(scores: Numbers, experts: ArrayLike) -> Ranks:
    """int64 [n, k], the place (0 = first) of each expert [n, k] among scores [n, E], the larger
    the better, equal ones by id; NOWHERE for padding."""
    ids = np.asarray(experts, np.int64)
    at = np.maximum(ids, 0)
    own = np.take_along_axis(scores, at, axis=1)[:, :, None]
    earlier = np.arange(scores.shape[1]) < at[:, :, None]
    others = scores[:, None, :]
    place = ((others > own) | ((others == own) & earlier)).sum(axis=2)
    return np.where(ids < 0, NOWHERE, place)


def recalled(places: Ranks, sizes: Sequence[int]) -> Numbers:
    """float64 [n, sizes]: how many of a token's experts are among the first m, for each m."""
    return np.stack([(places < m).sum(axis=1) for m in sizes], axis=1).astype(float)


def by_document(values: ArrayLike, documents: ArrayLike, D: int) -> Numbers:
    """float64 [D, …], sums of values [n, …] of D documents whose numbers are documents [n]."""
    found = np.asarray(values, float)
    sums = np.zeros((D, *found.shape[1:]))
    np.add.at(sums, np.asarray(documents), found)
    return sums


def first(scores: Numbers, m: int) -> NDArray[np.int16]:
    """int16 [n, m], the m experts of the largest scores [n, E], best first, equal ones by id."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :m].astype(np.int16)


def sizes_of(k: int, E: int) -> tuple[int, ...]:
    """m = k, 1.5 k and 2 k experts, at most all E, each once."""
    return tuple(dict.fromkeys(min(m, E) for m in (k, -(-3 * k // 2), 2 * k)))


class Hits(msgspec.Struct, frozen=True, kw_only=True):
    """What one predictor did at one layer, or at several together.

    hits: [D, sizes], experts of each document's tokens among the first m. null: [draws, sizes],
    the same over all documents where its features were exchanged within documents; equal: [draws,
    D, sizes], of each document where they were exchanged among equal tokens; None without such
    draws.
    """

    hits: Numbers
    null: Numbers | None = None
    equal: Numbers | None = None


def together(some: Sequence[Hits]) -> Hits:
    """Those of several layers as one: a mean over layers that weighs every expert alike."""
    nulls = [one.null for one in some if one.null is not None]
    equal = [one.equal for one in some if one.equal is not None]
    return Hits(
        hits=np.sum([one.hits for one in some], axis=0),
        null=np.sum(nulls, axis=0) if len(nulls) == len(some) else None,
        equal=np.sum(equal, axis=0) if len(equal) == len(some) else None,
    )


def of_equals(found: Hits) -> Hits | None:
    """What is recalled where features are exchanged among equal tokens, mean of the draws; None
    without draws."""
    if found.equal is None or not len(found.equal):
        return None
    return Hits(hits=found.equal.mean(axis=0))


def recall(found: Hits, totals: ArrayLike, size: int, *, seed: int, tokens: int) -> Statistic:
    """recall@m: share of the experts that are among the first m; size: index of m.

    totals: [D], experts of each document's tokens. Interval over documents; null and p (of what
    is more) from the draws, where there are any.
    """
    n = np.asarray(totals, float)
    return _judged(found.hits[:, size], n, _shares(found, n, size), seed, tokens)


def gain(
    found: Hits, baseline: Hits, totals: ArrayLike, size: int, *, seed: int, tokens: int
) -> Statistic:
    """recall@m less that of `baseline`, paired by document; the null keeps the baseline as it is
    and exchanges the features."""
    n = np.asarray(totals, float)
    shares = _shares(found, n, size)
    if shares is not None:
        shares = shares - baseline.hits[:, size].sum() / n.sum()
    return _judged(found.hits[:, size] - baseline.hits[:, size], n, shares, seed, tokens)


def beyond_equals(
    found: Hits, beside: Hits, totals: ArrayLike, size: int, *, seed: int, tokens: int
) -> Statistic | None:
    """recall@m less what features and table together (`beside`) recall where the features are
    exchanged among equal tokens, paired by document: what goes beyond the token, however the
    features carry it. The null keeps that as it is, and is of `found` so exchanged, where it has
    features. None without draws."""
    baseline, n = of_equals(beside), np.asarray(totals, float)
    if baseline is None:
        return None
    own, null = baseline.hits[:, size], None
    if found.equal is not None and n.sum():
        null = (found.equal[:, :, size].sum(axis=1) - own.sum()) / n.sum()
    return _judged(found.hits[:, size] - own, n, null, seed, tokens, "among equal tokens")


def _shares(found: Hits, totals: Numbers, size: int) -> Numbers | None:
    if found.null is None or not totals.sum():
        return None
    shares: Numbers = found.null[:, size] / totals.sum()
    return shares


def _judged(
    sums: Numbers,
    totals: Numbers,
    null: Numbers | None,
    seed: int,
    tokens: int,
    exchange: str = "within documents",
) -> Statistic:
    if not totals.sum():
        return Statistic(n_tokens=0, n_documents=len(totals), caveat="no expert was chosen")
    used = totals > 0
    ratio = ratio_of_sums(sums[used], totals[used])
    found = document_intervals(ratio, int(used.sum()), seed=seed).statistic(n_tokens=tokens)
    if null is not None and len(null) and found.value is not None:
        low, high = np.quantile(null, [0.025, 0.975])
        draws = few_draws(len(null)) or f"{len(null)} draws"
        found = msgspec.structs.replace(
            found,
            null_mean=float(null.mean()),
            null_low=float(low),
            null_high=float(high),
            p=permutation_p(found.value, null),
            caveat=joined(found.caveat, f"null: features exchanged {exchange}, {draws}"),
        )
    return warned(found, PREDICTION, documents=int(used.sum()), tokens=tokens)
