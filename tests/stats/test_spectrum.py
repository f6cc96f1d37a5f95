"""Effective rank: numpy's singular values, planted ranks, and the law of random matrices."""

from __future__ import annotations

import numpy as np
import pytest

from moetui.stats.spectrum import effective_rank, random_rank, random_ranks


def by_svd(matrix: np.ndarray, energy: float) -> int:
    squares = np.linalg.svd(matrix, compute_uv=False) ** 2
    return int(np.searchsorted(np.cumsum(squares) / squares.sum(), energy) + 1)


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (30, 30)])
def test_the_rank_is_that_of_numpys_singular_values(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for energy in (0.5, 0.9, 0.95, 0.99):
        matrix = rng.normal(size=shape) @ np.diag(rng.exponential(size=shape[1]))
        assert effective_rank(matrix, energy) == by_svd(matrix, energy)


def test_planted_ranks_are_found() -> None:
    rng = np.random.default_rng(2)
    one = np.outer(rng.normal(size=16), rng.normal(size=50))
    assert effective_rank(one) == 1 and effective_rank(one.T) == 1
    assert effective_rank(one + 1e-3 * rng.normal(size=one.shape)) == 1
    q = np.linalg.qr(rng.normal(size=(50, 50)))[0]
    # Twenty equal directions: 95 % of the energy is in nineteen of them.
    assert effective_rank(q[:20]) == 19
    assert effective_rank(np.zeros((3, 4))) == 0


@pytest.mark.parametrize("shape", [(200, 200), (120, 480), (300, 150)])
def test_random_matrices_follow_the_law(shape: tuple[int, int]) -> None:
    """Uniform entries of any scale have the rank of normal ones: that of Marchenko and Pastur."""
    rng = np.random.default_rng(3)
    for energy in (0.8, 0.95):
        expected = random_rank(*shape, energy)
        uniform = [effective_rank(7 * rng.uniform(-1, 1, shape), energy) for _ in range(3)]
        drawn = random_ranks(*shape, draws=3, seed=0, energy=energy)
        for found in (np.mean(uniform), drawn.mean()):
            assert abs(found - expected) < 0.01 * min(shape) + 1


def test_all_directions_hold_equal_energy_where_one_side_is_much_longer() -> None:
    assert random_rank(10, 10**7, 0.95) == pytest.approx(9.5, abs=0.02)
