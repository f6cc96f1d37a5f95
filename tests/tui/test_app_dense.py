"""A dense model in the explorer: panes about routing say why they are empty, and show no number."""

from __future__ import annotations

import re

import pytest

import moetui
from moetui.trace import Recording
from moetui.tui.layout import ORDER
from moetui.tui.moment import Cursor, Mode, Moment
from moetui.tui.panes import PANES, LensPane, SuitesPane, TokenStripPane
from moetui.tui.panes.pane import LinePane
from tests.builders import make_snapshot
from tests.tui.stage import rows, staged
from tests.tui.stage_app import staged as staged_app

ROUTING = [pane for pane in PANES if pane not in (LensPane, SuitesPane, TokenStripPane)]
REASON = "has no routers: it is a dense model, so there are no experts to choose."


@pytest.fixture(scope="module")
def recorded() -> Recording:
    """A run of the bundled dense model: what the engine hands to the explorer."""
    run = moetui.load("demo-dense").generate("127 + 45 =", 4)
    recording = Recording(run.prompt)
    for step in run:
        recording.append(step)
    return recording


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("pane_type", ROUTING)
@pytest.mark.parametrize("size", [(60, 16), (120, 40)])
async def test_a_pane_about_routing_gives_its_reason_and_no_number(
    pane_type: type[LinePane], mode: Mode, size: tuple[int, int], recorded: Recording
) -> None:
    pane = pane_type()
    moment = Moment(make_snapshot(recorded), Cursor(5, 2, 0), mode, ())
    async with staged(pane, moment=moment, size=size):
        text = " ".join(" ".join(rows(pane)).split())
        assert f"demo-dense {REASON}" in text
        assert "The logit lens works." in text
        assert not re.search(r"\d", text)
        assert pane.view is None  # nothing to export either


@pytest.mark.parametrize("pane_type", [LensPane, TokenStripPane])
async def test_the_panes_that_have_something_to_say_do(
    pane_type: type[LinePane], recorded: Recording
) -> None:
    pane = pane_type()
    async with staged(
        pane, moment=Moment(make_snapshot(recorded), Cursor(5, 2, 0), Mode.TOKEN, ())
    ):
        text = "\n".join(rows(pane))
        assert REASON not in text and pane.view is not None
        shown = recorded.trace()
        if pane_type is LensPane:
            assert shown.lens is not None
            best = shown.lens.text[int(shown.lens.token_ids[5, -1, 0])]
            assert best.strip() in text
        else:
            assert all(token.strip() in text for token in shown.tokens)


@pytest.mark.parametrize("size", [(80, 24), (200, 60)])
async def test_every_pane_of_the_explorer_can_be_gone_to_and_says_why_it_is_empty(
    size: tuple[int, int],
) -> None:
    async with staged_app(size, panes=None, moe_layers=()) as stage:
        await stage.prompted()
        for key, name in zip("123456789gd", ORDER, strict=True):
            await stage.press(key)
            pane = stage.pane(name)
            assert pane.region.height > 0
            said = REASON in " ".join(" ".join(rows(pane)).split())
            assert said == (name not in ("lens", "tokens", "suites"))
        await stage.press("m")
        assert "dense" in stage.text
