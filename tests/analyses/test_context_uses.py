"""Contexts, their shuffled orders, and contexts from a corpus, on routers that are known."""

import numpy as np
import pytest

from moetui.analyses.context_sensitivity import context_sensitivity
from moetui.analyses.context_uses import (
    LEAST_BEFORE,
    WINDOW,
    frequent_tokens,
    mined_uses,
    word_uses,
)
from tests.analyses.test_causal_check import texts
from tests.suites.fake import FakeModel

LAYERS = (0, 2)
CONTEXTS = ("the number 127 is odd", "a b 127", "c d e 127", "x 127")


def mined(model, count=24, tokens=2, shuffles=3):
    documents = [(f"d{i}", model.tokenize(text)) for i, text in enumerate(texts(count, 30, 8))]
    found = frequent_tokens([ids for _, ids in documents], contexts=20)[:tokens]
    return [
        mined_uses(model, token, [documents[i] for i in where], LAYERS, shuffles=shuffles, seed=0)
        for token, where in found
    ]


def test_shuffled_contexts_hold_the_same_tokens_in_another_order():
    model = FakeModel()
    uses = word_uses(model, "127", CONTEXTS, LAYERS, shuffles=4, seed=0)
    assert [use.context for use in uses.kept] == list(CONTEXTS)
    assert [len(use.shuffled_ids) for use in uses.kept] == [4, 4, 4, 0]  # "x 127" has one order
    originals = [model.tokenize(text) for text in CONTEXTS]
    shuffled = [np.array(ids) for ids in model.traced[len(CONTEXTS) :]]
    assert len(shuffled) == 12
    for row, ids in enumerate(shuffled):
        original = originals[row // 4]
        position = original.tolist().index(uses.token_id)
        assert ids[position] == uses.token_id
        assert sorted(ids) == sorted(original) and not np.array_equal(ids, original)


def test_a_router_that_reads_the_token_alone_is_sensitive_to_nothing():
    model = FakeModel(attention=0.0)
    words = [word_uses(model, "127", CONTEXTS, LAYERS, shuffles=4, seed=0)]
    found = context_sensitivity(words, mined(model), LAYERS, seed=0)
    assert found.seed_sensitive == 0
    for cell in found.words[0].layers:
        assert cell.sets.between.value == cell.sets.shuffled.value == 0
        assert "1 contexts have no other order" in cell.sets.excess.caveat
    assert found.mined.sets.between.value == found.mined.sets.excess.value == 0
    assert "closer than that in 4 of 4 cells" in found.mined.beaten
    assert "; the same token, its context shuffled: beaten" not in found.mined.beaten


def test_a_router_that_reads_the_order_does_not_beat_the_shuffled_context():
    """Attention is a hash of the text: any other order is as far away as any other context."""
    found = context_sensitivity([], mined(FakeModel(embedding=0.0)), LAYERS, seed=0)
    assert found.mined.sets.between.value > 0.5
    low, high = found.mined.sets.excess.ci_low, found.mined.sets.excess.ci_high
    assert low < 0 < high
    assert "change no more than another order" in found.mined.beaten


class Bag(FakeModel):
    """Attention is the sum over the tokens before, in whatever order."""

    def _parts(self, prefix, L, E):
        parts = super()._parts(prefix, L, E)
        before = sorted(int(t) for t in prefix)
        rng = np.random.default_rng(before)
        parts[:, 1, :E] = rng.normal(size=(L, E))
        return parts


def test_a_router_that_reads_what_the_context_holds_beats_it():
    found = context_sensitivity([], mined(Bag(embedding=0.0)), LAYERS, seed=0)
    assert found.mined.sets.shuffled.value == 0
    assert found.mined.sets.excess.value == pytest.approx(found.mined.sets.between.value)
    assert found.mined.sets.excess.ci_low > 0
    assert found.mined.beaten.endswith(
        "beaten, other contexts change more than another order of the same one"
    )
    assert found.mined.weights.excess.ci_low > 0
    assert found.mined.verdict == "measured"


def test_contexts_of_the_corpus_end_with_the_token_and_come_one_a_document():
    model = FakeModel()
    uses = mined(model, shuffles=0)
    for word in uses:
        assert len({use.document for use in word.kept}) == len(word.kept) >= 20
    windows = [ids for ids in model.traced if len(ids) > 1]
    assert all(LEAST_BEFORE < len(ids) <= WINDOW for ids in windows)
    assert {int(ids[-1]) for ids in windows} == {word.token_id for word in uses}


def test_frequent_tokens_are_those_of_most_documents():
    documents = [np.array([9] * LEAST_BEFORE + rest) for rest in ([1, 2], [1, 1, 3], [1, 3], [4])]
    assert frequent_tokens(documents, contexts=2) == [(1, [0, 1, 2]), (3, [1, 2])]


def test_every_expert_and_weight_of_every_context_is_kept():
    model = FakeModel()
    found = context_sensitivity(
        [word_uses(model, "127", CONTEXTS, LAYERS, shuffles=2, seed=0)], [], LAYERS, seed=0
    )
    for row, cell in enumerate(found.words[0].layers):
        assert [c.context for c in cell.contexts] == list(CONTEXTS)
        for context in cell.contexts:
            trace = model.trace(context.context)
            position = trace.token_ids.tolist().index(found.words[0].token_id)
            assert list(context.experts) == trace.expert_ids[position, LAYERS[row]].tolist()
            assert context.weights == (0.5, 0.5)
