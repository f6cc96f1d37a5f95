from dataclasses import replace

import numpy as np
import pytest

from moetui.analyses.alignment import Context, align, overlaps
from moetui.trace import Recording
from tests.builders import make_recording, make_trace


def context(ids, seed=0, *, prompt=None, token=0):
    """A run of the token ids `ids`, the first `prompt` of them its prompt."""
    trace = make_trace(len(ids), 3, 12, 3, seed, prompt_tokens=prompt)
    return Context.of(replace(trace, token_ids=np.array(ids, np.int32)), token)


def test_prompts_of_one_length_are_compared_row_by_row_at_equal_ids():
    found = align(context([1, 2, 3, 4, 5]), context([1, 9, 3, 8, 5], seed=1))
    assert (found.kind, found.beginning) == ("same length", 1)
    assert found.rows_a == found.rows_b == [2, 4]
    assert found.dropped == 2


def test_prompts_that_end_alike_are_compared_backwards_from_their_ends():
    found = align(context([7, 2, 3, 4]), context([1, 9, 8, 3, 4], seed=1))
    assert (found.kind, found.beginning, found.dropped) == ("common ending", 0, 0)
    assert (found.rows_a, found.rows_b) == ([2, 3], [3, 4])


def test_what_was_generated_after_a_common_ending_is_compared_while_it_is_equal():
    a = context([7, 3, 4, 20, 21, 22], prompt=3)
    b = context([1, 9, 3, 4, 20, 30, 22], seed=1, prompt=4)
    found = align(a, b)
    assert (found.rows_a, found.rows_b) == ([1, 2, 3], [2, 3, 4])


def test_nothing_is_compared_where_lengths_and_ends_differ():
    found = align(context([1, 2, 3]), context([1, 2, 3, 4], seed=1))
    assert (found.kind, found.rows_a, found.rows_b) == ("none", [], [])
    assert found.beginning == 3


def test_a_common_beginning_is_left_out_and_checked():
    trace = make_trace(5, 3, 12, 3)
    other = make_trace(5, 3, 12, 3, seed=1)
    ids = np.concatenate([trace.expert_ids[:3], other.expert_ids[3:]])
    branched = replace(other, token_ids=np.array([0, 1, 2, 50, 4], np.int32), expert_ids=ids)
    found = align(Context.of(trace, 4), Context.of(branched, 4))
    assert (found.beginning, found.beginning_overlap) == (3, 1.0)
    assert (found.rows_a, found.dropped) == ([4], 1)
    whole = align(Context.of(trace, 4), Context.of(trace, 2))
    assert (whole.beginning, whole.rows_a, whole.dropped) == (5, [], 0)


def test_both_sides_say_the_same():
    a, b = context([7, 2, 3, 4]), context([1, 9, 8, 3, 4], seed=1)
    there, back = align(a, b), align(b, a)
    assert (there.rows_a, there.rows_b) == (back.rows_b, back.rows_a)
    assert there.kind == back.kind


def test_overlaps_are_jaccard_s_index_of_every_pair_and_layer():
    a = Context.of(make_trace(6, 3, 12, 4, layer_experts={1: 3}), 0)
    b = Context.of(make_trace(6, 3, 12, 4, seed=1, layer_experts={1: 3}), 0)
    rows_a, rows_b = [0, 3, 5], [1, 1, 4]
    found = overlaps(a, b, rows_a, rows_b)
    assert found.shape == (3, 3)
    for n, (i, j) in enumerate(zip(rows_a, rows_b, strict=True)):
        for layer in range(3):
            one, two = (
                {int(e) for e in c.located[0].expert_ids[row, layer] if e >= 0}
                for c, row in ((a, i), (b, j))
            )
            assert found[n, layer] == pytest.approx(len(one & two) / len(one | two))
    assert (found[:, 1] == 1).all()  # three experts, all of them chosen


def test_layers_without_experts_on_record_have_no_overlap():
    trace = make_trace(3, 2, 8, 2)
    ids = trace.expert_ids.copy()
    ids[:, 1] = -1
    holed = Context.of(replace(trace, expert_ids=ids), 0)
    found = overlaps(holed, holed, [0, 1], [0, 1])
    assert (found[:, 0] == 1).all() and np.isnan(found[:, 1]).all()
    assert align(holed, holed).beginning_overlap == 1.0


def test_a_recording_in_steps_reads_as_its_whole_trace():
    recording = make_recording(4, 3)
    part = Context(recording, 6, 5)
    whole = recording.trace()
    np.testing.assert_array_equal(part.token_ids, whole.token_ids[:6])
    np.testing.assert_array_equal(part.expert_ids([5, 0]), whole.expert_ids[[5, 0]])
    trace, row = part.located
    assert trace.tokens[row] == whole.tokens[5]
    assert len(Context(Recording(whole), 2, 1).token_ids) == 2
