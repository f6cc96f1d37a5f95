"""Attention in bins relative to a token, and contexts as they are read."""

from __future__ import annotations

import numpy as np
import pytest

import moetui
from moetui.analyses.attention_profiles import (
    BINS,
    attention_distances,
    binned,
    hidden_distances,
    mined_target,
    seed_target,
)


def test_every_position_falls_into_one_bin_counted_from_the_token():
    length = 14
    one_hot = np.eye(length, dtype=np.float32)
    names = [BINS[int(row.argmax())] for row in binned(one_hot)]
    assert names == [
        "first token", *["rest"] * 4, *(f"previous {d}" for d in range(8, 0, -1)), "self"
    ]  # fmt: skip
    assert binned(one_hot).sum() == length


def test_the_first_token_is_the_first_token_even_next_to_the_target_and_alone_it_is_itself():
    assert binned(np.array([[0.3, 0.7]]))[0].tolist() == pytest.approx([0.3, *[0.0] * 9, 0.7, 0.0])
    assert binned(np.array([[1.0]]))[0, BINS.index("self")] == 1


def test_what_a_sink_takes_is_a_bin_of_its_own():
    found = binned(np.array([[0.2, 0.1, 0.3]]))[0]
    assert found[BINS.index("sink")] == pytest.approx(0.4) and found.sum() == pytest.approx(1)


def test_distances_are_total_variation_over_heads_that_are_there():
    profiles = np.random.default_rng(0).dirichlet(np.ones(12), size=(5, 3))
    profiles[:, 2] = np.nan
    found = attention_distances(profiles)
    for a in range(5):
        for b in range(5):
            apart = [np.abs(profiles[a, h] - profiles[b, h]).sum() / 2 for h in (0, 1)]
            assert found[a, b] == pytest.approx(np.mean(apart), abs=1e-6)


def test_equal_states_are_no_distance_apart_whatever_their_rounding():
    row = np.random.default_rng(1).normal(size=64).astype(np.float32)
    rows = np.stack([row, row * np.float32(1.0000001), -row])
    assert hidden_distances(rows).tolist() == [[0, 0, 2], [0, 0, 2], [2, 2, 0]]


def test_a_context_holds_what_the_models_own_pass_did():
    model = moetui.load("demo")
    layers = (0, 4)
    found = seed_target(model, "127", ("x = 127", "no such", "the number 127 is"), layers)
    assert [one.context for one in found.dropped] == ["no such"]
    assert len(found.contexts) + len(found.dropped) == 3
    for one in found.contexts:
        trace = model.trace(one.use.context, attention=True, streams=True, lens=0)
        position = one.length - 1
        assert trace.token_ids[position] == found.token_id
        assert one.previous == trace.token_ids[position - 1]
        for row, layer in enumerate(layers):
            given = trace.attention[layer, :, position, : one.length]
            np.testing.assert_allclose(one.profiles[row].sum(-1), 1, atol=1e-5)
            self_attention = one.profiles[row][:, BINS.index("self")]
            np.testing.assert_allclose(self_attention, given[:, -1], rtol=1e-6)
            np.testing.assert_allclose(one.attention[row], given.mean(0), rtol=1e-5)
            np.testing.assert_array_equal(one.hidden[row], trace.streams.entering[position, layer])
            assert one.use.ids[row].tolist() == trace.expert_ids[position, layer].tolist()


def test_a_mined_target_is_read_where_it_stands_in_its_document():
    model = moetui.load("demo")
    ids = model.tokenize("One day a dog and a cat went to the river and the dog said that")
    token = int(ids[12])
    found = mined_target(model, token, [("a document", ids, 12)], (2,))
    (one,) = found.contexts
    whole = model.trace(ids, lens=0)
    assert one.length == 13 and one.use.document == "a document"
    assert one.use.ids[0].tolist() == whole.expert_ids[12, 2].tolist()  # causal: no later token
