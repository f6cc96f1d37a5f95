"""Two prompts, one kept as A: from the first key to the export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from moetui.trace import Trace
from moetui.tui.keys import shown
from moetui.tui.moment import Mode
from tests.builders import make_trace
from tests.tui.stage_app import PROMPT_ROWS, ROWS, Stage, staged
from tests.tui.test_app_export import as_json, exported

SIZES = [(60, 16), (80, 24), (120, 40), (200, 60)]


def another_run() -> Trace:
    """Another prompt of the same model, which ends like the first."""
    trace = make_trace(ROWS, 8, 16, 4, seed=1, prompt_tokens=PROMPT_ROWS)
    ids = trace.token_ids.copy()
    ids[:3] += 40
    return replace(trace, token_ids=ids)


async def kept_and_run(stage: Stage) -> None:
    """The first run's token 4 is A, the second run is on the screen."""
    await stage.prompted()
    await stage.press("left", "c")
    stage.engine.finish()
    stage.engine.prefill(another_run())
    await stage.settle()


async def test_c_keeps_a_token_and_then_compares_it() -> None:
    async with staged(panes=None) as stage:
        await stage.prompted()
        await stage.press("left", "c")
        assert stage.pane("map").has_focus
        assert len(stage.toasts) == 1
        assert stage.toasts[0].startswith("token 4 ")
        assert "Run another prompt" in stage.toasts[0]
        stage.engine.finish()
        stage.engine.prefill(another_run())
        await stage.settle()
        await stage.press("c")
        pane = stage.pane("compare")
        assert pane.has_focus and pane.region.height > 0
        assert (pane.view.a.token, pane.view.b.token) == (4, 5)  # type: ignore[union-attr]
        await stage.press("left")
        assert pane.view.b.token == 4  # type: ignore[union-attr]
        assert "equal token ids in two contexts" in stage.text


async def test_the_pane_follows_the_run_and_the_paused_view() -> None:
    async with staged(panes=None) as stage:
        await kept_and_run(stage)
        await stage.press("c")
        stage.engine.step(3)
        await stage.settle()
        pane = stage.pane("compare")
        assert pane.view.b.token == 8  # type: ignore[union-attr]
        assert pane.view.a.rows == ROWS  # type: ignore[union-attr]
        await stage.press("space")
        stage.engine.step(2)
        await stage.settle()
        assert pane.view.b.token == 8  # type: ignore[union-attr]


async def test_nothing_can_be_kept_before_a_run() -> None:
    async with staged(panes=None) as stage:
        await stage.settle()
        await stage.press("c")
        assert stage.toasts == ["nothing to keep as A: run a prompt first"]
        await stage.press("7")
        assert "No model yet." in stage.text or "The model is loading." in stage.text


async def test_another_token_may_become_a() -> None:
    async with staged(panes=None) as stage:
        await kept_and_run(stage)
        await stage.press("home", "C")
        assert stage.session.kept.token == 0
        assert stage.session.kept.recording is stage.engine.snapshot().recording
        assert stage.toasts[-1].startswith("token 0 ")
        await stage.press("c")
        stage.app.clear_notifications()
        await stage.until(lambda: "equal by construction" in stage.text)
        await stage.press("right", "C")
        assert stage.session.kept.token == 1
        assert len(stage.app._notifications) == 0  # the pane itself says so


@pytest.mark.parametrize("size", SIZES)
async def test_m_shows_the_difference_once_there_is_an_a(size: tuple[int, int]) -> None:
    async with staged(size, panes=None) as stage:
        await kept_and_run(stage)
        await stage.press("m", "m")
        assert stage.session.mode is Mode.DIFFERENCE
        assert stage.pane("map").view.quantity == "difference"  # type: ignore[union-attr]
        assert "Δ B − A" in stage.text
        await stage.press("m")
        assert stage.session.mode is Mode.TOKEN
        assert stage.pane("map").view.quantity == "weight"  # type: ignore[union-attr]


@pytest.mark.parametrize("size", SIZES)
async def test_the_verdict_and_its_null_are_seen_at_every_size(size: tuple[int, int]) -> None:
    async with staged(size, panes=None) as stage:
        await kept_and_run(stage)
        await stage.press("c")
        stage.app.clear_notifications()
        await stage.until(lambda: "8 looks: no test." in stage.text)
        assert "above chance" in stage.text and "Chance: any 4 of 16." in stage.text


async def test_what_is_exported_is_what_is_compared(tmp_path: Path) -> None:
    async with staged(export_dir=tmp_path, panes=None) as stage:
        await kept_and_run(stage)
        await stage.press("c")
        path = await exported(stage, "e", tmp_path)
        document = json.loads(path.read_text())
        assert document["pane"] == "compare"
        view = stage.pane("compare").view
        assert view is not None
        assert document["view"] == as_json(view)
        assert document["view"]["null"] == {"name": "uniform", "prompts": 0}


async def test_without_an_a_the_export_says_what_is_missing(tmp_path: Path) -> None:
    async with staged(export_dir=tmp_path, panes=None) as stage:
        await stage.prompted()
        await stage.press("7", "e")
        assert stage.toasts[-1].startswith("nothing to export: Press c to keep this token as A.")
        assert list(tmp_path.iterdir()) == []


async def test_another_model_lets_go_of_a() -> None:
    async with staged(panes=None) as stage:
        await kept_and_run(stage)
        await stage.press("m", "m", "c")
        stage.engine.load("other")
        await stage.settle()
        stage.engine.ready()
        stage.engine.prefill(another_run())
        await stage.settle()
        assert stage.session.kept is None
        assert "Press c to keep this token as A." in " ".join(stage.text.split())
        assert "Δ B − A" not in stage.text


def test_the_keys_are_written_as_they_are_pressed() -> None:
    assert (shown("c"), shown("C")) == ("c", "C")
