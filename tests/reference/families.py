"""The sizes of the tiny reference checkpoints: one per family, every feature of it in use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from transformers import AutoConfig

VOCABULARY: Final = 288

# Sizes shared by all families. Grouped-query attention and an untied head, as published models
# have them: a program that mixes up key heads, or reads the embedding as the head, shows it.
COMMON: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}

YARN: Final[dict[str, Any]] = {
    "rope_type": "yarn",
    "factor": 8.0,
    "beta_fast": 4.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 32,
    # The published checkpoints say false, but mlx-lm always rounds the range, and the two must
    # compute the same function here.
    "truncate": True,
}


# As published for DeepSeek: the attention's own scale changes as well.
YARN_MLA: Final = {**YARN, "mscale": 0.7, "mscale_all_dim": 0.9}

SMALL: Final[dict[str, Any]] = {"hidden_size": 24, "num_attention_heads": 4}

# Multi-head latent attention: heads whose values are not as wide as their keys.
MLA: Final[dict[str, Any]] = {
    **SMALL,
    "num_key_value_heads": 4,
    "q_lora_rank": 12,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 8,
    "v_head_dim": 6,
}

# Three groups of four experts, of which two may be chosen from; a shared expert; a dense layer.
GROUPED: Final[dict[str, Any]] = {
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "intermediate_size": 24,
    "moe_intermediate_size": 8,
    "n_routed_experts": 12,
    "n_shared_experts": 2,
    "n_group": 3,
    "topk_group": 2,
    "num_experts_per_tok": 3,
    "routed_scaling_factor": 1.8,
    "norm_topk_prob": True,
}


@dataclass(frozen=True)
class Family:
    """One architecture: the sizes that differ from `COMMON`, and its RoPE.

    theta: no default of any library, so that a loader that overlooks it gives other numbers; None
    for an architecture without RoPE. partial: the share of a head that RoPE turns, where the
    family has that setting. published: what else the published `config.json` says, but
    transformers 5 does not write. zero: weights that stay 0, because mlx-lm leaves them out.
    """

    model_type: str
    sizes: dict[str, Any]
    theta: float | None
    scaling: dict[str, Any] | None = None
    partial: float | None = None
    published: dict[str, Any] = field(default_factory=dict)
    zero: tuple[str, ...] = ()

    def config(self) -> Any:
        """The transformers configuration."""
        rope = {"rope_type": "default", **(self.scaling or {}), "rope_theta": self.theta}
        if self.partial is not None:
            rope["partial_rotary_factor"] = self.partial
        parameters = {} if self.theta is None else {"rope_parameters": rope}
        return AutoConfig.for_model(self.model_type, **{**COMMON, **parameters, **self.sizes})

    def published_names(self) -> dict[str, Any]:
        """Configuration keys of the published files that transformers 5 no longer writes."""
        names: dict[str, Any] = dict(self.published)
        if self.theta is not None:
            names |= {"rope_theta": self.theta, "rope_scaling": self.scaling}
        if self.partial is not None:
            names["partial_rotary_factor"] = self.partial
        if "num_experts" in self.sizes:
            names["num_experts"] = self.sizes["num_experts"]
        return names


FAMILIES: Final = (
    Family(
        "olmoe",
        {
            "num_hidden_layers": 3,
            "num_key_value_heads": 6,
            "intermediate_size": 16,
            "num_experts": 16,
            "num_experts_per_tok": 4,
            "norm_topk_prob": False,
        },
        theta=700.0,
    ),
    Family(
        "mixtral",
        {
            "num_hidden_layers": 2,
            "intermediate_size": 24,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
        },
        theta=3000.0,
    ),
    Family(
        "qwen3_moe",
        {
            "num_hidden_layers": 3,
            # A dense layer between two that route, and heads wider than hidden / heads.
            "mlp_only_layers": [1],
            "head_dim": 12,
            "intermediate_size": 40,
            "moe_intermediate_size": 16,
            "num_experts": 12,
            "num_experts_per_tok": 3,
            "norm_topk_prob": True,
        },
        theta=900.0,
    ),
    Family(
        "gpt_oss",
        {
            "num_hidden_layers": 4,
            # MXFP4 packs 32 values to a block along the inner axis.
            "hidden_size": 64,
            "intermediate_size": 32,
            "head_dim": 16,
            "num_attention_heads": 4,
            # Shorter than two of the prompts.
            "sliding_window": 6,
            "num_local_experts": 8,
            "num_experts_per_tok": 3,
        },
        theta=1200.0,
        scaling=YARN,
    ),
    Family("llama", {"num_hidden_layers": 3, "intermediate_size": 64}, theta=500.0),
    Family(
        "qwen3",
        {**SMALL, "num_hidden_layers": 3, "head_dim": 12, "intermediate_size": 40},
        theta=800.0,
    ),
    Family(
        "gpt2",
        {
            **SMALL,
            "num_hidden_layers": 3,
            "max_position_embeddings": 64,
            "tie_word_embeddings": True,
        },
        theta=None,
        published={"n_ctx": 64},
    ),
    Family(
        "qwen2_moe",
        {
            **SMALL,
            "num_hidden_layers": 2,
            "intermediate_size": 24,
            "moe_intermediate_size": 8,
            "shared_expert_intermediate_size": 20,
            "num_experts": 10,
            "num_experts_per_tok": 3,
            "norm_topk_prob": False,
        },
        theta=1100.0,
    ),
    Family(
        "granitemoe",
        {
            **SMALL,
            "num_hidden_layers": 3,
            "intermediate_size": 8,
            "num_local_experts": 10,
            "num_experts_per_tok": 3,
            "tie_word_embeddings": True,
            "embedding_multiplier": 1.5,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.6,
            "logits_scaling": 1.5,
        },
        theta=1500.0,
    ),
    Family(
        "phimoe",
        {
            **SMALL,
            "num_hidden_layers": 2,
            "intermediate_size": 10,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "attention_bias": True,
            "lm_head_bias": True,
            # Published: 0.01. Wide enough here that several experts fall into the band from
            # which sparsemixer takes a weight.
            "router_jitter_noise": 0.3,
        },
        theta=2000.0,
    ),
    Family(
        "deepseek_v2",
        {**MLA, **GROUPED, "topk_method": "group_limited_greedy"},
        theta=600.0,
        scaling=YARN_MLA,
    ),
    Family("deepseek_v3", {**MLA, **GROUPED}, theta=650.0, scaling=YARN_MLA),
    Family(
        "glm4_moe",
        {**SMALL, **GROUPED, "head_dim": 12, "use_qk_norm": True, "attention_bias": True},
        theta=1300.0,
        partial=0.5,
    ),
    Family("dots1", {**SMALL, **GROUPED, "n_shared_experts": 1}, theta=1400.0),
    Family(
        "minimax_m2",
        {
            **SMALL,
            "num_hidden_layers": 2,
            "head_dim": 8,
            "intermediate_size": 8,
            "num_local_experts": 10,
            "num_experts_per_tok": 3,
        },
        theta=2300.0,
        partial=0.5,
        published={"rotary_dim": 4, "shared_intermediate_size": 0},
    ),
    Family(
        "lfm2_moe",
        {
            **SMALL,
            "num_hidden_layers": 4,
            "layer_types": ["conv", "full_attention", "conv", "full_attention"],
            "num_dense_layers": 1,
            "intermediate_size": 24,
            "moe_intermediate_size": 8,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "routed_scaling_factor": 1.4,
            "tie_word_embeddings": True,
        },
        theta=1600.0,
    ),
    Family(
        "afmoe",
        {
            **SMALL,
            "num_hidden_layers": 3,
            "head_dim": 10,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "sliding_window": 6,
            "num_dense_layers": 1,
            "intermediate_size": 24,
            "moe_intermediate_size": 8,
            "num_experts": 10,
            "num_experts_per_tok": 3,
            "num_shared_experts": 1,
            "route_scale": 1.7,
            "mup_enabled": True,
        },
        theta=1700.0,
    ),
    Family(
        "gemma4_text",
        {
            **SMALL,
            "num_hidden_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 6,
            "head_dim": 8,
            "global_head_dim": 16,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "intermediate_size": 24,
            "moe_intermediate_size": 8,
            "enable_moe_block": True,
            "num_experts": 8,
            "top_k_experts": 2,
            "tie_word_embeddings": True,
            "hidden_size_per_layer_input": 0,
            "num_kv_shared_layers": 0,
            "final_logit_softcapping": 8.0,
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "proportional",
                    "partial_rotary_factor": 0.25,
                    "rope_theta": 5000.0,
                },
                "sliding_attention": {"rope_type": "default", "rope_theta": 1800.0},
            },
        },
        theta=None,
        published={"global_head_dim": 16, "num_global_key_value_heads": 1},
    ),
    Family(
        "ernie4_5_moe",
        {
            **SMALL,
            "num_hidden_layers": 3,
            "moe_layer_start_index": 1,
            "moe_layer_end_index": 2,
            "moe_layer_interval": 1,
            "intermediate_size": 24,
            "moe_intermediate_size": 8,
            "moe_num_experts": 8,
            "moe_num_shared_experts": 2,
            "moe_k": 3,
        },
        theta=1900.0,
        zero=("e_score_correction_bias",),
    ),
    Family(
        "qwen3_next",
        {
            **SMALL,
            "num_hidden_layers": 2,
            "head_dim": 12,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 12,
            "linear_conv_kernel_dim": 3,
            "intermediate_size": 24,
            "moe_intermediate_size": 8,
            "shared_expert_intermediate_size": 12,
            "num_experts": 8,
            "num_experts_per_tok": 3,
            "norm_topk_prob": True,
        },
        theta=2100.0,
        partial=0.5,
        published={"full_attention_interval": 2},
    ),
    Family(
        "granitemoehybrid",
        {
            **SMALL,
            "num_hidden_layers": 3,
            "layer_types": ["mamba", "attention", "mamba"],
            "position_embedding_type": "nope",
            "intermediate_size": 8,
            "shared_intermediate_size": 12,
            "num_local_experts": 8,
            "num_experts_per_tok": 3,
            "tie_word_embeddings": True,
            "embedding_multiplier": 1.5,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.6,
            "logits_scaling": 1.5,
            "mamba_n_heads": 4,
            "mamba_n_groups": 1,
            "mamba_d_head": 12,
            "mamba_d_state": 8,
            "mamba_d_conv": 3,
        },
        theta=2200.0,
        published={"layer_types": ["mamba", "attention", "mamba"]},
    ),
)
