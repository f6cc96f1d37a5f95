"""Which tokens of two runs stand for each other, and how far their chosen experts overlap.

Only equal token ids are compared. What both runs begin with is left out: a causal model does the
same there, whatever follows, so an overlap of 1 would say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.trace import Recording, Trace

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Context:
    """One token in its context: row `token` of the first `rows` rows of `recording`."""

    recording: Recording
    rows: int
    token: int

    @classmethod
    def of(cls, trace: Trace, token: int) -> Context:
        """Row `token` of `trace`."""
        return cls(Recording(trace), len(trace), token)

    @property
    def located(self) -> tuple[Trace, int]:
        """The trace that holds the token, and its index there."""
        return self.recording.locate(self.token)

    @property
    def token_ids(self) -> Ids:
        """int32 [rows]."""
        return np.concatenate([trace.token_ids for trace in self._traces()])[: self.rows]

    def expert_ids(self, rows: Sequence[int]) -> NDArray[np.int16]:
        """int16 [n, L, k], the experts that ran at `rows`."""
        found = [trace.expert_ids[index] for trace, index in map(self.recording.locate, rows)]
        shape = (0, *self.recording.prompt.expert_ids.shape[1:])
        return np.stack(found) if found else np.empty(shape, np.int16)

    def _traces(self) -> list[Trace]:
        """The prompt's trace and those of the generated rows."""
        prompt = self.recording.prompt
        steps = (self.recording.locate(row)[0] for row in range(len(prompt), self.rows))
        return [prompt, *steps]


class Alignment(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of A and of B that stand for each other.

    kind: "same length" where the prompts have as many tokens: row by row; "common ending" where
        they end alike: backwards from their ends and on into what was generated, while ids are
        equal; "none" otherwise.
    beginning: rows that both begin with, the same context in both; not compared.
    beginning_overlap: mean overlap there, a check: 1, as far as rounding allows; None without.
    rows_a, rows_b: [n], the compared rows, equal ids. dropped: aligned rows whose ids differ.
    """

    kind: Literal["same length", "common ending", "none"]
    beginning: int
    beginning_overlap: float | None
    rows_a: list[int]
    rows_b: list[int]
    dropped: int


def align(a: Context, b: Context) -> Alignment:
    """The rows of two runs that can be compared."""
    ids_a, ids_b = a.token_ids, b.token_ids
    length = min(len(ids_a), len(ids_b))
    differ = np.flatnonzero(ids_a[:length] != ids_b[:length])
    beginning = int(differ[0]) if len(differ) else length
    checked = overlaps(a, b, range(beginning), range(beginning))
    end_a, end_b = (_prompt_end(context) for context in (a, b))
    dropped = 0
    if end_a == end_b:
        rows = np.arange(beginning, length)
        equal = rows[ids_a[rows] == ids_b[rows]].tolist()
        rows_a = rows_b = equal
        dropped = len(rows) - len(equal)
    else:
        rows_a = _equal_around(ids_a, ids_b, end_a, end_b)
        rows_b = [row + end_b - end_a for row in rows_a]
    known = checked[~np.isnan(checked)]
    return Alignment(
        kind="same length" if end_a == end_b else "common ending" if rows_a else "none",
        beginning=beginning,
        beginning_overlap=float(known.mean()) if len(known) else None,
        rows_a=rows_a,
        rows_b=rows_b,
        dropped=dropped,
    )


def overlaps(
    a: Context, b: Context, rows_a: Sequence[int], rows_b: Sequence[int]
) -> NDArray[np.float64]:
    """[n, L]: |A ∩ B| / |A ∪ B| of the experts chosen at each pair of rows; NaN for no experts."""
    first, second = a.expert_ids(rows_a), b.expert_ids(rows_b)
    shared = np.zeros(first.shape[:2], int)
    for rank in range(second.shape[2]):
        one = second[:, :, rank, None]
        shared += ((first == one) & (one >= 0)).sum(axis=-1)
    union = (first >= 0).sum(axis=-1) + (second >= 0).sum(axis=-1) - shared
    found = np.full(shared.shape, np.nan)
    np.divide(shared, union, out=found, where=union > 0)
    return found


def _prompt_end(context: Context) -> int:
    return min(context.recording.prompt.prompt_tokens, context.rows)


def _equal_around(ids_a: Ids, ids_b: Ids, end_a: int, end_b: int) -> list[int]:
    """Rows of A around its prompt's end whose ids equal B's as far from the end of its own."""
    back = _equal_from(ids_a[:end_a][::-1], ids_b[:end_b][::-1])
    on = _equal_from(ids_a[end_a:], ids_b[end_b:]) if back else 0
    return list(range(end_a - back, end_a + on))


def _equal_from(a: Ids, b: Ids) -> int:
    """How many ids are equal before the first that is not."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length
