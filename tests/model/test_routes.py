"""Routers asked about streams that they are handed: the model's own choice, whatever its rule."""

from __future__ import annotations

import numpy as np
import pytest

from moetui.errors import ModelError
from moetui.trace import AddToPart
from tests.model.architectures import ARCHITECTURES
from tests.model.subject import Subject, subject_of

# dbrx: no routing is read at all; muse_spark: does not run here (see test_architectures).
UNREADABLE = {"dbrx", "muse_spark"}
# A token has several streams there, mixed before every part: none of them is the router's.
NOT_ONE_STREAM = {"deepseek_v41"}


def subject(name: str) -> Subject:
    found = subject_of(name)
    assert not isinstance(found, str)
    return found


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n not in UNREADABLE])
def test_of_its_own_streams_a_router_chooses_as_in_the_pass(name: str) -> None:
    model, trace = subject(name).model, subject(name).trace
    if name in NOT_ONE_STREAM:
        assert "more than the residual stream" in (model.routes_error or "")
        with pytest.raises(ModelError, match="more than the residual stream"):
            model.routes(trace.layers[0], np.zeros((3, 64), np.float32))
        return
    assert model.routes_error is None
    assert trace.streams is not None
    for row, layer in enumerate(trace.layers.tolist()):
        chosen = model.routes(layer, trace.streams.at_router[:, layer])
        expected = np.sort(trace.expert_ids[:, row], axis=-1)[:, -chosen.shape[-1] :]
        assert np.array_equal(chosen, expected)
        scores = model.router_scores(layer, trace.streams.at_router[:, layer])
        assert (scores is None) == (trace.selection_scores is None)
        if scores is not None and trace.selection_scores is not None:
            theirs = trace.selection_scores[:, row, : scores.shape[1]]
            np.testing.assert_allclose(scores, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["olmoe", "qwen2_moe", "deepseek_v3", "bailing_moe (groups)", "gpt_oss", "gemma4"]
)
def test_of_a_changed_stream_it_chooses_as_a_pass_with_that_change(name: str) -> None:
    """What attention adds at one layer is changed in a real pass: its router sees just that."""
    model, ids = subject(name).model, subject(name).ids
    layer = model.info.moe_layers[1]
    vector = np.random.default_rng(0).normal(size=model.info.hidden_size).astype(np.float32)
    change = AddToPart(part="attention", vector=3 * vector, layers=(layer,))
    plain = model.trace(ids, lens=0, streams=True)
    passed = model.trace(ids, lens=0, streams=True, interventions=[change])
    assert plain.streams is not None and passed.streams is not None
    chosen = model.routes(layer, passed.streams.at_router[:, layer])
    row = passed.layers.tolist().index(layer)
    assert np.array_equal(chosen, np.sort(passed.expert_ids[:, row], axis=-1))
    assert not np.array_equal(chosen, np.sort(plain.expert_ids[:, row], axis=-1))
    by_hand = model.routes(layer, plain.streams.at_router[:, layer] + 3 * vector)
    assert np.array_equal(chosen, by_hand)


def test_asking_a_router_leaves_the_model_as_it_was() -> None:
    model, trace = subject("olmoe").model, subject("olmoe").trace
    assert trace.streams is not None
    model.routes(0, 100 * trace.streams.at_router[:, 0])
    assert np.array_equal(model.trace(subject("olmoe").ids, lens=0).logits, trace.logits)
