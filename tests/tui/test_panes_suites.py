"""The suites pane: a result's own numbers, and keys that read instead of moving the cursor."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from moetui.settings import Settings
from moetui.suites import SuiteResult
from moetui.suites.lines import section_lines
from moetui.suites.sections import sections
from moetui.tui.app import MoetuiApp
from moetui.tui.layout import ORDER
from moetui.tui.moment import Moment, OpenedResult
from moetui.tui.panes.suites import SuitesPane
from moetui.tui.screens.explorer import ExplorerScreen
from tests.builders import make_trace
from tests.suites.sample import APART, SHARE, make_result
from tests.tui.fake_engine import FakeEngine
from tests.tui.stage import rows, staged
from tests.tui.stage_app import staged as staged_app

SIZES = [(80, 24), (120, 40), (200, 60)]


def opened(result: SuiteResult | None = None) -> Moment:
    return Moment(result=OpenedResult("result.json", result or make_result()))


@asynccontextmanager
async def explored(
    result: SuiteResult, size: tuple[int, int] = (80, 24), folder: Path | None = None
) -> AsyncIterator[tuple[MoetuiApp, FakeEngine, Any]]:
    """The explorer as `moetui open result.json` starts it."""
    engine = FakeEngine(make_trace())
    app = MoetuiApp(
        lambda: engine,
        None,
        settings=Settings(export_dir=folder),
        result=OpenedResult("result.json", result),
        debug=True,
    )
    async with app.run_test(size=size, notifications=True) as pilot:
        await pilot.pause(0.1)
        yield app, engine, pilot


def pane_of(app: MoetuiApp) -> SuitesPane:
    screen = app.screen_stack[0]
    assert isinstance(screen, ExplorerScreen)
    pane = screen.workspace.active
    assert isinstance(pane, SuitesPane)
    return pane


async def read_through(pane: SuitesPane, pilot: Any) -> str:
    """All that is on the page, from top to bottom."""
    seen: list[str] = []
    await pilot.press("home")
    for _ in range(200):
        await pilot.pause()
        shown = rows(pane)
        seen += shown
        before = pane._top
        await pilot.press("pagedown")
        if pane._top == before:
            return "\n".join(seen)
    raise AssertionError("the page has no end")


@pytest.mark.parametrize("size", SIZES)
async def test_the_pane_shows_the_statistics_of_the_result(size: tuple[int, int]) -> None:
    async with explored(make_result(), size) as (app, _, pilot):
        text = await read_through(pane_of(app), pilot)
    for one in (SHARE, APART):
        assert f"{one.value:.3f}" in text
        assert f"[{one.ci_low:.3f}, {one.ci_high:.3f}]" in text
    for section in sections(make_result()):
        assert section.heading[:20] in text


async def test_no_line_of_the_page_is_lost() -> None:
    result = make_result()
    async with explored(result, (80, 24)) as (app, _, pilot):
        pane = pane_of(app)
        text = await read_through(pane, pilot)
        width = pane.size.width
    lines = [line.text for section in sections(result) for line in section_lines(section, width)]
    shown = [row.rstrip() for row in text.splitlines()]
    assert all(line in shown for line in lines if line)


async def test_arrows_scroll_and_leap_and_leave_the_cursor_alone() -> None:
    async with staged_app((80, 24), panes=None) as stage:
        await stage.prompted()
        stage.session.result = OpenedResult("result.json", make_result())
        await stage.press("b")
        pane, cursor = stage.pane("suites"), stage.session.cursor
        assert isinstance(pane, SuitesPane)
        await stage.press("down", "down", "up", "j")
        assert pane._top == 2
        await stage.press("right")
        headings = [section.heading for section in sections(make_result())]
        assert rows(pane)[2].strip() == headings[1]
        await stage.press("down", "left")
        assert rows(pane)[2].strip() == headings[1]
        await stage.press("left")
        assert rows(pane)[2].strip() == headings[0]
        await stage.press("end")
        assert "100%" in rows(pane)[0]
        await stage.press("home")
        assert pane._top == 0
        assert stage.session.cursor == cursor
        # Elsewhere the same keys move the cursor again.
        await stage.press("1", "down")
        assert stage.session.cursor.layer == cursor.layer + 1


async def test_no_key_scrolls_beyond_the_page() -> None:
    async with explored(make_result()) as (app, _, pilot):
        pane = pane_of(app)
        await pilot.press("up", "pageup", "left")
        assert pane._top == 0
        await pilot.press("end", *["down"] * 5, *["right"] * 20, *["pagedown"] * 3)
        assert "How it was made" in "\n".join(rows(pane))


async def test_another_width_stays_in_the_same_section() -> None:
    async with explored(make_result(), (80, 24)) as (app, _, pilot):
        pane = pane_of(app)
        await pilot.press(*["right"] * 4)
        heading = rows(pane)[2].strip()
        await pilot.resize_terminal(200, 60)
        await pilot.pause(0.1)
        assert heading in rows(pane)[2]


@pytest.mark.parametrize("size", [(120, 40), (200, 60)])
async def test_a_click_in_the_list_goes_to_the_section(size: tuple[int, int]) -> None:
    async with explored(make_result(), size) as (app, _, pilot):
        pane = pane_of(app)
        await pilot.click(pane, offset=(6, 6))
        await pilot.pause(0.1)
        chosen = [row for row in rows(pane) if row.startswith("▶")]
        assert len(chosen) == 1 and chosen[0][1:].split()[0] in rows(pane)[2]
        assert pane._top > 0


@pytest.mark.parametrize("size", SIZES)
async def test_the_pane_has_the_whole_workspace_and_gives_it_back(size: tuple[int, int]) -> None:
    async with staged_app(size) as stage:
        await stage.prompted()
        before = list(stage.screen.workspace.plan.panes)
        await stage.press("b")
        assert stage.screen.workspace.plan.panes == ("suites",)
        await stage.press("1")
        assert list(stage.screen.workspace.plan.panes) == before


async def test_opening_a_result_loads_no_model_and_o_still_can() -> None:
    async with explored(make_result()) as (app, engine, pilot):
        assert engine.calls == []
        assert pane_of(app).has_focus
        await pilot.press("1")
        await pilot.pause(0.1)
        assert engine.calls == []
        engine.load("demo")
        engine.ready()
        engine.prefill()
        await pilot.pause(0.2)
        await pilot.press("b")
        assert "attention_router" in rows(pane_of(app))[0]


async def test_e_exports_the_very_result(tmp_path: Path) -> None:
    from moetui.suites import result_json

    result = make_result()
    async with explored(result, folder=tmp_path) as (app, _, pilot):
        assert pane_of(app).view is result
        await pilot.press("e")
        for _ in range(100):
            await pilot.pause(0.02)
            if files := list(tmp_path.glob("moetui-suites-*.json")):
                break
        document = json.loads(files[0].read_text())
    assert document["view"] == json.loads(result_json(result))
    assert document["pane"] == "suites" and document["model"] is None


async def test_without_a_result_the_pane_says_how_to_get_one() -> None:
    pane = SuitesPane()
    async with staged(pane, moment=Moment()):
        text = " ".join(" ".join(rows(pane)).split())
    assert "`moetui batch attention_router -m MODEL`" in text and "`moetui open FILE.json`" in text


async def test_the_pane_without_colours_shows_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async with explored(make_result()) as (app, _, _):
        coloured = rows(pane_of(app))
    monkeypatch.setenv("NO_COLOR", "1")
    async with explored(make_result()) as (app, _, _):
        assert rows(pane_of(app)) == coloured
        app.export_screenshot()


def test_the_suites_are_pane_9() -> None:
    order: Sequence[str] = ORDER
    assert order.index("suites") == 8
