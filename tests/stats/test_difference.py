import numpy as np
import pytest
from scipy import stats as scipy_stats

from moetui.stats import Statistic, difference, document_bootstrap, sign_flip, wilson


def statistic(value, low=None, high=None, **more):
    return Statistic(value=value, ci_low=low, ci_high=high, **more)


def test_the_interval_of_a_difference_of_proportions_is_newcombes():
    # Newcombe (Statistics in Medicine 17, 1998), table II, method 10, example (a): 56/70 − 48/80
    # has the interval 0.0524 to 0.3339.
    one, two = (statistic(y / n, *wilson(y, n)) for y, n in ((56, 70), (48, 80)))
    found = difference(one, two)
    assert found.value == pytest.approx(0.2)
    assert (found.ci_low, found.ci_high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_even_intervals_add_as_variances_do_and_uneven_ones_stay_uneven():
    even = difference(statistic(5.0, 2.0, 8.0), statistic(1.0, -3.0, 5.0))
    assert (even.value, even.ci_low, even.ci_high) == (4.0, -1.0, 9.0)
    uneven = difference(statistic(5.0, 5.0, 8.0), statistic(1.0, -3.0, 1.0))
    assert (uneven.ci_low, uneven.ci_high) == (4.0, 9.0)


def test_a_difference_reversed_is_the_mirror_image():
    a, b = statistic(0.4, 0.3, 0.6, n_tokens=90), statistic(0.1, 0.05, 0.3, n_tokens=40)
    there, back = difference(a, b), difference(b, a)
    assert back.value == -there.value
    assert (back.ci_low, back.ci_high) == pytest.approx((-there.ci_high, -there.ci_low))
    assert there.n_tokens == back.n_tokens == 40


def test_without_both_intervals_there_is_a_value_and_a_reason():
    found = difference(statistic(0.4, 0.3, 0.6), statistic(0.1, caveat="9 documents"))
    assert found.value == pytest.approx(0.3)
    assert found.ci_low is None and found.ci_high is None
    assert "no interval" in found.caveat and "9 documents" in found.caveat
    missing = difference(statistic(0.4, 0.3, 0.6), statistic(None, caveat="no tokens"))
    assert missing.value is None and "no tokens" in missing.caveat


def test_differences_of_bootstrapped_means_are_covered():
    rng = np.random.default_rng(77)
    runs, covered = 400, 0
    for run in range(runs):
        pair = []
        for mean in (1.0, 0.7):
            x = rng.gamma(2.0, mean / 2.0, 120)

            def estimate(w, x=x):
                return w @ x / w.sum(axis=-1)

            pair.append(document_bootstrap(estimate, 120, seed=run))
        found = difference(*pair)
        covered += found.ci_low <= 0.3 <= found.ci_high
    assert 0.92 <= covered / runs <= 0.98


@pytest.mark.parametrize("n", [2, 3, 6, 9])
def test_all_signs_of_few_pairs_give_scipys_exact_p(n):
    d = np.random.default_rng(n).normal(0.4, 1.0, n)
    theirs = scipy_stats.permutation_test(
        (d,), lambda x, axis: np.abs(x.mean(axis=axis)), permutation_type="samples",
        n_resamples=np.inf, alternative="greater", vectorized=True,
    )  # fmt: skip
    assert sign_flip(d, seed=0) == pytest.approx(theirs.pvalue)


def test_pairs_that_all_agree_have_the_least_p_there_is():
    assert sign_flip(np.full(9, 0.2), seed=0) == 2 / 2**9
    assert sign_flip(np.zeros(9), seed=0) == sign_flip([3.0], seed=0) == 1.0
    assert sign_flip(np.full(14, -1.0), seed=0) == 2 / 2**14
    assert sign_flip(np.full(40, 1.0), seed=0) == 1 / 10_000


def test_drawn_signs_come_near_the_normal_limit_and_depend_on_the_seed_alone():
    d = np.random.default_rng(5).normal(0.15, 1.0, 200)
    p = sign_flip(d, seed=3)
    z = abs(d.sum()) / np.sqrt((d**2).sum())
    assert p == pytest.approx(2 * scipy_stats.norm.sf(z), rel=0.15)
    assert sign_flip(d, seed=3) == p


def test_pairs_without_a_difference_are_called_different_in_5_percent_of_cases_at_most():
    rng = np.random.default_rng(11)
    p = np.array([sign_flip(rng.standard_t(3, 9), seed=0) for _ in range(2000)])
    assert 0.03 < np.mean(p <= 0.05) < 0.065


@pytest.mark.parametrize("bad", [[], [np.nan], [[1.0]]])
def test_what_is_no_list_of_differences_is_refused(bad):
    with pytest.raises(ValueError, match="finite difference"):
        sign_flip(bad, seed=0)
