"""What a config.json says of its network, under whichever names it says it.

The names are those that the model files of mlx-lm read. This is the one place that lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

# Routed experts of a layer. Shared experts (n_shared_experts, …) are no choice of the router.
EXPERT_KEYS = (
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "num_routed_experts",
    "moe_num_experts",
)
# How many of them every token uses.
TOP_K_KEYS = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "top_k_experts",
    "moe_top_k",
    "moe_topk",
    "moe_k",
)
LAYER_KEYS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
HIDDEN_KEYS = ("hidden_size", "d_model", "n_embd")
HEAD_KEYS = ("num_attention_heads", "n_heads", "n_head")
# Heads of the keys and values that are cached.
KV_HEAD_KEYS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "kv_n_heads")
# Parts of the configuration: the language model of a larger one, its experts, its attention.
NESTED_KEYS = ("text_config", "language_config", "llm_config", "ffn_config", "attn_config")


@dataclass(frozen=True)
class Claims:
    """What a configuration claims: experts is 0 where it names none, the rest None."""

    experts: int
    top_k: int | None
    layers: int | None
    hidden_size: int | None


class Packing(msgspec.Struct, frozen=True):
    """How the weights are packed: bits a weight, weights that share a scale (None when the file
    leaves that open), and the scheme by mlx's or the checkpoint's own name."""

    bits: int
    group_size: int | None
    mode: str


def claims(config: Mapping[str, Any]) -> Claims:
    """Sizes of the language model that `config` describes."""
    whole = language_part(config)
    return Claims(
        experts=count(whole, EXPERT_KEYS) or 0,
        top_k=count(whole, TOP_K_KEYS),
        layers=count(whole, LAYER_KEYS),
        hidden_size=count(whole, HIDDEN_KEYS),
    )


def language_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the settings of its language model on the top level."""
    whole = dict(config)
    for key in NESTED_KEYS:
        nested = config.get(key)
        if isinstance(nested, Mapping):
            whole |= nested
    return whole


def packing(config: Mapping[str, Any]) -> Packing | None:
    """How mlx-lm will hold the weights that are packed; None when none are.

    Formats of other libraries count as what mlx-lm makes of them at loading.
    """
    settings = quantization(config)
    method = settings.get("quant_method")
    if method == "mxfp4":
        return Packing(4, 32, "mxfp4")
    if method == "mxfp8":
        return Packing(8, 32, "mxfp8")
    if method == "modelopt":
        return Packing(4, count(settings, ("group_size",)) or 16, "nvfp4")
    bits = count(settings, ("bits",))
    if bits is not None:
        mode = settings.get("mode", "affine")
        return Packing(bits, count(settings, ("group_size",)), str(mode))
    if isinstance(method, str):
        return Packing(8 if method == "fp8" else 4, None, method)
    return None


def quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """The quantisation settings, modules by name among them; empty when there are none."""
    for part in (config, language_part(config)):
        for key in ("quantization", "quantization_config"):
            settings = part.get(key)
            if isinstance(settings, Mapping):
                return dict(settings)
    return {}


def count(config: Mapping[str, Any], keys: Iterable[str]) -> int | None:
    """The first positive whole number under `keys`; the largest where layers have their own."""
    for key in keys:
        value = config.get(key)
        values = value if isinstance(value, list) else [value]
        counts = [n for n in values if isinstance(n, int) and not isinstance(n, bool) and n > 0]
        if counts:
            return max(counts)
    return None
