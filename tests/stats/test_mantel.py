import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import kstest, rankdata, spearmanr

from moetui.stats import mantel, partial_mantel


def points(rng, n=20, d=3):
    return rng.normal(size=(n, d))


def distances(x):
    return squareform(pdist(x))


def test_the_value_is_spearmans_over_the_pairs():
    rng = np.random.default_rng(0)
    x = points(rng)
    a, b = distances(x), distances(x + 0.5 * rng.normal(size=x.shape))
    found = mantel(a, b, permutations=999, seed=0)
    above = np.triu_indices(20, 1)
    assert found.value == pytest.approx(spearmanr(a[above], b[above]).statistic)
    assert (found.p, found.n_documents, found.seed) == (1 / 1000, 20, 0)
    assert found.ci_low is None and "20 contexts: below the minimum" in found.caveat


def test_the_null_is_that_of_permuted_objects_and_not_of_permuted_pairs():
    rng = np.random.default_rng(1)
    a, b = distances(points(rng, 9)), distances(points(rng, 9))
    found = mantel(a, b, permutations=4999, seed=0)
    above = np.triu_indices(9, 1)
    null = []
    for _ in range(4000):
        order = rng.permutation(9)
        null.append(spearmanr(a[np.ix_(order, order)][above], b[above]).statistic)
    assert (found.null_low, found.null_high) == pytest.approx(
        tuple(np.quantile(null, [0.025, 0.975])), abs=0.04
    )
    assert found.p == pytest.approx(np.mean(np.array(null) >= found.value), abs=0.03)


def test_the_partial_value_is_the_correlation_of_rank_residuals():
    rng = np.random.default_rng(2)
    tables = [distances(points(rng, 12)) for _ in range(4)]
    found = partial_mantel(tables[0], tables[1], tables[2:], permutations=999, seed=0)
    above = np.triu_indices(12, 1)
    ranks = [rankdata(t[above]) for t in tables]
    design = np.stack([np.ones(66), *ranks[2:]], axis=1)
    one, two = (r - design @ np.linalg.lstsq(design, r)[0] for r in ranks[:2])
    assert found.value == pytest.approx(np.corrcoef(one, two)[0, 1])


def test_a_control_takes_away_what_it_explains_and_leaves_the_rest():
    rng = np.random.default_rng(3)
    shared, own = points(rng, 30), points(rng, 30)
    c = distances(shared)
    a, b = (distances(shared + 0.3 * points(rng, 30)) for _ in range(2))
    assert mantel(a, b, seed=0).p == 1 / 10_000
    explained = partial_mantel(a, b, [c], permutations=999, seed=0)
    assert explained.p > 0.02 and abs(explained.value) < 0.25
    both = [distances(np.concatenate([shared, own + 0.3 * points(rng, 30)], axis=1)) for _ in "ab"]
    assert partial_mantel(*both, [c], permutations=999, seed=0).p == 1 / 1000


def test_p_is_uniform_for_unrelated_tables_with_and_without_controls():
    rng = np.random.default_rng(4)
    plain, partial = [], []
    for seed in range(150):
        a, b, c = (distances(points(rng, 14)) for _ in range(3))
        plain.append(mantel(a, b, permutations=999, seed=seed).p)
        partial.append(partial_mantel(a, b, [c], permutations=999, seed=seed).p)
    assert kstest(plain, "uniform").pvalue > 0.01
    assert kstest(partial, "uniform").pvalue > 0.01


def test_tables_driven_by_one_control_alone_do_not_seem_related():
    rng = np.random.default_rng(5)
    called = []
    for seed in range(150):
        shared = points(rng, 20)
        a, b = (distances(shared + points(rng, 20)) for _ in range(2))
        control = distances(shared)
        called.append(partial_mantel(a, b, [control], permutations=999, seed=seed).p <= 0.05)
    # 0.05 is nominal; the control is a rank regression, which takes out nearly all.
    assert np.mean(called) < 0.14


def test_tables_without_differences_have_no_value():
    rng = np.random.default_rng(6)
    a, flat = distances(points(rng, 8)), np.ones((8, 8)) - np.eye(8)
    assert mantel(a, flat, permutations=999, seed=0).value is None
    assert "equal" in mantel(flat, a, permutations=999, seed=0).caveat
    found = partial_mantel(a, distances(points(rng, 8)), [a], permutations=999, seed=0)
    assert found.value is None and "wholly" in found.caveat


@pytest.mark.parametrize(
    "bad", [np.zeros((3, 3)), np.zeros((5, 4)), np.triu(np.ones((5, 5))), np.full((5, 5), np.nan)]
)
def test_what_is_no_table_of_distances_is_refused(bad):
    good = np.zeros((5, 5))
    with pytest.raises(ValueError, match="table"):
        mantel(bad, good, permutations=999, seed=0)
    with pytest.raises(ValueError, match="objects"):
        mantel(good, np.zeros((6, 6)), permutations=999, seed=0)
