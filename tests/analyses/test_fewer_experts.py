"""Other numbers of experts: what they cost, whose rule that is, and what changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

import moetui
from moetui.analyses.fewer_experts import (
    MATCHED,
    Trial,
    curve,
    numbers_of_experts,
    own_match,
    trials_of,
    try_document,
    unchanged,
)
from moetui.analyses.routed import read_document
from moetui.trace import Reweigh, TopK
from tests.analyses.routed_fake import routed_by
from tests.fake_forward import FakeForward
from tests.model.intervened import IDS, tiny

V, E, K = 32, 8, 4
TEXT = "The capital of France is a city, and 12 + 7 = 19."


def test_few_and_all_follow_the_native_number():
    assert numbers_of_experts("few", 4, 16) == (1, 2, 6, 8)
    assert numbers_of_experts("few", 2, 8) == (1, 3, 4)
    assert numbers_of_experts("all", 4, 16) == (1, 2, 3, 5, 6, 7, 8)
    assert numbers_of_experts("all", 4, 6) == (1, 2, 3, 5, 6)
    assert numbers_of_experts((3, 1, 4, 99), 4, 16) == (1, 3)


def test_the_curve_is_the_loss_of_a_model_with_that_many_experts():
    rng = np.random.default_rng(0)
    push = rng.normal(size=(3, E))
    model = FakeForward(layers=3, experts=E, k=K, vocabulary=V, push=push)
    documents = routed_by(model, rng.integers(0, V, size=(25, 10)).tolist())
    trials = tuple(Trial(experts=n, match="sum", own=True) for n in (1, 2, 8))
    tried = [try_document(model, one, trials, kl=True) for one in documents]
    for point in curve(tried, trials, seed=0):
        other = FakeForward(layers=3, experts=E, k=point.experts, vocabulary=V, push=push)
        change = np.concatenate([other.nll(one.ids) - one.nll for one in documents])
        assert point.nll.value == pytest.approx(change.mean(), abs=1e-6)
        assert point.nll.ci_low < point.nll.value < point.nll.ci_high
        kl = np.concatenate([model.kl(one.ids, (TopK(k=point.experts),)) for one in documents])
        assert point.kl.value == pytest.approx(kl.mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "match"), [("olmoe", "each"), ("mixtral", "sum"), ("gpt_oss", "sum")]
)
def test_the_models_own_rule_is_recognised(name, match):
    model = tiny(name)
    assert own_match(model, IDS, 1) == match
    k = model.info.top_k
    trials, reason = trials_of(model, np.array(IDS[:9]), (1, k + 1))
    assert reason is None
    assert [(t.experts, t.match) for t in trials if t.own] == [(1, match), (k + 1, match)]
    assert {(t.experts, t.match) for t in trials} == {
        (n, m) for n in (1, k + 1) for m in ("each", "sum", "norm")
    }
    for trial in trials:
        if trial.own:  # the very same thing, made from a pass with more experts
            by_hand = Reweigh(keep=trial.experts, native=k, match=match)
            changes = (by_hand,) if trial.experts < k else (*trial.changes(k), by_hand)
            own = model.nll(IDS, trial.changes(k))
            np.testing.assert_allclose(model.nll(IDS, changes), own, atol=1e-4)


def test_what_a_model_does_not_allow_is_left_out_and_told():
    trials, reason = trials_of(tiny("llama4"), np.array(IDS[:9]), (2,))
    assert trials == () and "2 experts a token" in reason
    trials, reason = trials_of(tiny("bailing_moe"), np.array(IDS[:9]), (1,))
    assert [t.own for t in trials] == [True] and "not seen there" in reason
    assert MATCHED["norm"] in reason


def test_the_native_number_changes_nothing_bit_for_bit():
    model = moetui.load("demo")
    document = read_document(model, "a", "prose", TEXT, 40)
    assert unchanged(model, document)
    for name in ("mixtral", "deepseek_v3", "gpt_oss"):
        assert unchanged(tiny(name), read_document(tiny(name), "a", "prose", TEXT, 30))
