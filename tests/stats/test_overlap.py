from itertools import combinations

import numpy as np
import pytest

from moetui.stats import (
    expected_jaccard,
    expected_overlap,
    jaccard,
    overlap_chance,
    permutation_p,
    set_overlap,
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
