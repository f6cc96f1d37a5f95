from hypothesis import given
from hypothesis import strategies as st
from textual.geometry import Offset

from moetui.tui.moment import Cursor, Moment
from moetui.tui.panes import TokenStripPane
from moetui.tui.panes.token_strip import wrap
from tests.builders import make_recording, make_snapshot
from tests.tui.stage import rows, staged, style_at


def moment(recording, token=0):
    return Moment(make_snapshot(recording), Cursor(token))


def strip_pane(height=3):
    pane = TokenStripPane()
    pane.styles.height = height
    return pane


async def test_prompt_and_generation_are_told_apart():
    recording = make_recording(2, 2, tokens=["The", " sky", " is", "\n"])
    pane = strip_pane()
    async with staged(pane, moment=moment(recording)):
        assert rows(pane)[0].rstrip() == "The ·sky ▸·is ↵"


async def test_special_and_partial_tokens_are_marked():
    kinds = ["special", "bytes", "text"]
    recording = make_recording(3, 0, tokens=["<s>", "\\xe2", "[bold]"], kinds=kinds)
    pane = strip_pane()
    async with staged(pane, moment=moment(recording)):
        assert rows(pane)[0].rstrip() == "⟦<s>⟧ ‹\\xe2› [bold]"


async def test_the_cursor_is_reversed_so_it_needs_no_colour():
    recording = make_recording(3, 0, tokens=["ab", "cd", "ef"])
    pane = strip_pane()
    async with staged(pane, moment=moment(recording, 1)):
        assert [bool(style_at(pane, x, 0).reverse) for x in range(8)] == [
            False, False, False, True, True, False, False, False,
        ]  # fmt: skip


async def test_the_cursor_is_always_in_sight_and_arrows_say_that_there_is_more():
    recording = make_recording(190, 10, tokens=[f"t{n}" for n in range(200)], N=1, E=4, k=1)
    pane = strip_pane()
    async with staged(pane, moment=moment(recording)):
        for token in (0, 100, 189, 190, 199):
            pane.show(moment(recording, token))
            text = "\n".join(rows(pane))
            assert f"t{token} " in text
            assert ("↑" in text) == (token > 20)
            assert ("↓" in text) == (token < 150)


async def test_a_click_puts_the_cursor_on_the_token():
    recording = make_recording(3, 1, tokens=["ab", "cd", "漢字", "ef"])
    pane = strip_pane()
    pane.styles.border = ("round", "red")
    async with staged(pane, moment=moment(recording)) as (app, pilot):
        for x, token in ((0, 0), (4, 1), (6, 2), (9, 2), (11, 3)):
            await pilot.click(pane, offset=Offset(x + 1, 1))
            assert app.moves[-1].token == token
        count = len(app.moves)
        await pilot.click(pane, offset=Offset(2 + 1, 1))  # the gap between two tokens
        assert len(app.moves) == count


@given(st.lists(st.integers(1, 20), min_size=1), st.integers(1, 40))
def test_tokens_never_overlap_and_only_single_ones_overflow(widths, width):
    places = wrap(widths, width)
    ends = {}
    for (row, x), size in zip(places, widths, strict=True):
        assert x >= ends.get(row, 0)
        assert x + size <= width or x == 0
        ends[row] = x + size + 1
    assert [row for row, _ in places] == sorted(row for row, _ in places)
