"""How far one distribution over tokens is from another."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def log_softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """ln P over the last axis, computed in float64."""
    z = np.asarray(logits, np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    logprobs: NDArray[np.float64] = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return logprobs


def kl_divergence(logits: ArrayLike, changed: ArrayLike) -> float:
    """KL(P ‖ P') in nats of the softmax of two vectors of logits; equal logits give exactly 0.

    Summed as Σ p·(r - 1 - ln r) with r = p'/p, which equals Σ p·ln(p/p') because Σ p·(r - 1) = 0:
    no term is negative, so nothing cancels where the two are nearly the same.
    """
    return float(kl_divergences(logits, changed).sum())


def kl_divergences(logits: ArrayLike, changed: ArrayLike) -> NDArray[np.float64]:
    """The same for every row: [...] of logits [..., V]."""
    log_p, log_q = log_softmax(logits), log_softmax(changed)
    p, q = np.exp(log_p), np.exp(log_q)
    known = p > 0
    log_r = np.where(known, log_q, 0.0) - np.where(known, log_p, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        terms = np.where(known, p * (np.expm1(log_r) - log_r), q)
    sums: NDArray[np.float64] = np.maximum(terms, 0.0).sum(axis=-1)
    return sums


def hellinger(p: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    """√(1 − Σ √(p·q)) over the last axis: 0 where two distributions are equal, 1 where disjoint.

    p, q: shares or counts [..., E], each scaled to sum 1; NaN where one of them holds nothing.
    Samples of one distribution are apart too: a distance means something beside its null only.
    """
    a, b = np.asarray(p, np.float64), np.asarray(q, np.float64)
    size = a.sum(axis=-1) * b.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        common = np.sqrt(a * b).sum(axis=-1) / np.sqrt(size)
    # Rounding: equal distributions have a common part of 1 to the last bit only.
    distance: NDArray[np.float64] = np.sqrt(np.clip(1 - common, 0.0, 1.0))
    return distance
