import numpy as np
import pytest

from moetui.analyses.expert_ranks import (
    NOWHERE,
    Hits,
    beyond_equals,
    by_document,
    first,
    gain,
    multi_hot,
    of_equals,
    ranks,
    recall,
    recalled,
    sizes_of,
    together,
)


def test_ranks_are_places_in_the_sorted_list_equal_scores_by_id():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (50, 9)).astype(float)  # many ties
    experts = np.argsort(rng.random((50, 9)), axis=1)[:, :3]
    found = ranks(scores, experts)
    for row in range(50):
        order = sorted(range(9), key=lambda e: (-scores[row, e], e))
        assert found[row].tolist() == [order.index(e) for e in experts[row]]
        assert first(scores, 4)[row].tolist() == order[:4]


def test_padding_is_never_recalled():
    scores = np.array([[3.0, 2.0, 1.0]])
    assert ranks(scores, [[0, -1]]).tolist() == [[0, NOWHERE]]
    assert recalled(ranks(scores, [[0, -1]]), (1, 3)).tolist() == [[1.0, 1.0]]
    assert multi_hot([[0, -1], [2, 1]], 3).tolist() == [[1, 0, 0], [0, 1, 1]]


def test_everything_is_recalled_where_m_is_all_experts():
    rng = np.random.default_rng(1)
    experts = np.argsort(rng.random((20, 6)), axis=1)[:, :2]
    found = recalled(ranks(rng.normal(size=(20, 6)), experts), (6,))
    assert (found == 2).all()


def test_sizes_are_k_half_more_and_twice_at_most_all():
    assert sizes_of(4, 16) == (4, 6, 8)
    assert sizes_of(3, 16) == (3, 5, 6)
    assert sizes_of(1, 8) == (1, 2)
    assert sizes_of(4, 5) == (4, 5)


def test_recall_and_gain_are_ratios_of_sums_paired_by_document():
    rng = np.random.default_rng(2)
    documents = np.repeat(np.arange(30), rng.integers(3, 9, 30))
    better, worse = rng.integers(1, 3, (2, len(documents)))
    worse = np.minimum(better, worse) - 1
    totals = by_document(np.full(len(documents), 2.0), documents, 30)
    a = Hits(hits=by_document(better[:, None], documents, 30))
    b = Hits(hits=by_document(worse[:, None], documents, 30))
    n = len(documents)
    assert recall(a, totals, 0, seed=0, tokens=n).value == pytest.approx(better.mean() / 2)
    found = gain(a, b, totals, 0, seed=0, tokens=n)
    assert found.value == pytest.approx((better - worse).mean() / 2)
    assert found.ci_low < found.value < found.ci_high and found.n_documents == 30
    # Paired: of equal predictors the difference is 0 in every resample, whatever they vary.
    same = gain(a, a, totals, 0, seed=0, tokens=n)
    assert same.value == 0 and same.ci_low is None


def test_the_null_of_a_gain_is_that_of_the_recall_less_the_baseline():
    totals, null = np.full(25, 10.0), np.array([[100.0], [110.0], [90.0]])
    hits = np.random.default_rng(0).integers(5, 10, (25, 1)).astype(float)
    base = Hits(hits=np.full((25, 1), 4.0))
    found = gain(Hits(hits=hits, null=null), base, totals, 0, seed=0, tokens=250)
    assert found.null_mean == pytest.approx(100 / 250 - 100 / 250)
    assert found.p == pytest.approx(1 / 4)  # none of three draws reaches it


def test_what_goes_beyond_equal_tokens_is_paired_with_the_mean_of_the_draws():
    rng = np.random.default_rng(1)
    totals, hits = np.full(25, 10.0), rng.integers(5, 10, (25, 1)).astype(float)
    draws = rng.integers(0, 5, (3, 25, 1)).astype(float)
    both = Hits(hits=hits, equal=draws)
    found = beyond_equals(both, both, totals, 0, seed=0, tokens=250)
    mean = recall(of_equals(both), totals, 0, seed=0, tokens=250)
    assert mean.value == pytest.approx(draws.sum() / 3 / 250)
    assert found.value == pytest.approx(hits.sum() / 250 - mean.value)
    assert found.ci_low < found.value < found.ci_high and found.p == pytest.approx(1 / 4)
    assert found.null_mean == pytest.approx(0) and "among equal tokens, 3 draws" in found.caveat
    # Another predictor is held against the same baseline, and against its own exchange.
    alone = Hits(hits=hits, equal=np.stack([hits] * 3))
    other = beyond_equals(alone, both, totals, 0, seed=0, tokens=250)
    assert other.value == found.value and other.p == 1
    # What has no features to exchange is compared all the same.
    plain = beyond_equals(Hits(hits=hits), both, totals, 0, seed=0, tokens=250)
    assert plain.value == found.value and plain.p is None
    # Features that stay as they are under every exchange are worth nothing beyond it.
    same = Hits(hits=hits, equal=np.stack([hits] * 3))
    nothing = beyond_equals(same, same, totals, 0, seed=0, tokens=250)
    assert nothing.value == 0 and nothing.p == 1
    without = Hits(hits=hits, equal=np.zeros((0, 25, 1)))
    assert of_equals(without) is None
    assert beyond_equals(both, without, totals, 0, seed=0, tokens=250) is None


def test_layers_together_weigh_every_expert_alike():
    one = Hits(hits=np.ones((3, 1)), null=np.full((2, 1), 5.0))
    other = Hits(hits=np.full((3, 1), 2.0), null=np.full((2, 1), 7.0))
    both = together([one, other])
    assert both.hits.tolist() == [[3.0]] * 3 and both.null.tolist() == [[12.0]] * 2
    assert together([one, Hits(hits=np.ones((3, 1)))]).null is None
    some = [Hits(hits=np.ones((3, 1)), equal=np.full((2, 3, 1), value)) for value in (1.0, 2.0)]
    assert (together(some).equal == 3).all() and both.equal is None


def test_documents_without_an_expert_are_no_units():
    totals = np.array([4.0] * 25 + [0.0] * 5)
    hits = Hits(hits=np.concatenate([np.full((25, 1), 2.0), np.zeros((5, 1))]))
    found = recall(hits, totals, 0, seed=0, tokens=50)
    assert found.value == 0.5 and found.n_documents == 25
    nothing = recall(hits, np.zeros(30), 0, seed=0, tokens=0)
    assert nothing.value is None and nothing.caveat
