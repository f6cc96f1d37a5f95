"""Whether two tables of distances between the same objects agree: Mantel's permutation test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.stats.minimum import SIMILARITY, warned
from moetui.stats.permutation import Tail, permutation_test
from moetui.stats.statistic import Statistic, joined

Numbers = NDArray[np.float64]

PERMUTATIONS = 9999
# Permuted tables that are held at once.
_BATCH = 200
# What is left of a table, as a part of it, that other tables explain but for rounding.
_ROUNDING = 1e-9


def mantel(
    a: ArrayLike,
    b: ArrayLike,
    *,
    permutations: int = PERMUTATIONS,
    tail: Tail = "greater",
    seed: int,
) -> Statistic:
    """Spearman correlation of two distance tables [n, n] of n objects, and its p.

    Pairs are not independent, objects are: the objects of a are permuted, rows and columns
    together (Mantel 1967). No interval, no value where all distances of a table are equal.
    Raises ValueError for tables that are not symmetric, below 4 objects, or with NaN.
    """
    return partial_mantel(a, b, (), permutations=permutations, tail=tail, seed=seed)


def partial_mantel(
    a: ArrayLike,
    b: ArrayLike,
    controls: Sequence[ArrayLike],
    *,
    permutations: int = PERMUTATIONS,
    tail: Tail = "greater",
    seed: int,
) -> Statistic:
    """The same with what the tables `controls` explain taken out of both (partial Spearman).

    Ranks of a and b are regressed on those of the controls, and the residuals correlated; for the
    null the objects of a are permuted and the regression made again (Smouse, Long and Sokal
    1986). Sound where objects are exchangeable; not where distances follow a place in space or
    text that no control holds (Guillot and Rousset, Methods Ecol. Evol. 4, 2013).
    """
    ranked = _ranked(a, b, controls)
    n = ranked.objects
    if ranked.undetermined:
        return Statistic(n_documents=n, seed=seed, caveat=ranked.undetermined)
    square = np.zeros((n, n))
    square[np.triu_indices(n, 1)] = ranked.ranks
    null = _permuted(square + square.T, ranked.rest, ranked.basis, permutations, seed)
    found = permutation_test(ranked.correlation, null, tail=tail)
    told = joined("no interval: pairs are not independent", found.caveat)
    found = msgspec.structs.replace(found, n_documents=n, seed=seed, caveat=told)
    return warned(found, SIMILARITY, contexts=n)


def rank_correlation(a: ArrayLike, b: ArrayLike, controls: Sequence[ArrayLike] = ()) -> float:
    """The correlation that `partial_mantel` tests, without the test; NaN where there is none.
    Raises as it does."""
    ranked = _ranked(a, b, controls)
    return np.nan if ranked.undetermined else ranked.correlation


@dataclass(frozen=True, eq=False, kw_only=True)
class _Ranked:
    """Ranks of the distances [pairs] of a, what of a (own) and b (rest) the controls, spanned by
    basis [pairs, c], do not explain, both of length 1; undetermined: why they have no correlation.
    """

    objects: int
    ranks: Numbers
    own: Numbers
    rest: Numbers
    basis: Numbers
    undetermined: str | None

    @property
    def correlation(self) -> float:
        return float(self.own @ self.rest)


def _ranked(a: ArrayLike, b: ArrayLike, controls: Sequence[ArrayLike]) -> _Ranked:
    tables = [_distances(table) for table in (a, b, *controls)]
    if len({len(table) for table in tables}) > 1:
        raise ValueError("the tables are of different objects")
    n = len(tables[0])
    above = np.triu_indices(n, 1)
    ranks = [_ranks(table[above]) for table in tables]
    basis = _basis(ranks[2:], len(above[0]))
    own, rest = (_without(one, basis) for one in ranks[:2])
    undetermined = _undetermined(ranks[:2], [own, rest])
    if undetermined is None:
        own, rest = own / np.linalg.norm(own), rest / np.linalg.norm(rest)
    return _Ranked(
        objects=n, ranks=ranks[0], own=own, rest=rest, basis=basis, undetermined=undetermined
    )


def _permuted(
    table: Numbers, rest: Numbers, basis: Numbers, permutations: int, seed: int
) -> Numbers:
    """The correlation under each permutation of the objects of `table`, ranks [n, n]."""
    n, rng = len(table), np.random.default_rng(seed)
    rows, columns = np.triu_indices(n, 1)
    total = float(table[rows, columns] @ table[rows, columns])
    found = []
    for start in range(0, permutations, _BATCH):
        size = min(_BATCH, permutations - start)
        order = rng.permuted(np.broadcast_to(np.arange(n), (size, n)), axis=1)
        drawn = table[order[:, rows], order[:, columns]]
        explained = ((drawn @ basis) ** 2).sum(axis=1)
        left = np.sqrt(np.maximum(total - explained, _ROUNDING * total))
        found.append(drawn @ rest / left)
    return np.concatenate(found)


def _distances(table: ArrayLike) -> Numbers:
    d = np.asarray(table, float)
    square = d.ndim == 2 and d.shape[0] == d.shape[1] and len(d) >= 4
    if not square or not np.isfinite(d).all() or not np.allclose(d, d.T):
        raise ValueError("a table of distances is square, symmetric, finite, of 4 objects or more")
    return d


def _ranks(distances: Numbers) -> Numbers:
    """Average ranks less their mean."""
    # Imported here: scipy.stats takes most of a second, and the explorer's first frame none of it.
    from scipy.stats import rankdata

    ranks: Numbers = np.asarray(rankdata(distances), float)
    return np.asarray(ranks - ranks.mean(), float)


def _basis(controls: Sequence[Numbers], pairs: int) -> Numbers:
    """[pairs, c], orthonormal, of the space that the controls span; they may repeat another."""
    if not controls:
        return np.zeros((pairs, 0))
    vectors, sizes, _ = np.linalg.svd(np.stack(controls, axis=1), full_matrices=False)
    return np.asarray(vectors[:, sizes > _ROUNDING * max(sizes.max(), 1.0)], float)


def _without(ranks: Numbers, basis: Numbers) -> Numbers:
    return np.asarray(ranks - basis @ (basis.T @ ranks), float)


def _undetermined(ranks: Sequence[Numbers], left: Sequence[Numbers]) -> str | None:
    """Why there is nothing to correlate, None where there is."""
    sizes = [float(np.linalg.norm(r)) for r in ranks]
    if not all(sizes):
        return "all distances of one table are equal"
    rest = [float(np.linalg.norm(r)) / s for r, s in zip(left, sizes, strict=True)]
    return "the controls explain one table wholly" if min(rest) < _ROUNDING else None
