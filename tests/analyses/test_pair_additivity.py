"""Pairs of experts: non-additivity as in closed form, and which pairs are taken."""

from __future__ import annotations

import numpy as np
import pytest

from moetui.analyses.pair_additivity import (
    chosen_together,
    pair_additivity,
    pair_sums,
    pick_pairs,
)
from tests.analyses.routed_fake import routed_by
from tests.fake_forward import FakeForward

V, E, LAYER = 32, 8, 1


def model_and_documents(count=24):
    rng = np.random.default_rng(0)
    model = FakeForward(
        layers=3, experts=E, k=2, vocabulary=V, push=rng.normal(size=(3, E)), moe_layers=(0, 1, 2)
    )
    texts = rng.integers(0, V, size=(count, 12))
    texts[:, 5] = 0  # the token whose logit is pushed occurs
    return model, routed_by(model, texts.tolist())


def closed_form(model, ids, dropped):
    """Σ of the loss if the experts `dropped` of the layer add nothing: the logit of token 0 is
    the running sum of pushes, every other one is 0."""
    x, total = 0.0, 0.0
    for t, token in enumerate(ids):
        for layer in range(3):
            for expert in ((token + layer) % E, (token + layer + 1) % E):
                if layer != LAYER or expert not in dropped:
                    x += model.push[layer, expert] / 2
        if t + 1 < len(ids):
            total += np.log(np.exp(x) + V - 1) - (x if ids[t + 1] == 0 else 0.0)
    return total


def test_what_is_beyond_the_sum_follows_from_the_pushes():
    model, documents = model_and_documents()
    together = chosen_together(documents, LAYER, E)
    pairs = pick_pairs(together, LAYER, pairs=3, random=4, rng=np.random.default_rng(1))
    found = pair_additivity(pair_sums(model, documents, pairs, LAYER), pairs, seed=0)
    tokens = sum(len(one.nll) for one in documents)
    for effect in found.pairs:
        i, j = effect.first, effect.second
        losses = {
            drop: sum(closed_form(model, one.ids.tolist(), drop) for one in documents)
            for drop in ((), (i,), (j,), (i, j))
        }
        one, other, both = ((losses[d] - losses[()]) / tokens for d in ((i,), (j,), (i, j)))
        assert effect.first_alone.value == pytest.approx(one, abs=1e-6)
        assert effect.second_alone.value == pytest.approx(other, abs=1e-6)
        assert effect.both.value == pytest.approx(both, abs=1e-6)
        assert effect.beyond.value == pytest.approx(both - one - other, abs=1e-6)
        assert effect.beyond.ci_low < effect.beyond.value < effect.beyond.ci_high
    kinds = {kind: [p.beyond.value for p in found.pairs if p.kind == kind]
             for kind in ("chosen together", "random")}  # fmt: skip
    means = [np.mean(values) for values in kinds.values()]
    assert found.mean_together.value == pytest.approx(means[0])
    assert found.difference.value == pytest.approx(means[0] - means[1])
    for effect in found.pairs[:3]:
        farther = sum(abs(v) >= abs(effect.beyond.value) for v in kinds["random"])
        assert effect.beyond.p == pytest.approx((1 + farther) / 5)
    assert all(effect.beyond.p is None for effect in found.pairs[3:])


def test_experts_that_nobody_chooses_together_cost_what_each_costs():
    """No token chooses both, and where the change is small the loss is linear in the logit."""
    model, _ = model_and_documents()
    model.push *= 1e-3
    documents = routed_by(model, np.random.default_rng(4).integers(1, V, (20, 12)).tolist())
    pairs = pick_pairs(np.diag(np.ones(E)), LAYER, pairs=2, random=5, rng=np.random.default_rng(2))
    assert pairs.together == () and len(pairs.random) == 5
    found = pair_additivity(pair_sums(model, documents, pairs, LAYER), pairs, seed=0)
    largest = max(abs(p.both.value) for p in found.pairs)
    assert largest > 1e-6
    assert max(abs(p.beyond.value) for p in found.pairs) < 1e-2 * largest
    assert found.mean_together.value is None and found.difference.value is None


def test_pairs_are_those_chosen_together_most_and_random_others():
    _, documents = model_and_documents()
    together = chosen_together(documents, LAYER, E)
    expected = np.zeros((E, E))
    for one in documents:
        for token in one.ids.tolist():
            pair = ((token + LAYER) % E, (token + LAYER + 1) % E)
            for a in pair:
                for b in pair:
                    expected[a, b] += 1
    assert np.array_equal(together, expected)
    pairs = pick_pairs(together, LAYER, pairs=3, random=30, rng=np.random.default_rng(0))
    counts = sorted((expected[i, j] for i in range(E) for j in range(i)), reverse=True)
    assert [expected[i, j] for i, j in pairs.together] == counts[:3]
    assert len(set(pairs.all)) == len(pairs.all) == E * (E - 1) // 2  # there are no more
