from itertools import combinations

import numpy as np
import pytest

from moetui.analyses.seed_prediction import chance_overlap, seed_prediction


def drawn(P=20, F=6, E=16, k=4, layers=3, seed=0):
    rng = np.random.default_rng(seed)
    features = [rng.normal(size=(P, F)) for _ in range(layers)]
    experts = [np.argsort(rng.random((P, E)), axis=1)[:, :k].astype(np.int16) for _ in features]
    return features, experts


def scored(features, experts, E=16, **options):
    options = {"correlate": True, "seed": 0, **options}
    return seed_prediction(features, experts, range(len(features)), num_experts=E, **options)


def test_with_more_features_than_prompts_anything_is_foretold():
    found = scored(*drawn(F=40))
    fitted = found.mean.fitted
    # All k used experts are told apart from the rest; which of them is the top one is not asked.
    assert fitted.fetched == fitted.any_overlap == 1.0
    assert found.mean.constant.fetched < 0.5


def test_overlap_of_sets_drawn_at_random_is_counted_by_hand():
    sets = list(combinations(range(6), 2))
    meet = np.mean([bool(set(a) & set(b)) for a in sets for b in sets])
    assert chance_overlap(6, 2) == pytest.approx(meet)
    assert chance_overlap(16, 4) == pytest.approx(1 - 495 / 1820)


def test_the_constant_answer_names_the_most_frequent():
    experts = [np.array([[0, 1], [0, 2], [0, 3], [4, 1]], np.int16)]
    found = scored([np.zeros((4, 2))], experts, E=6, correlate=False)
    constant = found.layers[0].constant
    # 0 and 1 are the most frequent: 2, 1, 1 and 1 of 2 are fetched.
    assert constant.fetched == pytest.approx((2 + 1 + 1 + 1) / 8)
    assert (constant.any_overlap, constant.accuracy) == (1.0, 0.75)
    # Features that do not vary say nothing else than that.
    assert found.layers[0].fitted == constant


def test_scores_are_means_over_prompts_and_layers():
    found = scored(*drawn())
    for name in ("accuracy", "any_overlap", "fetched"):
        by_layer = [getattr(one.fitted, name) for one in found.layers]
        by_prompt = [getattr(one, name) for one in found.by_prompt]
        assert getattr(found.mean.fitted, name) == pytest.approx(np.mean(by_layer))
        assert getattr(found.mean.fitted, name) == pytest.approx(np.mean(by_prompt))


def test_the_largest_of_many_correlations_is_large_by_chance():
    features, experts = drawn(seed=3)
    found = scored(features, experts).correlation
    best = 0.0
    for x, used in zip(features, experts, strict=True):
        for column in x.T:
            for expert in range(16):
                on = (used == expert).any(axis=1)
                if on.any():
                    best = max(best, abs(np.corrcoef(column, on)[0, 1]))
    assert found.value == pytest.approx(best)
    assert found.null_mean > 0.5 and found.null_low < found.value < found.null_high


def test_a_feature_that_is_the_expert_stands_out():
    features, experts = drawn(layers=1)
    features[0][:, 2] = (experts[0] == 5).any(axis=1)
    found = scored(features, experts).correlation
    assert found.value == pytest.approx(1.0) and found.p == 0.001
