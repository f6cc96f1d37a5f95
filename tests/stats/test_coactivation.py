from itertools import combinations

import numpy as np
import pytest

from moetui.stats import (
    co_activation,
    family_test,
    fit_subsets,
    lift,
    marginal_preserving_null,
)


def loads(E, k, seed, scale=1.5, tokens=4000):
    """Shares of experts of a router with favourites."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=E) * scale + rng.gumbel(size=(tokens, E))
    ids = np.argpartition(-scores, k - 1, axis=-1)[:, :k]
    return np.bincount(ids.ravel(), minlength=E) / tokens


def test_pairs_are_counted_and_padding_is_not():
    found = co_activation([[0, 1, 2], [2, 0, -1], [3, -1, -1]], 5)
    expected = np.zeros((5, 5), int)
    for row in ([0, 1, 2], [2, 0], [3]):
        for i in row:
            for j in row:
                expected[i, j] += 1
    assert found.pairs.tolist() == expected.tolist()
    assert found.load == pytest.approx([2 / 3, 1 / 3, 2 / 3, 1 / 3, 0])
    assert found.conditional[0, 2] == 1 and found.conditional[2, 1] == 0.5
    assert np.isnan(found.conditional[4]).all() and np.isnan(found.conditional[0, 0])


@pytest.mark.parametrize("ids", [np.zeros((0, 2), int), [[0, 9]], [1, 2]])
def test_ids_of_no_layer_are_refused(ids):
    with pytest.raises(ValueError, match="tokens"):
        co_activation(ids, 4)


@pytest.mark.parametrize(("E", "k"), [(6, 2), (7, 4), (5, 1)])
def test_joint_membership_and_draws_equal_a_sum_over_all_sets(E, k):
    law = fit_subsets(loads(E, k, seed=E))
    sets = list(combinations(range(E), k))
    p = np.array([np.prod(law.odds[0, list(s)]) for s in sets])
    p /= p.sum()
    joint = np.zeros((E, E))
    for s, chance in zip(sets, p, strict=True):
        joint[np.ix_(s, s)] += chance
    assert law.joint() == pytest.approx(joint, rel=1e-9)
    drawn = law.sample(40_000, np.random.default_rng(1))
    kinds, counts = np.unique(drawn, axis=0, return_counts=True)
    frequency = dict(zip(map(tuple, kinds.tolist()), counts / 40_000, strict=True))
    for s, chance in zip(sets, p, strict=True):
        spread = np.sqrt(chance * (1 - chance) / 40_000)
        assert frequency.get(s, 0.0) == pytest.approx(chance, abs=5 * spread)


@pytest.mark.parametrize(
    ("E", "k", "scale"), [(64, 8, 1.5), (32, 4, 4.0), (512, 32, 2.0), (16, 2, 0.0)]
)
def test_every_expert_is_drawn_as_often_as_it_was_seen(E, k, scale):
    f = loads(E, k, seed=E, scale=scale)
    law = fit_subsets(f)
    inclusion = law.inclusion()[0]
    assert inclusion == pytest.approx(f, rel=0.01, abs=1e-5)
    tokens = 60_000
    ids = marginal_preserving_null(f, k, tokens, np.random.default_rng(0))
    assert ids.shape == (tokens, k) and (np.diff(ids, axis=1) > 0).all()
    drawn = np.bincount(ids.ravel(), minlength=E) / tokens
    common = f > 0.2  # whose sampling error is under a third of 1 %
    assert np.abs(drawn[common] / f[common] - 1).max(initial=0) < 0.02
    error = np.sqrt(f * (1 - f) / tokens)
    assert (np.abs(drawn - inclusion) <= 5 * error + 1e-12).all()


def test_a_hot_expert_stays_hot_where_gumbel_top_k_would_cool_it():
    f = np.array([0.997, *np.full(15, 1.003 / 15)])
    rng = np.random.default_rng(0)
    ids = marginal_preserving_null(f, 2, 50_000, rng)
    assert (ids == 0).any(axis=1).mean() == pytest.approx(0.997, abs=0.002)
    gumbel = np.argsort(-(np.log(f) + rng.gumbel(size=(50_000, 16))), axis=1)[:, :2]
    assert (gumbel == 0).any(axis=1).mean() < 0.9


def test_experts_that_are_always_used_always_are_and_unused_ones_never():
    f = np.array([1.0, 0.5, 0.5, 0.0, 1.0, 0.3, 0.7])
    ids = marginal_preserving_null(f, 4, 2000, np.random.default_rng(3))
    counts = np.bincount(ids.ravel(), minlength=7)
    assert counts[[0, 4]].tolist() == [2000, 2000] and counts[3] == 0
    every = marginal_preserving_null(np.ones(3), 3, 5, np.random.default_rng(0))
    assert every.tolist() == [[0, 1, 2]] * 5
    joint = fit_subsets(f).joint()
    assert joint[0] == pytest.approx(f, rel=2e-3)


def test_shares_of_assignments_are_taken_as_loads_too():
    f = loads(8, 2, seed=1)
    one, two = (marginal_preserving_null(x, 2, 50, np.random.default_rng(5)) for x in (f, f / 2))
    assert one.tolist() == two.tolist()


@pytest.mark.parametrize("load", [[0.0, 0.0], [[0.5, 0.5]], [2.0, 0.0, 0.0]])
def test_loads_of_no_router_are_refused(load):
    with pytest.raises(ValueError, match="share"):
        marginal_preserving_null(load, 2, 5, np.random.default_rng(0))


def test_random_sets_have_lift_one_against_the_fitted_null_and_less_against_the_product():
    f = loads(12, 4, seed=2)
    ids = marginal_preserving_null(f, 4, 80_000, np.random.default_rng(4))
    found = co_activation(ids, 12)
    off = ~np.eye(12, dtype=bool)
    fitted = lift(found, found.fitted())
    seen = off & (np.outer(f, f) > 0.01)
    assert fitted[seen] == pytest.approx(1.0, abs=0.15)
    weights = found.fitted().joint()[off]
    assert (weights * fitted[off]).sum() / weights.sum() == pytest.approx(1, abs=1e-3)
    product = lift(found)
    outer = np.outer(found.load, found.load)[off]
    assert (outer * product[off]).sum() / outer.sum() < 0.95
    assert np.isnan(np.diag(fitted)).all()


def test_a_planted_pair_is_found_and_independent_sets_show_none():
    E, k, tokens = 10, 3, 600
    above = np.triu_indices(E, 1)

    def tested(ids):
        law = co_activation(ids, E).fitted()
        expected = law.joint() * tokens

        def z(drawn):
            return ((co_activation(drawn, E).pairs - expected) / np.sqrt(expected))[above]

        return family_test(z(ids), lambda rng: z(law.sample(tokens, rng)), seed=1)

    rng = np.random.default_rng(9)
    ids = fit_subsets(loads(E, k, seed=6, scale=0.5)).sample(tokens, rng)
    assert (tested(ids).q > 0.01).all()
    rows = np.flatnonzero(((ids == 2) | (ids == 7)).sum(axis=1) == 1)[:60]
    for row in rows:  # whoever has one of the two gets the other as well
        ids[row] = [2, 7, rng.choice([e for e in ids[row] if e not in (2, 7)])]
    pair = list(zip(*above, strict=True)).index((2, 7))
    assert np.flatnonzero(tested(ids).q <= 0.01).tolist() == [pair]
    found = co_activation(ids, E)
    assert lift(found, found.fitted())[2, 7] > 1.3
