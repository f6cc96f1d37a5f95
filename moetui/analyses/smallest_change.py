"""The smallest change of a router's input that puts an expert among the chosen k.

With the norm's scale frozen, scores follow the stream linearly: s(δ) = s + G δ. The expert e is
chosen where all but k − 1 others score lower: a small quadratic programme, min ‖δ‖ so that
(G_e − G_j) δ ≥ s_j − s_e for every j outside some set of k − 1 experts. All those sets are
searched by branch and bound: an expert that stands in the way is either exceeded or one of the
k − 1, and a programme with fewer conditions bounds all that add to it. Each programme is a
least-distance problem and solved by non-negative least squares (Lawson and Hanson, 1974, ch. 23).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Programmes solved before the search is given up and a bound is all that is known.
PROGRAMMES = 2000
_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False, kw_only=True)
class SmallestChange:
    """The solution. delta: [H]; norm: its length. lowest: no change of a smaller length does it;
    equal to norm where the search came to its end. programmes: how many were solved."""

    delta: Numbers
    norm: float
    lowest: float
    programmes: int

    @property
    def exact(self) -> bool:
        """Whether the search came to its end."""
        return self.norm <= self.lowest * (1 + 1e-9) + 1e-12


@dataclass(frozen=True, eq=False, kw_only=True)
class PairChange:
    """The change that makes an expert's score equal that of one other.

    last: exceeding the k-th expert, the formula (s₍ₖ₎ − s_e)(G_e − G₍ₖ₎)/‖G_e − G₍ₖ₎‖².
    least: the shortest of such changes over all k chosen experts. An expert that comes in puts
    one of them out, so this one bounds every change from below; `last` need not: another chosen
    expert than the k-th may be the cheaper one to displace.
    """

    last: Numbers
    least: float


def smallest_change(
    scores: ArrayLike,
    slope: ArrayLike,
    expert: int,
    k: int,
    *,
    margin: float = 0.0,
    eligible: ArrayLike | None = None,
    programmes: int = PROGRAMMES,
) -> SmallestChange | None:
    """The shortest δ after which `expert` scores at least `margin` above all but k − 1 others.

    scores: [E]; slope: [E, H]; eligible: bool [E], those that can be chosen at all (default: all).
    None where no change does it (two experts with the same slope, one always ahead).
    Raises ValueError where the expert is not eligible or k is no number of experts.
    """
    s, G = np.asarray(scores, float), np.asarray(slope, float)
    may = np.ones(len(s), bool) if eligible is None else np.asarray(eligible, bool)
    if not 1 <= k <= len(s) or not may[expert]:
        raise ValueError("k experts of those eligible, the wanted one among them")
    others = np.flatnonzero(may & (np.arange(len(s)) != expert))
    A, b = G[expert] - G[others], s[others] - s[expert] + margin
    # All programmes live in the span of the conditions, which is small.
    basis, rows = np.linalg.qr(A.T)
    found = _search(_Conditions(rows.T, b), k - 1, programmes)
    if found is None:
        return None
    y, lowest, solved = found
    norm = float(np.linalg.norm(y))
    return SmallestChange(delta=basis @ y, norm=norm, lowest=min(lowest, norm), programmes=solved)


def pair_change(
    scores: ArrayLike,
    slope: ArrayLike,
    expert: int,
    chosen: Iterable[int],
    *,
    margin: float = 0.0,
) -> PairChange:
    """What displacing single chosen experts takes. scores: [E]; slope: [E, H]; `chosen`: the k
    experts of the untouched router; margin: how far above the last of them the expert is to score
    (without, it ends in a tie that rounding decides). Both are 0 where the expert is one of them.
    """
    s, G = np.asarray(scores, float), np.asarray(slope, float)
    inside = sorted(chosen, key=lambda j: s[j])
    if expert in inside:
        return PairChange(last=np.zeros(G.shape[1]), least=0.0)
    gaps = np.array([s[j] - s[expert] for j in inside])
    ways = np.array([G[expert] - G[j] for j in inside])
    lengths = np.linalg.norm(ways, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        norms = np.where(gaps <= 0, 0.0, gaps / lengths)
        last = max(gaps[0] + margin, 0.0) * ways[0] / lengths[0] ** 2
    return PairChange(last=np.nan_to_num(last), least=float(norms.min()))


@dataclass(frozen=True, eq=False)
class _Conditions:
    """rows · y ≥ need, one for every other expert."""

    rows: Numbers
    need: Numbers

    def shortest(self, required: frozenset[int]) -> Numbers | None:
        """The shortest y that meets those `required`, None where none does."""
        if not required:
            return np.zeros(self.rows.shape[1])
        at = np.fromiter(sorted(required), int)
        rows, need = self.rows[at], self.need[at]
        scale = max(float(np.abs(need).max()), 1e-30)
        system = np.vstack([rows.T, need / scale])
        wanted = np.zeros(len(system))
        wanted[-1] = 1.0
        u, _ = nnls(system, wanted)
        residual = system @ u - wanted
        if abs(residual[-1]) < 1e-12:
            return None
        y: Numbers = -residual[:-1] / residual[-1] * scale
        met = rows @ y - need >= -1e-6 * (scale + np.abs(need))
        return y if met.all() else None

    def unmet(self, y: Numbers) -> Numbers:
        """[J], how much further the stream would have to move for each; 0 where it is met."""
        lacking = self.need - self.rows @ y
        slack = _TOLERANCE * (1 + np.abs(self.need))
        lengths = np.maximum(np.linalg.norm(self.rows, axis=1), 1e-300)
        return np.where(lacking > slack, lacking / lengths, 0.0)


@dataclass(frozen=True, order=True)
class _Node:
    """A programme: its solution, the conditions it was required to meet, those it may leave."""

    length: float
    order: int
    y: Numbers = field(compare=False)
    required: frozenset[int] = field(compare=False)
    spares: frozenset[int] = field(compare=False)


def _search(
    conditions: _Conditions, spared: int, programmes: int
) -> tuple[Numbers, float, int] | None:
    """Shortest y that leaves at most `spared` conditions unmet, a lower bound, programmes solved.

    Best first: the first programme that needs no further condition is the answer.
    """
    order = count()
    first = _Node(0.0, next(order), np.zeros(conditions.rows.shape[1]), frozenset(), frozenset())
    heap = [first]
    solved = 0
    while heap:
        node = heapq.heappop(heap)
        unmet = conditions.unmet(node.y)
        unmet[list(node.spares)] = 0.0
        if np.count_nonzero(unmet) + len(node.spares) <= spared:
            return node.y, node.length, solved
        if solved >= programmes:
            dived = _dive(conditions, node.y, spared)
            return None if dived is None else (dived, node.length, solved)
        worst = int(unmet.argmax())
        if len(node.spares) < spared:
            spares = node.spares | {worst}
            heapq.heappush(heap, replace(node, order=next(order), spares=spares))
        solved += 1
        required = node.required | {worst}
        further = conditions.shortest(required)
        if further is not None:
            length = max(node.length, float(np.linalg.norm(further)))
            heapq.heappush(heap, _Node(length, next(order), further, required, node.spares))
    return None


def _dive(conditions: _Conditions, y: Numbers, spared: int) -> Numbers | None:
    """A change that does it, not the shortest: those furthest away at y are spared."""
    furthest = np.argsort(-conditions.unmet(y), kind="stable")
    return conditions.shortest(frozenset(furthest[spared:].tolist()))
