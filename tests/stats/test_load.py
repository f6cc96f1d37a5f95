import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from moetui.stats import load_indices


def test_even_load_is_zero_inequality():
    found = load_indices([30] * 8, k=2)
    assert found.entropy_normalized == pytest.approx(1.0)
    assert found.effective_experts == pytest.approx(8.0)
    assert (found.cv, found.gini, found.max_violation) == pytest.approx((0, 0, 0))
    assert found.token_share == pytest.approx([2 / 8] * 8)
    assert found.assignment_share == pytest.approx([1 / 8] * 8)


def test_one_expert_does_all_the_work():
    found = load_indices([0, 0, 100, 0], k=1)
    assert found.entropy_normalized == pytest.approx(0.0)
    assert found.effective_experts == pytest.approx(1.0)
    assert found.gini == pytest.approx(1 - 1 / 4)
    assert found.cv == pytest.approx(np.sqrt(3))
    assert found.max_violation == pytest.approx(3.0)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=40).filter(any), st.integers(1, 2))
def test_indices_equal_their_textbook_definitions(counts, k):
    found = load_indices(counts, k)
    n = np.array(counts, float)
    mean_difference = np.abs(n[:, None] - n[None, :]).mean()  # Gini's own definition
    assert found.gini == pytest.approx(mean_difference / (2 * n.mean()))
    assert found.cv == pytest.approx(scipy_stats.variation(n))
    entropy = scipy_stats.entropy(n)
    assert found.effective_experts == pytest.approx(np.exp(entropy))
    assert found.entropy_normalized == pytest.approx(entropy / np.log(len(n)), abs=1e-12)
    assert found.max_violation == pytest.approx(n.max() / n.mean() - 1)
    assert sum(found.token_share) == pytest.approx(k)
    assert sum(found.assignment_share) == pytest.approx(1)


def test_nothing_counted_has_no_indices():
    assert load_indices([0, 0, 0], k=1) is None


def test_impossible_counts_are_refused():
    for counts, k in (([-1, 2], 1), ([3], 1), ([1, 2], 3)):
        with pytest.raises(ValueError, match="counts"):
            load_indices(counts, k)
