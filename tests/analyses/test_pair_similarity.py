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
        # The median of the largest of as many pairs: half of all largest ones lie above it.
        beyond.append(found.largest.value > (found.largest.null_mean or 0))
        assert found.largest.p is None
    assert np.mean(np.array(p) <= 0.05) <= 0.2
    assert 0.2 <= np.mean(beyond) <= 0.8


def test_a_planted_pair_is_the_largest_and_beyond_its_null() -> None:
    within, across = matrices(np.random.default_rng(1))
    within[3, 7] = within[7, 3] = 0.99
    found = pair_similarity("x", within, across, seed=0)
    assert found is not None and found.experts == (3, 7) and found.largest.value == 0.99
    assert (found.largest.null_high or 1) < 0.99 and most_similar(within) == (3, 7)
    i, j = np.triu_indices(12, 1)
    assert found.pairs == 66 and np.isclose(found.mean.value or 0, within[i, j].mean())


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
