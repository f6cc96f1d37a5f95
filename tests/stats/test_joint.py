"""Counts of pairs of labels and their stratified chance, against enumeration and scipy."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from moetui.stats import Strata, association, joint_counts, mutual_information, plug_in_information
from moetui.stats.joint import shuffled_joint


def test_a_pair_is_counted_in_every_row_that_has_both():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2, (30, 4)), rng.integers(0, 2, (30, 5))
    found = joint_counts(a, b)
    assert found[1, 3] == sum(x[1] and y[3] for x, y in zip(a, b, strict=True))
    assert found.shape == (4, 5)


def test_mean_and_variance_are_those_of_all_shuffles_within_the_strata():
    a = np.array([[1], [1], [0], [1], [0], [0], [1]])
    b = np.array([[1], [0], [0], [1], [1], [0], [1]])
    groups = np.array([7, 7, 7, 2, 2, 2, 5])
    counts = []
    for one in permutations(range(3)):
        for other in permutations(range(3, 6)):
            counts.append(int((a * b[[*one, *other, 6]]).sum()))
    strata = Strata.of(groups)
    found = shuffled_joint(strata.sums(a), strata.sums(b), strata.sizes)
    assert found.mean[0, 0] == pytest.approx(np.mean(counts))
    assert found.variance[0, 0] == pytest.approx(np.var(counts))


def test_strata_give_every_row_its_own_groups_sum():
    strata = Strata.of([3, 1, 3, 3])
    rows = np.array([[1.0], [10.0], [2.0], [4.0]])
    assert strata.spread(strata.sums(rows)).tolist() == [[7.0], [10.0], [7.0], [7.0]]


def test_association_is_lift_its_logarithm_and_the_log_likelihood_ratio():
    found = association(30, 50, 60, 200)
    assert found.lift == pytest.approx(30 * 200 / (50 * 60))
    assert found.pmi == pytest.approx(np.log(2.0))
    table = [[30, 20], [30, 120]]
    g2 = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
    assert found.g2 == pytest.approx(g2)
    assert np.isnan(association(0, 0, 60, 200).lift)


def test_information_of_many_tables_is_that_of_each():
    tables = np.random.default_rng(2).integers(0, 9, (3, 4, 5))
    for table, value in zip(tables, plug_in_information(tables), strict=True):
        assert value == pytest.approx(mutual_information(table).plug_in)
        p = table / table.sum()
        outer = p.sum(1)[:, None] * p.sum(0)
        assert value == pytest.approx(np.nansum(p * np.log(np.where(p > 0, p / outer, 1))))
