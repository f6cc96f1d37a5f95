import re

import pytest
from rich.style import Style

from moetui.tui.moment import Cursor, Moment
from moetui.tui.panes import LensPane
from moetui.tui.widgets.gauge import gauge, probability
from tests.builders import make_recording, make_snapshot
from tests.tui.stage import rows, staged


def moment(cursor=(2, 1, 0), **trace):
    return Moment(make_snapshot(make_recording(**trace)), Cursor(*cursor))


@pytest.mark.parametrize("size", [(62, 24), (80, 24), (120, 40), (200, 60)])
async def test_rows_show_top_token_probability_and_the_answer_s_rank(size):
    pane = LensPane()
    async with staged(pane, moment=moment(N=8), size=size):
        view = pane.view
        for layer, line in enumerate(rows(pane)[2:10]):
            best = view.top[layer][0]
            assert line[pane.label_width(view) + 2 :].startswith("·" + best.text.strip())
            assert probability(best.probability) in line
            rank = re.search(r"[━╸╌]+ +(\d+)", line)
            assert int(rank[1]) == view.answer_rank[layer] + 1
            assert ("●" in line) == (layer >= view.settled)


async def test_wide_panes_list_the_next_guesses():
    pane = LensPane()
    async with staged(pane, moment=moment(N=4), size=(160, 20)):
        for layer, line in enumerate(rows(pane)[2:6]):
            for guess in pane.view.top[layer]:
                assert "·" + guess.text.strip() in line
                assert probability(guess.probability) in line
        heads = rows(pane)[1]
        for n, place in enumerate(("2nd", "3rd", "4th", "5th"), 1):
            for line, top in zip(rows(pane)[2:6], pane.view.top, strict=True):
                column = heads.index(place)
                assert line[column:].startswith("·" + top[n].text.strip())


async def test_the_heading_names_the_answer_and_where_it_settles():
    pane = LensPane()
    async with staged(pane, moment=moment(N=6)):
        view = pane.view
        assert view.answer.text.strip() in rows(pane)[0]
        assert f"on top from layer {view.settled}" in rows(pane)[0]
        assert f"rank {(view.vocabulary + 1) // 2} of {view.vocabulary}" in rows(pane)[-1]


async def test_the_rise_and_fall_of_the_answer_is_marked():
    pane = LensPane()
    async with staged(pane, moment=moment(N=10)):
        ranks = pane.view.answer_rank
        for layer in range(1, 10):
            line = rows(pane)[2 + layer]
            assert ("↑" in line) == (ranks[layer] < ranks[layer - 1])
            assert ("↓" in line) == (ranks[layer] > ranks[layer - 1])


async def test_a_row_that_was_not_read_says_which_were():
    pane = LensPane()
    shown = moment(cursor=(1, 0, 0), lens_positions=[5, 6, 7, 8, 9])
    async with staged(pane, moment=shown):
        text = " ".join(" ".join(rows(pane)).split())
        assert "not read at token 1" in text
        assert "read at token 5" in text
        pane.show(Moment(shown.snapshot, Cursor(5, 0, 0)))
        assert pane.view is not None
        assert "answer" in rows(pane)[0]


async def test_models_whose_lens_failed_its_test_say_so():
    pane = LensPane()
    shown = moment(with_lens=False, info={"lens_error": "The head is not linear."})
    async with staged(pane, moment=shown):
        assert "The head is not linear." in "\n".join(rows(pane))


@pytest.mark.parametrize(("share", "bar"), [(0, "╌╌╌╌"), (0.5, "━━╌╌"), (0.6, "━━╸╌"), (1, "━━━━")])
def test_a_gauge_fills_in_halves(share, bar):
    assert "".join(text for text, _ in gauge(share, 4, Style(), Style())) == bar


def test_probabilities_take_four_cells():
    assert [probability(p) for p in (0.0, 0.1234, 0.9994, 0.99951, 1.0)] == [
        ".000", ".123", ".999", "1.00", "1.00",
    ]  # fmt: skip
