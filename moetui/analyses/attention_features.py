"""A token's attention as a few numbers a head: where its probability goes, relative to the token.

Texts differ in length and content, so positions are named from the token: the first one, the
PREVIOUS ones before it, itself, all others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.trace.types import Floats

Numbers = NDArray[np.float64]

PREVIOUS = 8
# Of every head: first position, 8 … 1 tokens before, self, the rest, and the entropy in nats.
NAMES = ("first", *(f"{i} before" for i in range(PREVIOUS, 0, -1)), "self", "rest", "entropy")
# The published experiment's own features: means over heads.
SEED_NAMES = ("entropy", "largest", "self", "first", "before", "distance")


def attention_features(attention: Floats, rows: ArrayLike) -> Floats:
    """float32 [n, heads · 12], NAMES of every head for `rows` [n] of one layer's attention
    [heads, T, T]; 0 for heads that are padding (NaN).

    A position that is two things counts as the first named: the token itself at the very start
    as `self`, then the first position, then those before. With sinks a row sums to less than 1.
    """
    asked = np.asarray(rows, np.int64)
    a = np.nan_to_num(attention[:, asked].astype(float))
    heads, n, T = a.shape
    back = asked[:, None] - np.arange(T)
    kinds = np.full((n, T), len(NAMES) - 2)
    near = (back > 0) & (back <= PREVIOUS)
    kinds[near] = PREVIOUS + 1 - back[near]
    kinds[:, 0] = 0
    kinds[back == 0] = PREVIOUS + 1
    masses = np.zeros((heads, n, len(NAMES)))
    for kind in range(len(NAMES) - 1):
        masses[:, :, kind] = (a * (kinds == kind)).sum(axis=2)
    masses[:, :, -1] = _entropy(a)
    found: Floats = masses.transpose(1, 0, 2).reshape(n, -1).astype(np.float32)
    return found


def seed_features(attention: Floats, row: int) -> Floats:
    """float32 [6], SEED_NAMES of one token: means over the heads of one layer [heads, T, T]."""
    a = attention[:, row, : row + 1].astype(float)
    a = a[np.isfinite(a).all(axis=1)]
    if not len(a):
        return np.full(len(SEED_NAMES), np.nan, np.float32)
    distance = (a * (row - np.arange(row + 1))).sum(axis=1)
    each = np.stack(
        [_entropy(a), a.max(axis=1), a[:, row], a[:, 0], a[:, max(row - 1, 0)], distance], axis=1
    )
    found: Floats = each.mean(axis=0).astype(np.float32)
    return found


def _entropy(p: Numbers) -> Numbers:
    """Nats, over the last axis."""
    nats: Numbers = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)
    return nats
