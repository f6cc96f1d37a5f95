"""What single experts add to a later router's logits: by numpy, and by passes without them."""

from __future__ import annotations

import numpy as np
import pytest

import moetui
from moetui.demo import checkpoint
from moetui.errors import ModelError, UsageError
from moetui.trace import Drop
from tests.model.test_routes import subject
from tests.model.test_uneven import uneven
from tests.suites.olmoe import Olmoe

TEXT = "The dog has a ball, and 12 + 7 ="


@pytest.mark.parametrize("layer", [1, 7])
def test_experts_of_the_demo_model_add_what_numpy_makes_of_the_checkpoint(layer: int) -> None:
    olmoe = Olmoe(checkpoint("demo"))
    entered, attended, _ = olmoe.streams(TEXT)
    h = entered[layer] + attended[layer]
    gain = olmoe.read(layer, h) / h
    model = moetui.load("demo")
    found = model.expert_sources(TEXT, layer)
    assert found.layer == layer and found.layers.tolist() == list(range(layer))
    for earlier in range(layer):
        terms = olmoe.chosen(earlier, olmoe.read(earlier, entered[earlier] + attended[earlier]))
        assert sorted(terms) == sorted(found.expert_ids[-1, earlier].tolist())
        for slot, expert in enumerate(found.expert_ids[-1, earlier].tolist()):
            expected = olmoe.router(layer) @ (gain * terms[expert])
            ours = found.logits[-1, earlier, slot]
            assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max() + 1e-6
    expected = olmoe.router(layer) @ olmoe.read(layer, h)
    assert np.abs(found.router_logits[-1] - expected).max() < 1e-4 * np.abs(expected).max()
    assert found.completeness.max() < 1e-5


@pytest.mark.parametrize("name", ["olmoe", "qwen2_moe", "deepseek_v3", "gpt_oss", "granitemoe"])
def test_an_expert_adds_what_the_stream_lacks_in_a_pass_without_it(name: str) -> None:
    model, ids = subject(name).model, subject(name).ids
    first, last = model.info.moe_layers[0], model.info.moe_layers[-1]
    found = model.expert_sources(ids, last)
    plain = model.trace(ids, lens=0, streams=True)
    assert plain.streams is not None
    gain = plain.streams.router_input[:, -1] / plain.streams.at_router[:, last]
    W = np.array(model.architecture.sites[last].matrix(), np.float64)
    for expert in np.unique(found.expert_ids[:, 0])[:3].tolist():
        drop = Drop(experts=(expert,), layers=(first,))
        without = model.trace(ids, lens=0, streams=True, interventions=[drop])
        assert without.streams is not None
        lacking = (plain.streams.leaving - without.streams.leaving)[:, first]
        expected = (lacking * gain) @ W.T
        mine = (found.expert_ids[:, 0] == expert)[..., None]
        ours = np.where(mine, found.logits[:, 0], 0).sum(axis=1)
        assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max()


def test_layers_with_fewer_experts_are_padded_and_add_up() -> None:
    model = uneven()
    found = model.expert_sources([3, 1, 4, 1, 5, 9], model.info.moe_layers[-1])
    assert model.info.moe_layers[1] == found.layers[1]
    assert (found.expert_ids[:, 1, 2:] == -1).all() and (found.expert_ids[:, 0] >= 0).all()
    assert (found.logits[:, 1, 2:] == 0).all()
    assert found.completeness.max() < 1e-5


def test_before_the_first_router_no_expert_has_run() -> None:
    found = moetui.load("demo").expert_sources([1, 2, 3], 0)
    assert found.layers.shape == (0,) and found.logits.shape[:2] == (3, 0)
    assert found.completeness.shape == (3, 0)


def test_what_cannot_be_told_apart_is_refused_with_the_reason() -> None:
    model = subject("nemotron_h (latent)").model
    with pytest.raises(ModelError, match="projected"):
        model.expert_sources([1, 2], model.info.moe_layers[-1])
    with pytest.raises(UsageError, match="layer 0 does not route"):
        subject("deepseek_v3").model.expert_sources([1, 2], 0)
