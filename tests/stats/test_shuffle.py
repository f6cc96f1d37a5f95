import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moetui.stats import movable_share, token_stratified_shuffle, within_document_shuffle

SHUFFLES = (within_document_shuffle, token_stratified_shuffle)


@given(st.lists(st.integers(0, 6), max_size=60), st.integers(0, 2**32 - 1))
def test_rows_are_permuted_within_their_group(groups, seed):
    group = np.array(groups, int)
    for shuffle in SHUFFLES:
        order = shuffle(group, np.random.default_rng(seed))
        assert sorted(order.tolist()) == list(range(len(group)))
        assert (group[order] == group).all()


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_every_order_within_a_group_is_equally_likely(shuffle):
    rng = np.random.default_rng(0)
    group = np.array([5, 2, 5, 2, 5])
    orders = [tuple(shuffle(group, rng)) for _ in range(6000)]
    kinds, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(kinds) == 12  # 3! · 2!
    assert counts == pytest.approx(np.full(12, 500), abs=5 * np.sqrt(500))


def test_a_shuffle_within_documents_keeps_what_the_document_prefers():
    rng = np.random.default_rng(1)
    documents = np.repeat([0, 1], 500)
    expert = np.concatenate([rng.integers(0, 3, 500), rng.integers(2, 9, 500)])
    shuffled = expert[within_document_shuffle(documents, rng)]
    for d in (0, 1):
        assert np.bincount(shuffled[documents == d], minlength=9).tolist() == (
            np.bincount(expert[documents == d], minlength=9).tolist()
        )
    assert (shuffled != expert).mean() > 0.5


def test_rows_that_cannot_move_are_counted():
    assert movable_share([1, 1, 2, 3]) == 0.5
    assert movable_share([1, 2, 3]) == 0.0
    assert movable_share([]) == 0.0


def test_one_group_for_each_row_is_needed():
    with pytest.raises(ValueError, match="each row"):
        within_document_shuffle([[1, 2]], np.random.default_rng(0))
