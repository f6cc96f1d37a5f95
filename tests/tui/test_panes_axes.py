import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moetui.tui.widgets.axes import MOST_FOLDED, expert_axis, layer_axis
from moetui.tui.widgets.lines import line_width, ticks

sizes = st.integers(1, 200)


@given(sizes, sizes, st.integers(0, 199), st.sampled_from([(1,), (1, 2, 4)]))
def test_the_cursor_s_layer_is_always_on_a_row(num_layers, rows, cursor, packings):
    cursor = min(cursor, num_layers - 1)
    axis = layer_axis(num_layers, rows, cursor, packings)
    assert 0 <= axis.row_of(cursor) < axis.rows <= rows
    assert cursor in axis.layers(axis.row_of(cursor))


@given(sizes, sizes, st.integers(0, 199), st.sampled_from([(1,), (1, 2, 4)]))
def test_rows_show_following_layers_each_once(num_layers, rows, cursor, packings):
    axis = layer_axis(num_layers, rows, min(cursor, num_layers - 1), packings)
    seen = [layer for row in range(axis.rows) for layer in axis.layers(row)]
    assert seen == list(axis.shown)
    assert all(len(axis.layers(row)) >= 1 for row in range(axis.rows))


def test_layers_are_packed_only_as_tightly_as_needed():
    assert [layer_axis(48, rows, 0, (1, 2, 4)).per_row for rows in (48, 47, 24, 23, 12, 5)] == [
        1, 2, 2, 4, 4, 4,
    ]  # fmt: skip
    assert layer_axis(48, 5, 0, (1,)).per_row == 1


@given(st.integers(1, 512), sizes, st.integers(0, 511))
def test_the_cursor_s_expert_is_always_on_a_column(num_experts, cells, cursor):
    cursor = min(cursor, num_experts - 1)
    axis = expert_axis(num_experts, cells, cursor)
    column = axis.column_of(cursor)
    assert column is not None
    assert 0 <= column < axis.columns
    assert axis.cells <= cells
    first = axis.expert_at(column * axis.width)
    assert first is not None
    assert first <= cursor < first + axis.fold


def test_experts_spread_then_fold_then_scroll():
    assert expert_axis(16, 70, 0).width == 4
    assert expert_axis(64, 70, 0).width == 1
    assert (expert_axis(128, 70, 0).fold, expert_axis(128, 60, 0).fold) == (2, 3)
    wide = expert_axis(512, 70, 300)
    assert (wide.fold, wide.columns) == (MOST_FOLDED, 70)
    assert 300 in wide.experts
    assert expert_axis(512, 70, 511).experts.stop == 512


@given(st.lists(st.tuples(st.integers(0, 80), st.text("0123456789", min_size=1, max_size=3))))
def test_ticks_never_touch_and_fill_the_width(labels):
    line = ticks(sorted(labels), 60)
    assert len(line) == 60


def test_ticks_stand_at_their_columns():
    assert ticks([(0, "0"), (4, "8"), (5, "9"), (8, "16")], 12) == "0   8   16  "
    assert np.char.find("0   8", "8") == 4


def test_line_width_counts_cells():
    assert line_width((("漢", None), ("ab", None))) == 4  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [0, -3])
def test_no_room_is_no_error(rows):
    assert layer_axis(10, rows, 3, (1,)).rows == 1
    assert expert_axis(8, rows, 3).columns >= 1
