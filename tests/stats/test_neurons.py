"""Neurons in one order: against all permutations, one by one."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from moetui.stats.neurons import align_neurons


def test_the_order_is_the_best_of_all_permutations() -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        a, b = rng.normal(size=(2, 6, 4))
        best = max(permutations(range(6)), key=lambda order: float((a * b[list(order)]).sum()))
        assert align_neurons(a, b).tolist() == list(best)


def test_exchanged_neurons_are_found_under_noise() -> None:
    rng = np.random.default_rng(4)
    a = rng.normal(size=(40, 60))
    shuffled = rng.permutation(40)
    other = (a + 0.3 * rng.normal(size=a.shape))[shuffled]
    assert np.array_equal(
        other[align_neurons(a, other)].round(9), other[np.argsort(shuffled)].round(9)
    )


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="same for both"):
        align_neurons(np.zeros((3, 2)), np.zeros((2, 3)))
