from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import stats

from moetui.stats import (
    central_band,
    expected_jaccard,
    expected_overlap,
    jaccard,
    overlap_chance,
    permutation_p,
    set_overlap,
    variation_chance,
)


@pytest.mark.parametrize(("experts", "a", "b"), [(6, 2, 2), (7, 3, 2), (5, 4, 4), (4, 4, 4)])
def test_chance_equals_enumeration_of_all_sets(experts, a, b):
    fixed = set(range(a))
    shared = [len(fixed & set(other)) for other in combinations(range(experts), b)]
    overlaps = [i / (a + b - i) for i in shared]
    assert expected_overlap(experts, a, b) == pytest.approx(np.mean(shared))
    assert expected_jaccard(experts, a, b) == pytest.approx(np.mean(overlaps))
    share = np.bincount(shared, minlength=min(a, b) + 1) / len(shared)
    assert overlap_chance(experts, a, b) == pytest.approx(share)


@pytest.mark.parametrize(
    ("experts", "a", "b"), [(16, 4, 4), (64, 8, 8), (512, 10, 10), (8, 7, 6), (32, 2, 5)]
)
def test_chance_and_its_band_are_scipy_s(experts, a, b):
    law = stats.hypergeom(experts, a, b)
    chance = overlap_chance(experts, a, b)
    assert chance == pytest.approx(law.pmf(np.arange(min(a, b) + 1)), rel=1e-9, abs=1e-15)
    assert central_band(chance) == (law.ppf(0.025), law.ppf(0.975))


def test_a_band_ends_where_an_exact_tail_ends():
    assert central_band([0.025, 0.95, 0.025]) == (0, 1)
    assert central_band([0.024, 0.95, 0.026]) == (1, 2)
    assert central_band([1.0]) == (0, 0)


def test_total_variation_by_chance_is_the_mean_over_all_placements():
    a, b, experts = [0.5, 0.3, 0.2], [0.7, 0.3], 6
    one = np.array([*a, 0, 0, 0])
    every = []
    for places in permutations(range(experts), 2):
        two = np.zeros(experts)
        two[list(places)] = b
        every.append(np.abs(one - two).sum() / 2)
    chance = overlap_chance(experts, 3, 2)
    mean, low, high = variation_chance(a, b, chance, seed=0, draws=20_000)
    assert mean == pytest.approx(np.mean(every))
    limits = np.quantile(every, [0.025, 0.975], method="inverted_cdf")
    assert (low, high) == pytest.approx(limits)
    assert variation_chance(b, a, chance, seed=0) == variation_chance(a, b, chance, seed=0)


def test_total_variation_of_sets_that_never_or_always_meet():
    assert variation_chance([0.5, 0.5], [1.0], [1.0, 0.0], seed=0) == (1.0, 1.0, 1.0)
    assert variation_chance([1.0], [1.0], [0.0, 1.0], seed=0) == (0.0, 0.0, 0.0)


def test_jaccard_ignores_order_and_padding():
    assert jaccard([3, 1, -1], [1, 2, -1]) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="empty"):
        jaccard([-1], [-1])


def test_equal_sets_beat_chance_with_the_smallest_possible_p():
    ids = np.array([np.random.default_rng(s).permutation(64)[:8] for s in range(30)])
    found = set_overlap(ids, ids[:, ::-1], 64, seed=0, permutations=999)
    assert found.value == 1.0
    assert found.p == pytest.approx(1 / 1000)
    assert found.null_mean == pytest.approx(expected_jaccard(64, 8, 8))
    assert found.null_low < found.null_mean < found.null_high


def test_random_sets_do_not_beat_chance_more_often_than_they_should():
    rng = np.random.default_rng(7)
    ps = []
    for seed in range(300):
        a, b = (np.array([rng.permutation(16)[:4] for _ in range(5)]) for _ in range(2))
        ps.append(set_overlap(a, b, 16, seed=seed, permutations=199).p)
    assert np.mean(np.array(ps) <= 0.05) < 0.09
    assert 0.4 < np.mean(ps) < 0.65  # a discrete p-value has a mean a little above one half


def test_permutation_p_counts_ties_and_is_never_zero():
    assert permutation_p(5.0, [1, 2, 3]) == pytest.approx(1 / 4)
    assert permutation_p(2.0, [1, 2, 3]) == pytest.approx(3 / 4)
    assert permutation_p(2.0, [1, 2, 3], tail="less") == pytest.approx(3 / 4)
    assert permutation_p(0.1 + 0.2, [0.3]) == 1.0  # equal up to rounding is a tie
