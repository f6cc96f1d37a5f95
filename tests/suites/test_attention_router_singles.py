"""What single experts and single heads decide at one router, as the suite asks it."""

import pytest

from tests.suites.fake import FakeModel
from tests.suites.test_attention_router import cell, run


def test_single_experts_are_asked_about_at_the_last_layer_or_at_a_given_one():
    def shares(**parameters):
        given = {"corpus_documents": 30, "source_documents": 20, "source_tokens": 12}
        found = cell(run(FakeModel(layers=5), **given, **parameters), "source_experts").result
        assert (found.max_tokens, found.shares.documents) == (12, 20)
        assert found.shares.tokens <= 20 * 12 and found.shares.completeness == 0
        return found.shares

    last = shares()
    assert (last.layer, last.earlier) == (4, (0, 1, 2, 3))
    assert (shares(layers=[1, 3]).layer, shares(source_layer=2).layer) == (3, 2)
    # The fake model's experts add nothing.
    assert {one.across_tokens.value for one in last.experts} == {0}


def test_single_experts_that_cannot_be_told_apart_have_the_reason():
    def reason(model=None, **parameters):
        given = {"corpus_documents": 20, "source_documents": 20, "source_tokens": 5}
        found = cell(run(model or FakeModel(), **{**given, **parameters}), "source_experts")
        assert (found.status, found.result) == ("inconclusive", None)
        return found.reason

    class Projecting(FakeModel):
        expert_sources_error = "the sum is projected"

    assert reason(Projecting()) == "the sum is projected"
    assert reason(layers="first") == "no experts run before the router of layer 0"
    assert reason(source_documents=0) == "no document was asked for (source_documents=0)"
    assert reason(corpus_documents=0) == "no corpus was asked for (corpus_documents=0)"
    failed = cell(run(FakeModel(), corpus_documents=0, source_layer=9), "source_experts")
    assert failed.status == "failed" and "layer 9 of fake does not route" in failed.reason


def test_single_heads_have_their_shares_the_routers_own_layer_included():
    def shares(**parameters):
        given = {"corpus_documents": 30, "source_documents": 20, "source_tokens": 12}
        found = cell(run(FakeModel(layers=5), **given, **parameters), "source_heads").result
        assert (found.max_tokens, found.shares.documents, found.shares.unsplit) == (12, 20, (0,))
        assert found.shares.completeness < 1e-6
        return found.shares

    found = shares()
    assert (found.layer, found.layers) == (4, (0, 1, 2, 3, 4))
    # A layer whose attention adds nothing has heads all the same; one source has to be there.
    assert {(one.layer, one.head) for one in found.heads} == {
        (layer, head) for layer in range(1, 5) for head in (0, 1)
    }
    first, second = found.heads[:2]
    assert ((first.layer, first.head), (second.layer, second.head)) == ((4, 0), (4, 1))
    assert first.across_tokens.value == pytest.approx(3 * second.across_tokens.value, rel=1e-5)
    both = first.across_tokens.value + second.across_tokens.value
    assert found.together.value == pytest.approx(both, rel=1e-5)
    assert first.across_tokens.q is not None and first.across_tokens.ci_low is not None
    whole = shares(layers="first")
    assert [(one.layer, one.head) for one in whole.heads] == [(0, None)] and whole.unsplit == (0,)
    assert whole.together.value == pytest.approx(whole.heads[0].across_tokens.value)


def test_what_single_sources_are_together_is_among_the_measures_that_are_compared():
    given = {"corpus_documents": 30, "source_documents": 20, "source_tokens": 12}
    result = run(FakeModel(layers=5), **given)
    told = {one.name: one.statistic for one in result.measures}
    for sources, analysis in (("experts", "source_experts"), ("attention heads", "source_heads")):
        name = f"all {sources} before the router of layer 4: share of its logits' variance"
        assert told[name] == cell(result, analysis).result.shares.together


def test_single_heads_that_cannot_be_told_apart_have_the_reason():
    class Mixing(FakeModel):
        head_sources_error = "attention is mixed"

    for model, given, reason in (
        (Mixing(), {}, "attention is mixed"),
        (FakeModel(), {"source_documents": 0}, "no document was asked for (source_documents=0)"),
        (FakeModel(), {"corpus_documents": 0}, "no corpus was asked for (corpus_documents=0)"),
    ):
        parameters = {"corpus_documents": 20, "source_documents": 20, "source_tokens": 5, **given}
        found = cell(run(model, **parameters), "source_heads")
        assert (found.status, found.result, found.reason) == ("inconclusive", None, reason)
