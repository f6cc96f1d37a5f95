import re
from dataclasses import replace

import numpy as np
import pytest
from rich.style import Style

from moetui.tui.moment import Cursor, Moment
from moetui.tui.palette import Depth, PartMark, part_marks
from moetui.tui.panes import WhyPane
from moetui.tui.widgets.lines import line_width
from moetui.tui.widgets.stack import ZERO, Scale, stack
from tests.builders import make_recording, make_snapshot
from tests.tui.stage import rows, staged

NONE = Style()
LETTERS = [PartMark(letter, NONE, coloured=False) for letter in "EAX"]


def moment(cursor=(2, 1, 0), **trace):
    return Moment(make_snapshot(make_recording(**trace)), Cursor(*cursor))


def drawn(shares, scale):
    return "".join(text for text, _ in stack(shares, LETTERS, scale, NONE))


def test_parts_that_help_stand_right_of_zero_and_those_that_oppose_left():
    bar = drawn([1.25, -0.5, 0.25], Scale.fitting(41, 0.5, 1.5))
    left, right = bar.split(ZERO)
    assert left.strip() == "A" * 10
    assert right.strip() == "E" * 25 + "X" * 5


def test_stretches_are_as_long_as_their_shares():
    scale = Scale.fitting(101, 0, 1)
    bar = drawn([0.2, 0.5, 0.3], scale)
    assert [bar.count(letter) for letter in "EAX"] == [20, 50, 30]


@pytest.mark.parametrize("seed", range(10))
def test_a_bar_is_exactly_as_wide_as_its_scale(seed):
    rng = np.random.default_rng(seed)
    shares = rng.normal(size=3)
    shares /= shares.sum()
    left, right = -shares[shares < 0].sum(), shares[shares > 0].sum()
    for width in (2, 7, 30, 111):
        line = stack(shares.tolist(), LETTERS, Scale.fitting(width, left, right), NONE)
        assert line_width(line) == width


def test_no_preference_is_said_and_not_drawn():
    assert "no preference" in drawn([np.nan] * 3, Scale.fitting(30, 0, 1))


def test_letters_are_never_shared():
    marks = part_marks(("attention", "alpha", "aa", "a"), Depth.NONE, True, NONE)
    assert len({mark.letter for mark in marks}) == 4


@pytest.mark.parametrize("size", [(62, 20), (80, 24), (120, 40), (200, 60)])
async def test_rows_show_shares_in_percent_and_the_seed_ratio(size):
    pane = WhyPane()
    async with staged(pane, moment=moment(N=5), size=size):
        assert rows(pane)[1].split()[-1] == "seed"
        for layer, line in enumerate(rows(pane)[2:7]):
            numbers = re.findall(r"-?\d+(?:\.\d+)?", line)
            shares = [f"{100 * s:.0f}" for s in pane.view.shares[layer]]
            sizes = [f"{100 * s:.0f}" for s in pane.view.sizes[layer]]
            wide = size[0] >= 80
            told = [n for pair in zip(shares, sizes, strict=True) for n in pair] if wide else shares
            assert numbers[1:] == [*told, f"{pane.view.seed_ratio[layer]:.2f}"]


async def test_the_legend_tells_cancellation_and_what_is_unexplained():
    pane = WhyPane()
    async with staged(pane, moment=moment(cursor=(2, 3, 0), N=5)):
        legend = rows(pane)[-1]
        assert f"L3 cancels {pane.view.cancellation[3]:.2f}×" in legend
        assert f"unrelated {pane.view.cancellation_unrelated[3]:.2f}×" in legend
        assert f"unexplained {pane.view.completeness[3]:.0e}" in legend


async def test_every_source_is_named_with_its_letter():
    pane = WhyPane()
    async with staged(pane, moment=moment()):
        head = rows(pane)[0]
        assert re.search(r"E +embedding +A +attention +X +experts, combined", head)


async def test_a_failed_self_test_is_told_in_its_own_words():
    pane = WhyPane()
    recording = make_recording(
        with_parts=False, info={"decomposition_error": "It does not add up."}
    )
    async with staged(pane, moment=Moment(make_snapshot(recording))):
        assert "It does not add up." in "\n".join(rows(pane))


async def test_negative_shares_are_left_of_the_line_on_the_screen():
    recording = make_recording(2, 0, N=1, E=4, k=1)
    parts = np.array([[6, 0, 0, 0], [-2, 0, 0, 0], [0, 0, 0, 0]], np.float32)
    trace = recording.prompt
    trace = replace(trace, router_parts=np.broadcast_to(parts, (2, 1, 3, 4)).copy())
    snapshot = make_snapshot(type(recording)(trace))
    pane = WhyPane()
    async with staged(pane, moment=Moment(snapshot)):
        left, right = rows(pane)[2].split(ZERO)
        assert "A" in left
        assert "E" in right
        assert "-50" in right


@pytest.mark.parametrize("width", [48, 58, 78, 120])
async def test_no_source_loses_the_end_of_its_name(width):
    names = ("embedding", "attention", "routed experts", "shared expert", "dense MLP")
    pane = WhyPane()
    async with staged(pane, moment=moment(info={"part_names": names}), size=(width, 20)):
        told = re.split(r" +[EARSD] +", f" {rows(pane)[0].strip()}")
    short = ["embed", "attn", "routed", "shared", "dense"]
    assert told == ["", *(short if width < 120 else names)]
