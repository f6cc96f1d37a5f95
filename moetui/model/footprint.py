"""How much memory it takes to open a checkpoint and read it: an estimate, before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from moetui.model.backend import Backend
from moetui.model.config import (
    HEAD_KEYS,
    HIDDEN_KEYS,
    KV_HEAD_KEYS,
    claims,
    count,
    language_part,
    packing,
)
from moetui.model.headers import Tensors
from moetui.model.memory import weight_bytes

# Tokens of a context for which memory is estimated unless another length is asked for.
CONTEXT = 4096
# Rows of one pass: longer prompts run in several (see `moetui.model.model`).
_PASS = 2048
# Float32 numbers kept for every token, layer and expert: logits, selection scores, the seed's two
# parts and up to five of the router's.
_NUMBERS_KEPT = 9
_CACHE_STEP = 256  # mlx-lm's caches grow by so many tokens
# Latent attention whose cache mlx-lm keeps unfolded to keys and values of every head.
_UNFOLDED = ("deepseek_v2", "minicpm3")


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a model is expected to take.

    weights: as they will be held (float32 on a CPU, packed where the checkpoint is). cache: keys
    and values of `context` tokens. captures: what moetui keeps of so many tokens, and the residual
    streams and logits of one pass. total: their sum.
    """

    context: int
    weights: int
    cache: int
    captures: int
    total: int


def footprint(
    config: Mapping[str, Any],
    tensors: Tensors,
    experts_by_layer: Mapping[int, int],
    backend: Backend,
    context: int = CONTEXT,
) -> Footprint:
    """The footprint of the checkpoint with this configuration and these tensors.

    Attention that keeps less than all keys and values (windows, states) is counted where the
    configuration lists its layers; otherwise the cache is an upper bound.
    """
    weights = weight_bytes(tensors, packing(config), backend)
    item = 4 if backend == "cpu" else 2
    cache = _cache_numbers(config, context) * item
    captures = _kept(experts_by_layer, context) + _pass_numbers(config, context) * item
    return Footprint(
        context=context,
        weights=weights,
        cache=cache,
        captures=captures,
        total=weights + cache + captures,
    )


def _cache_numbers(config: Mapping[str, Any], context: int) -> int:
    """Numbers in the caches of all layers once `context` tokens are in them."""
    whole = language_part(config)
    tokens = -(-context // _CACHE_STEP) * _CACHE_STEP
    window = count(whole, ("sliding_window",)) or tokens
    kinds = whole.get("layer_types")
    if not isinstance(kinds, list):
        kinds = ["full_attention"] * (claims(config).layers or 0)
    lengths = {"full_attention": tokens, "sliding_attention": min(window, tokens)}
    # Layers of another kind (state-space, convolution, linear attention) keep a fixed, small state.
    return _per_token(whole) * sum(lengths.get(str(kind), 0) for kind in kinds)


def _per_token(whole: Mapping[str, Any]) -> int:
    """Numbers that one attention layer keeps of one token."""
    heads = count(whole, HEAD_KEYS) or 1
    latent = count(whole, ("kv_lora_rank",))
    if latent is not None:
        nope, rope, value = (
            count(whole, (key,)) or 0 for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        )
        unfolded = whole.get("model_type") in _UNFOLDED
        return heads * (nope + rope + value) if unfolded else latent + rope
    size = count(whole, ("head_dim",)) or (count(whole, HIDDEN_KEYS) or 0) // heads
    return 2 * (count(whole, KV_HEAD_KEYS) or heads) * size


def _kept(experts_by_layer: Mapping[int, int], context: int) -> int:
    """Bytes of the readings of `context` tokens, in host memory."""
    experts = max(experts_by_layer.values(), default=0)
    return context * len(experts_by_layer) * experts * _NUMBERS_KEPT * 4


def _pass_numbers(config: Mapping[str, Any], context: int) -> int:
    """Numbers alive during one pass: three residual streams of every layer, and all logits."""
    said = claims(config)
    vocabulary = count(language_part(config), ("vocab_size",)) or 0
    streams = 3 * (said.layers or 0) * (said.hidden_size or 0)
    return min(context, _PASS) * (streams + vocabulary)
