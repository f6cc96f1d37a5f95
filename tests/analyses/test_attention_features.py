import numpy as np
import pytest

from moetui.analyses.attention_features import (
    NAMES,
    SEED_NAMES,
    attention_features,
    seed_features,
)


def causal(heads, T, seed=0):
    a = np.tril(np.random.default_rng(seed).random((heads, T, T)))
    return (a / a.sum(axis=-1, keepdims=True)).astype(np.float32)


def named(found, head):
    return dict(zip(NAMES, found[head * len(NAMES) : (head + 1) * len(NAMES)], strict=True))


def test_every_position_falls_into_one_bin():
    a = causal(3, 20)
    found = attention_features(a, range(20))
    assert found.shape == (20, 3 * len(NAMES))
    masses = found.reshape(20, 3, len(NAMES))[:, :, :-1].sum(axis=-1)
    np.testing.assert_allclose(masses, 1, atol=1e-6)


def test_bins_are_read_from_the_row_by_hand():
    a = causal(2, 14)
    row = named(attention_features(a, [13])[0], 1)
    p = a[1, 13]
    assert row["first"] == pytest.approx(p[0]) and row["self"] == pytest.approx(p[13])
    assert row["1 before"] == pytest.approx(p[12]) and row["8 before"] == pytest.approx(p[5])
    assert row["rest"] == pytest.approx(p[1:5].sum(), abs=1e-6)
    assert row["entropy"] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-5)


def test_near_the_start_the_first_position_is_first_and_itself_is_self():
    a = causal(1, 6)
    start, third = (named(row, 0) for row in attention_features(a, [0, 2]))
    assert start["self"] == 1 and start["first"] == 0 and start["entropy"] == 0
    assert third["first"] == pytest.approx(a[0, 2, 0]) and third["2 before"] == 0
    assert third["1 before"] == pytest.approx(a[0, 2, 1]) and third["rest"] == 0


def test_heads_that_are_padding_are_zero():
    a = causal(2, 5)
    a[1] = np.nan
    assert (attention_features(a, [4])[0, len(NAMES) :] == 0).all()


def test_the_published_features_are_means_over_heads():
    a = causal(3, 9)
    found = dict(zip(SEED_NAMES, seed_features(a, 8), strict=True))
    p = a[:, 8].astype(float)
    assert found["largest"] == pytest.approx(p.max(axis=1).mean(), abs=1e-6)
    assert found["before"] == pytest.approx(p[:, 7].mean(), abs=1e-6)
    assert found["distance"] == pytest.approx((p @ (8 - np.arange(9))).mean(), abs=1e-5)
    a[2] = np.nan
    assert seed_features(a, 8)[3] == pytest.approx(p[:2, 0].mean(), abs=1e-6)
    a[:] = np.nan
    assert np.isnan(seed_features(a, 8)).all()
