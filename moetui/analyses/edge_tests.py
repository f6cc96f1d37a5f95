"""Which pairs of experts of two layers meet more often than a shuffle lets them.

Every pair of experts of every pair of layers is one cell; all cells are judged together by the
largest z-score of each shuffle (Westfall and Young 1993), since 999 shuffles cannot reach a level
corrected for tens of thousands of cells one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moetui.stats import Strata, joint_counts, plug_in_information
from moetui.stats.joint import shuffled_joint
from moetui.stats.shuffle import movable_rows, within_document_shuffle

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]
Members = NDArray[np.int8]
Pairs = Sequence[tuple[int, int]]

# Expected counts below which a cell's z-score is too lopsided to stand beside the others.
EXPECTED = 5.0
# Columns (layers · experts) that are held as float32 at once: bounds memory at their number times
# tokens times 8 bytes.
COLUMNS = 1024


@dataclass(frozen=True, eq=False)
class Counted:
    """What happened in some documents; P pairs of layers, E experts.

    joint: [P, E, E], tokens that chose i at the first and j at the second layer. first, second:
    [P, E], tokens that chose each. tokens: T.
    """

    joint: Numbers
    first: Numbers
    second: Numbers
    tokens: int

    @property
    def independent(self) -> Numbers:
        """[P, E, E]: the joint count that independent layers would have."""
        return np.asarray(self.first[:, :, None] * self.second[:, None, :] / self.tokens, float)


@dataclass(frozen=True, eq=False)
class ShuffleTest:
    """The cells [P, E, E] against one shuffle.

    expected: mean count under it. kept: the part of the count that no shuffle changes, of tokens
    that cannot change places. z: the count less `expected`, in standard deviations; NaN for cells
    that are not tested. q: family-wise. information: [P], mean of the plug-in mutual information
    under it, in nats, and information_p: [P], of the observed one. movable: share of tokens that
    can change places.
    """

    expected: Numbers
    kept: Numbers
    z: Numbers
    q: Numbers
    information: Numbers
    information_p: Numbers
    movable: float


def counted(members: Members, pairs: Pairs) -> Counted:
    """The counts of members int8 [T, L, E] for pairs of layers (rows of the L axis)."""
    single = members.sum(axis=0, dtype=np.int64).astype(float)
    joint = np.stack([joint_counts(members[:, a], members[:, b]) for a, b in pairs])
    first, second = (single[[pair[side] for pair in pairs]] for side in (0, 1))
    return Counted(joint, first, second, len(members))


def testable(found: Counted) -> Flags:
    """bool [P, E, E]: cells whose count would be 5 or more were the layers independent; no
    shuffle changes which these are."""
    return np.asarray(found.independent >= EXPECTED)


def shuffle_test(
    members: Members,
    found: Counted,
    groups: NDArray[np.generic],
    pairs: Pairs,
    tested: Flags,
    *,
    permutations: int,
    seed: int,
    step: Callable[[], None] = lambda: None,
) -> ShuffleTest:
    """The cells of `tested` [P, E, E] as one family, the second layer's rows shuffled within
    `groups` [T] (documents, token ids or both), whole tokens at a time.

    step: called after every shuffle of every block of layers (`blocks`).
    """
    strata = Strata.of(groups)
    expected, scale = _expected(members, strata, pairs)
    usable = tested & (scale > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(usable, (found.joint - expected) / scale, np.nan)
    observed = plug_in_information(found.joint)
    free = movable_rows(groups)
    kept = np.stack([joint_counts(members[~free, a], members[~free, b]) for a, b in pairs])
    maxima = np.full(permutations, -np.inf)
    sums, reached = np.zeros(len(pairs)), np.zeros(len(pairs), np.int64)
    for block in blocks(pairs, members.shape[2]):
        here = _Block(members, free, pairs, block)
        rng = np.random.default_rng(seed)  # every block sees the same shuffles
        for index in range(permutations):
            joint = kept[block] + here.joint(within_document_shuffle(groups[free], rng))
            with np.errstate(invalid="ignore", divide="ignore"):
                scores = (joint - expected[block]) / scale[block]
            most = scores[usable[block]].max(initial=-np.inf)
            maxima[index] = max(maxima[index], most)
            information = plug_in_information(joint)
            sums[block] += information
            reached[block] += information >= observed[block] - 1e-12
            step()
    above = permutations - np.searchsorted(np.sort(maxima), np.nan_to_num(z) - 1e-9)
    # A count that no shuffle moves (tokens alone decide) is beyond none of them.
    q = np.where(usable, (1 + above) / (1 + permutations), 1.0)
    return ShuffleTest(
        expected=expected,
        kept=kept,
        z=z,
        q=np.where(tested, q, np.nan),
        information=sums / permutations,
        information_p=(1 + reached) / (1 + permutations),
        movable=float(free.mean()),
    )


def blocks(pairs: Pairs, experts: int) -> Iterator[slice]:
    """Runs of pairs whose layers fit into the columns that are held at once."""
    start, seen = 0, set[int]()
    for index, pair in enumerate(pairs):
        if seen and len(seen | {*pair}) * experts > COLUMNS:
            yield slice(start, index)
            start, seen = index, set()
        seen |= {*pair}
    if pairs:
        yield slice(start, len(pairs))


class _Block:
    """The columns of some pairs of layers over the rows `free` [T], in the type in which products
    are fast."""

    def __init__(self, members: Members, free: Flags, pairs: Pairs, block: slice) -> None:
        self._pairs = pairs[block]
        layers = sorted({layer for pair in self._pairs for layer in pair})
        self._at = {layer: row for row, layer in enumerate(layers)}
        self._rows = np.ascontiguousarray(members[:, layers][free], np.float32)

    def joint(self, order: NDArray[np.intp]) -> Numbers:
        """[pairs, E, E], the second layer's rows taken in `order`."""
        moved = self._rows[order]
        return np.stack(
            [self._rows[:, self._at[a]].T @ moved[:, self._at[b]] for a, b in self._pairs]
        ).astype(float)


def _expected(members: Members, strata: Strata, pairs: Pairs) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation [P, E, E] of the counts under the shuffle."""
    kept: dict[int, Numbers] = {}
    means, deviations = [], []
    for a, b in pairs:
        for layer in (a, b):
            if layer not in kept:
                kept[layer] = strata.sums(members[:, layer])
        for layer in [layer for layer in kept if layer not in (a, b)]:
            del kept[layer]
        joint = shuffled_joint(kept[a], kept[b], strata.sizes)
        means.append(joint.mean)
        # Rounding leaves a trace of variance where there is none.
        deviations.append(np.sqrt(np.where(joint.variance > 1e-9, joint.variance, 0.0)))
    return np.stack(means), np.stack(deviations)
