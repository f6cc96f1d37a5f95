import numpy as np
import pytest
from scipy import stats

from moetui.stats import mcnemar


def answers(both, only_first, only_second, neither):
    kinds = np.repeat([3, 2, 1, 0], [both, only_first, only_second, neither])
    return kinds >= 2, kinds % 2 == 1


@pytest.mark.parametrize("counts", [(5, 9, 2, 4), (0, 1, 6, 3), (10, 3, 3, 0), (4, 0, 5, 1)])
def test_p_is_the_exact_binomial_one(counts):
    found = mcnemar(*answers(*counts))
    assert (found.both, found.only_first, found.only_second, found.neither) == counts
    expected = stats.binomtest(counts[1], counts[1] + counts[2]).pvalue
    assert found.difference.p == pytest.approx(expected)
    assert found.difference.value == pytest.approx((counts[1] - counts[2]) / sum(counts))


def test_answers_that_never_differ_are_no_evidence():
    found = mcnemar([True, False, True], [True, False, True])
    assert (found.difference.value, found.difference.p) == (0.0, 1.0)
    assert found.difference.ci_low < 0 < found.difference.ci_high
    assert "below a tenth of the minimum size of 155 paired items" in found.difference.caveat


def test_swapping_the_two_mirrors_the_difference():
    there, back = (mcnemar(*pair).difference for pair in (answers(7, 9, 2, 4), answers(7, 2, 9, 4)))
    assert (back.ci_low, back.ci_high) == pytest.approx((-there.ci_high, -there.ci_low))
    assert back.p == pytest.approx(there.p)


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.1, 0.2), (0.05, 0.3, 0.05, 0.6)])
def test_intervals_cover_the_true_difference(shares):
    rng = np.random.default_rng(4)
    truth, runs, covered, called = shares[1] - shares[2], 800, 0, 0
    for _ in range(runs):
        found = mcnemar(*answers(*rng.multinomial(160, shares))).difference
        covered += found.ci_low <= truth <= found.ci_high
        called += found.p <= 0.05
    assert 0.93 <= covered / runs <= 0.975
    assert called / runs > 0.5


def test_equal_answerers_are_called_different_in_5_percent_of_cases_at_most():
    rng = np.random.default_rng(5)
    p = [
        mcnemar(*answers(*rng.multinomial(160, (0.4, 0.15, 0.15, 0.3)))).difference.p
        for _ in range(1000)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.06


@pytest.mark.parametrize("pair", [([], []), ([True], [True, False]), ([[True]], [[True]])])
def test_lists_of_other_items_are_refused(pair):
    with pytest.raises(ValueError, match="same items"):
        mcnemar(*pair)
