from dataclasses import replace

import numpy as np
import pytest

from moetui.analyses.why import why
from tests.builders import make_trace


def with_parts(parts, **info):
    """A trace of one token and one layer whose router parts [G, E] are given."""
    parts = np.array(parts, np.float32)
    trace = make_trace(T=1, N=1, E=parts.shape[1], k=1, info=info)
    return replace(
        trace, router_parts=parts[None, None], router_logits=parts.sum(axis=0)[None, None]
    )


def test_shares_by_hand():
    # Centred: (1, -1), (2, -2), (0, 0); their sum is (3, -3).
    found = why(with_parts([[2, 0], [4, 0], [5, 5]]), 0)
    assert found.shares[0] == pytest.approx([1 / 3, 2 / 3, 0])
    assert found.sizes[0] == pytest.approx([1 / 5, 4 / 5, 0])
    assert found.cancellation[0] == pytest.approx(1.0)
    assert found.cancellation_unrelated[0] == pytest.approx(3 / np.sqrt(5))


def test_a_part_that_opposes_has_a_negative_share():
    # (3, -3) against (-1, 1) leaves (2, -2).
    found = why(with_parts([[6, 0], [-2, 0], [0, 0]]), 0)
    assert found.shares[0] == pytest.approx([1.5, -0.5, 0])
    assert found.cancellation[0] == pytest.approx(2.0)


def test_routers_that_feel_a_common_shift_are_not_centred():
    found = why(with_parts([[1, 1], [1, 1], [0, 0]], shift_invariant=False), 0)
    assert found.shares[0] == pytest.approx([0.5, 0.5, 0])
    assert not found.centred


def test_no_preference_has_no_shares():
    found = why(with_parts([[1, 1], [2, 2], [0, 0]]), 0)
    assert np.isnan(found.shares[0]).all()


def test_unrelated_parts_have_shares_like_their_sizes():
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(3, 20_000)) * np.array([[1.0], [2.0], [3.0]])
    found = why(with_parts(parts), 0)
    assert found.shares[0] == pytest.approx(found.sizes[0], abs=0.02)
    assert found.cancellation[0] == pytest.approx(found.cancellation_unrelated[0], rel=0.02)


def test_random_directions_over_few_experts_scatter_about_the_unrelated_level():
    rng = np.random.default_rng(0)
    found = [why(with_parts(rng.normal(size=(3, 16))), 0) for _ in range(2000)]
    ratio = [f.cancellation[0] / f.cancellation_unrelated[0] for f in found]
    assert np.median(ratio) == pytest.approx(1, abs=0.03)
    assert np.quantile(ratio, [0.025, 0.975]) == pytest.approx([0.8, 1.4], abs=0.07)
    # A share equals its size on average, not in each decision.
    excess = np.array([f.shares[0][0] - f.sizes[0][0] for f in found])
    assert excess.mean() == pytest.approx(0, abs=0.01)
    assert excess.std() > 0.05


def test_rows_are_those_of_the_trace_and_sum_to_one():
    trace = make_trace(T=5, N=3)
    found = why(trace, 4)
    assert np.array(found.shares) == pytest.approx(trace.shares.values[4])
    assert np.array(found.shares).sum(axis=1) == pytest.approx(1)
    assert found.completeness == pytest.approx(trace.completeness[4].tolist())


def test_the_seed_ratio_is_the_ratio_of_norms():
    trace = make_trace(T=3, N=2)
    embedding, rest = np.linalg.norm(trace.seed_parts[1, 0], axis=-1)
    assert why(trace, 1).seed_ratio[0] == pytest.approx(rest / (embedding + rest))


def test_padded_experts_do_not_count():
    trace = make_trace(N=2, E=8, k=2, layer_experts={1: 3})
    narrow = trace.router_parts[0, 1, :, :3].astype(float)
    narrow -= narrow.mean(axis=1, keepdims=True)
    total = narrow.sum(axis=0)
    assert why(trace, 0).shares[1] == pytest.approx((narrow @ total) / (total @ total))
    sizes = (narrow**2).sum(axis=1)
    assert why(trace, 0).sizes[1] == pytest.approx(sizes / sizes.sum())


def test_there_is_nothing_without_a_decomposition():
    assert why(make_trace(with_parts=False), 0) is None
    assert why(make_trace(moe_layers=()), 0) is None
