"""Neurons of two networks in one order: the permutation that brings them closest to each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def align_neurons(reference: ArrayLike, other: ArrayLike) -> NDArray[np.intp]:
    """[F], the order of the neurons of `other` in which they lie best beside those of `reference`.

    Both [F, D], a neuron a row: all weights by which it reads and writes. The sum of the dot
    products of row n and row order[n] is the largest of all permutations (Hungarian method), so
    the cosine of the two networks as vectors is. Neurons have no order of their own: a network
    with its neurons exchanged computes the same (arXiv 2209.04836). Signs and scales that could
    be exchanged between reading and writing weights are left as they are. Raises ValueError for
    other shapes.
    """
    a, b = np.asarray(reference), np.asarray(other)
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError("neurons are [F, D], the same for both")
    # Imported here: scipy.optimize takes a while, and the explorer's first frame none of it.
    from scipy.optimize import linear_sum_assignment

    _, order = linear_sum_assignment(a @ b.T, maximize=True)
    found: NDArray[np.intp] = np.asarray(order, np.intp)
    return found
