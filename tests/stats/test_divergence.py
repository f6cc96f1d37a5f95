import numpy as np
import pytest
from scipy.special import log_softmax as reference
from scipy.stats import entropy

from moetui.stats import hellinger, kl_divergence, log_softmax


def test_log_softmax_is_scipys(seed=3):
    z = np.random.default_rng(seed).normal(size=(4, 9)) * 20
    assert log_softmax(z) == pytest.approx(reference(z, axis=-1))


def test_kl_is_the_entropy_of_one_relative_to_the_other(seed=5):
    rng = np.random.default_rng(seed)
    for scale in (0.1, 1.0, 10.0):
        a, b = rng.normal(size=(2, 50)) * scale
        p, q = np.exp(reference(a)), np.exp(reference(b))
        assert kl_divergence(a, b) == pytest.approx(entropy(p, q), rel=1e-9)


def test_equal_logits_give_exactly_nothing():
    z = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert kl_divergence(z, z.copy()) == 0.0


def test_a_tiny_change_is_neither_negative_nor_lost():
    # Two tokens: KL of (1/2, 1/2) and the softmax of (d, 0) is d²/8 for small d.
    for d in (1e-3, 1e-5, 1e-6):
        assert kl_divergence([0.0, 0.0], [d, 0.0]) == pytest.approx(d * d / 8, rel=1e-3)


def test_tokens_that_cannot_come_add_nothing_and_take_nothing():
    never = -np.inf
    assert kl_divergence([0.0, 0.0, never], [0.0, 0.0, never]) == 0.0
    # A third token that only the change allows: KL of (1/2, 1/2, 0) and (1/3, 1/3, 1/3).
    assert kl_divergence([0.0, 0.0, never], [0.0, 0.0, 0.0]) == pytest.approx(np.log(1.5))
    assert kl_divergence([0.0, 0.0], [0.0, never]) == np.inf


def test_hellinger_distance_is_that_of_the_roots():
    rng = np.random.default_rng(0)
    p, q = rng.random((3, 6)), rng.random((3, 6))
    a, b = (x / x.sum(-1, keepdims=True) for x in (p, q))
    apart = np.sqrt(np.square(np.sqrt(a) - np.sqrt(b)).sum(-1) / 2)
    np.testing.assert_allclose(hellinger(p, q), apart)
    # Counts and shares are the same; equal is 0, disjoint is 1, and nothing has no distance.
    np.testing.assert_allclose(hellinger(7 * p, q), apart)
    assert hellinger([1, 3], [2, 6]) == pytest.approx(0, abs=1e-7)
    assert hellinger([1, 0], [0, 5]) == 1
    assert np.isnan(hellinger([0, 0], [1, 1]))
