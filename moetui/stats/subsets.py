"""Random sets of k experts in which every expert is as popular as it was seen to be.

The law is P(S) ∝ Π_{e ∈ S} w_e over all sets S of k out of E experts (conditional Poisson
sampling), with the odds w fitted until every expert is a member as often as observed: of all laws
with these frequencies the one that assumes nothing else. Sums over sets are coefficients of
Π_e (1 + w_e x), so nothing is drawn at random, except where sets themselves are asked for.
Source of the fit and of the sampler: Chen, Dempster and Liu, Weighted finite population sampling
to maximize entropy, Biometrika 81 (1994).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# Largest error of a fitted frequency, relative to it (to RARE where it is less), and how long the
# fit may take.
TOLERANCE, RARE = 1e-3, 1e-3
_ITERATIONS = 2000
# Experts whose pairs are worked out at once: bounds memory.
_PAIRS = 64
# Sums of shares that should be whole numbers differ from them by less.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Subsets:
    """The law of random k-subsets of the E experts of L layers, layers independent.

    odds: [L, E], w; 0 for experts that are never members and for those that always are.
    always: bool [L, E], members of every set. sizes: int [L], k.
    """

    odds: Array
    always: NDArray[np.bool_]
    sizes: NDArray[np.int64]

    @property
    def free(self) -> NDArray[np.int64]:
        """int [L], members that chance decides on."""
        free: NDArray[np.int64] = self.sizes - self.always.sum(axis=-1)
        return free

    def inclusion(self) -> Array:
        """[L, E], how often each expert is a member."""
        return np.where(self.always, 1.0, _inclusion(self.odds, self.free))

    def joint(self, layer: int = 0) -> Array:
        """[E, E], how often each pair of experts is in one set; the diagonal is `inclusion`.

        Given that i is a member, the rest is the same law on the others: k − 1 of them.
        """
        odds, E = self.odds[layer], self.odds.shape[1]
        always, free = self.always[layer], int(self.free[layer])
        member = self.inclusion()[layer]
        found = np.empty((E, E))
        for start in range(0, E, _PAIRS):
            rows = np.arange(start, min(start + _PAIRS, E))
            others = np.broadcast_to(odds, (len(rows), E)).copy()
            others[np.arange(len(rows)), rows] = 0.0
            left = np.where(always[rows], free, max(free - 1, 0))
            found[rows] = np.where(always, 1.0, _inclusion(others, left)) * member[rows, None]
        found[np.arange(E), np.arange(E)] = member
        return (found + found.T) / 2

    def sample(self, tokens: int, rng: np.random.Generator, layer: int = 0) -> NDArray[np.int64]:
        """int [tokens, k]: independent sets of experts, each in ascending order; exact.

        One expert after the other is taken with the chance that it has, given how many are still
        wanted of those that follow: w_e · (sets of r − 1 from those after e) / (sets of r from
        e on).
        """
        odds, always, k = self.odds[layer], self.always[layer], int(self.sizes[layer])
        E, free = len(odds), int(self.free[layer])
        after = _coefficients(odds[None, ::-1], free)[::-1, 0]
        ids, taken = np.empty((tokens, k), np.int64), np.zeros(tokens, np.int64)
        wanted = np.full(tokens, free)
        for expert in range(E):
            if always[expert]:
                hit = np.ones(tokens, bool)
            else:
                chance = np.zeros(free + 1)
                np.divide(
                    odds[expert] * after[expert + 1, :-1],
                    after[expert, 1:],
                    out=chance[1:],
                    where=after[expert, 1:] > 0,
                )
                hit = rng.random(tokens) < chance[wanted]
                wanted -= hit
            rows = np.flatnonzero(hit)
            ids[rows, taken[rows]] = expert
            taken[rows] += 1
        return ids

    def shared(self) -> tuple[Array, ...]:
        """For every layer P(|A ∩ B| = i), i = 0 … k, of two independent sets A and B.

        Read from Π_e (1 + w_e x + w_e y + w_e² x y z): x and y count members, z shared ones.
        """
        L, E = self.odds.shape
        free = self.free
        K = int(free.max(initial=0))
        terms = np.zeros((L, K + 1, K + 1, K + 1))
        terms[:, 0, 0, 0] = 1.0
        for expert in range(E):
            w = self.odds[:, expert, None, None, None]
            grown = terms.copy()
            grown[:, 1:] += w * terms[:, :-1]
            grown[:, :, 1:] += w * terms[:, :, :-1]
            grown[:, 1:, 1:, 1:] += w**2 * terms[:, :-1, :-1, :-1]
            terms = grown
        found = terms[np.arange(L), free, free]
        found /= found.sum(axis=-1, keepdims=True)
        return tuple(
            np.concatenate([np.zeros(k - drawn), found[layer, : drawn + 1]])
            for layer, (k, drawn) in enumerate(zip(self.sizes, free, strict=True))
        )


def fit_subsets(shares: ArrayLike) -> Subsets:
    """The law whose experts are members as often as in `shares` [L, E], to a thousandth.

    shares: f_e, the share of tokens that used expert e; each row sums to a whole number k. Raises
    ValueError for other rows, ArithmeticError where the fit does not settle.
    """
    f = np.atleast_2d(np.asarray(shares, float))
    sizes = np.rint(f.sum(axis=-1)).astype(np.int64)
    if (f < 0).any() or (f > 1 + _ROUNDING).any() or (abs(f.sum(-1) - sizes) > _ROUNDING).any():
        raise ValueError("shares lie in 0 … 1 and sum to a whole number in every layer")
    always = f >= 1 - 1e-9
    goal = np.where(always, 0.0, f)
    free = sizes - always.sum(axis=-1)
    odds = _scaled(goal / (1 - goal), free)
    for _ in range(_ITERATIONS):
        found = _inclusion(odds, free)
        if (abs(found - goal) <= TOLERANCE * np.maximum(goal, RARE)).all():
            return Subsets(odds, always, sizes)
        ratio = np.divide(goal, found, out=np.ones_like(goal), where=found > 0)
        odds = _scaled(odds * ratio, free)
    raise ArithmeticError(f"the odds of {f.shape[1]} experts have not settled")


def _scaled(odds: Array, free: NDArray[np.int64]) -> Array:
    """The same law with odds that sum to k, so that no coefficient grows out of range."""
    total = odds.sum(axis=-1, keepdims=True)
    scaled: Array = np.divide(odds * free[:, None], total, out=np.zeros_like(odds), where=total > 0)
    return scaled


def _inclusion(odds: Array, free: NDArray[np.int64]) -> Array:
    """[L, E], P(e ∈ S) = w_e · (sets of k − 1 without e) / (sets of k)."""
    _, E = odds.shape
    K = int(free.max(initial=0))
    before = _coefficients(odds, K)
    after = _coefficients(odds[:, ::-1], K)[::-1]
    # Those before e give j of the others, those after it the rest.
    rest = free[:, None] - 1 - np.arange(K + 1)
    index = np.broadcast_to(np.maximum(rest, 0), (E, *rest.shape))
    others = np.where(rest >= 0, np.take_along_axis(after[1:], index, axis=-1), 0.0)
    without = (before[:-1] * others).sum(axis=-1).T
    every: Array = np.take_along_axis(before[-1], free[:, None], axis=-1)
    return np.asarray(odds * without / every)


def _coefficients(odds: Array, K: int) -> Array:
    """[E + 1, L, K + 1]: of Π (1 + w x) over the first n experts, n = 0 … E, up to x^K."""
    L, E = odds.shape
    found = np.zeros((E + 1, L, K + 1))
    found[0, :, 0] = 1.0
    for expert in range(E):
        found[expert + 1] = found[expert]
        found[expert + 1, :, 1:] += odds[:, expert, None] * found[expert, :, :-1]
    return found
