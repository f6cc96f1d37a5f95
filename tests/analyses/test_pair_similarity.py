"""Pairs of experts beside pairs across layers: planted ones are found, independent ones not."""

from __future__ import annotations

import numpy as np

from moetui.analyses.pair_similarity import most_similar, pair_similarity, partners


def matrices(rng: np.random.Generator, E: int = 12, D: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of E independent experts, and with those of another layer."""
    a, b = rng.normal(size=(2, E, D))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return a @ a.T, a @ b.T


def test_independent_experts_are_beyond_their_null_as_rarely_as_it_says() -> None:
    p, beyond = [], []
    for seed in range(30):
        found = pair_similarity("x", *matrices(np.random.default_rng(seed)), seed=seed)
        assert found is not None
        assert found.mean.p is not None and found.largest.value is not None
        p.append(found.mean.p)
        # The mean of the largest of as many pairs: about half of all largest ones lie above it.
        beyond.append(found.largest.value > (found.largest.null_mean or 0))
        # No band: a third of these would lie above one of resampled pairs.
        assert found.largest.p is None and found.largest.null_high is None
    assert np.mean(np.array(p) <= 0.05) <= 0.2
    assert 0.2 <= np.mean(beyond) <= 0.8


def test_a_planted_pair_is_the_largest_and_beyond_its_null() -> None:
    within, across = matrices(np.random.default_rng(1))
    within[3, 7] = within[7, 3] = 0.99
    found = pair_similarity("x", within, across, seed=0)
    assert found is not None and found.experts == (3, 7) and found.largest.value == 0.99
    assert (found.largest.null_mean or 1) < 0.5 and most_similar(within) == (3, 7)
    i, j = np.triu_indices(12, 1)
    assert found.pairs == 66 and np.isclose(found.mean.value or 0, within[i, j].mean())


def test_what_rows_less_their_mean_have_by_construction_is_no_finding() -> None:
    """Beside pairs across layers as they are, hardly a largest pair and no mean would be usual."""
    E, beyond, above = 12, [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        a, b = (x - x.mean(0) for x in rng.normal(size=(2, E, 60)))
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        found = pair_similarity("x", a @ a.T, a @ b.T, fixed=-1 / (E - 1), seed=seed)
        assert found is not None and found.above is not None
        assert found.mean.p is None and found.mean.null_high is None
        assert np.isclose(found.mean.value or 0, found.mean.null_mean or 1, atol=0.01)
        assert "no test" in (found.mean.caveat or "")
        beyond.append((found.largest.value or 0) > (found.largest.null_mean or 0))
        above.append(found.above / found.pairs)
    assert 0.3 <= np.mean(beyond) <= 0.7 and 0.015 < np.mean(above) < 0.04


def test_pairs_that_could_not_be_compared_are_left_out() -> None:
    within, across = matrices(np.random.default_rng(2))
    within[0] = within[:, 0] = across[0] = np.nan
    found = pair_similarity("x", within, across, experts=range(100, 112), seed=0)
    assert found is not None and found.pairs == 55 and min(found.experts) > 100
    nothing = np.full((3, 3), np.nan)
    assert pair_similarity("x", nothing, None, seed=0) is None and most_similar(nothing) is None


def test_without_another_layer_there_is_no_null() -> None:
    within, _ = matrices(np.random.default_rng(3))
    found = pair_similarity("x", within, None, seed=0)
    assert found is not None and found.mean.p is None and found.above is None


def test_partners_are_near_layers() -> None:
    assert partners((0, 4, 7), range(8)) == {0: 4, 4: 7, 7: 4}
    assert partners((4,), (2, 4, 6)) == {4: 6} and partners((6,), (2, 4, 6)) == {6: 4}
    assert partners((3,), (3,)) == {3: None}
