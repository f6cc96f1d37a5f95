"""What configurations and headers tell, against networks that mlx-lm builds from them."""

from __future__ import annotations

import importlib
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from moetui.model.architecture import examine
from moetui.model.budget import cache_bytes, weight_bytes
from moetui.model.config import EXPERT_KEYS, TOP_K_KEYS, Packing, claims, packing
from moetui.model.headers import experts_by_layer, router_bits
from moetui.model.safetensors import Tensor
from moetui.model.supported import is_supported

TYPES = {mx.float32: "F32", mx.bfloat16: "BF16", mx.uint32: "U32", mx.uint8: "U8"}
COMMON = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512, "rope_theta": 1e4, "tie_word_embeddings": False,
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": None, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16, "v_head_dim": 16, "first_k_dense_replace": 1, "n_shared_experts": 1,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
}  # fmt: skip
# Families whose experts, routers or caches look different in a file.
NETWORKS: dict[str, dict[str, Any]] = {
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 2},
    "mixtral": {"num_local_experts": 6, "num_experts_per_tok": 2},
    "granitemoe": {
        "num_local_experts": 4, "num_experts_per_tok": 2, "logits_scaling": 1.0,
        "attention_multiplier": 1.0, "embedding_multiplier": 1.0, "residual_multiplier": 1.0,
        "attention_bias": False,
    },
    # As many experts as heads: latent attention has matrices with a slice a head.
    "deepseek_v3": LATENT,
    "deepseek_v2": {
        **LATENT,
        "rope_scaling": {
            "type": "yarn", "factor": 2.0, "original_max_position_embeddings": 256,
            "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
        },
        "topk_method": "greedy",
        "n_group": 1,
        "topk_group": 1,
    },
    "llama": {},
}  # fmt: skip


def network(name: str) -> tuple[dict[str, Any], nn.Module]:
    config = {"model_type": name, **COMMON, **NETWORKS[name]}
    module = importlib.import_module(f"mlx_lm.models.{name}")
    model = module.Model(module.ModelArgs.from_dict(config))
    model.eval()
    return config, model


def headers(model: nn.Module) -> dict[str, Tensor]:
    """What a file of the model's parameters would announce."""
    tensors: dict[str, Tensor] = {}
    end = 0
    for name, array in tree_flatten(model.parameters()):
        begin, end = end, end + array.nbytes
        tensors[name] = Tensor(TYPES[array.dtype], tuple(array.shape), (begin, end))
    return tensors


@pytest.mark.parametrize("name", NETWORKS)
def test_experts_are_those_of_the_network(name: str) -> None:
    config, model = network(name)
    held = experts_by_layer(headers(model), claims(config).experts)
    sites = examine(model).sites
    assert held == {layer: site.num_experts for layer, site in sites.items()}
    if sites:
        assert router_bits(headers(model), claims(config).experts, 64) == 32


@pytest.mark.parametrize("name", NETWORKS)
def test_the_cache_takes_what_a_real_one_takes(name: str) -> None:
    config, model = network(name)
    cache = make_prompt_cache(model)
    mx.eval(model(mx.zeros((1, 256), mx.int32), cache=cache), [c.state for c in cache])
    assert cache_bytes(config, 256, 4) == sum(c.nbytes for c in cache)


@pytest.mark.parametrize(("bits", "router"), [(4, 8), (8, 4), (3, 6), (4, None)])
def test_packed_routers_have_their_own_bits(bits: int, router: int | None) -> None:
    _, model = network("olmoe")

    def predicate(path: str, module: nn.Module) -> bool | dict[str, int]:
        if path.endswith("mlp.gate"):
            return False if router is None else {"bits": router, "group_size": 32}
        return hasattr(module, "to_quantized")

    nn.quantize(model, group_size=32, bits=bits, class_predicate=predicate)
    tensors = headers(model)
    assert router_bits(tensors, 8, 64) == (router or 32)
    arrays = [array for _, array in tree_flatten(model.parameters())]
    assert weight_bytes(tensors, cpu=False) == sum(array.nbytes for array in arrays)


def test_weights_in_half_precision_count_as_float32_on_a_cpu_only() -> None:
    _, model = network("olmoe")
    model.set_dtype(mx.bfloat16)
    stored = sum(array.nbytes for _, array in tree_flatten(model.parameters()))
    assert weight_bytes(headers(model), cpu=False) == stored
    model.set_dtype(mx.float32)
    loaded = sum(array.nbytes for _, array in tree_flatten(model.parameters()))
    model.set_dtype(mx.bfloat16)
    assert weight_bytes(headers(model), cpu=True) == loaded == 2 * stored


def test_published_layouts_of_experts_are_recognised() -> None:
    def tensor(*shape: int) -> Tensor:
        return Tensor("BF16", shape, (0, 0))

    numbered = {f"model.layers.1.mlp.experts.{e}.up_proj.weight": tensor(8, 4) for e in range(6)}
    assert experts_by_layer(numbered, 0) == {1: 6}
    stacked = {"model.layers.0.mlp.experts.gate_up_proj": tensor(5, 4, 16)}
    assert experts_by_layer(stacked, 0) == {0: 5}
    on_top = {"transformer.blocks.2.ffn.experts.mlp.w1": tensor(7 * 8, 4)}
    assert experts_by_layer(on_top, 7) == {2: 7}
    assert experts_by_layer(on_top, 0) == {}
    shared = {"model.layers.0.mlp.shared_experts.up_proj.weight": tensor(8, 4)}
    assert experts_by_layer(shared, 8) == {}


@pytest.mark.parametrize("key", EXPERT_KEYS)
def test_experts_are_known_under_every_name(key: str) -> None:
    assert claims({key: 12}).experts == 12
    assert claims({"text_config": {key: 12}, "hidden_size": 3}).experts == 12
    assert claims({key: [4, 12, 12]}).experts == 12
    for nothing in (None, 0, True, "many", [], [None]):
        assert claims({key: nothing}).experts == 0


@pytest.mark.parametrize("key", TOP_K_KEYS)
def test_top_k_is_known_under_every_name(key: str) -> None:
    assert claims({key: 3}).top_k == 3
    assert claims({"ffn_config": {key: 3}}).top_k == 3
    assert claims({}).top_k is None


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"quantization": {"group_size": 64, "bits": 4}}, Packing(4, 64, "affine")),
        (
            {"quantization": {"group_size": 32, "bits": 8, "mode": "mxfp8"}},
            Packing(8, 32, "mxfp8"),
        ),
        ({"quantization_config": {"quant_method": "mxfp4"}}, Packing(4, 32, "mxfp4")),
        (
            {"text_config": {"quantization_config": {"quant_method": "mxfp4"}}},
            Packing(4, 32, "mxfp4"),
        ),
        ({"quantization_config": {"quant_method": "fp8"}}, Packing(8, None, "fp8")),
        ({"quantization": "none"}, None),
    ],
)
def test_packing_is_what_mlx_makes_of_it(config: dict[str, Any], expected: Packing | None) -> None:
    assert packing(config) == expected


def test_the_architectures_are_those_that_mlx_lm_imports() -> None:
    from mlx_lm.utils import MODEL_REMAPPING

    for name in ("olmoe", "solar_open", *MODEL_REMAPPING):
        module = importlib.import_module(f"mlx_lm.models.{MODEL_REMAPPING.get(name, name)}")
        assert is_supported(name) and module.Model
    for name in ("cache", "switch_layers", "nonesuch"):
        assert not is_supported(name)
