"""A saved trace in the explorer: everything about the run is there, the model is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moetui.settings import Settings
from moetui.trace import Phase, Trace, open_trace
from moetui.trace.replay import Replay, recorded
from moetui.tui.app import MoetuiApp
from moetui.tui.panes.layer_detail import LayerDetailPane
from moetui.tui.screens.explorer import ExplorerScreen
from moetui.tui.screens.failure import FailureDialog
from tests.builders import make_trace
from tests.tui.fake_engine import FakeEngine
from tests.tui.stage import rows


def saved(tmp_path: Path, **shape: Any) -> Trace:
    made = make_trace(**{"T": 12, "N": 6, "E": 16, "k": 4, "prompt_tokens": 5, **shape})
    made.save(tmp_path / "t.moetrace")
    return open_trace(tmp_path / "t.moetrace")


@asynccontextmanager
async def replayed(
    trace: Trace, size: tuple[int, int] = (120, 40)
) -> AsyncIterator[tuple[ExplorerScreen, FakeEngine, Any]]:
    engine = FakeEngine(make_trace(seed=7))
    app = MoetuiApp(lambda: Replay(trace, lambda: engine), None, settings=Settings(), debug=True)
    async with app.run_test(size=size, notifications=True) as pilot:
        await pilot.pause(0.2)
        screen = app.screen_stack[0]
        assert isinstance(screen, ExplorerScreen)
        yield screen, engine, pilot


def test_a_trace_becomes_the_recording_of_its_run(tmp_path: Path) -> None:
    trace = saved(tmp_path)
    recording = recorded(trace)
    assert len(recording.prompt) == 5 and recording.rows == 12
    again = recording.trace()
    assert np.array_equal(again.expert_ids, trace.expert_ids)
    assert np.array_equal(again.router_logits, trace.router_logits)
    assert again.tokens == trace.tokens


def test_a_trace_without_a_prompt_is_shown_whole(tmp_path: Path) -> None:
    assert recorded(saved(tmp_path, prompt_tokens=0)).rows == 12


async def test_the_panes_show_the_saved_run(tmp_path: Path) -> None:
    trace = saved(tmp_path)
    async with replayed(trace) as (screen, engine, pilot):
        assert screen.session.shown.rows == 12 and engine.calls == []
        await pilot.press("home", "right", "right", "down", "4")
        await pilot.pause(0.2)
        pane = screen.workspace.active
        assert isinstance(pane, LayerDetailPane) and pane.view is not None
        chosen = [expert.expert for expert in pane.view.chosen]
        assert chosen == trace.expert_ids[2, 1].tolist()
        assert f"E{chosen[0]}" in "\n".join(rows(pane))


@pytest.mark.parametrize("keys", [["slash", "a", "enter"], ["x"]], ids=["prompt", "what if"])
async def test_what_needs_the_model_is_refused_with_the_next_step(
    tmp_path: Path, keys: list[str]
) -> None:
    trace = saved(tmp_path)
    async with replayed(trace) as (screen, engine, pilot):
        await pilot.press(*keys)
        for _ in range(100):
            await pilot.pause(0.02)
            if isinstance(pilot.app.screen, FailureDialog):
                break
        failure = pilot.app.screen._failure
        assert "saved trace" in failure.message and "no model is open" in failure.message
        assert failure.hint == "press o to open synthetic, or another"
        await pilot.press("escape")
        assert screen.session.shown.rows == 12 and engine.calls == []


async def test_opening_a_model_takes_over(tmp_path: Path) -> None:
    async with replayed(saved(tmp_path)) as (screen, engine, pilot):
        screen._open("demo")
        await pilot.pause(0.1)
        assert engine.calls == [("load", "demo")]
        assert screen.session.latest.phase is Phase.LOADING
        engine.ready()
        engine.prefill()
        await pilot.pause(0.2)
        assert screen.session.shown.rows == engine.snapshot().rows


def test_versions_and_runs_count_on_when_the_engine_takes_over(tmp_path: Path) -> None:
    engine = FakeEngine(make_trace())
    replay = Replay(saved(tmp_path), lambda: engine)
    seen = [replay.snapshot()]
    replay.run("x", 1)
    seen.append(replay.snapshot())
    replay.load("demo")
    seen.append(replay.snapshot())
    engine.ready()
    engine.prefill()
    seen.append(replay.snapshot())
    versions = [snapshot.version for snapshot in seen]
    assert versions == sorted(set(versions))
    assert seen[-1].run > seen[0].run
