"""Every layer's capture is that layer's own, of that model and that prompt."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

import moetui
from moetui.trace import Trace
from tests.reference import values
from tests.reference.values import Array, Prompt

FAMILIES = [name for name in values.names() if name != "demo" and values.reference(name).is_moe]


@pytest.fixture(scope="module", params=FAMILIES)
def traced(request: pytest.FixtureRequest) -> tuple[Prompt, Trace]:
    """The longest prompt of a family: the reference and our trace."""
    reference = values.reference(request.param)
    prompt = max(reference.prompts, key=len)
    return prompt, moetui.load(str(reference.folder)).trace(prompt.ids, streams=True)


def relative_error(ours: Array, theirs: Array) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def test_each_capture_equals_its_own_layer_and_no_other(traced: tuple[Prompt, Trace]) -> None:
    """Published code recorded the last layer under every layer's name."""
    prompt, trace = traced
    assert trace.streams is not None
    pairs = {
        "router_logits": (trace.router_logits, prompt["router_logits"]),
        "router_input": (trace.streams.router_input, prompt["router_input"]),
        "expert_weights": (trace.expert_weights, prompt["expert_weights"]),
        "entering": (trace.streams.entering, prompt["entering"]),
        "leaving": (trace.streams.leaving, prompt["leaving"]),
    }
    for name, (ours, theirs) in pairs.items():
        layers = range(theirs.shape[1])
        for layer in layers:
            assert relative_error(ours[:, layer], theirs[:, layer]) < 1e-5, (name, layer)
        for layer, other in permutations(layers, 2):
            assert relative_error(ours[:, layer], theirs[:, other]) > 0.1, (name, layer, other)


def test_layers_choose_different_experts(traced: tuple[Prompt, Trace]) -> None:
    prompt, trace = traced
    for layer, other in permutations(range(len(prompt["layers"])), 2):
        assert np.array_equal(trace.expert_ids[:, layer], prompt["expert_ids"][:, layer])
        assert not np.array_equal(trace.expert_ids[:, layer], trace.expert_ids[:, other])


def test_streams_join_from_layer_to_layer(traced: tuple[Prompt, Trace]) -> None:
    _, trace = traced
    assert trace.streams is not None
    assert np.array_equal(trace.streams.leaving[:, :-1], trace.streams.entering[:, 1:])
    assert not np.array_equal(trace.streams.entering, trace.streams.leaving)


def test_models_of_one_process_do_not_read_one_another() -> None:
    """In mlx, models of one architecture share every class: a class-wide patch would mix them."""
    names = ("olmoe", "mixtral", "olmoe")
    models = [moetui.load(str(values.DATA / name)) for name in names]
    for name, model in [*zip(names, models, strict=True)] * 2:
        for prompt in values.reference(name).prompts:
            trace = model.trace(prompt.ids)
            assert relative_error(trace.router_logits, prompt["router_logits"]) < 1e-5
            assert np.array_equal(trace.expert_ids, prompt["expert_ids"])


@pytest.mark.parametrize("name", [name for name in values.names() if name != "demo"])
def test_lens_of_the_last_layer_is_the_models_output(name: str) -> None:
    """A lens through the embedding would differ on all models whose head is their own."""
    reference = values.reference(name)
    model = moetui.load(str(reference.folder))
    for prompt in reference.prompts:
        trace = model.trace(prompt.ids)
        assert trace.lens is not None
        logprobs = trace.logits - np.logaddexp.reduce(trace.logits)
        lens = trace.lens
        assert lens.positions[-1] == len(prompt) - 1
        assert lens.layers[-1] == model.info.num_layers - 1
        assert lens.token_ids[-1, -1, 0] == lens.answer_ids[-1] == trace.logits.argmax()
        assert lens.answer_rank[-1, -1] == 0
        assert np.abs(lens.logprobs[-1, -1] - logprobs[lens.token_ids[-1, -1]]).max() < 1e-5
