"""Layers that differ in their number of experts, or k, keep their own numbers."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.switch_layers import SwitchGLU

import moetui
from moetui.model import Model
from moetui.model.model import Model as LoadedModel
from tests.reference.values import DATA


def uneven() -> Model:
    """The OLMoE reference checkpoint, its second layer cut to 10 experts and top-2."""
    whole = moetui.load(DATA / "olmoe")
    block = whole.network.model.layers[1].mlp
    block.num_experts, block.top_k = 10, 2
    block.gate.weight = block.gate.weight[:10]
    small = SwitchGLU(block.gate.weight.shape[1], 8, 10)
    for name in ("gate_proj", "up_proj", "down_proj"):
        small[name].weight = block.switch_mlp[name].weight[:10]
    block.switch_mlp = small
    return LoadedModel(
        "uneven", DATA / "olmoe", whole.network, whole.tokenizer, {"model_type": "olmoe"}, "float32"
    )


def test_what_a_layer_lacks_is_padded_and_counts_nowhere() -> None:
    model = uneven()
    assert model.info.decomposition_error is None
    trace = model.trace([3, 1, 4, 1, 5, 9])
    E, k = model.info.num_experts, model.info.top_k
    assert (trace.expert_ids[:, 1, 2:] == -1).all() and k > 2
    assert np.isnan(trace.router_logits[:, 1, 10:]).all() and E > 10
    assert np.isnan(trace.expert_weights[:, 1, 2:]).all()
    assert trace.completeness is not None and trace.completeness.max() < 1e-5
    assert trace.shares is not None
    np.testing.assert_allclose(trace.shares.values.sum(-1), 1, atol=1e-5)
    # The shares of the small layer, from its ten experts alone.
    assert trace.router_parts is not None
    z = trace.router_parts[:, 1, :, :10].astype(np.float64)
    z -= z.mean(-1, keepdims=True)
    total = z.sum(1, keepdims=True)
    expected = (z * total).sum(-1) / (total**2).sum(-1)
    np.testing.assert_allclose(trace.shares.values[:, 1], expected, atol=1e-5)
    plain = model.network(mx.array([[3, 1, 4, 1, 5, 9]]), cache=make_prompt_cache(model.network))
    assert np.array_equal(np.array(plain)[0, -1], trace.logits)
