"""The stream at a router by what added to it, layer by layer, on every architecture."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models.switch_layers import SwitchLinear
from mlx_lm.utils import load_tokenizer

from moetui.errors import UsageError
from moetui.model.model import Model
from tests.model.architectures import ARCHITECTURES, build
from tests.model.test_routes import NOT_ONE_STREAM, UNREADABLE, subject
from tests.reference.values import DATA

SPLIT = [n for n in ARCHITECTURES if n not in UNREADABLE | NOT_ONE_STREAM]


@pytest.mark.parametrize("name", SPLIT)
def test_sources_sum_to_the_stream_and_to_the_parts_of_its_logits(name: str) -> None:
    model, whole = subject(name).model, subject(name).trace
    asked = model.info.moe_layers
    trace = model.trace(subject(name).ids, lens=0, sources=asked)
    found = trace.sources
    assert found is not None and trace.router_parts is not None and whole.streams is not None
    assert found.layers.tolist() == list(asked)
    at_router = whole.streams.at_router[:, list(asked)]
    assert np.array_equal(found.at_router, at_router)
    scale = np.abs(at_router).max()
    assert np.abs(found.parts.sum(axis=2) - at_router).max() < 1e-5 * scale
    parts = [part for part, _ in found.names]
    by_part = np.stack(
        [
            found.logits[:, :, [p == part for p in parts]].sum(axis=2)
            for part in model.info.part_names
        ],
        axis=2,
    )
    scale = np.nanmax(np.abs(trace.router_parts))
    np.testing.assert_allclose(by_part, trace.router_parts, atol=2e-5 * scale, equal_nan=True)


@pytest.mark.parametrize("name", ["olmoe", "qwen2_moe", "deepseek_v3", "gpt_oss"])
def test_a_source_is_what_its_layer_added_through_the_frozen_norm(name: str) -> None:
    """By numpy, from the streams that the layers received and handed on."""
    model = subject(name).model
    trace = model.trace(subject(name).ids, lens=0, streams=True, sources=model.info.moe_layers[-1:])
    layer = model.info.moe_layers[-1]
    assert trace.sources is not None and trace.streams is not None
    site = model.architecture.sites[layer]
    W = np.array(site.matrix(), np.float64)
    gain = trace.streams.router_input[:, -1] / trace.streams.at_router[:, layer]
    z = {source: trace.sources.logits[:, 0, s] for s, source in enumerate(trace.sources.names)}
    for earlier in range(layer + 1):
        attended = trace.streams.at_router[:, earlier] - trace.streams.entering[:, earlier]
        expected = (attended * gain) @ W.T
        assert np.abs(z["attention", earlier] - expected).max() < 1e-4 * np.abs(expected).max()
        mixed = trace.streams.leaving[:, earlier] - trace.streams.at_router[:, earlier]
        given = sum(z[part, at] for part, at in z if at == earlier and part != "attention")
        expected = (mixed * gain) @ W.T * (earlier < layer)
        assert np.abs(given - expected).max() <= 1e-4 * np.abs(expected).max()


def half(name: str, dtype: mx.Dtype, **changes: object) -> Model:
    """An architecture in half precision; its experts quantised, as mlx multiplies others in
    float32 only on a CPU."""
    network = build(name, **changes)
    nn.quantize(
        network,
        group_size=32,
        bits=8,
        class_predicate=lambda _, module: (
            isinstance(module, SwitchLinear) and module.weight.shape[-1] % 32 == 0
        ),
    )
    network.set_dtype(dtype)
    folder = DATA / "olmoe"
    config = {"model_type": name.split(maxsplit=1)[0]}
    return Model(name, folder, network, load_tokenizer(folder), config, "bfloat16")


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
@pytest.mark.parametrize(
    "name",
    [
        "olmoe", "granitemoe", "deepseek_v3", "qwen2_moe", "phixtral", "hunyuan", "lfm2_moe",
        "gemma4", "granitemoehybrid", "longcat_flash", "nemotron_h (latent)",
    ],
)  # fmt: skip
def test_parts_have_the_same_names_in_half_precision(name: str, dtype: mx.Dtype) -> None:
    """A stream in bfloat16 keeps 8 bits: what was added to it is known no better than that."""
    model, whole = half(name, dtype), subject(name).model
    assert model.info.dtype != "float32"
    assert model.info.part_names == whole.info.part_names
    assert model.expert_sources_error == whole.expert_sources_error
    if model.expert_sources_error is None:
        found = model.expert_sources(np.arange(20), model.info.moe_layers[-1])
        assert found.completeness.max() < 1e-2


def test_in_half_precision_a_projected_sum_is_not_taken_for_the_experts_either() -> None:
    names = half("nemotron_h (latent)", mx.bfloat16, moe_latent_size=64).info.part_names
    assert "experts, combined" in names and "shared expert" not in names


def test_sources_at_a_layer_that_does_not_route_are_refused() -> None:
    model = subject("deepseek_v3").model
    with pytest.raises(UsageError, match="layer 0 does not route"):
        model.trace([1, 2], sources=(0,))
