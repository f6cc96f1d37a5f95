"""From a key to a finding on the screen, and every way to stop it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from moetui.analyses.what_if import WhatIf
from moetui.trace import Phase
from moetui.tui.panes.pane import LinePane
from moetui.tui.screens.failure import FailureDialog
from moetui.tui.screens.what_if import WhatIfDialog
from tests.fake_forward import FakeForward
from tests.tui.stage import rows
from tests.tui.stage_app import Stage, staged


def forward() -> FakeForward:
    """A model of the stage's shape in which every expert matters."""
    push = [[(e + 1) / 4 for e in range(16)]] * 8
    return FakeForward(layers=8, experts=16, k=4, push=push, vocabulary=96)


def found(stage: Stage) -> WhatIf:
    view = stage.pane("what_if").view
    assert isinstance(view, WhatIf)
    return view


async def measured(stage: Stage, count: int | None = None) -> None:
    """The study that was asked for yields `count` findings, or all it has."""
    stage.engine.find(forward(), count)
    await stage.settle()


async def test_x_measures_the_expert_under_the_cursor_and_shows_it() -> None:
    async with staged((80, 24), panes=None) as stage:
        await stage.prompted()
        stage.session.put(token=3, layer=2, expert=5)
        await stage.press("x")
        assert stage.engine.calls[-1] == ("study",)
        assert "Measuring: first the change itself" in stage.text
        await measured(stage, 1)
        assert "STUDYING control 1 of 15" in stage.text
        await measured(stage, 3)
        assert "STUDYING control 4 of 15" in stage.text
        await measured(stage)
        assert "READY" in stage.text and "drop E5 at L2 · weights kept" in stage.text
        request = found(stage).request
        assert request.row == 3 and request.token_ids == (0, 1, 2, 3, 4, 5)


async def test_w_goes_to_the_pane_and_there_asks_what_to_change() -> None:
    async with staged((120, 40), panes=None) as stage:
        await stage.prompted()
        stage.session.put(layer=2, expert=5)
        await stage.press("w")
        assert stage.pane("what_if").has_focus
        assert "x measures: drop E5 at L2" in " ".join(stage.text.split())
        await stage.press("w")
        assert isinstance(stage.app.screen, WhatIfDialog)
        assert "drop E5 at L2, judged after token 5" in stage.text
        await stage.press("n")
        await measured(stage)
        assert "de-select E5 at L2" in stage.text
        stage.session.put(layer=3, expert=1)
        await stage.press("x")
        await measured(stage)
        assert "de-select E1 at L3" in stage.text


async def test_the_dialog_says_what_each_line_would_change() -> None:
    async with staged((120, 40), panes=None) as stage:
        await stage.prompted()
        stage.session.put(layer=2, expert=5)
        await stage.press("w", "w", "down", "down", "down")
        assert "ban E5 at L2, judged after token 5" in stage.text
        await stage.press("right")
        assert "ban E5 in every layer, judged after token 5" in stage.text
        await stage.press("left")
        assert "ban E5 at L2" in stage.text
        await stage.press("right", "enter")
        await measured(stage)
        assert "ban E5 in every layer" in stage.text
        await stage.press("w", "8")
        await measured(stage)
        assert "use k = 8 in every layer" in stage.text


async def test_pins_are_changed_together_until_they_are_unpinned() -> None:
    async with staged((120, 40), panes=None) as stage:
        await stage.prompted()
        stage.session.put(layer=2, expert=5)
        await stage.press("p", "right_square_bracket", "p")
        assert stage.toasts[-1] == "E6 at L2 pinned; what-if changes E5 at L2, E6 at L2"
        await stage.press("down", "x")
        await measured(stage)
        assert "drop E5+E6 at L2" in stage.text
        # The pane is in view now, and its last line says it.
        before = len(stage.toasts)
        await stage.press("up", "p")
        pane = stage.pane("what_if")
        assert isinstance(pane, LinePane) and rows(pane)[-1].startswith("x drop E5 at L2, token 5")
        assert len(stage.toasts) == before
        await stage.press("4", "left_square_bracket", "p")
        assert stage.toasts[-1] == "E5 at L2 unpinned; what-if changes the one under the cursor"


async def test_pins_end_with_the_model_they_were_made_in() -> None:
    async with staged((120, 40), panes=None) as stage:
        await stage.prompted()
        await stage.press("p")
        assert stage.session.choice.pinned
        stage.engine.load("org/other")
        stage.engine.ready(msgspec.structs.replace(stage.engine.whole.model, digest="other"))
        await stage.settle()
        assert not stage.session.choice.pinned


async def test_a_pane_in_view_is_filled_without_taking_the_focus() -> None:
    async with staged((120, 40), panes=None) as stage:
        await stage.prompted()
        await stage.press("w", "1", "x")
        assert stage.pane("map").has_focus
        await measured(stage)
        assert "only 15 controls exist" in stage.text


async def test_escape_stops_the_study_and_keeps_what_it_found() -> None:
    async with staged((120, 40), panes=None) as stage:
        await stage.prompted()
        stage.engine.finish()
        await stage.settle()
        await stage.press("x")
        await measured(stage, 5)
        await stage.press("escape")
        assert stage.engine.calls[-1] == ("cancel",)
        assert "stopped after 4 of 15 controls" in stage.text and "READY" in stage.text
        # The run before it had ended by itself.
        assert "stopped" not in stage.text.splitlines()[0]


async def test_until_the_pass_under_way_ends_the_status_says_stopping() -> None:
    async with staged((120, 40), panes=None) as stage:
        await stage.prompted()
        stage.engine.finish()
        await stage.settle()
        await stage.press("x")
        stage.engine.cancel = lambda: None  # a pass that takes its time
        await stage.press("escape")
        assert "STUDYING stopping" in stage.text.splitlines()[0]
        stage.engine.say(phase=Phase.READY)
        await stage.settle()
        assert "stopping" not in stage.text.splitlines()[0]


async def test_a_prompt_comes_before_a_study() -> None:
    async with staged((120, 40), panes=None) as stage:
        await stage.prompted()
        stage.engine.finish()
        await stage.settle()
        await stage.press("x")
        await measured(stage, 2)
        await stage.press("slash", "h", "i", "enter")
        assert stage.engine.calls[-1] == ("run", "hi", 32)
        stage.engine.prefill()
        await stage.settle()
        assert stage.pane("what_if").view is None
        await stage.press("w")
        assert "Nothing is measured yet" in stage.text


async def test_while_a_prompt_runs_a_study_waits_for_its_end() -> None:
    async with staged((120, 40), panes=None) as stage:
        await stage.prompted()
        await stage.press("x")
        assert stage.toasts == ["measured as soon as the run has ended"]
        assert stage.engine.calls[-1] == ("study",)


async def test_a_paused_view_goes_on_to_show_what_is_measured_where_it_stood() -> None:
    async with staged((120, 40), panes=None) as stage:
        await stage.prompted()
        await stage.press("space")
        stage.engine.finish()
        await stage.press("x")
        await measured(stage)
        assert "VIEW PAUSED" not in stage.text
        assert found(stage).request.row == 5 and found(stage).followed == 0


async def test_another_model_takes_the_finding_away() -> None:
    async with staged((120, 40), panes=None) as stage:
        await stage.prompted()
        await stage.press("x")
        await measured(stage)
        stage.engine.load("org/other")
        await stage.settle()
        assert stage.pane("what_if").view is None
        assert "The model is loading." in stage.text


async def test_what_cannot_be_measured_says_why() -> None:
    async with staged((120, 40), panes=None, moe_layers=(1, 2, 3)) as stage:
        await stage.settle()
        await stage.press("x")
        assert stage.toasts == ["The model is loading."]
        await stage.prompted()
        await stage.press("home", "x")
        assert stage.toasts[-1] == "layer 0 is dense: drop needs a layer that routes"
        await stage.press("p")
        assert stage.toasts[-1] == "layer 0 is dense: it has no expert to pin"
        assert ("study",) not in stage.engine.calls


async def test_a_dense_model_is_told_apart() -> None:
    async with staged((120, 40), panes=None, moe_layers=()) as stage:
        await stage.prompted()
        await stage.press("w")
        assert "synthetic has no routers" in stage.text
        for key in ("w", "x", "p"):
            await stage.press(key)
            assert "synthetic has no routers" in stage.toasts[-1]
        assert ("study",) not in stage.engine.calls


async def test_a_study_that_fails_is_told_and_nothing_is_lost() -> None:
    async with staged((120, 40), panes=None) as stage:
        await stage.prompted()
        stage.engine.finish()
        await stage.settle()
        await stage.press("x")
        stage.engine.fail("experts cannot be dropped in llama4", "ban them", Phase.READY)
        await stage.until(lambda: isinstance(stage.app.screen, FailureDialog))
        await stage.press("escape")
        assert stage.engine.snapshot().rows == 16


async def test_what_is_exported_is_what_is_shown(tmp_path: Path) -> None:
    async with staged((120, 40), panes=None, export_dir=tmp_path) as stage:
        await stage.prompted()
        await stage.press("w", "x")
        await measured(stage)
        await stage.press("e")
        await stage.until(lambda: any(tmp_path.glob("*.json")))
        (path,) = tmp_path.glob("moetui-what_if-*.json")
        document = json.loads(path.read_text("utf-8"))
        assert document["view"] == json.loads(msgspec.json.encode(found(stage)))
        assert document["view"]["request"]["seed"] == 0
        assert len(document["view"]["kl"]["controls"]) == 15


async def test_the_palette_offers_every_kind_of_change() -> None:
    async with staged((120, 40), panes=None) as stage:
        await stage.prompted()
        commands = {c.title: c.callback for c in stage.app.get_system_commands(stage.screen)}
        assert {"What if: drop", "What if: ban", "What if: no attention", "Measure"} <= set(
            commands
        )
        stage.session.put(layer=1, expert=2)
        commands["What if: force"]()
        await stage.settle()
        await measured(stage)
        assert "force E2 at L1" in stage.text
