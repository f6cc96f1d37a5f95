"""From a prompt to rows on the screen, and every way to stop."""

from __future__ import annotations

import pytest
from textual import events
from textual.widgets import Button

from moetui.settings import Settings
from moetui.trace import Phase
from moetui.tui.app import MoetuiApp
from moetui.tui.moment import Moment
from moetui.tui.prompt import PromptInput
from moetui.tui.screens.choose import ModelDialog
from moetui.tui.screens.failure import FailureDialog
from tests.builders import make_trace
from tests.tui.fake_engine import FakeEngine
from tests.tui.stage_app import Seen, StubPane, staged, stub_panes


async def test_the_demo_model_loads_and_its_prompt_runs_by_itself() -> None:
    async with staged() as stage:
        await stage.settle()
        assert stage.engine.calls == [("load", "demo")]
        assert "127 + 45 =" in stage.text
        assert "LOADING" in stage.text
        stage.engine.ready()
        await stage.settle()
        assert stage.engine.calls[1:] == [("run", "127 + 45 =", 32)]
        stage.engine.prefill()
        await stage.settle()
        assert stage.pane("map").view is not None
        assert "RUNNING" in stage.text
        assert "token 5 of 6" in stage.text


async def test_another_model_waits_for_a_prompt() -> None:
    async with staged(model="org/name") as stage:
        await stage.settle()
        stage.engine.ready()
        await stage.settle()
        assert stage.engine.calls == [("load", "org/name")]


async def test_a_typed_prompt_runs_and_focus_goes_to_the_map() -> None:
    async with staged(settings=Settings(max_tokens=7)) as stage:
        await stage.prompted()
        stage.engine.finish()
        await stage.press("slash")
        field = stage.screen.query_one(PromptInput)
        assert field.has_focus
        field.value = ""
        await stage.press(*"2 q?", "enter")
        assert stage.engine.calls[-1] == ("run", "2 q?", 7)
        assert stage.pane("map").has_focus


async def test_an_empty_prompt_says_so_and_does_nothing() -> None:
    async with staged() as stage:
        await stage.prompted()
        stage.screen.query_one(PromptInput).value = "  "
        before = list(stage.engine.calls)
        await stage.press("slash", "enter")
        assert stage.engine.calls == before
        assert stage.toasts == ["nothing to run: type a prompt first"]


async def test_a_prompt_entered_while_loading_runs_when_ready() -> None:
    async with staged(model="org/name") as stage:
        await stage.press("slash", "enter")
        assert stage.engine.calls == [("load", "org/name")]
        stage.engine.ready()
        await stage.settle()
        assert stage.engine.calls[-1] == ("run", "127 + 45 =", 32)


async def test_a_prompt_entered_while_running_takes_its_place() -> None:
    async with staged() as stage:
        await stage.prompted()
        await stage.press("slash", "end", "x", "enter")
        assert stage.engine.calls[-2:] == [("cancel",), ("run", "127 + 45 =x", 32)]


async def test_typing_takes_the_place_of_the_prompt_that_was_there() -> None:
    async with staged() as stage:
        await stage.prompted()
        await stage.press("slash", "h", "i", "enter")
        assert stage.engine.calls[-1] == ("run", "hi", 32)


async def test_a_pasted_prompt_keeps_its_lines_and_no_control_character_is_shown() -> None:
    async with staged() as stage:
        await stage.prompted()
        await stage.press("slash")
        field = stage.screen.query_one(PromptInput)
        field.post_message(events.Paste("1 + 1 = 2\r\n\x1b[31m2\t+ 2 =\r"))
        await stage.until(lambda: "2 =" in field.value)
        assert field.value == "1 + 1 = 2↵␛[31m2⇥+ 2 ="
        await stage.press("enter")
        assert stage.engine.calls[-1] == ("run", "1 + 1 = 2\n\x1b[31m2\t+ 2 =", 32)
        await stage.press("slash", "up")
        assert field.value == "1 + 1 = 2↵␛[31m2⇥+ 2 ="


async def test_the_speed_of_the_model_before_is_not_told_of_the_next() -> None:
    async with staged() as stage:
        await stage.prompted()
        stage.engine.finish()
        await stage.settle()
        assert "23.4 tok/s" in stage.text
        stage.engine.load("org/other")
        stage.engine.ready()
        await stage.settle()
        assert "tok/s" not in stage.text


async def test_the_history_walks_back_and_keeps_the_draft() -> None:
    async with staged() as stage:
        await stage.prompted()
        await stage.press("slash", "end", "x", "enter", "slash", "end", "y")
        field = stage.screen.query_one(PromptInput)
        seen = []
        for key in ("up", "up", "up", "down", "down"):
            await stage.press(key)
            seen.append(field.value)
        assert seen == [
            "127 + 45 =x", "127 + 45 =", "127 + 45 =", "127 + 45 =x", "127 + 45 =xy",
        ]  # fmt: skip


async def test_escape_unwinds_dialog_then_prompt_then_zoom_then_run() -> None:
    async with staged() as stage:
        await stage.prompted()
        await stage.press("z", "slash", "escape")
        assert stage.pane("map").has_focus
        await stage.press("question_mark", "escape")
        assert stage.app.screen is stage.screen
        assert stage.screen.workspace.maximised == "map"
        await stage.press("escape")
        assert stage.screen.workspace.maximised is None
        assert ("cancel",) not in stage.engine.calls
        await stage.press("escape")
        assert stage.engine.calls[-1] == ("cancel",)
        assert "stopped" in stage.text


async def test_escape_stops_a_load() -> None:
    async with staged() as stage:
        await stage.settle()
        await stage.press("escape")
        assert stage.engine.calls[-1] == ("cancel",)
        assert "NO MODEL" in stage.text


async def test_a_failure_is_a_dialog_and_the_app_lives_on() -> None:
    async with staged() as stage:
        await stage.settle()
        stage.engine.fail("no [bold]model[/] at /nowhere", "give a \x1b[31mfolder")
        await stage.until(lambda: isinstance(stage.app.screen, FailureDialog))
        await stage.until(lambda: "That did not work" in stage.text)
        assert "no [bold]model[/] at /nowhere" in stage.text
        assert "→ give a ␛[31mfolder" in stage.text
        await stage.press("right", "enter")
        assert stage.app.screen is stage.screen
        await stage.press("o", *"demo-dense", "enter")
        assert stage.engine.calls[-1] == ("load", "demo-dense")
        stage.engine.ready()
        await stage.settle()
        assert "READY" in stage.text


async def test_a_failure_offers_another_model() -> None:
    async with staged() as stage:
        stage.engine.fail("the model does not fit", "open a smaller one")
        await stage.until(lambda: isinstance(stage.app.focused, Button))
        assert stage.app.focused is not None and stage.app.focused.id == "choose"
        await stage.press("enter")
        assert isinstance(stage.app.screen, ModelDialog)
        await stage.press("down", "down", "enter")
        assert stage.engine.calls[-1] == ("load", "demo-dense")


async def test_the_same_failure_is_told_once() -> None:
    async with staged() as stage:
        stage.engine.fail("bad", "mend it")
        await stage.settle()
        await stage.press("escape")
        stage.engine.say(phase=Phase.EMPTY)
        await stage.settle()
        assert stage.app.screen is stage.screen


async def test_a_prompt_without_a_model_says_what_to_do() -> None:
    async with staged() as stage:
        await stage.press("escape", "slash", "enter")
        assert stage.toasts == ["no model is open: press o to open one"]


async def test_quit_while_loading_is_clean_and_never_waits() -> None:
    async with staged() as stage:
        await stage.press("q")
        assert stage.engine.calls[-1] == ("close",)
        assert stage.app.return_code == 0


async def test_hostile_text_stays_text() -> None:
    tokens = ["[bold]a", "\x1b[2J", "\u202eabc", "x\n", "[/]", "𝕏"]
    async with staged((200, 60), panes=None, T=6, tokens=tokens) as stage:
        await stage.prompted()
        await stage.press("home")
        assert "token 0 of 6 [bold]a" in stage.text
        await stage.press("l")
        assert "token 1 of 6 ␛[2J" in stage.text
        stage.engine.load("[red]x\x1b")
        stage.engine.ready()
        await stage.settle()
        assert "\x1b" not in stage.text
        await stage.press("o")
        assert "\x1b" not in stage.text


async def test_keys_in_a_burst_are_obeyed_in_order() -> None:
    async with staged() as stage:
        await stage.prompted()
        stage.engine.finish()
        await stage.settle()
        for key in ("slash", "ctrl+u", *"hello", "enter"):
            stage.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await stage.until(lambda: stage.engine.calls[-1] == ("run", "hello", 32))
        assert len(stage.engine.calls) == 3


class BrokenPane(StubPane):
    """A defect."""

    pane_id, title, help = "map", "map", "about map"

    def view_of(self, moment: Moment) -> Seen | None:
        raise RuntimeError("a [bold]defect")


@pytest.mark.parametrize("debug", [False, True])
def test_a_defect_ends_in_one_line_and_shows_a_traceback_only_on_request(
    debug: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    panes = [BrokenPane(), *stub_panes()[1:]]
    engine = FakeEngine(make_trace(6))
    app = MoetuiApp(lambda: engine, "demo", panes=lambda: panes, debug=debug)
    app.run(headless=True, size=(120, 40))
    told = capfd.readouterr().err
    assert app.return_code == 1
    assert ("Traceback" in told) is debug
    assert "a [bold]defect" in told
    assert debug or "--debug" in told
