"""Traces can be cut and joined without changing a number; a recording only grows."""

from __future__ import annotations

import numpy as np
import pytest

from moetui.trace import Recording, Trace, join, trace_document
from tests.builders import make_trace

ROWWISE = (
    "token_ids",
    "router_logits",
    "selection_scores",
    "expert_ids",
    "expert_weights",
    "router_parts",
    "seed_parts",
)


@pytest.fixture
def trace() -> Trace:
    return make_trace(T=8, prompt_tokens=3)


def test_cut_and_joined_again_it_is_the_same(trace: Trace) -> None:
    again = join([trace.rows(0, 3), *(trace.rows(i, i + 1) for i in range(3, 8))])
    assert trace_document(again) == trace_document(trace)
    assert again.prompt_tokens == 3
    assert np.array_equal(again.logits, trace.logits)


def test_a_cut_keeps_its_rows_and_counts_positions_from_its_own_start(trace: Trace) -> None:
    part = trace.rows(2, 5)
    for name in ROWWISE:
        assert np.array_equal(getattr(part, name), getattr(trace, name)[2:5]), name
    assert part.lens is not None and trace.lens is not None
    assert part.lens.positions.tolist() == [0, 1, 2]
    assert np.array_equal(part.lens.token_ids, trace.lens.token_ids[2:5])
    assert part.prompt_tokens == 1
    assert len(part.logits) == 0


def test_what_one_part_lacks_the_whole_lacks(trace: Trace) -> None:
    bare = make_trace(T=1, with_lens=False, with_parts=False)
    whole = join([trace, bare])
    assert whole.router_parts is None
    assert whole.lens is not None and whole.lens.positions.tolist() == list(range(8))


def test_a_recording_gives_the_rows_that_were_there(trace: Trace) -> None:
    recording = Recording(trace.rows(0, 3))
    recording.append(trace.rows(3, 4))
    early = recording.trace(4)
    recording.append(trace.rows(4, 5))
    assert recording.rows == 5
    assert trace_document(recording.trace(4)) == trace_document(early)
    assert trace_document(recording.trace(2)) == trace_document(trace.rows(0, 2))
    where, row = recording.locate(4)
    assert where.token_ids[row] == trace.token_ids[4]
    where, row = recording.locate(1)
    assert where.token_ids[row] == trace.token_ids[1]


def test_rows_that_are_not_there_are_refused(trace: Trace) -> None:
    recording = Recording(trace)
    with pytest.raises(IndexError):
        recording.locate(8)
    with pytest.raises(ValueError, match="one row"):
        recording.append(trace)
