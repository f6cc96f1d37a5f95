import numpy as np
import pytest

from moetui.stats import cold_experts, domain_strata, mixed_rates, rate


def test_domains_are_strata_where_each_has_twenty_documents():
    assert domain_strata(["b"] * 20 + ["a"] * 25).tolist() == [1] * 20 + [0] * 25
    assert domain_strata(["b"] * 19 + ["a"] * 25) is None
    assert domain_strata(["a"] * 50) is None and domain_strata([]) is None


def test_a_mixed_rate_keeps_the_share_of_each_stratum_whatever_its_weights():
    rng = np.random.default_rng(0)
    tokens, strata = rng.integers(5, 30, 12), np.repeat([0, 1, 2], 4)
    hits = rng.binomial(tokens[:, None], [0.2, 0.7])
    weights = rng.integers(1, 4, (5, 12))
    found = mixed_rates(hits, tokens, strata)(weights)
    for expert in range(2):
        for draw in range(5):
            by_hand = 0.0
            for stratum in range(3):
                rows = strata == stratum
                w = weights[draw, rows]
                part = tokens[rows].sum() / tokens.sum()
                by_hand += part * (w @ hits[rows, expert]) / (w @ tokens[rows])
            assert found[expert, draw] == pytest.approx(by_hand)
    even = mixed_rates(hits, tokens, strata)(np.ones((1, 12)))
    np.testing.assert_allclose(even[:, 0], hits.sum(axis=0) / tokens.sum())
    plain = mixed_rates(hits[:, 0], tokens, None)(weights)
    np.testing.assert_allclose(plain, weights @ hits[:, 0] / (weights @ tokens))


def test_a_single_rate_and_the_load_of_a_layer_agree():
    rng = np.random.default_rng(1)
    domains = ["a"] * 40 + ["b"] * 40
    tokens = rng.integers(20, 60, 80)
    hits = rng.binomial(tokens[:, None], np.repeat([[0.3, 0.02], [0.05, 0.02]], 40, axis=0))
    whole = cold_experts(hits, tokens, 1, domains=domains, seed=3)
    for expert in range(2):
        alone = rate(hits[:, expert], tokens, seed=3, strata=domain_strata(domains))
        share = whole.experts[expert].share
        for name in ("value", "ci_low", "ci_high", "n_effective"):
            assert getattr(alone, name) == pytest.approx(getattr(share, name))
        assert alone.ci_high - alone.ci_low < 0.06
