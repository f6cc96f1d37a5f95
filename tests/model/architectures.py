"""Tiny random instances of every mixture-of-experts model file of mlx-lm, from one table.

`COMMON` holds every setting under every name that model files use for it; a model reads those it
knows. An entry of `ARCHITECTURES` adds what is its own: layer patterns, and the switches that
make it the interesting one (groups, correction biases, shared experts, softmax or sigmoid).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.utils import _get_classes

from tests.reference.values import DATA

VOCABULARY = 288
LAYERS = 4
EXPERTS = 8
TOP_K = 3

_ALIASES: list[tuple[Any, tuple[str, ...]]] = [
    (EXPERTS, ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")),
    (TOP_K, (
        "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k",
        "top_k_experts",
    )),
    (LAYERS, ("num_hidden_layers", "num_layers")),
    (64, ("hidden_size", "model_dim", "intermediate_size_mlp", "ffn_hidden_size")),
    (96, ("intermediate_size", "dense_intermediate_size")),
    (32, (
        "moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size",
        "shared_intermediate_size", "moe_shared_expert_intermediate_size", "share_expert_dim",
    )),
    (16, ("head_dim", "v_head_dim", "qk_nope_head_dim", "kv_lora_rank", "linear_key_head_dim",
         "linear_value_head_dim", "swa_head_dim", "swa_v_head_dim", "index_head_dim")),
    (24, ("q_lora_rank",)),
    (8, ("qk_rope_head_dim", "rotary_dim")),
    (4, ("num_attention_heads", "num_heads", "swa_num_attention_heads", "linear_num_value_heads",
        "linear_conv_kernel_dim", "index_n_heads")),
    (2, ("num_key_value_heads", "swa_num_key_value_heads", "linear_num_key_heads",
        "num_attention_groups", "cla_share_factor", "layer_group_size", "group_norm_size")),
    (1, ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts",
        "first_k_dense_replace", "num_dense_layers")),
    (VOCABULARY, ("vocab_size", "num_vocab", "vocab_size_per_layer_input")),
    (512, ("max_position_embeddings", "model_max_length")),
    (1e-5, ("rms_norm_eps", "norm_eps", "layer_norm_epsilon", "layernorm_epsilon")),
    (1000.0, ("rope_theta", "swa_rope_theta")),
]  # fmt: skip
COMMON: dict[str, Any] = {name: value for value, names in _ALIASES for name in names}
COMMON |= {
    "tie_word_embeddings": False,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "moe_layer_freq": 1,
    "mlp_only_layers": [],
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "sliding_window": 6,
    "sliding_window_size": 6,
    "attention_bias": False,
    "mlp_bias": False,
    "use_bias": False,
    "use_qk_norm": True,
    "rope_scaling": None,
    "partial_rotary_factor": 0.5,
    "index_topk": 6,
}
GROUPS = {"n_group": 4, "topk_group": 2, "num_expert_group": 4}
FULL_AND_SLIDING = ["sliding_attention", "full_attention"] * 2
_ROPE = {"rope_type": "default", "rope_theta": 1000.0}
_DEEPSEEK = {"num_key_value_heads": 4}
_GRANITE = {
    "logits_scaling": 4.0,
    "attention_multiplier": 0.2,
    "embedding_multiplier": 6.0,
    "residual_multiplier": 0.4,
}
_YARN_V2 = {"factor": 2.0, "original_max_position_embeddings": 256, "beta_fast": 32.0,
            "beta_slow": 1.0, "mscale": 0.7, "mscale_all_dim": 0.7, "type": "yarn"}  # fmt: skip
_ALPHA = {"alpha": 10.0, "factor": 1.0, "type": "dynamic"}
_BAILING = {**GROUPS, "score_function": "sigmoid", "moe_router_enable_expert_bias": True}
_MAMBA = {
    "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_proj_bias": False, "mamba_d_state": 8,
    "mamba_d_conv": 4, "mamba_n_groups": 1, "mamba_conv_bias": True,
}  # fmt: skip
_LONGCAT = {
    "attention_method": "MLA", "zero_expert_type": "identity", "zero_expert_num": 3,
    "mla_scale_q_lora": True, "mla_scale_kv_lora": True,
}  # fmt: skip
_LINEAR_ATTENTION = {
    "num_heads": 4, "head_dim": 16, "kda_layers": [1, 3], "full_attn_layers": [2, 4],
    "short_conv_kernel_size": 4, "gate_lower_bound": -5.0, "use_full_rank_gate": True,
}  # fmt: skip
_MIMO = {
    "hybrid_layer_pattern": [0, 1, 0, 1], "moe_layer_freq": [0, 1, 1, 1],
    "add_swa_attention_sink_bias": True, "add_full_attention_sink_bias": False,
    "partial_rotary_factor": 0.5,
}  # fmt: skip
_NEMOTRON = {
    "hybrid_override_pattern": ["M", "E", "*", "E"], "mamba_num_heads": 8, "mamba_head_dim": 16,
    "mamba_proj_bias": False, "ssm_state_size": 8, "conv_kernel": 4, "n_groups": 2,
    "use_conv_bias": True,
}  # fmt: skip
_NESTED_QWEN = {"rope_parameters": {"type": "default", "mrope_section": [1, 1, 1],
                "rope_theta": 1000.0, "partial_rotary_factor": 0.5}}  # fmt: skip
_GEMMA = {
    "enable_moe_block": True, "hidden_size_per_layer_input": 0, "global_head_dim": 32,
    "num_kv_shared_layers": 0, "layer_types": FULL_AND_SLIDING, "use_double_wide_mlp": False,
    "num_global_key_value_heads": 2,
}  # fmt: skip
_KIMI_K3 = {
    "hidden_act": "situ", "activation_situ_beta": 4.0, "activation_situ_linear_beta": 25.0,
    "linear_attn_config": _LINEAR_ATTENTION, "mla_use_output_gate": True,
    "routed_expert_hidden_size": 32, "latent_moe_use_norm": True, "attn_res_block_size": 2,
    "model_type": "kimi_linear",
}  # fmt: skip
_V41 = {
    "o_groups": 2, "o_lora_rank": 16, "head_dim": 32, "num_hidden_layers": 6,
    "compress_ratios": (0, 2, 2, 2, 1, 1), "kv_source_layer_ids": (1, 4),
    "index_source_layer_ids": (1, 2, 4, 5), "index_head_dim": 32, "index_topk": 3,
    "candidate_source_layer_id": 4, "candidate_topk_blocks": 2, "candidate_block_size": 2,
    "scoring_func": "sqrtsoftplus", "rms_norm_eps": 1e-6,
}  # fmt: skip
_LAGUNA = {
    "layer_types": ["full_attention", "sliding_attention"] * 2,
    "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    "num_attention_heads_per_layer": [4, 4, 4, 2], "moe_routed_scaling_factor": 2.5,
    "moe_router_score_func": "sqrtsoftplus", "moe_router_logit_softcapping": 3.0,
    "rope_parameters": {
        "full_attention": {**_ROPE, "partial_rotary_factor": 0.5},
        "sliding_attention": {**_ROPE, "partial_rotary_factor": 1.0},
    },
}  # fmt: skip

# A name, and what its configuration adds to COMMON; `model_type` where it is not the name;
# "nested": everything is in `text_config`, as multimodal checkpoints have it, but "beside".
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Klear": {"n_shared_experts": 2},
    "afmoe": {"num_shared_experts": 1, **GROUPS, "route_scale": 2.8, "num_experts": 8,
              "layer_types": FULL_AND_SLIDING, "mup_enabled": True},
    "bailing_hybrid": {**_BAILING, "head_dim": 16, "num_key_value_heads": 4},
    "bailing_moe": {"score_function": "softmax", "use_qkv_bias": False},
    "bailing_moe (groups)": {"model_type": "bailing_moe", **_BAILING},
    "bailing_moe_linear": {**_BAILING, "num_key_value_heads": 4},
    "bailing_moe_v3": {"model_type": "bailing_hybrid", **_BAILING, "short_conv_kernel_size": 4,
                       "architectures": ["BailingMoeV3ForCausalLM"]},
    "deepseek": _DEEPSEEK,
    "deepseek_v2": {**_DEEPSEEK, **GROUPS, "rope_scaling": _YARN_V2,
                    "topk_method": "group_limited_greedy"},
    "deepseek_v2 (greedy)": {"model_type": "deepseek_v2", **_DEEPSEEK, "topk_method": "greedy",
                             "rope_scaling": _YARN_V2},
    "deepseek_v3": {**_DEEPSEEK, **GROUPS},
    "deepseek_v32": {**_DEEPSEEK, **GROUPS},
    "deepseek_v41": _V41,
    "dots1": {**GROUPS, "n_shared_experts": 2},
    "ernie4_5_moe": {"moe_layer_start_index": 1, "moe_capacity": [64, 64, 64]},
    "ernie4_5_moe (sigmoid)": {"model_type": "ernie4_5_moe", "moe_gate_act": "sigmoid"},
    "exaone_moe": {**GROUPS, "layer_types": FULL_AND_SLIDING,
                   "is_moe_layer": [False, True, True, True]},
    "gemma4": {"nested": True, **_GEMMA},
    "gemma4_text": _GEMMA,
    "glm4_moe": GROUPS,
    "glm4_moe_lite": {**_DEEPSEEK, **GROUPS},
    "glm_moe_dsa": {**_DEEPSEEK, **GROUPS, "rope_parameters": _ROPE},
    "gpt_oss": {"intermediate_size": 64},
    "granitemoe": _GRANITE,
    "granitemoehybrid": {**_GRANITE, **_MAMBA, "layer_types": ["mamba", "attention"] * 2},
    "hunyuan": {"use_mixed_mlp_moe": True, "use_cla": False, "rope_scaling": _ALPHA},
    "hunyuan (shared keys)": {"model_type": "hunyuan", "use_mixed_mlp_moe": True,
                              "use_cla": True, "rope_scaling": _ALPHA},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_offset": 1,
              "expert_layer_period": 2, "mamba_d_conv": 4, "mamba_d_state": 8,
              "mamba_expand": 2},
    "kimi_k25": {"nested": True, **_DEEPSEEK, **GROUPS},
    "kimi_k3": {"nested": True, **_KIMI_K3, "num_key_value_heads": 4},
    "kimi_linear": {**GROUPS, "linear_attn_config": _LINEAR_ATTENTION},
    "kimi_vl": {"nested": True, **_DEEPSEEK, **GROUPS},
    "laguna": _LAGUNA,
    "lfm2_moe": {"use_expert_bias": True, "conv_bias": False, "conv_L_cache": 3,
                 "layer_types": ["conv", "full_attention"] * 2},
    "llama4": {"nested": True, "attention_chunk_size": 8, "interleave_moe_layer_step": 2,
               "num_experts_per_tok": 1},
    "longcat_flash": _LONGCAT,
    "longcat_flash_ngram": _LONGCAT,
    "mellum": {"layer_types": FULL_AND_SLIDING,
               "rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "mimo_v2_flash": {**_MIMO, **GROUPS},
    "minimax": {"head_dim": 16},
    "minimax_m3_vl": {"nested": True, "moe_layer_freq": [0, 1, 1, 1], "intermediate_size": 32},
    "mistral4": {**_DEEPSEEK, **GROUPS, "rope_parameters": {
        **_ROPE, "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 256,
        "llama_4_scaling_beta": 0.1}},
    "mixtral": {},
    "muse_spark": {"nested": True, "rope_parameters": _ROPE, "layer_rope_theta": [1000.0, 0.0] * 2,
                   "layer_types": FULL_AND_SLIDING, "final_logit_softcapping": 20.0,
                   "output_multiplier": 0.2, "moe_hidden_size": 32, "post_norm_eps": 1e-6,
                   "num_shared_experts": 0, "beside": {"audio_config": {"out_hidden_size": 64}}},
    "nemotron_h": {**_NEMOTRON, **GROUPS},
    "nemotron_h (latent)": {"model_type": "nemotron_h", **_NEMOTRON, "moe_latent_size": 32},
    "olmoe": {"num_key_value_heads": 4, "norm_topk_prob": False},
    "phimoe": {"rope_scaling": {"long_factor": [1.0] * 8, "short_factor": [1.0] * 8,
                                "long_mscale": 1.1, "short_mscale": 1.0}, "num_experts_per_tok": 2,
               "original_max_position_embeddings": 128},
    "phixtral": {},
    "qwen2_moe": {},
    "qwen3_5_moe": {"nested": True, **_NESTED_QWEN, "full_attention_interval": 2},
    "qwen3_moe": {"mlp_only_layers": [1]},
    "qwen3_next": {"full_attention_interval": 2},
    "qwen3_vl_moe": {"nested": True, "mlp_only_layers": [1]},
    "solar_open": GROUPS,
    "step3p5": {"layer_types": FULL_AND_SLIDING, "moe_layers_enum": "1,2,3",
                "partial_rotary_factors": [0.5, 1.0] * 2, "use_head_wise_attn_gate": True},
    "dbrx": {"d_model": 64, "n_heads": 4, "n_layers": LAYERS,
             "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1000.0},
             "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 8, "moe_top_k": 3}},
}  # fmt: skip


def config_of(name: str) -> dict[str, Any]:
    """The configuration of one entry, as its config.json would have it."""
    entry = dict(ARCHITECTURES[name])
    model_type = entry.get("model_type", name)
    if entry.pop("nested", False):
        beside = entry.pop("beside", {})
        text = {**COMMON, "model_type": model_type, **entry}
        return {"model_type": name, "text_config": text, "vocab_size": VOCABULARY, **beside}
    return {**COMMON, **entry, "model_type": model_type}


def build(name: str, seed: int = 0, **changes: Any) -> nn.Module:
    """A random instance in float32, the same for the same seed; `changes` to its settings."""
    config = {**config_of(name), **changes}
    mx.random.seed(seed)  # what keeps its own initial value
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    model.update(randomised(model.parameters(), seed))
    model.set_dtype(mx.float32)
    mx.eval(model.parameters())
    return model


def randomised(parameters: Any, seed: int) -> Any:
    """Matrices N(0, 1/fan_in), so that routers decide clearly; vectors away from 0 and 1, where
    initialisers leave them and a program that forgot one would pass."""
    keys = iter(mx.random.split(mx.random.key(seed), 4096))

    def draw(path: str, array: mx.array) -> mx.array:
        noise = mx.random.normal(array.shape, key=next(keys))
        name = path.rpartition(".")[2]
        if array.ndim >= 2:
            return noise * array.shape[-1] ** -0.5
        if name in {"A_log", "dt_bias", "D"}:  # recurrences stay stable only near their own values
            return array
        return array + 0.1 * noise

    return tree_map_with_path(draw, parameters)


def save(name: str, folder: Path) -> nn.Module:
    """Write the random instance as a checkpoint in mlx-lm's own layout; the instance."""
    model = build(name)
    arrays = dict(tree_flatten(model.parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config_of(name)))
    for file in (DATA / "olmoe").glob("tokenizer*"):
        shutil.copy(file, folder)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return model
