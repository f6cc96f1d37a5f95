"""Slopes of routers: against finite differences in the model's own pass, and in the router."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from moetui.errors import ModelError, UsageError
from moetui.trace import AddLogits, Force, PatchPart
from tests.model.test_routes import subject

NAMES = ["olmoe", "mixtral", "deepseek_v3", "gpt_oss", "llama4", "phimoe", "granitemoe", "gemma4"]


def logit(model, ids, layer, expert, position):
    row = model.info.moe_layers.index(layer)
    return float(model.trace(ids, lens=0, residuals=False).router_logits[position, row, expert])


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_is_what_a_slightly_other_embedding_does(name: str) -> None:
    model = subject(name).model
    ids = np.arange(3, 11, dtype=np.int32)  # each once: a row of the table is one position
    layer, position, expert = model.info.moe_layers[-1], 6, 1
    found = model.router_gradient(ids, layer, expert, position)
    assert found.shape == (8, model.info.hidden_size)
    assert not found[position + 1 :].any()
    table = next(
        m
        for _, m in model.network.named_modules()
        if type(m).__name__ == "Embedding" and m["weight"].shape[0] == model.info.vocab_size
    )
    weight, rng = table["weight"], np.random.default_rng(0)
    for at in (2, position):
        way = rng.normal(size=model.info.hidden_size)
        way *= 2e-3 * float(mx.linalg.norm(weight[int(ids[at])])) / np.linalg.norm(way)
        values = []
        for sign in (1, -1):
            changed = mx.array(weight)
            changed[int(ids[at])] = weight[int(ids[at])] + sign * mx.array(way.astype(np.float32))
            table["weight"] = changed
            try:
                values.append(logit(model, ids, layer, expert, position))
            finally:
                table["weight"] = weight
        expected = (values[0] - values[1]) / 2
        size = np.linalg.norm(found[at]) * np.linalg.norm(way)
        assert abs(float(found[at] @ way) - expected) < 0.02 * size + 2e-6


def test_against_another_expert_it_is_the_difference_of_two_gradients() -> None:
    model, ids = subject("olmoe").model, subject("olmoe").ids
    layer, last = model.info.moe_layers[-1], len(ids) - 1
    one, other = (model.router_gradient(ids, layer, e, last) for e in (0, 3))
    both = model.router_gradient(ids, layer, 0, last, against=3)
    assert np.allclose(both, one - other, atol=1e-5 * np.abs(one).max())


def test_token_scores_are_inner_products_with_the_table() -> None:
    model = subject("olmoe").model
    gradient = np.random.default_rng(0).normal(size=(2, model.info.hidden_size)).astype(np.float32)
    rows = np.array(model.network.model.embed_tokens.weight)
    assert np.allclose(model.token_scores(gradient), gradient @ rows.T, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_slope_gives_the_logits_of_a_changed_stream(name: str) -> None:
    """A change along which the norm's scale stays is answered exactly, by the router itself."""
    model, trace = subject(name).model, subject(name).trace
    layer = model.info.moe_layers[-1]
    h = trace.streams.at_router[2, layer].astype(float)
    logits, slope = model.router_slope(layer, h)
    row = len(model.info.moe_layers) - 1
    assert np.allclose(logits, trace.router_logits[2, row, : len(logits)], atol=1e-5)
    rng = np.random.default_rng(1)
    way = rng.normal(size=len(h))
    centred = h - h.mean()
    way -= way.mean() + centred * (way @ centred) / (centred @ centred)
    way -= h * (way @ h) / (h @ h) if abs(h.mean()) < 1e-9 else 0
    way *= 1e-2 * np.linalg.norm(h) / np.linalg.norm(way)
    moved, _ = model.router_slope(layer, h + way)
    back, _ = model.router_slope(layer, h - way)
    error = np.abs((moved - back) / 2 - slope @ way).max()
    assert error < 2e-2 * np.abs(slope @ way).max()


def test_what_is_not_there_is_refused_in_a_sentence() -> None:
    model, ids = subject("olmoe").model, subject("olmoe").ids
    for bad in ((99, 0, 0), (model.info.moe_layers[0], 999, 0), (model.info.moe_layers[0], 0, 999)):
        with pytest.raises(UsageError, match=r"layer|expert|position"):
            model.router_gradient(ids, *bad)
    with pytest.raises(UsageError, match="does not route"):
        model.router_slope(99, np.zeros(model.info.hidden_size))


def test_a_dense_model_has_no_router_to_move(model_of) -> None:
    dense = model_of("demo-dense")
    assert "no router" in dense.router_gradient_error and "no router" in dense.router_slope_error
    with pytest.raises(UsageError, match="does not route"):
        dense.router_gradient([1, 2], 0, 0, 1)
    with pytest.raises(ModelError, match="no router"):
        dense.token_scores(np.zeros((1, dense.info.hidden_size), np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_contexts_in_a_batch_are_read_as_each_is_alone(name: str) -> None:
    model = subject(name).model
    rng = np.random.default_rng(0)
    contexts = rng.integers(3, 40, (5, 9)).astype(np.int32)
    found = model.read_contexts(contexts, 6, output=True)
    for row, ids in enumerate(contexts):
        trace = model.trace(ids[:7], lens=0, residuals=False)
        assert np.array_equal(found.experts[row], np.sort(trace.expert_ids[6], axis=-1))
        assert np.allclose(found.logits[row], trace.router_logits[6], atol=1e-4, equal_nan=True)
        z = trace.logits.astype(float)
        assert np.allclose(found.logprobs[row], z - np.logaddexp.reduce(z), atol=1e-3)
        assert found.nll[row] == pytest.approx(model.nll(ids)[6:].sum(), rel=1e-3, abs=1e-3)


def test_interventions_reach_every_context_of_a_batch() -> None:
    model = subject("olmoe").model
    layer, E = model.info.moe_layers[1], model.info.num_experts
    contexts = np.random.default_rng(1).integers(3, 40, (4, 6)).astype(np.int32)
    forced = model.read_contexts(contexts, 5, interventions=[Force(experts=(2,), layers=(layer,))])
    assert (forced.experts[:, 1] == 2).any(axis=1).all()
    delta = tuple(100.0 * (e == 3) for e in range(E))
    steered = model.read_contexts(
        contexts, 5, interventions=[AddLogits(delta=delta, layers=(layer,))]
    )
    assert (steered.experts[:, 1] == 3).any(axis=1).all()
    for at in (0, 3):
        alone = model.read_contexts(
            contexts[at : at + 1], 5, interventions=[Force(experts=(2,), layers=(layer,))]
        )
        assert np.array_equal(alone.experts[0], forced.experts[at])


def test_a_patch_changes_the_row_that_it_names() -> None:
    model, ids = subject("olmoe").model, subject("olmoe").ids
    layer = model.info.moe_layers[1]
    streams = model.trace(ids, lens=0, streams=True).streams
    added = streams.at_router[:, layer] - streams.entering[:, layer]
    values = (added[3] + 5.0)[None]
    patch = PatchPart(part="attention", layer=layer, values=values, rows=(3,))
    contexts = np.array(ids, np.int32)[None]
    found = model.read_contexts(contexts, 3, interventions=[patch])
    asked = model.routes(layer, (streams.at_router[3, layer] + 5.0)[None])
    assert np.array_equal(found.experts[0, 1], asked[0])
    with pytest.raises(UsageError, match="no context"):
        model.read_contexts(contexts, len(ids))


def test_many_contexts_are_read_in_several_passes_and_come_back_in_order(monkeypatch) -> None:
    model = subject("olmoe").model
    contexts = np.random.default_rng(2).integers(3, 40, (7, 5)).astype(np.int32)
    whole = model.read_contexts(contexts, 4, output=True)
    monkeypatch.setattr("moetui.model.context_reading._TOKENS_AT_ONCE", 10)
    parts = model.read_contexts(contexts, 4, output=True)
    assert np.array_equal(whole.experts, parts.experts)
    assert np.allclose(whole.logprobs, parts.logprobs, atol=1e-4)
    assert (parts.nll == 0).all()
    with pytest.raises(UsageError, match="vocabulary"):
        model.read_contexts(np.full((1, 3), 10**6), 2)
