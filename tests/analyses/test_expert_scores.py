"""Scores for pruning against the raw passes of the demo model, and planted super experts."""

from __future__ import annotations

import numpy as np
import pytest

import moetui
from moetui.analyses.expert_scores import NO_OUTPUTS, expert_scores, ranking, super_experts
from moetui.analyses.routed import RoutedDocument, read_document
from moetui.model import Model
from tests.builders import make_model_info
from tests.routed import routed_by_hand

TEXTS = ("127 + 45 = 172", "def fibonacci(n):\n    return n", "The capital of France is Paris.")


@pytest.fixture(scope="module")
def demo() -> Model:
    return moetui.load("demo")


def test_scores_are_those_of_the_raw_passes(demo: Model) -> None:
    documents = [read_document(demo, text, "prose", text, 64) for text in TEXTS]
    found = expert_scores(documents, demo.info, seed=0)
    traces = [demo.trace(text, lens=0, expert_outputs=True) for text in TEXTS]
    outputs = np.concatenate([trace.expert_outputs for trace in traces])
    experts = np.concatenate([trace.expert_ids for trace in traces])
    weights = np.concatenate([trace.expert_weights for trace in traces])
    norms = np.sqrt((outputs.astype(float) ** 2).sum(axis=-1))
    assert len(found.experts) == 8 * 16
    for one in found.experts:
        used = experts[:, one.layer] == one.expert
        assert one.frequency.value == pytest.approx(used.any(axis=-1).mean())
        here = norms[:, one.layer][used]
        assert one.ean is not None and one.reap is not None
        assert one.ean.value == pytest.approx(here.sum(), rel=1e-5)
        if len(here):
            reap = (weights[:, one.layer][used] * here).mean()
            assert one.reap.value == pytest.approx(reap, rel=1e-5)
            assert one.largest == pytest.approx(here.max(), rel=1e-5)
        else:
            assert one.reap.value is None
    order = ranking(documents, demo.info, "reap")
    assert order is not None
    assert order[4, 3] == pytest.approx(
        next(e.reap.value or 0 for e in found.experts if (e.layer, e.expert) == (4, 3) and e.reap)
    )


def documents(norms_of: float = 1.0, *, outputs: bool = True) -> list[RoutedDocument]:
    """Expert 0 always, then one of the others; expert 2 puts out `norms_of` times as much."""
    rng, found = np.random.default_rng(0), []
    for _ in range(30):
        experts = np.stack([np.zeros((20, 2), int), rng.integers(1, 6, (20, 2))], axis=-1)
        norms = np.where(experts == 2, norms_of, 1.0) * rng.uniform(0.5, 1, experts.shape)
        weights = np.full(experts.shape, 0.25)
        found.append(routed_by_hand(experts, weights=weights, norms=norms if outputs else None))
    return found


INFO = make_model_info(num_layers=2, num_experts=6, top_k=2)


def test_an_expert_of_massive_outputs_is_super_and_one_of_many_alike_is_not() -> None:
    massive = expert_scores(documents(200.0), INFO, seed=0)
    # The percentile of a dozen experts is near the largest: of two alike, only one is beyond it.
    flagged = [(e.layer, e.expert) for e in massive.experts if e.super_expert]
    assert flagged and all(expert == 2 for _, expert in flagged)
    assert not any(e.super_expert for e in expert_scores(documents(), INFO, seed=0).experts)
    largest = np.random.default_rng(0).uniform(1, 2, (8, 64))
    assert not super_experts(largest).any()
    largest[3, 7] = 50
    assert np.argwhere(super_experts(largest)).tolist() == [[3, 7]]


def test_where_the_weight_is_in_the_output_already_it_is_not_multiplied_again() -> None:
    scaled = make_model_info(num_layers=2, num_experts=6, top_k=2, weights_scale_input=True)
    plain, inside = (expert_scores(documents(), i, seed=0).experts[0] for i in (INFO, scaled))
    assert plain.reap and inside.reap and plain.reap.value and inside.reap.value
    assert inside.reap.value == pytest.approx(4 * plain.reap.value)


def test_without_outputs_only_the_frequency_is_known() -> None:
    found = expert_scores(documents(outputs=False), INFO, seed=0)
    assert found.caveat == NO_OUTPUTS
    assert all(e.reap is None and e.super_expert is None for e in found.experts)
    assert ranking(documents(outputs=False), INFO, "reap") is None
    order = ranking(documents(outputs=False), INFO, "frequency")
    assert order is not None and order[0, 0] == 1


def test_experts_that_matter_most_by_their_own_norm_and_weight_rank_last() -> None:
    order = ranking(documents(5.0), INFO, "reap")
    assert order is not None and order[0].argmax() == 2
    order = ranking(documents(1.0), INFO, "ean")
    assert order is not None and order[0].argmax() == 0
