import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats as scipy_stats

from moetui.stats import (
    domain_information,
    domain_test,
    expected_jensen_shannon,
    jensen_shannon,
    mutual_information,
)

TABLES = arrays(int, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 50))
SHARES = arrays(float, 5, elements=st.floats(0, 1, allow_subnormal=False))


def test_labels_that_are_one_and_the_same_tell_all():
    found = mutual_information(np.diag([25, 25, 25, 25]))
    assert found.plug_in == pytest.approx(np.log(4))
    assert found.bias == pytest.approx((4 - 4 - 4 + 1) / 200)
    assert found.corrected == pytest.approx(np.log(4) + 3 / 200)
    assert found.n == 100


def test_labels_whose_table_is_a_product_tell_nothing():
    found = mutual_information(np.outer([1, 2, 3], [4, 5]))
    assert found.plug_in == pytest.approx(0, abs=1e-12)
    assert found.bias == pytest.approx(2 / (2 * 54))  # (6 − 3 − 2 + 1)/(2n)


@given(TABLES)
def test_information_equals_half_of_g_over_n_and_is_never_negative(table):
    if not table.sum():
        with pytest.raises(ValueError, match="table"):
            mutual_information(table)
        return
    found = mutual_information(table)
    assert found.plug_in >= 0
    used = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    g = scipy_stats.chi2_contingency(used, correction=False, lambda_="log-likelihood").statistic
    assert found.plug_in == pytest.approx(g / (2 * table.sum()), abs=1e-10)
    assert mutual_information(table.T).plug_in == pytest.approx(found.plug_in, abs=1e-12)


@pytest.mark.parametrize("n", [1000, 4000])
def test_miller_and_madows_bias_is_what_independent_labels_show(n):
    rng = np.random.default_rng(n)
    p = np.outer(rng.dirichlet(np.full(6, 5.0)), rng.dirichlet(np.full(8, 5.0)))
    found = [mutual_information(rng.multinomial(n, p.ravel()).reshape(6, 8)) for _ in range(600)]
    plug_in, corrected = (
        np.array([getattr(f, x) for f in found]) for x in ("plug_in", "corrected")
    )
    assert plug_in.mean() == pytest.approx(35 / (2 * n), rel=0.1)
    assert abs(corrected.mean()) < 0.1 * plug_in.mean()


def test_planted_information_is_found_after_correction():
    rng = np.random.default_rng(3)
    p = np.full((4, 4), 0.02)
    np.fill_diagonal(p, 0.19)
    truth = (p * np.log(p / 0.0625)).sum()  # both margins are uniform
    found = [
        mutual_information(rng.multinomial(250, p.ravel()).reshape(4, 4)).corrected
        for _ in range(400)
    ]
    assert np.mean(found) == pytest.approx(truth, rel=0.02)


@given(SHARES, SHARES)
def test_divergence_is_the_mean_distance_to_the_middle_symmetric_and_between_0_and_1(p, q):
    if min(p.sum(), q.sum()) < 1e-3:
        return
    found = jensen_shannon(p, q)
    assert 0 <= found <= 1
    assert found == pytest.approx(jensen_shannon(q, p), abs=1e-12)
    p, q = p / p.sum(), q / q.sum()
    apart = [scipy_stats.entropy(x, (p + q) / 2, base=2) for x in (p, q)]
    assert found == pytest.approx(np.mean(apart), abs=1e-9)
    assert jensen_shannon(p, p) == 0


def test_divergence_at_its_ends():
    assert jensen_shannon([1, 2, 0, 0], [0, 0, 3, 3]) == 1
    assert jensen_shannon([5, 5], [100, 100]) == 0
    # By hand: p = (1, 0), q = (½, ½), m = (¾, ¼).
    by_hand = 0.5 * np.log2(4 / 3) + 0.5 * (0.5 * np.log2(2 / 3) + 0.5 * np.log2(2))
    assert jensen_shannon([1, 0], [1, 1]) == pytest.approx(by_hand)


@pytest.mark.parametrize("bad", [([0, 0], [1, 1]), ([1, 2], [1, 2, 3]), ([-1, 3], [1, 1])])
def test_what_is_no_distribution_is_refused(bad):
    with pytest.raises(ValueError, match="distributions"):
        jensen_shannon(*bad)


def test_two_samples_of_one_distribution_diverge_as_much_as_the_hint_says():
    rng = np.random.default_rng(5)
    p = rng.dirichlet(np.full(32, 3.0))
    found = [jensen_shannon(rng.multinomial(2000, p), rng.multinomial(6000, p)) for _ in range(300)]
    assert np.mean(found) == pytest.approx(expected_jensen_shannon(2000, 6000, 32), rel=0.1)
    assert expected_jensen_shannon(500, 500, 64, k=8) == pytest.approx(
        63 / (4 * 500 * 8 * np.log(2))
    )


def test_domains_are_compared_with_each_other_and_with_the_rest():
    counts = np.array([[50, 50, 0, 0], [25, 25, 25, 25], [0, 0, 10, 10]])
    found = domain_information(counts)
    divergence = np.array(found.divergence)
    assert divergence[0, 2] == 1 and (np.diag(divergence) == 0).all()
    assert divergence == pytest.approx(divergence.T)
    assert found.to_pool[0] == pytest.approx(jensen_shannon([50, 50, 0, 0], [25, 25, 35, 35]))
    assert found.information == mutual_information(counts)
    assert np.array(found.specialization)[:, 0] == pytest.approx([2 / 3, 1 / 3, 0])
    assert found.by_chance[0][2] == pytest.approx(expected_jensen_shannon(100, 20, 4))


@pytest.mark.parametrize("bad", [[[1, 2]], [[1, 2], [0, 0]], [1, 2], [[1, -1], [1, 1]]])
def test_fewer_than_two_domains_or_empty_ones_are_refused(bad):
    with pytest.raises(ValueError, match="counts"):
        domain_information(bad)


def documents_of(seed, planted=0.0, per_domain=25, E=8):
    """Documents with tastes of their own; those of domain "b" like expert 0 more."""
    rng = np.random.default_rng(seed)
    domains = ["a"] * per_domain + ["b"] * per_domain + ["c"] * per_domain
    taste = rng.dirichlet(np.full(E, 2.0), len(domains))
    taste[np.array(domains) == "b", 0] += planted
    taste /= taste.sum(axis=1, keepdims=True)
    return np.array([rng.multinomial(100, t) for t in taste]), domains


@pytest.mark.slow
def test_domains_without_a_difference_are_called_different_at_the_level_only():
    found = [domain_test(*documents_of(seed), seed=seed) for seed in range(60)]
    assert np.mean([f.information.p <= 0.05 for f in found]) <= 0.05 + 3 * np.sqrt(0.0475 / 60)
    wise = [min(d.q for d in f.divergence) <= 0.05 for f in found]
    assert np.mean(wise) <= 0.05 + 3 * np.sqrt(0.0475 / 60)
    # Miller-Madow takes tokens for independent and leaves most of the documents' taste standing.
    counts, domains = documents_of(0)
    table = [counts[np.array(domains) == d].sum(axis=0) for d in "abc"]
    assert mutual_information(table).corrected > 0.005
    assert abs(np.mean([f.information.value for f in found])) < 0.002


def test_a_domain_that_prefers_an_expert_is_found_and_named():
    counts, domains = documents_of(1, planted=0.25)
    found = domain_test(counts, domains, seed=0)
    assert found.domains == ("a", "b", "c")
    assert found.information.p == 1 / 1000 and found.information.n_documents == 75
    table = [counts[np.array(domains) == d].sum(axis=0) for d in "abc"]
    assert 0 < found.information.value < mutual_information(table).plug_in
    b = found.divergence[1]
    assert b.q == 1 / 1000 and b.value == max(d.value for d in found.divergence)
    assert "permutation of documents" in b.caveat and "3 tests" in b.caveat


def test_documents_without_a_domain_are_refused():
    counts, domains = documents_of(0)
    with pytest.raises(ValueError, match="each document"):
        domain_test(counts, domains[:-1], seed=0)
    with pytest.raises(ValueError, match="two domains"):
        domain_test(counts, ["a"] * len(domains), seed=0)
