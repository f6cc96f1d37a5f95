"""Every size has a layout: panes never overlap, numbers reach the hidden ones."""

from __future__ import annotations

import itertools
import re

import pytest

from moetui.tui.layout import COLUMNS, ORDER, TOKENS, plan, too_small
from moetui.tui.prompt import PromptInput
from moetui.tui.tabs import TabLine
from tests.tui.stage_app import Stage, staged

SIZES = [(60, 16), (80, 24), (80, 50), (100, 24), (120, 40), (159, 31), (160, 30), (200, 60)]


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((80, 24), ["map"]),
        ((80, 50), ["map", "why"]),
        ((120, 24), ["map", "why"]),
        ((120, 40), ["map", "why", "lens", "detail"]),
        ((200, 28), ["map", "why", "lens"]),
        ((200, 60), ["map", "why", "lens", "detail", "cold"]),
    ],
)
def test_the_panes_of_each_size(size: tuple[int, int], shown: list[str]) -> None:
    assert list(plan(*size).panes) == shown


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [name for name in ORDER if name != TOKENS])
def test_a_pane_that_was_asked_for_is_shown_at_every_size(size: tuple[int, int], name: str) -> None:
    placed = plan(*size, recent=[name, *ORDER])
    assert name in placed.panes
    assert len(placed.panes) == len(set(placed.panes))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layers", [0, 1, 8, 48, 100])
def test_rows_leave_room_for_those_below(size: tuple[int, int], layers: int) -> None:
    placed = plan(*size, layers=layers)
    assert sum(placed.spans) % COLUMNS == 0
    fixed = sum(rows for rows in placed.rows if rows)
    assert placed.tokens_height is not None
    if len(placed.rows) == 2:
        assert size[1] - placed.tokens_height - 6 - fixed >= 8


@pytest.mark.parametrize("size", SIZES)
def test_a_dense_model_s_lens_has_all_the_room(size: tuple[int, int]) -> None:
    assert plan(*size, dense=True, recent=["tokens"]).panes == ("lens",)
    assert plan(*size, dense=True, recent=["cold", "lens"]).panes == ("cold",)


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_with_a_dense_model_the_explorer_goes_to_the_lens(size: tuple[int, int]) -> None:
    async with staged(size, moe_layers=()) as stage:
        await stage.prompted()
        assert stage.pane("lens").has_focus
        assert [pane.pane_id for pane in stage.screen.workspace.shown()] == ["lens", TOKENS]
        await stage.press("1")
        assert stage.pane("map").region.height > 0
        await stage.press("slash", "x", "enter")
        assert stage.pane("lens").has_focus


async def test_a_dense_model_does_not_interrupt_typing() -> None:
    async with staged(moe_layers=()) as stage:
        await stage.settle()
        await stage.press("slash", "x")
        await stage.prompted()
        await stage.press("y")
        assert stage.screen.query_one(PromptInput).value == "xy"


def test_a_linked_row_is_as_high_as_its_layers_need() -> None:
    assert plan(200, 60, layers=8).rows == (13, None)
    assert plan(200, 60, layers=24).rows == (29, None)


@pytest.mark.parametrize(("width", "height"), itertools.product((59, 60), (15, 16)))
def test_too_small(width: int, height: int) -> None:
    assert too_small(width, height) == (width < 60 or height < 16)


def regions_are_sound(stage: Stage) -> None:
    width, height = stage.app.size
    parts = list(stage.screen.workspace.shown())
    regions = [part.region for part in parts if part.display]
    for region in regions:
        assert region.width >= 20 and region.height >= 2, regions
        assert region.right <= width and region.bottom <= height - 1
    for a, b in itertools.combinations(regions, 2):
        assert not a.overlaps(b)


@pytest.mark.parametrize("size", SIZES)
async def test_status_prompt_tokens_and_tabs_are_always_there(size: tuple[int, int]) -> None:
    async with staged(size, panes=None) as stage:
        await stage.prompted()
        regions_are_sound(stage)
        text = stage.text
        assert "synthetic" in text and "RUNNING" in text
        assert "127 + 45 =" in text
        assert "1 Routing map" in text
        assert all(f" {number}" in text for number in range(2, 8))


async def test_the_terminal_may_change_its_size_at_any_time() -> None:
    async with staged(panes=None) as stage:
        await stage.prompted()
        for size in [*SIZES, *reversed(SIZES)]:
            await stage.pilot.resize_terminal(*size)
            await stage.settle()
            regions_are_sound(stage)
        await stage.pilot.resize_terminal(50, 12)
        await stage.settle()
        assert "larger terminal" in stage.text
        assert "127 + 45" not in stage.text
        await stage.pilot.resize_terminal(120, 40)
        await stage.settle()
        assert "127 + 45" in stage.text
        regions_are_sound(stage)


async def test_zoom_gives_a_pane_all_the_room_and_takes_it_back() -> None:
    async with staged((200, 60), panes=None) as stage:
        await stage.prompted()
        await stage.press("3", "z")
        assert [p.pane_id for p in stage.screen.workspace.shown()] == ["lens", "tokens"]
        assert stage.pane("lens").region.width == 200
        await stage.press("2")
        assert stage.pane("why").region.width == 200
        await stage.press("z")
        assert stage.pane("lens").region.width < 100
        await stage.press("6", "z")
        assert stage.pane("tokens").region.height > 40
        await stage.press("z")
        assert stage.pane("map").region.height > 0


@pytest.mark.parametrize("size", [(60, 16), (80, 24)])
async def test_with_the_token_strip_active_the_pane_below_it_keeps_its_name(
    size: tuple[int, int],
) -> None:
    async with staged(size, panes=None) as stage:
        await stage.prompted()
        await stage.press("5", "6")
        assert stage.pane("tokens").has_focus and stage.pane("cold").region.height > 0
        assert "5 Cold experts  6 Tokens " in stage.text
        await stage.press("4")
        assert "4 Layer detail " in stage.text and "5 Cold" not in stage.text


async def test_a_click_on_the_tab_line_goes_to_the_pane() -> None:
    async with staged((80, 24)) as stage:
        await stage.prompted()
        tabs = stage.screen.query_one(TabLine)
        line = stage.text.splitlines()[tabs.region.y]
        await stage.pilot.click(TabLine, offset=(line.index(" 3 ") + 1, 0))
        await stage.settle()
        assert stage.pane("lens").has_focus


async def test_a_click_in_the_map_puts_the_cursor_where_it_points() -> None:
    async with staged((200, 60), panes=None) as stage:
        await stage.prompted()
        pane = stage.pane("map")
        lines = stage.text.splitlines()
        row = next(y for y, line in enumerate(lines) if line[:12].split()[1:2] == ["5"])
        ruler = next(line for line in lines if " 12 " in line and " 14" in line)
        x, y = ruler.index(" 12 ") + 1, row
        await stage.pilot.click(offset=(x, y))
        await stage.settle()
        assert pane.has_focus
        assert (stage.session.cursor.layer, stage.session.cursor.expert) == (5, 12)


async def test_linked_panes_show_the_same_layer_on_the_same_row() -> None:
    async with staged((200, 60), panes=None, T=8, N=60, E=16) as stage:
        await stage.prompted()
        for _ in range(3):
            await stage.press(*["down"] * 15)
            panes = [stage.pane(name) for name in ("map", "why", "lens")]
            lines = stage.text.splitlines()[panes[0].region.y + 3 : panes[0].region.bottom - 2]
            for line in lines:
                labels = {re.findall(r"\d+", line[p.region.x : p.region.x + 8])[0] for p in panes}
                assert len(labels) == 1, line
            assert any("▶" in line for line in lines)
