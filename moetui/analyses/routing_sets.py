"""The chosen experts of tokens as sets: how many two of them share, who left, who came.

A set is kept as bits, 64 experts a word, so that all neighbouring sets of a corpus are compared
in a few operations, also a thousand times over for a null.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.trace.types import ExpertIds

Sets = NDArray[np.uint64]
Array = NDArray[np.float64]

_WORD = 64


def expert_sets(experts: ExpertIds, num_experts: int) -> Sets:
    """uint64 [T, L, ⌈E / 64⌉]: a bit for each chosen expert of experts [T, L, k], −1 padded."""
    T, L, k = experts.shape
    ids = experts.astype(np.int64)
    words = np.zeros((T, L, -(-num_experts // _WORD)), np.uint64)
    bits = np.where(ids >= 0, np.uint64(1) << (ids % _WORD).astype(np.uint64), np.uint64(0))
    for slot in range(k):
        at = np.maximum(ids[..., slot], 0) // _WORD
        here = np.take_along_axis(words, at[..., None], axis=-1)
        np.put_along_axis(words, at[..., None], here | bits[..., slot, None], axis=-1)
    return words


def shared(a: Sets, b: Sets) -> NDArray[np.int64]:
    """int64 [...]: |A ∩ B| of sets [..., words]."""
    return np.asarray(np.bitwise_count(a & b).sum(axis=-1, dtype=np.int64))


def sizes(experts: ExpertIds) -> NDArray[np.int64]:
    """int64 [L]: k of each layer, from experts [T, L, k] with T ≥ 1; padding is not counted."""
    return np.asarray((experts[0] >= 0).sum(axis=-1), np.int64)


def members(experts: ExpertIds, num_experts: int) -> NDArray[np.int8]:
    """int8 [T, L, E]: 1 for each chosen expert."""
    T, L, _ = experts.shape
    found = np.zeros((T, L, num_experts + 1), np.int8)
    padded = np.where(experts < 0, num_experts, experts).astype(np.int64)
    np.put_along_axis(found, padded, 1, axis=-1)
    return found[..., :num_experts]


def step_overlap(experts: ExpertIds, num_experts: int) -> Array:
    """[T − 1, L]: |S_t ∩ S_{t−1}| / k, the share of experts that step t has from the one before."""
    sets = expert_sets(experts, num_experts)
    overlap: Array = shared(sets[1:], sets[:-1]) / sizes(experts)
    return overlap


def chance_overlap(load: ArrayLike, tokens: int | None = None) -> Array:
    """[L]: Σ_e f_e² / k, the overlap of two unrelated tokens of these loads.

    load: f_e [L, E], the share of tokens that chose each expert; Σ_e f_e = k. tokens: how many
    tokens it was counted on, where known: shares counted on n tokens have a square that is too
    large by f(1 − f)/n, which is taken off; what is left is the mean overlap of all pairs of
    different tokens. Layers that nobody used give NaN.
    """
    f = np.nan_to_num(np.asarray(load, float))
    k, squares = f.sum(axis=-1), (f**2).sum(axis=-1)
    if tokens is not None and tokens > 1:
        squares = (tokens * squares - k) / (tokens - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        chance: Array = squares / k
    return chance


def left_and_came(before: Sequence[int], after: Sequence[int]) -> tuple[list[int], list[int]]:
    """The experts of `before` that are not in `after`, and the other way round, ascending."""
    one, other = ({int(e) for e in ids if e >= 0} for ids in (before, after))
    return sorted(one - other), sorted(other - one)
