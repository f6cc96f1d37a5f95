"""The two halves of the documents in which an edge has to show, each judged by three shuffles.

Each of the first two keeps one cause, the document or the token. The third keeps what both bring
about together, however they do, but can move only tokens that a document has twice. So it tries
few pairs of experts, where its level is reached sooner: those that the *other* half picked by the
first two, which leaves this half's chance of an error as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

from moetui.analyses.edge_tests import (
    Counted,
    Flags,
    Members,
    Pairs,
    ShuffleTest,
    counted,
    shuffle_test,
    testable,
)
from moetui.analyses.routed import RoutedDocument
from moetui.analyses.routing_sets import members

# Shuffles by which each half is judged.
SHUFFLES = 3
# One cell (pair of layers, source, target), or all of them.
Cells = tuple[int, int, int] | EllipsisType


@dataclass(frozen=True, eq=False)
class Half:
    """Documents of one half as one table of tokens. document, token: [T]; members [T, L, E]."""

    documents: tuple[RoutedDocument, ...]
    document: NDArray[np.int64]
    token: NDArray[np.int64]
    members: Members

    @classmethod
    def of(cls, documents: Sequence[RoutedDocument], experts: int) -> Half:
        """All tokens of `documents`, at least one."""
        sizes = [len(one.ids) for one in documents]
        return cls(
            documents=tuple(documents),
            document=np.repeat(np.arange(len(sizes)), sizes),
            token=np.concatenate([one.ids for one in documents]).astype(np.int64),
            members=members(np.concatenate([one.experts for one in documents]), experts),
        )

    @property
    def token_in_document(self) -> NDArray[np.int64]:
        """[T], equal where both the token id and the document are."""
        return np.asarray(self.document * (self.token.max() + 1) + self.token)

    def by_document(self, rows: NDArray[np.generic]) -> NDArray[np.float64]:
        """[D, C]: sums over each document's tokens of rows [T, C]."""
        starts = np.searchsorted(self.document, np.arange(len(self.documents)))
        return np.add.reduceat(np.asarray(rows, float), starts, axis=0)


@dataclass(frozen=True, eq=False)
class Beats:
    """Cells [P, E, E] that beat a shuffle. together: the one among equal tokens of a document,
    and the other two as well."""

    documents: Flags
    tokens: Flags
    together: Flags

    @property
    def both(self) -> Flags:
        """Those within documents and among equal tokens, each by itself."""
        return np.asarray(self.documents & self.tokens)

    def and_in(self, other: Beats) -> Beats:
        """In both halves."""
        return Beats(
            self.documents & other.documents,
            self.tokens & other.tokens,
            self.together & other.together,
        )


@dataclass(frozen=True, eq=False)
class Judged:
    """One half with its three tests."""

    half: Half
    found: Counted
    documents: ShuffleTest
    tokens: ShuffleTest
    together: ShuffleTest

    def beats(self, lift: float, level: float) -> Beats:
        """What is above `lift`, and at `level` beyond each shuffle."""
        documents, tokens, together = (
            _beats(self.found, test, lift, level)
            for test in (self.documents, self.tokens, self.together)
        )
        return Beats(documents, tokens, documents & tokens & together)

    def over_tokens(self, cells: Cells = ...) -> NDArray[np.float64]:
        """How many times more often than among equal tokens; of all cells [P, E, E], or of some."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.found.joint[cells] / self.tokens.expected[cells])

    def over_together(self, cells: Cells = ...) -> NDArray[np.float64]:
        """The same than among equal tokens of a document, of the tokens that can change places
        there."""
        kept = self.together.kept[cells]
        with np.errstate(invalid="ignore", divide="ignore"):
            moved = self.found.joint[cells] - kept
            return np.asarray(moved / (self.together.expected[cells] - kept))


def judged_halves(
    halves: Sequence[Half],
    pairs: Pairs,
    *,
    lift: float,
    level: float,
    permutations: int,
    seed: int,
    step: Callable[[], None] = lambda: None,
) -> tuple[Judged, Judged]:
    """Two halves, each with its own draws. step: as in `shuffle_test`, for `SHUFFLES` of each."""
    found = [counted(half.members, pairs) for half in halves]

    def test(at: int, groups: NDArray[np.int64], tested: Flags) -> ShuffleTest:
        return shuffle_test(
            halves[at].members, found[at], groups, pairs, tested,
            permutations=permutations, seed=seed + at, step=step,
        )  # fmt: skip

    fit = [testable(counts) for counts in found]
    documents = [test(at, half.document, fit[at]) for at, half in enumerate(halves)]
    tokens = [test(at, half.token, fit[at]) for at, half in enumerate(halves)]
    picked = [
        _beats(found[at], documents[at], lift, level) & _beats(found[at], tokens[at], lift, level)
        for at in range(len(halves))
    ]
    first, second = (
        Judged(
            half, found[at], documents[at], tokens[at],
            test(at, half.token_in_document, picked[1 - at] & fit[at]),
        )
        for at, half in enumerate(halves)
    )  # fmt: skip
    return first, second


def _beats(found: Counted, test: ShuffleTest, lift: float, level: float) -> Flags:
    with np.errstate(invalid="ignore"):
        return np.asarray((found.joint > lift * found.independent) & (test.q <= level))
