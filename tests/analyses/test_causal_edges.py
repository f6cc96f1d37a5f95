"""Edges put to the test by silencing their source, in a fake whose causes are known."""

import numpy as np
import pytest

from moetui.analyses.causal_edges import causal_edges, controls_of, silenced_sums
from moetui.analyses.routed import read_document
from tests.fake_forward import FakeForward

E, K = 6, 3


def silenced(edges, *, steering=(), documents=24, controls=6, seed=0, k=K):
    model = FakeForward(layers=4, experts=E, k=k, vocabulary=E, steering=steering)
    rng = np.random.default_rng(seed)
    others = controls_of(edges, E, controls, seed=seed)
    sums, steps = [], []
    model.tokenize = lambda text: np.array([int(c) for c in text], np.int32)
    for index in range(documents):
        text = "".join(str(i) for i in rng.integers(0, E, 20))
        document = read_document(model, str(index), "", text, 20)
        sums += silenced_sums(model, document, index, edges, others, lambda: steps.append(1))
    found = causal_edges(
        edges, sums, layers=[1], eligible=len(edges), n_documents=documents,
        n_tokens=20 * documents, seed=seed,
    )  # fmt: skip
    return found, model, steps


def test_a_planted_cause_is_found():
    # Token i chooses i + 1, i + 2, i + 3 at layer 1 and i + 2, i + 3, i + 4 at layer 2. Expert 3
    # silenced, its tokens go one further: those that have i + 2 = 3 at layer 2 lose it.
    found, _, _ = silenced([(1, 3, 2, 3)], steering=[(1, 3)])
    (edge,) = found.edges
    # Tokens 0, 1 and 2 choose expert 3 at layer 1; 0 and 1 (and 5) at layer 2; 1 loses it.
    assert edge.verdict == "causal"
    assert edge.before.value == pytest.approx(2 / 3, abs=0.1)
    assert edge.effect.value == pytest.approx(-1 / 3, abs=0.1)
    assert edge.effect.null_mean == 0.0
    assert edge.over_controls.ci_high < 0 and edge.over_controls.q <= 0.05


def test_a_correlation_without_a_cause_is_not_called_causal():
    # The token alone determines both; nothing that is silenced moves anything.
    found, _, _ = silenced([(1, 3, 2, 3), (1, 2, 2, 4)])
    assert {edge.verdict for edge in found.edges} == {"not causal"}
    assert all(edge.effect.value == 0.0 for edge in found.edges)
    assert found.mean.value == 0.0


def test_a_disturbance_that_every_expert_makes_is_not_the_sources():
    # Whatever is silenced at layer 1, the choice moves: the source does no more than the others.
    found, _, _ = silenced([(1, 3, 2, 3)], steering=[(1, e) for e in range(E)])
    (edge,) = found.edges
    assert edge.effect.value < -0.2
    assert edge.effect.null_mean < -0.2
    assert edge.verdict == "not causal"


def test_the_effect_is_that_of_the_tokens_that_chose_the_source():
    found, _, _ = silenced([(1, 3, 2, 3)], steering=[(1, 3)], documents=20)
    (edge,) = found.edges
    rng = np.random.default_rng(0)
    ids = np.concatenate([rng.integers(0, E, 20) for _ in range(20)])
    own = ids[np.isin(ids, [0, 1, 2])]
    assert edge.effect.n_tokens == len(own)
    assert edge.effect.value == pytest.approx(-(own == 1).mean())


def test_only_experts_that_a_document_uses_take_a_pass():
    _, model, steps = silenced([(1, 3, 2, 3)], documents=20, controls=6)
    passes = [changes for kind, changes in model.passes if kind == "trace" and changes]
    assert len(passes) <= len(steps) == 20 * 6


def test_few_documents_or_no_companions_carry_no_verdict():
    few, _, _ = silenced([(1, 3, 2, 3)], steering=[(1, 3)], documents=12)
    assert few.edges[0].verdict == "inconclusive"
    assert few.reason == "12 documents with such tokens, 20 needed"
    alone, _, _ = silenced([(1, 3, 2, 3)], steering=[(1, 3)], k=1)
    assert alone.edges[0].verdict == "inconclusive"
    assert "no token chose a control expert" in alone.reason
    none, _, _ = silenced([], documents=20)
    assert "no edge" in none.reason
