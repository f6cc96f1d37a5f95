from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from moetui.stats import fit_subsets, overlap_chance


def popular(E, k, seed, tokens=400):
    """Shares of experts chosen by a router with favourites."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=E) * 1.5 + rng.gumbel(size=(tokens, E))
    ids = np.argsort(-scores, axis=-1)[:, :k]
    return np.bincount(ids.ravel(), minlength=E) / tokens


def enumerated(odds, k):
    """Every set of k and its probability, by the definition of the law."""
    sets = list(combinations(range(len(odds)), k))
    weight = np.array([np.prod([odds[e] for e in s]) for s in sets])
    return sets, weight / weight.sum()


@pytest.mark.parametrize(("E", "k"), [(6, 2), (8, 3), (7, 5), (5, 1)])
def test_membership_and_shared_experts_equal_a_sum_over_all_sets(E, k):
    law = fit_subsets(popular(E, k, seed=E))
    sets, p = enumerated(law.odds[0], k)
    member = [sum(q for s, q in zip(sets, p, strict=True) if e in s) for e in range(E)]
    assert law.inclusion()[0] == pytest.approx(member, rel=1e-9)
    shared = np.zeros(k + 1)
    for a, pa in zip(sets, p, strict=True):
        for b, pb in zip(sets, p, strict=True):
            shared[len(set(a) & set(b))] += pa * pb
    assert law.shared()[0] == pytest.approx(shared, rel=1e-9)


@pytest.mark.parametrize(("E", "k", "L"), [(16, 4, 3), (64, 8, 2), (128, 8, 1)])
def test_every_expert_is_as_popular_as_it_was_seen_to_be(E, k, L):
    shares = np.stack([popular(E, k, seed) for seed in range(L)])
    law = fit_subsets(shares)
    used = shares > 0
    assert np.abs(law.inclusion() / np.where(used, shares, 1) - 1)[used].max() < 0.01
    assert (law.inclusion()[~used] == 0).all()
    for pmf, f in zip(law.shared(), shares, strict=True):
        assert pmf.sum() == pytest.approx(1)
        # Two independent sets share Σ f² experts on average, whatever else holds of their law.
        assert pmf @ np.arange(k + 1) == pytest.approx((f**2).sum(), rel=2e-3)


def test_an_even_load_is_the_hypergeometric_case():
    law = fit_subsets(np.full((1, 16), 4 / 16))
    assert law.shared()[0] == pytest.approx(stats.hypergeom.pmf(range(5), 16, 4, 4))
    assert law.shared()[0] == pytest.approx(overlap_chance(16, 4, 4))


def test_an_uneven_load_shares_more_than_an_even_one():
    for seed in range(5):
        pmf = fit_subsets(popular(32, 4, seed)).shared()[0]
        assert pmf @ np.arange(5) > 4 * 4 / 32


def test_experts_that_always_run_are_always_shared():
    shares = np.concatenate([np.ones(2), popular(6, 2, seed=0), np.zeros(3)])
    law = fit_subsets(shares)
    alone = fit_subsets(shares[2:8])
    assert law.inclusion()[0, :2].tolist() == [1.0, 1.0]
    assert law.shared()[0] == pytest.approx([0, 0, *alone.shared()[0]])
    assert fit_subsets(np.ones((1, 3))).shared()[0].tolist() == [0, 0, 0, 1]


def test_layers_of_different_sizes_are_fitted_side_by_side():
    one, two = popular(6, 2, seed=1), popular(6, 4, seed=2)
    both = fit_subsets(np.stack([one, two]))
    assert both.shared()[0] == pytest.approx(fit_subsets(one).shared()[0], rel=1e-2)
    assert both.shared()[1] == pytest.approx(fit_subsets(two).shared()[0], rel=1e-2)


@pytest.mark.parametrize("shares", [[0.5, 0.7], [-0.5, 0.5, 1.0], [1.5, 0.5]])
def test_shares_that_no_router_has_are_refused(shares):
    with pytest.raises(ValueError, match="whole number"):
        fit_subsets(shares)
