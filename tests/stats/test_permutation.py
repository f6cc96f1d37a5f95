import numpy as np
import pytest
from scipy import stats as scipy_stats

from moetui.stats import benjamini_hochberg, family_test, mutual_information, permutation_test


def two_groups(seed, shift=0.0, n=40):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.gamma(2, 1, n) + shift, rng.gamma(2, 1, n)]), np.repeat([1, 0], n)


def gap(values, group):
    return values[group == 1].mean() - values[group == 0].mean()


def test_p_and_null_agree_with_scipys_permutation_test():
    values, group = two_groups(3, shift=0.45)
    ours = permutation_test(
        gap(values, group), lambda rng: gap(values, rng.permutation(group)),
        permutations=4999, seed=1,
    )  # fmt: skip
    theirs = scipy_stats.permutation_test(
        (values[group == 1], values[group == 0]),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        n_resamples=20_000, alternative="greater", rng=np.random.default_rng(2),
    )  # fmt: skip
    assert ours.p == pytest.approx(theirs.pvalue, abs=4 * np.sqrt(theirs.pvalue / 4999))
    low, high = np.quantile(theirs.null_distribution, [0.025, 0.975])
    assert (ours.null_low, ours.null_high) == pytest.approx((low, high), abs=0.05)
    assert ours.null_mean == pytest.approx(0, abs=0.03)
    assert ours.seed == 1


def test_p_counts_the_observed_arrangement_and_has_two_tails():
    null = np.arange(999.0)
    assert permutation_test(2000.0, null).p == 1 / 1000
    assert permutation_test(989.0, null).p == 11 / 1000
    assert permutation_test(9.0, null, tail="less").p == 11 / 1000
    assert permutation_test(9.0, null, tail="two-sided").p == 22 / 1000
    assert permutation_test(499.0, null, tail="two-sided").p == 1.0


def test_p_is_uniform_where_nothing_is_to_be_found():
    found = []
    for seed in range(400):
        values, group = two_groups(seed, n=15)
        rng = np.random.default_rng(seed)
        orders = rng.permuted(np.broadcast_to(group, (999, 30)), axis=1)
        null = (orders @ values - (1 - orders) @ values) / 15
        found.append(permutation_test(gap(values, group), null).p)
    assert scipy_stats.kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) <= 0.05) < 0.085  # 0.05 + 3 standard errors


def test_permuting_the_domains_of_documents_finds_what_counts_alone_would_invent():
    # Documents of one law with own tastes: the table of tokens shows information, permutation of
    # whole documents does not; with a planted preference of a domain it does.
    def p_of(planted, seed):
        rng = np.random.default_rng(seed)
        domain = np.repeat([0, 1], 30)
        taste = rng.dirichlet(np.full(8, 2.0), 60)
        taste[domain == 1, 0] += planted
        counts = np.array([rng.multinomial(100, t / t.sum()) for t in taste])

        def information(labels):
            return mutual_information([counts[labels == d].sum(axis=0) for d in (0, 1)]).plug_in

        observed = information(domain)
        found = permutation_test(observed, lambda rng: information(rng.permutation(domain)), seed=0)
        table = np.array([counts[domain == d].sum(axis=0) for d in (0, 1)])
        return found, scipy_stats.chi2_contingency(table).pvalue

    nothing = [p_of(0.0, seed) for seed in range(20)]
    assert sum(found.p <= 0.05 for found, _ in nothing) <= 4
    assert sum(p < 0.001 for _, p in nothing) >= 15
    found, _ = p_of(0.2, 0)
    assert found.p == 1 / 1000 and found.value > found.null_high


def test_tests_without_enough_permutations_seed_or_numbers_are_refused():
    with pytest.raises(ValueError, match="999"):
        permutation_test(1.0, np.zeros(998))
    with pytest.raises(ValueError, match="seed"):
        permutation_test(1.0, lambda rng: rng.random())
    with pytest.raises(ValueError, match="finite"):
        permutation_test(np.nan, np.zeros(999))
    with pytest.raises(ValueError, match="999"):
        family_test([1.0], lambda rng: rng.random(1), permutations=99, seed=0)
    with pytest.raises(ValueError, match="finite"):
        family_test([1.0], lambda rng: np.full(1, np.nan), seed=0)


def noise_family(seed, effect=0.0, F=200, n=30):
    """F correlated measurements of two groups, one of them with an effect, as z-scores."""
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(n, F)) + rng.normal(size=(n, 1))
    group = np.repeat([1.0, -1.0], n // 2)
    data[:, 7] += effect * group
    z = (data - data.mean(axis=0)) / data.std(axis=0)
    observed = np.abs(group @ z) / np.sqrt(n)
    return family_test(
        observed, lambda rng: np.abs(rng.permutation(group) @ z) / np.sqrt(n), seed=seed
    )


def test_the_maximum_statistic_holds_the_error_of_the_whole_family():
    false = [(noise_family(seed).q <= 0.05).any() for seed in range(120)]
    alone = [(noise_family(seed).p <= 0.05).any() for seed in range(10)]
    assert np.mean(false) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)
    assert np.mean(alone) > 0.8


def test_a_planted_member_of_a_family_is_found_and_no_other():
    found = noise_family(1, effect=2.0)
    assert np.flatnonzero(found.q <= 0.01).tolist() == [7]
    one = found.statistic(7)
    assert one.q == 1 / 1000 and one.p == 1 / 1000
    assert "200 tests" in one.caveat
    assert (found.q >= found.p).all()


def test_the_critical_value_is_what_q_needs():
    found = noise_family(2)
    for level in (0.01, 0.05, 0.2):
        cut = found.critical(level)
        q_just_above = (1 + (found.maxima >= cut + 1e-9).sum()) / 1000
        q_just_below = (1 + (found.maxima >= cut - 1e-9).sum()) / 1000
        assert q_just_above <= level < q_just_below
    assert found.critical(0.0001) == np.inf


def test_benjamini_hochberg_by_hand():
    # m·p/rank: .03, .03, .04, then the smallest from above.
    assert benjamini_hochberg([0.01, 0.02, 0.04]) == pytest.approx([0.03, 0.03, 0.04])
    assert benjamini_hochberg([0.04, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert benjamini_hochberg([]).size == 0


def test_false_discoveries_stay_under_the_level_among_true_ones():
    rng = np.random.default_rng(8)
    shares = []
    for _ in range(300):
        z = rng.normal(size=100)
        z[:20] += 3
        called = benjamini_hochberg(scipy_stats.norm.sf(z)) <= 0.1
        shares.append(called[20:].sum() / max(called.sum(), 1))
    assert np.mean(shares) <= 0.1
    assert np.mean(shares) > 0.04  # 0.08 expected: the procedure is not empty


def test_permutations_that_cannot_reach_the_level_are_refused():
    p = np.full(64, 1 / 1000)
    with pytest.raises(ValueError, match="1280 needed"):
        benjamini_hochberg(p, permutations=999)
    assert (benjamini_hochberg(p, permutations=1280) <= 0.05).all()
