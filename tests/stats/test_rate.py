import numpy as np
import pytest
from scipy import stats as scipy_stats

from moetui.stats import binary_design_effect, design_effect, rate, wilson
from moetui.stats.rate import most_plausible


def test_rate_is_the_ratio_of_sums_not_the_mean_of_rates():
    hits, tokens = np.array([1, 90] * 10), np.array([10, 100] * 10)
    assert rate(hits, tokens, seed=0).value == pytest.approx(910 / 1100)


def test_independent_tokens_have_a_design_effect_near_one():
    rng = np.random.default_rng(1)
    tokens = np.full(400, 50)
    effect = binary_design_effect(rng.binomial(tokens, 0.3), tokens)
    assert 1.0 <= effect < 1.2


def test_design_effect_of_equal_clusters_is_one_plus_m_minus_one_times_icc():
    # Kish: 1 + (m − 1)·ρ, with ρ = 1/(α + β + 1) for beta-binomial clusters.
    rng = np.random.default_rng(2)
    m, alpha, beta = 40, 3.0, 6.0
    tokens = np.full(5000, m)
    hits = rng.binomial(tokens, rng.beta(alpha, beta, 5000))
    assert binary_design_effect(hits, tokens) == pytest.approx(1 + (m - 1) / 10, rel=0.05)


def test_a_stratified_design_effect_is_the_variance_within_strata():
    rng = np.random.default_rng(4)
    tokens, strata = rng.integers(20, 60, 90), np.repeat([0, 1, 2], 30)
    rates = np.array([0.6, 0.05, 0.2])[strata]
    hits = rng.binomial(tokens, rng.beta(2 * rates, 2 * (1 - rates)))
    # By hand, of each stratum as if it were alone (Cochran 1977, 5.9 and 6.3).
    variance, n, r = 0.0, tokens.sum(), hits.sum() / tokens.sum()
    for stratum in range(3):
        y, m = hits[strata == stratum], tokens[strata == stratum]
        residuals = y - y.sum() / m.sum() * m
        variance += 30 * residuals.var(ddof=1)
    expected = variance / (r * (1 - r) * n * n / (n - 1))
    assert binary_design_effect(hits, tokens, strata) == pytest.approx(expected)
    assert 2 < expected < binary_design_effect(hits, tokens) - 2
    spread = rng.binomial(tokens, rng.beta(2, 5, 90))
    one = binary_design_effect(spread, tokens, np.zeros(90, int))
    assert one == binary_design_effect(spread, tokens) > 2


def test_tokens_that_agree_within_documents_are_worth_one_token_a_document():
    tokens = np.full(100, 25)
    hits = np.where(np.arange(100) % 4 == 0, 25, 0)
    found = rate(hits, tokens, seed=0)
    assert found.value == pytest.approx(0.25)
    assert found.n_effective == pytest.approx(100, rel=0.02)


def test_design_effect_equals_the_ratio_of_the_two_variances():
    rng = np.random.default_rng(3)
    documents = [rng.normal(rng.normal(0, 1), 1, 30) for _ in range(60)]
    tokens = np.concatenate(documents)
    residuals = [float((d - tokens.mean()).sum()) for d in documents]
    squares = float(((tokens - tokens.mean()) ** 2).sum())
    means = np.array([d.mean() for d in documents])
    expected = (means.var(ddof=1) / 60) / (tokens.var(ddof=1) / len(tokens))
    assert design_effect(residuals, len(tokens), squares) == pytest.approx(expected)


def test_more_certainty_than_independent_tokens_is_not_claimed():
    tokens, hits = np.full(50, 10), np.full(50, 3)  # no variance between documents
    assert binary_design_effect(hits, tokens) == 1.0
    assert binary_design_effect(np.zeros(50), tokens) is None


def test_zero_hits_leave_an_upper_bound_of_three_over_n_effective():
    found = rate(np.zeros(100), np.full(100, 90), seed=0, design_effect=3.0)
    assert found.value == 0.0 and found.ci_low == 0.0
    assert found.n_effective == pytest.approx(3000)
    assert found.ci_high == pytest.approx(0.001)
    # The exact limit (Clopper-Pearson, one-sided 95 %) that the rule of three approximates.
    assert found.ci_high == pytest.approx(scipy_stats.beta.ppf(0.95, 1, 3000), rel=0.01)


def test_zero_hits_without_a_design_effect_count_documents_only():
    found = rate(np.zeros(50), np.full(50, 90), seed=0)
    assert found.ci_high == pytest.approx(3 / 50)
    assert "design effect unknown" in found.caveat


def test_all_hits_mirror_zero_hits():
    found = rate(np.full(50, 90), np.full(50, 90), seed=0, design_effect=2.0)
    assert found.value == found.ci_high == 1.0
    assert found.ci_low == pytest.approx(1 - 3 / (50 * 90 / 2))


def test_nothing_counted_is_missing_not_zero():
    found = rate([0, 0], [0, 0], seed=0)
    assert found.value is None and found.caveat == "no tokens"


def test_too_few_documents_have_no_interval_even_without_hits():
    found = rate(np.zeros(5), np.full(5, 100), seed=0)
    assert found.ci_high is None and "20 needed" in found.caveat


@pytest.mark.parametrize("hits", [[-1, 2], [5, 3]])
def test_impossible_counts_are_refused(hits):
    with pytest.raises(ValueError, match="hits"):
        rate(hits, [4, 4], seed=0)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (155, 1000)])
def test_wilson_equals_scipys(hits, n):
    reference = scipy_stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits, n) == pytest.approx((reference.low, reference.high))


def test_wilson_refuses_no_items():
    with pytest.raises(ValueError, match="n >= 1"):
        wilson(0, 0)


def test_the_most_that_few_hits_leave_plausible_is_the_tables_poisson_limit():
    # One-sided 95 % limits of a Poisson mean for 0, 1 and 5 counted, as in any table of them.
    found = most_plausible([0.0, 0.01, 0.05], 100.0)
    assert found * 100 == pytest.approx([2.996, 4.744, 10.513], abs=1e-3)
