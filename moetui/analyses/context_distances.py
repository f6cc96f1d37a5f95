"""Distances between the uses of one token at one layer: pairs of contexts, and own shuffles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moetui.analyses.context_uses import WordUses
from moetui.stats import joined

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Distances:
    """Of C contexts; the methods are estimators for a bootstrap over contexts: [R, C] → [R].

    dense: [C, E], membership (0, 1) or weights by expert. sets: 1 − Jaccard of memberships; else
    total variation of weights. matrix: [C, C]. own: [C], mean distance to the own shuffled
    orders, NaN without any.
    """

    dense: Numbers
    sets: bool
    matrix: Numbers
    own: Numbers

    @property
    def contexts(self) -> int:
        """C."""
        return len(self.dense)

    @property
    def caveat(self) -> str | None:
        """Which contexts have no other order, if any."""
        without = int(np.isnan(self.own).sum())
        return joined(f"{without} contexts have no other order" if without else None)

    def relabelled(self, labels: NDArray[np.int64]) -> Numbers:
        """[m]: mean over pairs with the experts of every context under other names [m, C, E]."""
        dense = self.dense[np.arange(self.contexts)[:, None], labels]
        first, second = np.triu_indices(self.contexts, 1)
        mean: Numbers = _pairwise(dense, dense, self.sets)[:, first, second].mean(axis=-1)
        return mean

    def between(self, weights: Numbers) -> Numbers:
        """Mean over pairs of contexts. One drawn twice is no pair with itself: that distance
        would be 0 by construction."""
        return self._pairs(weights, np.ones(self.contexts))

    def shuffled(self, weights: Numbers) -> Numbers:
        """Mean over contexts of the distance to their own shuffled orders."""
        has = ~np.isnan(self.own)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: Numbers = (weights @ np.nan_to_num(self.own)) / (weights @ has.astype(float))
        return mean

    def excess(self, weights: Numbers) -> Numbers:
        """Between less shuffled, over the contexts that have another order."""
        return self._pairs(weights, (~np.isnan(self.own)).astype(float)) - self.shuffled(weights)

    def _pairs(self, weights: Numbers, counted: Numbers) -> Numbers:
        first, second = np.triu_indices(self.contexts, 1)
        w = weights * counted
        each = w[:, first] * w[:, second]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: Numbers = (each @ self.matrix[first, second]) / each.sum(axis=-1)
        return mean


def distances_of(uses: WordUses, index: int) -> tuple[Distances, Distances]:
    """Distances of the sets, and of the weights, at layer `index` of the uses' L axis."""
    return _distances(uses, index, True), _distances(uses, index, False)


def _distances(uses: WordUses, index: int, sets: bool) -> Distances:
    E = uses.experts
    dense = np.stack([_dense(u.ids[index], u.weights[index], E, sets) for u in uses.kept])
    own = [
        _own(row, use.shuffled_ids[:, index], use.shuffled_weights[:, index], sets)
        for row, use in zip(dense, uses.kept, strict=True)
    ]
    return Distances(
        dense=dense, sets=sets, matrix=_pairwise(dense, dense, sets), own=np.array(own)
    )


def _own(row: Numbers, ids: NDArray[np.int16], weights: Numbers, sets: bool) -> float:
    if not len(ids):
        return float("nan")
    others = np.stack([_dense(i, w, len(row), sets) for i, w in zip(ids, weights, strict=True)])
    return float(_pairwise(row[None], others, sets).mean())


def _dense(ids: NDArray[np.int16], weights: Numbers, experts: int, sets: bool) -> Numbers:
    found = np.zeros(experts)
    used = ids >= 0
    found[ids[used]] = 1.0 if sets else weights[used]
    return found


def _pairwise(a: Numbers, b: Numbers, sets: bool) -> Numbers:
    """[..., A, B] of [..., A, E] and [..., B, E]."""
    if not sets:
        variation: Numbers = np.abs(a[..., :, None, :] - b[..., None, :, :]).sum(axis=-1) / 2
        return variation
    shared = a @ b.swapaxes(-1, -2)
    union = a.sum(axis=-1)[..., :, None] + b.sum(axis=-1)[..., None, :] - shared
    jaccard: Numbers = 1 - shared / union
    return jaccard
