"""The attention probabilities that the fused kernel uses and does not return."""

from __future__ import annotations

import mlx.core as mx


def probabilities(
    q: mx.array,
    k: mx.array,
    *,
    scale: float,
    mask: mx.array | str | None,
    sinks: mx.array | None,
) -> mx.array:
    """softmax(q kᵀ·scale + mask, with sinks): float32 [B, heads, T, S].

    q [B, heads, T, D], k [B, kv_heads, S, D] (grouped queries share a key head); mask: additive,
    boolean, "causal" or None; sinks [heads]: logits that take part in the softmax and receive
    probability that no position gets, so that rows may sum to less than 1.
    """
    B, heads, T, D = q.shape
    kv_heads, S = k.shape[1], k.shape[2]
    grouped = (q.astype(mx.float32) * scale).reshape(B, kv_heads, heads // kv_heads, T, D)
    keys = k.astype(mx.float32)[:, :, None]
    scores = (grouped @ keys.swapaxes(-1, -2)).reshape(B, heads, T, S)
    if isinstance(mask, str):  # mlx's only named mask is "causal"
        mask = mx.arange(S - T, S)[:, None] >= mx.arange(S)
    if mask is not None:
        visible = mask.dtype == mx.bool_
        scores = mx.where(mask, scores, -mx.inf) if visible else scores + mask.astype(mx.float32)
    if sinks is None:
        return mx.softmax(scores, axis=-1)
    sink = mx.broadcast_to(sinks.astype(mx.float32)[None, :, None, None], (B, heads, T, 1))
    return mx.softmax(mx.concatenate([sink, scores], axis=-1), axis=-1)[..., 1:]
