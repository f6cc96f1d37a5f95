"""Fewer or more experts than usual, their mixture scaled to what the usual number would make."""

from __future__ import annotations

import mlx.core as mx

from moetui.trace.interventions import Reweigh


def reweighed(
    weights: mx.array, outputs: mx.array, change: Reweigh, *, normalised: bool
) -> mx.array:
    """Mixing weights [..., k] of what the experts put out [..., k, H]; see `Reweigh`.

    normalised: whether the model's weights add up to the same whatever the number of experts.
    """
    slots = weights.shape[-1]
    if min(change.keep, change.native) >= slots:
        return weights
    w = weights.astype(mx.float32)
    rank = mx.argsort(mx.argsort(-w, axis=-1), axis=-1)
    native = mx.where(rank < change.native, w, 0)
    if normalised:
        growth = _ratio(w.sum(-1, keepdims=True), native.sum(-1, keepdims=True))
        w, native = w * growth, native * growth
    kept = mx.where(rank < change.keep, w, 0)
    if change.match == "sum":
        kept = kept * _ratio(native.sum(-1, keepdims=True), kept.sum(-1, keepdims=True))
    elif change.match == "norm":
        kept = kept * _ratio(_length(native, outputs), _length(kept, outputs))
    return kept.astype(weights.dtype)


def _length(weights: mx.array, outputs: mx.array) -> mx.array:
    """[..., 1]: ‖Σ weight · output‖."""
    mixture = (weights[..., None] * outputs.astype(mx.float32)).sum(-2)
    return mx.sqrt((mixture * mixture).sum(-1, keepdims=True))


def _ratio(one: mx.array, other: mx.array) -> mx.array:
    """one / other; 1 where there is nothing to scale."""
    return mx.where(other == 0, 1, one / mx.where(other == 0, 1, other))
