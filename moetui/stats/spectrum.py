"""How many directions a matrix uses, and how many one of the same shape uses by chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]

ENERGY = 0.95
# Points of the grid on which the Marchenko-Pastur law is integrated.
_GRID = 20_001


def effective_rank(matrix: ArrayLike, energy: float = ENERGY) -> int:
    """The fewest singular values whose squares sum to `energy` of ‖matrix‖²; 0 for zeros.

    matrix: [m, n]. Read from the eigenvalues of the smaller Gram matrix, in float64.
    """
    W = np.asarray(matrix, np.float64)
    gram = W @ W.T if W.shape[0] <= W.shape[1] else W.T @ W
    squares = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)
    total = squares.sum()
    if total <= 0:
        return 0
    # Sums that reach the energy but for rounding do reach it.
    reached = np.cumsum(squares) >= energy * total * (1 - 1e-12)
    return int(np.argmax(reached)) + 1


def random_rank(rows: int, columns: int, energy: float = ENERGY) -> float:
    """What `effective_rank` is expected to be of a rows × columns matrix of independent entries
    with mean 0 and one variance, whatever its scale, by the law of Marchenko and Pastur (1967).

    Exact for large matrices; a matrix of a few rows or columns is off by about one.
    """
    m, n = sorted((rows, columns))
    ratio = m / n
    low, high = (1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2
    # Cosine substitution: the density's square-root ends become smooth.
    angle = np.linspace(0.0, np.pi, _GRID)
    x = (low + high) / 2 + (high - low) / 2 * np.cos(angle)
    root = ((high - low) / 2 * np.sin(angle)) ** 2 / (2 * np.pi * ratio)
    energy_density = root  # x · density · dx/dθ
    count_density = np.divide(root, x, out=np.zeros_like(root), where=x > 1e-12)
    if low < 1e-12:
        count_density[-1] = count_density[-2]
    # From the largest eigenvalue (angle 0) down.
    above = _cumulative(energy_density, angle)
    share = _cumulative(count_density, angle)
    at = float(np.interp(energy, above / above[-1], share / share[-1]))
    return m * at


def random_ranks(
    rows: int,
    columns: int,
    *,
    draws: int,
    seed: int,
    energy: float = ENERGY,
    centred: bool = False,
) -> Numbers:
    """[draws], `effective_rank` of matrices of independent normal entries. centred: less their
    mean row."""
    rng = np.random.default_rng(seed)
    found = np.empty(draws)
    for draw in range(draws):
        matrix = rng.normal(size=(rows, columns))
        found[draw] = effective_rank(matrix - matrix.mean(axis=0) if centred else matrix, energy)
    return found


def _cumulative(density: Numbers, x: Numbers) -> Numbers:
    steps = (density[1:] + density[:-1]) / 2 * np.diff(x)
    return np.concatenate([[0.0], np.cumsum(steps)])
