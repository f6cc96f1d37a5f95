"""Reading a forward pass neither changes it nor leaves anything behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.switch_layers import SwitchGLU

from moetui.model import Model
from moetui.model.records import PassRecord, Want
from tests.model.conftest import FAMILIES

ModelOf = Callable[[str], Model]
EVERY = ("demo", "demo-dense", *FAMILIES)
EVERYTHING: dict[str, Any] = {
    "lens": 5, "residuals": True, "streams": True, "attention": True, "expert_outputs": True,
}  # fmt: skip


def some_ids(model: Model, count: int, seed: int = 0) -> list[int]:
    draws = np.random.default_rng(seed).integers(1, model.vocab_size, count)
    return [int(i) for i in draws]


def plain_logits(model: Model, ids: list[int]) -> np.ndarray[Any, Any]:
    return np.array(model.network(mx.array(ids)[None], cache=make_prompt_cache(model.network)))[0]


def state_of(model: Model) -> list[Any]:
    """Class and parameters of every module, and the functions that captures replace."""
    modules = [(name, type(module)) for name, module in model.network.named_modules()]
    arrays = [(name, id(array)) for name, array in tree_flatten(model.network.parameters())]
    return [modules, arrays, mx.argpartition, mx.fast.scaled_dot_product_attention]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("length", [1, 7, 40])
def test_capturing_everything_leaves_the_logits_bit_for_bit_as_they_are(
    model_of: ModelOf, name: str, length: int
) -> None:
    model = model_of(name)
    ids = some_ids(model, length)
    records: list[PassRecord] = []
    with model.capture.on(Want(True, True, True), records.append):
        model.network(mx.array(ids)[None], cache=make_prompt_cache(model.network))
    trace = model.trace(ids, **EVERYTHING)
    plain = plain_logits(model, ids)
    assert np.array_equal(np.array(records[0].logits)[0], plain)
    assert np.array_equal(trace.logits, plain[-1])


@pytest.mark.parametrize("name", EVERY)
def test_every_class_and_array_is_back_after_a_trace(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    before = state_of(model)
    model.trace(some_ids(model, 5), **EVERYTHING)
    assert state_of(model) == before


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("where", ["first layer", "last layer", "after the pass"])
def test_every_class_and_array_is_back_after_an_exception_inside_a_traced_forward(
    model_of: ModelOf, name: str, where: str
) -> None:
    model = model_of(name)
    before = state_of(model)
    layers = model.architecture.layers
    broken = {"first layer": layers[0], "last layer": layers[-1], "after the pass": None}[where]
    attention = None if broken is None else broken.pop("self_attn")

    def on_pass(record: PassRecord) -> None:
        raise KeyError("after the pass")

    try:
        with (
            pytest.raises((KeyError, AttributeError)),
            model.capture.on(Want(True, True, True), on_pass),
        ):
            model.network(mx.array([[1, 2, 3]]), cache=make_prompt_cache(model.network))
    finally:
        if broken is not None:
            broken["self_attn"] = attention
    # The broken layer's own dictionary was reordered by the test; the rest must be as it was.
    assert sorted(state_of(model)[0]) == sorted(before[0], key=lambda pair: pair[0])
    assert sorted(state_of(model)[1]) == sorted(before[1])
    assert state_of(model)[2:] == before[2:]
    assert np.array_equal(model.trace([1, 2, 3]).logits, plain_logits(model, [1, 2, 3])[-1])


@pytest.mark.parametrize("name", ["demo", *FAMILIES])
def test_adding_tokens_never_changes_earlier_routing(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    ids = some_ids(model, 30, seed=3)
    long = model.trace(ids, lens=0)
    for length in (1, 4, 17):
        short = model.trace(ids[:length], lens=0)
        np.testing.assert_allclose(
            short.router_logits, long.router_logits[:length], atol=1e-4 * scale(long.router_logits)
        )
        clear = margins(long)[:length] > 1e-4 * scale(long.router_logits)
        assert np.array_equal(short.expert_ids[clear], long.expert_ids[:length][clear])


@pytest.mark.parametrize("name", ["demo", *FAMILIES])
def test_the_ids_are_those_that_the_expert_bank_received(
    model_of: ModelOf, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(name)
    received: list[mx.array] = []
    forward = SwitchGLU.__call__

    def spy(self: Any, x: mx.array, indices: mx.array) -> mx.array:
        received.append(indices)
        return forward(self, x, indices)

    monkeypatch.setattr(SwitchGLU, "__call__", spy)
    ids = some_ids(model, 9)
    plain_logits(model, ids)
    monkeypatch.undo()
    trace = model.trace(ids)
    banks = np.stack([np.array(i).reshape(len(ids), -1) for i in received], axis=1)
    assert np.array_equal(np.sort(trace.expert_ids, -1), np.sort(banks, -1))


@pytest.mark.parametrize("name", ["demo", *FAMILIES])
def test_experts_are_sorted_by_selection_score_then_id(model_of: ModelOf, name: str) -> None:
    trace = model_of(name).trace(some_ids(model_of(name), 25))
    assert trace.selection_scores is not None
    k = trace.expert_ids.shape[-1]
    # A stable sort of the negated scores is the definition, written another way.
    best = np.argsort(-trace.selection_scores, axis=-1, kind="stable")[..., :k]
    assert np.array_equal(trace.expert_ids, best)


@pytest.mark.parametrize("name", ["demo", *FAMILIES])
def test_weighted_expert_outputs_add_up_to_what_the_layer_added(
    model_of: ModelOf, name: str
) -> None:
    model = model_of(name)
    trace = model.trace(some_ids(model, 20), streams=True, expert_outputs=True)
    assert trace.expert_outputs is not None and trace.streams is not None
    routed = (trace.expert_weights[..., None] * trace.expert_outputs).sum(axis=2)
    added = (trace.streams.leaving - trace.streams.at_router)[:, trace.layers]
    assert np.abs(routed - added).max() <= 1e-5 * np.abs(added).max()


@pytest.mark.parametrize("name", ["demo", *FAMILIES])
def test_the_parts_of_the_router_logits_are_complete(model_of: ModelOf, name: str) -> None:
    trace = model_of(name).trace(some_ids(model_of(name), 30))
    assert trace.completeness is not None and trace.shares is not None
    assert trace.completeness.max() <= 1e-5
    np.testing.assert_allclose(trace.shares.values.sum(-1), 1, atol=1e-5)


def test_the_router_bias_of_gpt_oss_is_a_part_of_its_own(model_of: ModelOf) -> None:
    model = model_of("gpt_oss")
    trace = model.trace(some_ids(model, 6))
    assert trace.router_parts is not None
    static = trace.router_parts[:, :, trace.part_names.index("static bias")]
    biases = np.stack([np.array(layer.mlp.router.bias) for layer in model.network.layers])
    assert np.array_equal(static, np.broadcast_to(biases, static.shape))


def test_the_seed_ratio_is_that_of_the_raw_router_matrix(model_of: ModelOf) -> None:
    model = model_of("olmoe")
    trace = model.trace(some_ids(model, 12), streams=True)
    assert trace.streams is not None and trace.seed_ratio is not None
    W = np.stack([np.array(layer.mlp.gate.weight) for layer in model.network.layers])
    e = trace.streams.entering[:, 0]
    d = trace.streams.entering - e[:, None]
    from_e = np.linalg.norm(np.einsum("leh,th->tle", W, e), axis=-1)
    from_d = np.linalg.norm(np.einsum("leh,tlh->tle", W, d), axis=-1)
    np.testing.assert_allclose(trace.seed_ratio, from_d / (from_e + from_d), atol=1e-5)
    assert not trace.seed_ratio[:, 0].any()  # "0 % at layer 0" is so by construction


@pytest.mark.parametrize("name", FAMILIES)
def test_softmax_routers_are_found_to_ignore_a_common_shift(model_of: ModelOf, name: str) -> None:
    assert model_of(name).info.shift_invariant


def test_a_dense_model_has_no_routing_rows_but_a_lens(model_of: ModelOf) -> None:
    trace = model_of("demo-dense").trace([5, 6, 7])
    assert trace.expert_ids.shape[:2] == (3, 0)
    assert trace.router_parts is None and trace.shares is None and trace.seed_ratio is None
    assert trace.lens is not None and len(trace.lens_layers) == trace.model.num_layers


def scale(values: np.ndarray[Any, Any]) -> float:
    return float(np.abs(values).max())


def margins(trace: Any) -> np.ndarray[Any, Any]:
    """The smallest gap among the k + 1 best router logits: order is certain beyond it."""
    best = -np.sort(-trace.router_logits, axis=-1)[..., : trace.expert_ids.shape[-1] + 1]
    gaps: np.ndarray[Any, Any] = (-np.diff(best, axis=-1)).min(-1)
    return gaps
