import re
from dataclasses import replace

import numpy as np
import pytest
from textual.geometry import Offset

from moetui.analyses.alignment import Context
from moetui.tui.moment import Cursor, Mode, Moment
from moetui.tui.palette import BARS, HANGING, LEVELS
from moetui.tui.panes import RoutingMapPane
from tests.builders import make_recording, make_runs, make_snapshot
from tests.tui.stage import rows, staged, style_at

SIZES = [(80, 24), (120, 40), (200, 60)]


def moment(cursor=(2, 1, 0), mode=Mode.TOKEN, runs=(), **trace):
    return Moment(make_snapshot(make_recording(**trace)), Cursor(*cursor), mode, runs)


def level(value, full):
    """The level by its definition: the number of squared sevenths of the scale passed."""
    if value == 0:
        return 0
    return 1 + sum(value >= full * (n / 7) ** 2 for n in range(1, LEVELS - 1))


@pytest.mark.parametrize("size", SIZES)
async def test_every_expert_has_a_bar_of_its_weight(size):
    pane = RoutingMapPane()
    async with staged(pane, moment=moment(N=6, E=16, k=4), size=size):
        width = pane.experts(pane.view, pane.axis(pane.view)).width
        for layer, line in enumerate(rows(pane)[2:8]):
            cells = line[pane.label_width(pane.view) :][: 16 * width : width]
            wanted = [BARS[level(v, pane.view.full)] for v in pane.view.values[layer]]
            assert list(cells) == wanted


async def test_a_folded_column_shows_its_highest_expert():
    pane = RoutingMapPane()
    async with staged(pane, moment=moment(N=4, E=128, k=8), size=(70, 20)):
        axis = pane.experts(pane.view, pane.axis(pane.view))
        assert axis.fold == 2
        line = rows(pane)[2][pane.label_width(pane.view) :]
        values = np.array(pane.view.values[0]).reshape(-1, 2).max(axis=1)
        assert list(line[:64]) == [BARS[level(v, pane.view.full)] for v in values]
        assert "2 experts a column" in rows(pane)[0]


async def test_layers_pack_into_half_blocks_then_braille_and_never_when_linked():
    pane = RoutingMapPane()
    async with staged(pane, moment=moment(N=40, E=16), size=(80, 30)) as (_app, pilot):
        assert pane.axis(pane.view).per_row == 2
        assert "▀" in "".join(rows(pane)[2:22])
        await pilot.resize_terminal(80, 16)
        await pilot.pause()
        assert pane.axis(pane.view).per_row == 4
        pane.linked = True
        pane.draw()
        assert pane.axis(pane.view).per_row == 1


async def test_braille_has_a_dot_for_each_expert_that_ran():
    pane = RoutingMapPane()
    async with staged(pane, moment=moment(N=16, E=32, k=4), size=(60, 8)):
        assert pane.axis(pane.view).per_row == 4
        at = pane.label_width(pane.view)
        values = np.array(pane.view.values)
        for row, line in enumerate(rows(pane)[2:6]):
            dots = sum((ord(c) - 0x2800).bit_count() for c in line[at : at + 16])
            assert dots == (values[4 * row : 4 * row + 4] > 0).sum() == 16


async def test_braille_of_a_session_has_a_dot_where_an_expert_is_above_even():
    pane = RoutingMapPane()
    runs = make_runs(3, N=16, E=32, k=4)
    shown = moment(mode=Mode.SESSION, runs=runs, N=16, E=32, k=4)
    async with staged(pane, moment=shown, size=(80, 8)):
        at = pane.label_width(pane.view)
        share = sum(run.counts for run in runs) / 30
        for row, line in enumerate(rows(pane)[2:6]):
            dots = sum((ord(c) - 0x2800).bit_count() for c in line[at : at + 16])
            assert dots == (share[4 * row : 4 * row + 4] >= 4 / 32).sum()
        assert "above even only" in rows(pane)[0]


async def test_the_cursor_is_marked_without_colour():
    pane = RoutingMapPane()
    async with staged(pane, moment=moment(cursor=(2, 3, 5), N=6, E=16)):
        text = rows(pane)
        width = pane.experts(pane.view, pane.axis(pane.view)).width
        assert text[5].startswith("▶3")
        assert [line[0] for line in text[2:8]].count("▶") == 1
        assert text[1].index("▼") == pane.label_width(pane.view) + 5 * width


async def test_the_legend_names_scale_even_level_and_value():
    pane = RoutingMapPane()
    async with staged(pane, moment=moment(cursor=(2, 1, 7), N=4, E=16, k=4)):
        legend = rows(pane)[-1]
        view = pane.view
        assert f"{view.full:g}" in legend
        assert f"even {np.mean(view.uniform):.3f}" in legend
        assert f"L1 E7 {view.values[1][7]:.3f}" in legend


async def test_the_chosen_are_listed_where_there_is_room():
    pane = RoutingMapPane()
    async with staged(pane, moment=moment(N=4, E=16, k=4), size=(120, 20)):
        axis = pane.experts(pane.view, pane.axis(pane.view))
        beside = rows(pane)[2][pane.label_width(pane.view) + axis.cells :]
        listed = re.findall(r"(\d+) (\d\.\d\d)", beside)
        best = zip(pane.view.chosen[0], pane.view.weights[0], strict=True)
        assert listed == [(str(e), f"{w:.2f}") for e, w in best]


async def test_session_mode_shows_the_load_of_the_runs():
    pane = RoutingMapPane()
    runs = make_runs(3, N=4, E=16, k=4)
    shown = moment(cursor=(0, 2, 3), mode=Mode.SESSION, runs=runs, N=4, E=16, k=4)
    async with staged(pane, moment=shown):
        hits = sum(int(run.counts[2, 3]) for run in runs)
        assert f"L2 E3 {hits / 30:.3f}" in rows(pane)[-1]
        assert "3 prompts, 30 tokens" in rows(pane)[0]
        assert "even 0.250" in rows(pane)[-1]


def against(cursor=(2, 1, 0), row=4, **trace):
    """B at the cursor, in Δ mode, against row `row` of another run."""
    kept = Context(make_recording(seed=9, **trace), 10, row)
    return replace(moment(cursor, Mode.DIFFERENCE, **trace), kept=kept)


def signed(value, full):
    """The glyph by its definition: bars above zero, hanging dots below."""
    size = level(abs(value), full)
    return BARS[size] if value >= 0 or not size else HANGING[size - 1]


@pytest.mark.parametrize("size", SIZES)
async def test_differences_rise_or_hang_by_their_sign(size):
    pane = RoutingMapPane()
    async with staged(pane, moment=against(N=6, E=16, k=4), size=size):
        width = pane.experts(pane.view, pane.axis(pane.view)).width
        drawn = []
        for layer, line in enumerate(rows(pane)[2:8]):
            cells = line[pane.label_width(pane.view) :][: 16 * width : width]
            assert list(cells) == [signed(v, pane.view.full) for v in pane.view.values[layer]]
            drawn += cells
        assert set(drawn) & set(BARS[1:]) and set(drawn) & set(HANGING)


async def test_a_folded_column_of_differences_shows_its_largest():
    pane = RoutingMapPane()
    async with staged(pane, moment=against(N=4, E=128, k=8), size=(70, 20)):
        line = rows(pane)[2][pane.label_width(pane.view) :]
        pairs = np.array(pane.view.values[0]).reshape(-1, 2)
        largest = pairs[np.arange(64), abs(pairs).argmax(axis=1)]
        assert list(line[:64]) == [signed(v, pane.view.full) for v in largest]


async def test_differences_are_never_packed_and_say_what_they_are():
    pane = RoutingMapPane()
    shown = against(cursor=(2, 30, 7), row=4, N=40, E=16)
    async with staged(pane, moment=shown, size=(120, 20)):
        assert pane.axis(pane.view).per_row == 1
        a, b = shown.pair
        texts = [c.located[0].tokens[c.located[1]].strip() for c in (b, a)]
        assert re.search(rf"B 2 ·{texts[0]} − A 4 ·{texts[1]}", rows(pane)[0])
        assert f"L30 E7 {pane.view.values[30][7]:+.3f}" in rows(pane)[-1]
        assert f"−{pane.view.full:g}" in rows(pane)[-1] and "B − A in weight" in rows(pane)[-1]
        beside = rows(pane)[10][pane.label_width(pane.view) + 16 * 4 :]
        listed = re.findall(r"(\d+) ([+-]\d\.\d\d)", beside)
        layer = pane.axis(pane.view).layers(8).start
        most = zip(pane.view.chosen[layer], pane.view.weights[layer], strict=True)
        assert listed == [(str(e), f"{w:+.2f}") for e, w in most][: len(listed)] and listed


async def test_more_and_less_have_colours_of_their_own():
    pane = RoutingMapPane()
    async with staged(pane, moment=against(N=6, E=16, k=4)):
        width = pane.experts(pane.view, pane.axis(pane.view)).width
        at = pane.label_width(pane.view)
        for layer in (0, 2, 3):
            for expert, value in enumerate(pane.view.values[layer]):
                if level(abs(value), pane.view.full):
                    colour = style_at(pane, at + expert * width, 2 + layer).color.get_truecolor()
                    assert (colour.red > colour.blue) == (value > 0)


async def test_dense_layers_say_so_and_missing_experts_are_blank():
    pane = RoutingMapPane()
    shown = moment(N=4, E=16, k=4, moe_layers=(1, 2), layer_experts={2: 6})
    async with staged(pane, moment=shown):
        text = rows(pane)
        width = pane.experts(pane.view, pane.axis(pane.view)).width
        assert "dense" in text[2]
        assert "dense" in text[5]
        start = pane.label_width(pane.view)
        assert text[4][start + 6 * width : start + 16 * width].strip() == ""
        assert "·" in text[3][start:]


async def test_a_click_puts_the_cursor_on_layer_and_expert():
    pane = RoutingMapPane()
    pane.styles.border = ("round", "red")
    pane.styles.padding = (0, 1)
    async with staged(pane, moment=moment(N=6, E=16)) as (app, pilot):
        width = pane.experts(pane.view, pane.axis(pane.view)).width
        x = 2 + pane.label_width(pane.view) + 9 * width
        await pilot.click(pane, offset=Offset(x, 1 + 2 + 4))
        assert (app.moves[-1].token, app.moves[-1].layer, app.moves[-1].expert) == (None, 4, 9)
        await pilot.click(pane, offset=Offset(2, 1 + 2 + 3))
        assert (app.moves[-1].layer, app.moves[-1].expert) == (3, None)
        count = len(app.moves)
        await pilot.click(pane, offset=Offset(0, 0))
        assert len(app.moves) == count


async def test_hovering_shows_a_value_and_moves_nothing():
    pane = RoutingMapPane()
    async with staged(pane, moment=moment(N=6, E=16)) as (app, pilot):
        width = pane.experts(pane.view, pane.axis(pane.view)).width
        await pilot.hover(pane, offset=Offset(pane.label_width(pane.view) + 3 * width, 2 + 5))
        assert f"L5 E3 {pane.view.values[5][3]:.3f}" in rows(pane)[-1]
        assert not app.moves


async def test_colours_rise_with_the_weight():
    pane = RoutingMapPane()
    for theme, sign in (("dark", 1), ("light", -1)):
        async with staged(pane, moment=moment(N=4, E=16, k=8), theme=theme):
            width = pane.experts(pane.view, pane.axis(pane.view)).width
            at = pane.label_width(pane.view)
            lightness = {}
            for layer in (0, 2, 3):  # the cursor's row is marked otherwise
                for expert, value in enumerate(pane.view.values[layer]):
                    style = style_at(pane, at + expert * width, 2 + layer)
                    triplet = style.bgcolor.get_truecolor()
                    weight = 0.299 * triplet.red + 0.587 * triplet.green + 0.114 * triplet.blue
                    lightness[level(value, pane.view.full)] = weight * sign
            ordered = [lightness[n] for n in sorted(lightness)]
            assert ordered == sorted(ordered)
            assert len(ordered) > 3
        pane = RoutingMapPane()
