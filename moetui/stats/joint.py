"""How often two labels of a token meet, and what stratified chance gives.

Rows are tokens, columns labels of which a row has several: the experts of one layer. Shuffled
within strata (documents, token ids), the count of a pair is a sum of hypergeometric numbers, one
for each stratum, so its mean and variance are known without drawing (Mantel and Haenszel 1959).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

Numbers = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Strata:
    """T rows in S groups. order: [T], the rows group by group; starts, sizes: [S]."""

    order: Rows
    starts: Rows
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, groups: ArrayLike) -> Strata:
        """The strata of one group id a row, [T]."""
        group = np.asarray(groups)
        order = np.argsort(group, kind="stable")
        _, starts, sizes = np.unique(group[order], return_index=True, return_counts=True)
        return cls(order, starts, sizes.astype(np.int64))

    def sums(self, rows: NDArray[np.generic]) -> Numbers:
        """[S, C]: sums over each group's rows of [T, C]."""
        return np.add.reduceat(np.asarray(rows, float)[self.order], self.starts, axis=0)

    def spread(self, sums: Numbers) -> Numbers:
        """[T, C]: of [S, C] each row's own group's."""
        spread = np.empty((len(self.order), sums.shape[1]))
        spread[self.order] = np.repeat(sums, self.sizes, axis=0)
        return spread


class Joint(NamedTuple):
    """Mean and variance of the counts of pairs [Ea, Eb] under a shuffle within strata."""

    mean: Numbers
    variance: Numbers


def joint_counts(a: NDArray[np.generic], b: NDArray[np.generic]) -> Numbers:
    """[Ea, Eb]: rows that have both labels, of members a [T, Ea] and b [T, Eb] of 0 and 1.

    Exact in float32 up to 2^24 rows.
    """
    return np.asarray(np.asarray(a, np.float32).T @ np.asarray(b, np.float32), float)


def shuffled_joint(a: Numbers, b: Numbers, sizes: NDArray[np.int64]) -> Joint:
    """What a shuffle of the rows of one side within strata gives; a [S, Ea] and b [S, Eb] are the
    strata's own counts, sizes [S] their rows."""
    n = sizes[:, None].astype(float)
    wide = np.sqrt(n * n * np.maximum(n - 1, 1.0))
    mean = (a / n).T @ b
    # A stratum of one row has a(n − a) = 0, so it adds nothing.
    variance = (a * (n - a) / wide).T @ (b * (n - b) / wide)
    return Joint(np.asarray(mean, float), np.asarray(variance, float))


class Association(NamedTuple):
    """Of pairs [...]: lift N·T/(N_i·N_j); PMI, its logarithm (nats); G² of the 2×2 table of the
    pair against independence. NaN where a label never occurs."""

    lift: Numbers
    pmi: Numbers
    g2: Numbers


def association(both: ArrayLike, first: ArrayLike, second: ArrayLike, rows: int) -> Association:
    """The descriptions of pairs that are `both` there in so many of `rows` rows, `first` and
    `second` alone in so many; arrays that broadcast.

    Descriptions only: with several labels a row neither G² nor PMI has its textbook distribution,
    and rows of one document are not independent. Test by shuffles.
    """
    n, i, j = (np.asarray(x, float) for x in (both, first, second))
    with np.errstate(invalid="ignore", divide="ignore"):
        lift = np.where(i * j > 0, n * rows / (i * j), np.nan)
        pmi = np.log(lift)
    table = [n, i - n, j - n, rows - i - j + n]
    margins = [i, rows - i, j, rows - j]
    g2 = 2 * (
        sum(xlogy(cell, cell) for cell in table)
        - sum(xlogy(margin, margin) for margin in margins)
        + xlogy(rows, rows)
    )
    return Association(
        np.asarray(lift, float), np.asarray(pmi, float), np.asarray(np.maximum(g2, 0.0), float)
    )
