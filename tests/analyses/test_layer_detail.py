from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import entropy

from moetui.analyses.layer_detail import layer_detail
from tests.builders import make_trace


def routed_by(scores, logits, ids, weights, **info):
    """A trace of one token and one layer with exactly these values."""
    trace = make_trace(T=1, N=1, E=len(logits), k=len(ids), info=info)
    return replace(
        trace,
        router_logits=np.array([[logits]], np.float32),
        selection_scores=None if scores is None else np.array([[scores]], np.float32),
        expert_ids=np.array([[ids]], np.int16),
        expert_weights=np.array([[weights]], np.float32),
        router_parts=None,
    )


def test_experts_come_best_first_with_logit_score_and_weight():
    trace = routed_by([0.1, 0.6, 0.3], [1.0, 3.0, 2.0], [1, 2], [0.7, 0.3])
    found = layer_detail(trace, 0, 0)
    assert [e.expert for e in found.chosen] == [1, 2]
    assert [e.logit for e in found.chosen] == [3.0, 2.0]
    assert [e.score for e in found.chosen] == pytest.approx([0.6, 0.3])
    assert [e.weight for e in found.chosen] == pytest.approx([0.7, 0.3])
    assert found.weight_sum == pytest.approx(1.0)


def test_the_margin_follows_selection_scores_not_logits():
    # A correction bias chose expert 2 although expert 0 has the higher logit.
    trace = routed_by([0.4, 0.9, 0.5], [2.0, 3.0, 1.0], [1, 2], [0.7, 0.3])
    found = layer_detail(trace, 0, 0)
    assert found.passed_over[0].expert == 0
    assert found.margin == pytest.approx(1.0 - 2.0)
    assert found.score_margin == pytest.approx(0.5 - 0.4)
    assert found.margin_chance is None  # what normal logits would show says nothing of a bias


def test_masked_experts_are_not_passed_over():
    trace = routed_by([0.9, -np.inf, 0.2], [3.0, 2.5, 1.0], [0], [1.0])
    assert [e.expert for e in layer_detail(trace, 0, 0).passed_over] == [2]
    # Others write 0 over the group; a router of zeros, whose logits are its scores, masks nothing.
    trace = routed_by([0.9, 0.0, 0.2], [3.0, 2.5, 1.0], [0], [1.0])
    assert [e.expert for e in layer_detail(trace, 0, 0).passed_over] == [2]
    trace = routed_by([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0], [1.0])
    assert [e.expert for e in layer_detail(trace, 0, 0).passed_over] == [1, 2]


def test_a_mask_of_zero_outranks_scores_that_a_correction_bias_made_negative():
    # Experts 2 to 4 are masked; 2 ran, since 0 beats −0.1, and 3 is next in line, just as good.
    trace = routed_by([0.3, -0.1, 0, 0, 0], [2.0, 1.5, -1.0, -2.0, -3.0], [0, 2], [0.7, 0.3])
    found = layer_detail(trace, 0, 0)
    assert [e.expert for e in found.passed_over] == [3, 4, 1]
    assert found.score_margin == 0
    assert found.margin == pytest.approx(-1.0 - -2.0)


def test_chance_of_a_margin_is_not_given_where_a_group_mask_hides_the_next_logit():
    # The highest logits ran, but the gap is to the third best of the rest: no gap of neighbours.
    logits = [3.0, 2.0, 1.9, 0.5]
    masked = routed_by([0.9, 0.8, 0.0, 0.6], logits, [0, 1], [0.6, 0.4])
    assert layer_detail(masked, 0, 0).margin_chance is None
    plain = routed_by([0.9, 0.8, 0.7, 0.6], logits, [0, 1], [0.6, 0.4])
    assert layer_detail(plain, 0, 0).margin_chance is not None


def test_without_selection_scores_logits_rank_and_no_score_is_claimed():
    trace = routed_by(None, [3.0, 1.0, 2.0], [0], [1.0])
    found = layer_detail(trace, 0, 0)
    assert found.passed_over[0].expert == 2
    assert (found.margin, found.score_margin) == (pytest.approx(1.0), None)


def test_there_is_no_margin_when_every_expert_runs():
    trace = routed_by([0.6, 0.4], [1.0, 0.5], [0, 1], [0.6, 0.4])
    found = layer_detail(trace, 0, 0)
    assert (found.passed_over, found.margin, found.margin_chance) == ([], None, None)


def test_entropy_is_that_of_the_softmax():
    z = np.array([2.0, 0.0, 1.0, -1.0])
    found = layer_detail(routed_by(None, z, [0], [1.0]), 0, 0)
    p = np.exp(z) / np.exp(z).sum()
    assert found.entropy == pytest.approx(entropy(p))
    assert found.entropy_normalized == pytest.approx(entropy(p, base=4))


def test_sigmoid_routers_are_normalised_sigmoids():
    z = np.array([2.0, 0.0, 1.0, -1.0])
    found = layer_detail(routed_by(None, z, [0], [1.0], shift_invariant=False), 0, 0)
    assert found.entropy == pytest.approx(entropy(1 / (1 + np.exp(-z))))
    assert found.distribution == "sigmoid, normalised"


def test_equal_logits_have_the_entropy_of_an_even_router():
    found = layer_detail(routed_by(None, np.zeros(16), [0], [1.0]), 0, 0)
    assert found.entropy_normalized == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("E", "k"),
    [(4, 1), (8, 2), *(pytest.param(*size, marks=pytest.mark.slow) for size in [(16, 4), (64, 8)])],
)
def test_the_chance_margin_is_what_random_routers_show_on_average(E, k):
    # Every router beside its own chance level: few experts deviate less than their source does.
    rng = np.random.default_rng(0)
    margins, chances = [], []
    for _ in range(4000):
        z = np.sort(rng.normal(0, 3, E))[::-1]
        found = layer_detail(routed_by(None, z, list(range(k)), [1 / k] * k), 0, 0)
        margins.append(found.margin)
        chances.append(found.margin_chance)
    assert np.mean(chances) == pytest.approx(np.mean(margins), rel=0.04)


def test_padded_experts_and_ids_are_no_experts():
    trace = make_trace(N=2, E=8, k=4, layer_experts={1: 3})
    found = layer_detail(trace, 0, 1)
    assert (found.num_experts, len(found.chosen), found.passed_over) == (3, 3, [])
    assert np.isfinite(found.entropy)


def test_dense_layers_have_no_detail():
    trace = make_trace(N=3, moe_layers=(0, 2))
    assert layer_detail(trace, 0, 1) is None
    assert layer_detail(trace, 0, 2).layer == 2


def test_completeness_is_the_trace_s_own():
    trace = make_trace()
    assert layer_detail(trace, 3, 2).completeness == pytest.approx(trace.completeness[3, 2])
