"""Means over units that share documents: what documents do to all units at once is allowed for."""

import numpy as np
import pytest
from scipy import stats

from moetui.stats import document_groups, shared_mean
from moetui.stats.jackknife import GROUPS


def world(rng, *, shared, D=60, n=24, c=15, between=0.0):
    """Units that are means over c of D documents: of what is the unit's own, what is the
    document's (`shared`, in all units), and noise. Values [n], and without each group [n, G]."""
    effects, own = shared * rng.normal(size=D), between * rng.normal(size=n)
    groups = document_groups([str(d) for d in range(D)], seed=int(rng.integers(1 << 30)))
    of = np.array([groups.of[str(d)] for d in range(D)])
    values, without = np.empty(n), np.empty((n, groups.size))
    for unit in range(n):
        documents = rng.choice(D, c, replace=False)
        numbers = own[unit] + effects[documents] + rng.normal(size=c)
        values[unit] = numbers.mean()
        for group in range(groups.size):
            without[unit, group] = numbers[of[documents] != group].mean()
    return values, without


def missed(*, runs=300, **how):
    """In how many of the runs 0 lies outside the 95 % interval, by spread alone and as it is."""
    alone, allowed = 0, 0
    for seed in range(runs):
        values, without = world(np.random.default_rng(seed), **how)
        alone += stats.ttest_1samp(values, 0).pvalue < 0.05
        mean, error, degrees = shared_mean(values, without)
        allowed += abs(mean) > stats.t.ppf(0.975, degrees) * error
    return alone / runs, allowed / runs


@pytest.mark.parametrize("between", [0.0, 0.5])
def test_zero_is_as_rarely_outside_the_interval_where_units_share_documents(between):
    alone, allowed = missed(shared=1.0, between=between)
    assert alone > 0.12 and allowed <= 0.075


def test_where_documents_do_nothing_the_spread_between_units_is_enough():
    alone, allowed = missed(shared=0.0)
    assert 0.03 <= alone <= 0.08 and 0.02 <= allowed <= 0.07


def test_the_error_is_that_of_units_plus_what_they_share():
    values, without = world(np.random.default_rng(3), shared=2.0)
    mean, error, degrees = shared_mean(values, without)
    G = without.shape[1]
    between = stats.sem(values) ** 2
    of_mean = (G - 1) / G * sum((x - without.mean()) ** 2 for x in without.mean(axis=0))
    of_units = sum((G - 1) / G * sum((x - row.mean()) ** 2 for x in row) for row in without)
    assert mean == pytest.approx(values.mean()) and degrees == min(24, G) - 1
    assert error**2 == pytest.approx(between + of_mean - of_units / 24**2)


def test_documents_are_dealt_into_equal_groups_each_into_one():
    found = document_groups([f"d{n % 47}" for n in range(200)], seed=1)
    sizes = np.bincount(list(found.of.values()), minlength=found.size)
    assert len(found.of) == 47 and found.size == GROUPS and set(sizes) == {2, 3}
    assert document_groups(["a", "b", "a"], seed=0).size == 2
    assert document_groups([f"d{n}" for n in range(47)], seed=2).of != found.of


def test_numbers_that_are_not_known_are_refused():
    with pytest.raises(ValueError, match="finite"):
        shared_mean(np.array([0.1, np.nan]), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="two units"):
        shared_mean(np.array([0.1]), np.zeros((1, 4)))
