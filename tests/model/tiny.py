"""Tiny random checkpoints made with mlx-lm's own classes, in the layout its converter writes.

Every width is a multiple of 64, so that each matrix can be packed in any mode; published
checkpoints of these families differ in size only.
"""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.utils import load_model, quantize_model, save_config, save_model

from tests.reference.values import DATA

VOCABULARY = 288  # that of the reference tokenizer

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 700.0,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "eos_token_id": 1,
}

# A router of each kind: softmax before or after top-k, sigmoid with a correction bias, groups,
# a bare matrix, a shared expert, dense layers before those that route, a LayerNorm.
ROUTED: dict[str, dict[str, Any]] = {
    "olmoe": {"num_experts": 16, "num_experts_per_tok": 4},
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "num_experts": 12,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 64,
    },
    "qwen3_moe": {
        "num_experts": 12,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 64,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [1],
        "head_dim": 32,
        "norm_topk_prob": True,
    },
    "deepseek_v3": {
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 2.5,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 64,
        "q_lora_rank": 64,
        "qk_rope_head_dim": 32,
        "qk_nope_head_dim": 32,
        "v_head_dim": 32,
    },
    "glm4_moe": {
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
        "n_group": 1,
        "topk_group": 1,
        "routed_scaling_factor": 1.5,
        "first_k_dense_replace": 1,
        "norm_topk_prob": True,
        "head_dim": 16,
        "rope_scaling": None,
        "use_qk_norm": True,
        "partial_rotary_factor": 0.5,
    },
    "lfm2_moe": {
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
        "norm_topk_prob": True,
        "use_expert_bias": True,
        "num_dense_layers": 1,
        "norm_eps": 1e-5,
        "conv_bias": False,
        "conv_L_cache": 3,
        "layer_types": ["full_attention", "conv", "full_attention"],
    },
    "granitemoe": {
        "num_local_experts": 8,
        "num_experts_per_tok": 3,
        "logits_scaling": 2.0,
        "attention_multiplier": 0.25,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "tie_word_embeddings": True,
    },
    "phimoe": {
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "rope_scaling": {
            "type": "longrope",
            "long_factor": [1.0] * 8,
            "long_mscale": 1.0,
            "short_factor": [1.0] * 8,
            "short_mscale": 1.0,
        },
    },
    "ernie4_5_moe": {
        "moe_num_experts": 8,
        "moe_k": 2,
        "moe_intermediate_size": 64,
        "moe_num_shared_experts": 1,
        "moe_layer_start_index": 1,
        "use_bias": False,
    },
    "hunyuan": {
        "num_experts": 8,
        "moe_topk": 2,
        "num_shared_expert": 1,
        "use_mixed_mlp_moe": True,
        "use_qk_norm": True,
        "use_cla": True,
        "cla_share_factor": 2,
        "rope_scaling": {"type": "dynamic", "factor": 1.0, "alpha": 1000.0},
    },
}

DENSE: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 32, "tie_word_embeddings": True},
    "gpt2": {
        "n_ctx": 256,
        "n_embd": 64,
        "n_head": 4,
        "n_layer": 3,
        "n_positions": 256,
        "layer_norm_epsilon": 1e-5,
    },
    "gemma3_text": {"head_dim": 32, "sliding_window": 8, "sliding_window_pattern": 2},
    "phi3": {},
}

# How mlx-lm's converter is asked for each kind of checkpoint.
MODES: dict[str, dict[str, Any]] = {
    "affine 4-bit": {"group_size": 64, "bits": 4, "mode": "affine"},
    "affine 8-bit": {"group_size": 64, "bits": 8, "mode": "affine"},
    "mxfp4": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
}


def network(name: str, seed: int = 0) -> tuple[nn.Module, dict[str, Any]]:
    """A random network of the family `name`, float32, and its configuration."""
    config = {"model_type": name, **COMMON, **{**ROUTED, **DENSE}[name]}
    module = importlib.import_module(f"mlx_lm.models.{name}")
    made = module.Model(module.ModelArgs.from_dict(config))
    randomise(made, seed)
    return made, config


def randomise(made: nn.Module, seed: int) -> None:
    """Matrices N(0, 1/fan_in), so that routers decide clearly; norms and biases not 1 and 0.

    Initialisers leave them there, and a program that forgot one would pass.
    """
    key, arrays = mx.random.key(seed), []
    for name, array in tree_flatten(made.parameters()):
        key, own = mx.random.split(key)
        noise = mx.random.normal(array.shape, key=own)
        if array.ndim == 1:
            near = 1 + 0.2 * noise if "norm" in name and "bias" not in name else 0.2 * noise
            arrays.append((name, near))
        else:
            fan_in = 1 if "embed" in name else array.shape[-1]
            arrays.append((name, noise / fan_in**0.5))
    made.update(tree_unflatten(arrays))
    made.eval()
    mx.eval(made.parameters())


def save(made: nn.Module, config: dict[str, Any], folder: Path) -> Path:
    """A checkpoint folder as mlx-lm's converter writes it, with the reference tokenizer."""
    save_model(folder, made)
    save_config(config, folder / "config.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DATA / "olmoe" / name, folder / name)
    return folder


def quantised(
    folder: Path, name: str, mode: str, *, dtype: mx.Dtype = mx.float32, **options: Any
) -> Path:
    """The family `name`, packed as `MODES[mode]`; `options` go to mlx-lm's `quantize_model`."""
    made, config = network(name)
    made.set_dtype(dtype)
    return save(*quantize_model(made, config, **MODES[mode], **options), folder)


def requantised(folder: Path, source: Path, mode: str) -> Path:
    """A checkpoint on disk, packed once more: what is packed already stays as it is."""
    made, config = load_model(source)
    made, config = quantize_model(made, config, **MODES[mode])
    save(made, config, folder)
    assert json.loads((folder / "config.json").read_text())["quantization"]
    return folder
