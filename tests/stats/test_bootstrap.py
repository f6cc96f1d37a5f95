import numpy as np
import pytest
from scipy import stats as scipy_stats

from moetui.stats import document_bootstrap, document_intervals, ratio_of_sums
from moetui.stats.bootstrap import multiplicities


def clustered(rng, documents, mean=0.2, spread=8.0):
    """Hits and tokens of documents whose own rates differ: beta-binomial, uneven lengths."""
    tokens = rng.integers(20, 120, documents)
    rates = rng.beta(mean * spread, (1 - mean) * spread, documents)
    return rng.binomial(tokens, rates), tokens


def test_interval_equals_scipys_own_bootstrap_of_the_same_ratio():
    hits, tokens = clustered(np.random.default_rng(3), 150)
    ours = document_bootstrap(ratio_of_sums(hits, tokens), 150, seed=5)

    def ratio(y, n, axis):
        return y.sum(axis=axis) / n.sum(axis=axis)

    theirs = scipy_stats.bootstrap(
        (hits, tokens),
        ratio,
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(9),
    ).confidence_interval
    assert ours.value == pytest.approx(hits.sum() / tokens.sum())
    width = theirs.high - theirs.low
    assert ours.ci_low == pytest.approx(theirs.low, abs=0.1 * width)
    assert ours.ci_high == pytest.approx(theirs.high, abs=0.1 * width)
    assert ours.n_documents == 150 and ours.seed == 5 and ours.caveat is None


def test_several_estimates_of_one_resample_equal_single_ones():
    hits, tokens = clustered(np.random.default_rng(4), 120)
    sums = np.stack([hits, tokens - hits, tokens], axis=1).astype(float)

    def both(weights):
        drawn = weights @ sums
        return np.stack([drawn[..., 0] / drawn[..., 2], drawn[..., 1] / drawn[..., 2]])

    pair = document_intervals(both, 120, seed=1)
    alone = document_intervals(ratio_of_sums(hits, tokens), 120, seed=1)
    assert pair.low[0] == pytest.approx(float(alone.low))
    assert pair.high[0] == pytest.approx(float(alone.high))
    assert pair.value.sum() == pytest.approx(1.0)


def test_multiplicities_count_draws():
    draws = np.array([[0, 0, 2], [1, 2, 2]])
    assert multiplicities(draws, 3).tolist() == [[2, 0, 1], [0, 1, 2]]
    assert multiplicities(draws[:, None], 3).shape == (2, 1, 3)


@pytest.mark.parametrize(
    ("documents", "interval", "words"),
    [(9, False, "20 needed"), (19, False, "20 needed"), (20, True, "approximate"), (100, True, "")],
)
def test_few_documents_give_no_interval_and_some_an_approximate_one(documents, interval, words):
    hits, tokens = clustered(np.random.default_rng(0), documents)
    found = document_bootstrap(ratio_of_sums(hits, tokens), documents, seed=0)
    assert (found.ci_low is not None) == interval == (found.ci_high is not None)
    assert words in (found.caveat or "")
    if not words:
        assert found.caveat is None


def test_documents_that_all_agree_give_no_interval_instead_of_nan():
    found = document_bootstrap(ratio_of_sums(np.full(40, 3), np.full(40, 30)), 40, seed=0)
    assert found.value == pytest.approx(0.1)
    assert found.ci_low is None and found.ci_high is None
    assert "same value" in found.caveat


def test_an_estimator_that_is_undefined_on_some_resamples_gives_no_interval():
    tokens = np.zeros(30)
    tokens[0] = 10.0  # a resample without document 0 is 0/0
    found = document_bootstrap(ratio_of_sums(tokens / 2, tokens), 30, seed=0)
    assert found.value == pytest.approx(0.5)
    assert found.ci_low is None and "undefined" in found.caveat


def test_where_bca_is_undefined_the_percentile_interval_says_so():
    def distinct(weights):  # every resample misses documents, so none reaches the estimate
        return (weights > 0).sum(axis=-1).astype(float)

    found = document_bootstrap(distinct, 40, seed=0)
    assert found.value == 40.0
    assert found.ci_low < found.ci_high < 40.0
    assert "percentile" in found.caveat and "approximate" in found.caveat


def test_fewer_than_a_thousand_resamples_are_refused():
    with pytest.raises(ValueError, match="1,000"):
        document_bootstrap(ratio_of_sums([1], [2]), 1, seed=0, resamples=999)


@pytest.mark.slow
def test_intervals_cover_the_truth_in_95_percent_of_clustered_samples():
    rng = np.random.default_rng(2024)
    runs, truth, covered, token_covered = 800, 0.2, 0, 0
    for run in range(runs):
        hits, tokens = clustered(rng, 120, mean=truth)
        found = document_bootstrap(ratio_of_sums(hits, tokens), 120, seed=run)
        covered += found.ci_low <= truth <= found.ci_high
        # What a bootstrap over tokens would have claimed: far too narrow.
        r, n = hits.sum() / tokens.sum(), tokens.sum()
        token_covered += abs(r - truth) <= 1.96 * np.sqrt(r * (1 - r) / n)
    assert 0.93 <= covered / runs <= 0.97
    assert token_covered / runs < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("documents", [100, 200])
@pytest.mark.parametrize(("truth", "spread"), [(0.2, 8.0), (0.05, 20.0), (0.01, 50.0)])
def test_coverage_of_rates_and_of_means_of_clustered_documents_is_95_percent(
    documents, truth, spread
):
    # 8,000 samples: the standard error of a coverage of 0.95 is 0.0024.
    rng = np.random.default_rng(31)
    covered = {"ratio": [], "mean": []}
    for run in range(80):
        tokens = rng.integers(20, 120, documents).astype(float)
        rates = rng.beta(truth * spread, (1 - truth) * spread, (documents, 100))
        hits = rng.binomial(tokens[:, None].astype(int), rates).astype(float)
        shares = hits / tokens[:, None]

        def ratio(w, hits=hits, tokens=tokens):
            return ((w @ hits) / (w @ tokens)[:, None]).T

        def mean(w, shares=shares):
            return (w @ shares / w.sum(axis=-1, keepdims=True)).T

        for estimator in (ratio, mean):
            found = document_intervals(estimator, documents, seed=run)
            assert not np.isnan(found.low).any()
            covered[estimator.__name__].append((found.low <= truth) & (truth <= found.high))
    for hits_of_truth in covered.values():
        assert 0.93 <= np.mean(hits_of_truth) <= 0.97
