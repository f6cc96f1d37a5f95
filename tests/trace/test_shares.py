"""Shares of the router's decision, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from moetui.trace.shares import completeness, router_shares, seed_ratio


def parts(*rows: list[float]) -> np.ndarray:
    """[1, 1, G, E]"""
    return np.array(rows, np.float32)[None, None]


def test_one_part_that_decides_alone_has_the_whole_share() -> None:
    shares = router_shares(parts([1, -1, 0], [0, 0, 0]), shift_invariant=True)
    np.testing.assert_allclose(shares.values[0, 0], [1, 0])
    assert shares.cancellation[0, 0] == pytest.approx(1)


def test_what_all_experts_get_alike_is_no_share_of_the_decision() -> None:
    large_but_common = [1000.0, 1000.0, 1000.0]
    shares = router_shares(parts([1, -1, 0], large_but_common), shift_invariant=True)
    np.testing.assert_allclose(shares.values[0, 0], [1, 0], atol=1e-6)


def test_a_sigmoid_router_does_count_the_common_part() -> None:
    # z = (4, 2); ⟨(1, -1), z⟩ = 2, ⟨(3, 3), z⟩ = 18, ‖z‖² = 20
    shares = router_shares(parts([1, -1], [3, 3]), shift_invariant=False)
    np.testing.assert_allclose(shares.values[0, 0], [0.1, 0.9])


def test_a_part_that_works_against_the_decision_is_negative() -> None:
    # z̃ = (2, -2); ⟨(3, -3), z̃⟩/8 = 1.5, ⟨(-1, 1), z̃⟩/8 = -0.5; Σ‖z̃_c‖/‖z̃‖ = (3 + 1)/2
    shares = router_shares(parts([3, -3], [-1, 1]), shift_invariant=True)
    np.testing.assert_allclose(shares.values[0, 0], [1.5, -0.5])
    assert shares.cancellation[0, 0] == pytest.approx(2)


def test_a_router_without_preference_has_no_shares() -> None:
    shares = router_shares(parts([1, 1], [2, 2]), shift_invariant=True)
    assert np.isnan(shares.values).all() and np.isnan(shares.cancellation).all()


def test_experts_that_a_layer_lacks_do_not_count() -> None:
    padded = router_shares(parts([3, -3, np.nan], [-1, 1, np.nan]), shift_invariant=True)
    np.testing.assert_allclose(padded.values[0, 0], [1.5, -0.5])


def test_completeness_is_the_largest_miss_over_the_largest_logit() -> None:
    logits = np.array([4.0, -8.0], np.float32)[None, None]
    assert completeness(parts([3, -6], [1, -2]), logits)[0, 0] == 0
    assert completeness(parts([3, -6], [1, 0]), logits)[0, 0] == pytest.approx(0.25)


def test_the_seed_ratio_of_known_norms() -> None:
    norms = np.array([[1, 3], [2, 0], [0, 0]], np.float32)
    np.testing.assert_array_equal(seed_ratio(norms), np.array([0.75, 0, np.nan], np.float32))
