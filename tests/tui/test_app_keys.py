"""Every key, the panes they go to, and keys of one's own."""

from __future__ import annotations

import pytest

from moetui.settings import Settings, SettingsError
from moetui.tui.key_line import KeyLine
from moetui.tui.keys import GROUPS, all_keys, keys_table, remapped, shown
from moetui.tui.layout import ORDER
from moetui.tui.moment import Cursor, Mode
from moetui.tui.panes.pane import Pane
from moetui.tui.screens.choose import PaneDialog
from moetui.tui.screens.help import HelpDialog
from tests.tui.stage_app import Seen, Stage, staged


@pytest.mark.parametrize(
    ("keys", "moved"),
    [
        (("left",), Cursor(4, 3, 8)),
        (("h",), Cursor(4, 3, 8)),
        (("left", "right"), Cursor(5, 3, 8)),
        (("h", "l"), Cursor(5, 3, 8)),
        (("up",), Cursor(5, 2, 8)),
        (("k",), Cursor(5, 2, 8)),
        (("down",), Cursor(5, 4, 8)),
        (("j",), Cursor(5, 4, 8)),
        (("left_square_bracket",), Cursor(5, 3, 7)),
        (("right_square_bracket",), Cursor(5, 3, 9)),
        (("comma", "comma"), Cursor(3, 3, 8)),
        (("comma", "full_stop"), Cursor(5, 3, 8)),
        (("home",), Cursor(0, 3, 8)),
        (("home", "end"), Cursor(5, 3, 8)),
    ],
)
async def test_a_key_moves_the_cursor_of_all_panes(keys: tuple[str, ...], moved: Cursor) -> None:
    async with staged((200, 60)) as stage:
        await stage.prompted()
        stage.session.put(layer=3, expert=8)
        await stage.press(*keys)
        assert stage.session.cursor == moved
        for pane in stage.screen.workspace.shown():
            assert isinstance(pane.view, Seen)
            assert (pane.view.token, pane.view.layer, pane.view.expert) == (
                moved.token, moved.layer, moved.expert,
            )  # fmt: skip


async def test_the_mouse_moves_the_same_cursor() -> None:
    async with staged((200, 60)) as stage:
        await stage.prompted()
        stage.pane("lens").post_message(Pane.CursorMoved(token=2, layer=6))
        await stage.settle()
        assert (stage.session.cursor.token, stage.session.cursor.layer) == (2, 6)
        view = stage.pane("map").view
        assert isinstance(view, Seen) and view.token == 2


async def test_scrubbing_back_goes_on_while_the_run_does() -> None:
    async with staged() as stage:
        await stage.prompted()
        stage.engine.step(3)
        await stage.settle()
        assert stage.session.cursor.token == 8
        await stage.press("left", "left")
        stage.engine.step(2)
        await stage.settle()
        assert stage.session.cursor.token == 6
        assert "token 6 of 11" in stage.text
        await stage.press("end")
        stage.engine.step()
        await stage.settle()
        assert stage.session.cursor.token == 11


async def test_space_pauses_the_view_and_not_the_run() -> None:
    async with staged() as stage:
        await stage.prompted()
        await stage.press("space")
        stage.engine.step(4)
        await stage.settle()
        view = stage.pane("map").view
        assert isinstance(view, Seen) and view.rows == 6
        assert "VIEW PAUSED" in stage.text
        await stage.press("space")
        view = stage.pane("map").view
        assert isinstance(view, Seen) and view.rows == 10


async def test_m_sums_the_session() -> None:
    async with staged() as stage:
        await stage.prompted()
        await stage.press("m")
        assert stage.session.mode is Mode.SESSION
        assert "Σ 1 run" in stage.text
        await stage.press("m")
        assert stage.session.mode is Mode.TOKEN


async def test_sums_are_told_in_the_narrowest_terminal_too() -> None:
    async with staged((60, 16)) as stage:
        await stage.prompted()
        await stage.press("4", "m")
        assert "L0 · E" in stage.text
        assert "Σ 1 run" in stage.text


async def test_curly_brackets_walk_the_chosen_experts() -> None:
    async with staged() as stage:
        await stage.prompted()
        chosen = sorted(stage.engine.whole.expert_ids[5, 0].tolist())
        stage.session.put(expert=chosen[1])
        await stage.press("right_curly_bracket")
        assert stage.session.cursor.expert == chosen[2]
        await stage.press("left_curly_bracket")
        assert stage.session.cursor.expert == chosen[1]


async def test_digits_tab_and_the_list_go_to_panes() -> None:
    async with staged((80, 24)) as stage:
        await stage.prompted()
        for digit, name in zip("123456789", ORDER, strict=False):
            await stage.press(digit)
            assert stage.pane(name).has_focus
            assert stage.pane(name).region.height > 0
        await stage.press("1", "tab")
        assert stage.pane("why").has_focus
        await stage.press("shift+tab", "shift+tab")
        assert stage.pane(ORDER[-1]).has_focus
        await stage.press("0")
        assert isinstance(stage.app.screen, PaneDialog)
        await stage.press("down", "down", "enter")
        assert stage.pane("lens").has_focus
        await stage.press("0", "4")
        assert stage.pane("detail").has_focus
        await stage.press("1", "b")
        assert stage.pane("suites").has_focus


async def test_a_hidden_pane_is_not_drawn() -> None:
    async with staged((80, 24)) as stage:
        await stage.prompted()
        assert stage.pane("lens").shows == 0  # type: ignore[attr-defined]
        await stage.press("3")
        assert stage.pane("lens").shows > 0  # type: ignore[attr-defined]


async def test_help_says_what_the_pane_shows_and_every_key() -> None:
    async with staged((120, 80)) as stage:
        await stage.press("2", "question_mark")
        assert isinstance(stage.app.screen, HelpDialog)
        text = stage.text
        assert "about why" in text
        for _, keys, says in keys_table():
            assert any(keys in line and says in line for line in text.splitlines()), says


def key_line(stage: Stage) -> str:
    return stage.text.splitlines()[-1].rstrip()


LABELS = [f"{shown(key.keys)} {key.footer}" for key in all_keys() if key.footer]


@pytest.mark.parametrize("width", [60, 68, 72, 80, 90, 120])
@pytest.mark.parametrize("busy", [False, True])
async def test_the_key_line_holds_whole_keys_and_says_where_some_are_missing(
    width: int, busy: bool
) -> None:
    every = [label for label in LABELS if busy or label != "Esc Back"]
    async with staged((width, 24), model="./any") as stage:
        await stage.settle()
        stage.engine.ready()
        await stage.settle()
        if busy:
            stage.engine.prefill()
            await stage.settle()
        await stage.until(lambda: ("Esc Back" in key_line(stage)) is busy)
        line = key_line(stage)
        there = [label for label in every if f" {label} " in f"{line} "]
        rest = line
        for label in there:
            rest = rest.replace(label, "", 1)
        missing = every[len(there) - 2 : -2]
        assert there == [*every[: len(there) - 2], "? Help", "q Quit"]
        assert rest.strip() == ("…" if missing else "")
        if missing:  # the next one would not have fitted
            sign = "… " if len(missing) == 1 else ""
            assert len(line) + 1 + len(missing[0]) - len(sign) > width


async def test_a_key_of_one_s_own_keeps_help_in_the_narrowest_terminal() -> None:
    async with staged((60, 16), settings=Settings(keys={"prompt": "ctrl+underscore"})) as stage:
        await stage.prompted()
        assert key_line(stage).endswith("… ? Help q Quit")


async def test_a_click_on_a_key_presses_it() -> None:
    async with staged((60, 16)) as stage:
        await stage.prompted()
        x = key_line(stage).index("… ?")
        await stage.pilot.click(KeyLine, offset=(x, 0))
        await stage.settle()
        assert isinstance(stage.app.screen, HelpDialog)
        await stage.press("escape")
        x = key_line(stage).index("Pause")
        await stage.pilot.click(KeyLine, offset=(x, 0))
        await stage.settle()
        assert stage.session.paused


@pytest.mark.parametrize(("keys", "told"), [({}, "q quits"), ({"quit": "f10"}, "f10 quits")])
async def test_ctrl_c_says_what_quits(keys: dict[str, str], told: str) -> None:
    async with staged(settings=Settings(keys=keys)) as stage:
        await stage.prompted()
        await stage.press("ctrl+c")
        assert stage.toasts == [told]


async def test_the_palette_offers_the_commands() -> None:
    async with staged() as stage:
        titles = {command.title for command in stage.app.get_system_commands(stage.screen)}
        assert {"Model", "Export screen", "Pane 3: lens", "Light or dark", "Quit"} <= titles
        await stage.press("ctrl+p")
        await stage.press(*"Light or dark")
        await stage.pilot.pause(0.3)
        await stage.press("enter")
        assert stage.app.theme == "moetui-light"


async def test_a_remapped_key_works_and_help_is_true_to_it() -> None:
    async with staged(settings=Settings(keys={"token_left": "a, f5", "help": "f1"})) as stage:
        await stage.prompted()
        await stage.press("a", "f5")
        assert stage.session.cursor.token == 3
        await stage.press("left", "h")
        assert stage.session.cursor.token == 3
        await stage.press("f1")
        assert any("a f5" in line and "token before" in line for line in stage.text.splitlines())


def test_unknown_actions_and_doubled_keys_are_refused() -> None:
    with pytest.raises(SettingsError) as caught:
        remapped({"token_lfet": "a"})
    assert "token_left" in caught.value.hint
    with pytest.raises(SettingsError, match="q starts both"):
        remapped({"prompt": "q"})
    with pytest.raises(SettingsError, match="pane 3"):
        remapped({"prompt": "3"})
    with pytest.raises(SettingsError, match="names no key"):
        remapped({"prompt": ""})


def test_signs_may_be_written_as_they_are() -> None:
    groups = remapped({"export_pane": "?", "help": "f1"})
    keys = {key.name: key.keys for group in groups for key in group.keys}
    assert keys["export_pane"] == "question_mark"


def test_no_key_is_given_twice_and_every_action_exists() -> None:
    remapped({})
    from moetui.tui.app import MoetuiApp
    from moetui.tui.screens.explorer import ExplorerScreen

    for key in all_keys():
        name = key.action.partition("(")[0]
        owner = MoetuiApp if name.startswith("app.") else ExplorerScreen
        assert hasattr(owner, f"action_{name.removeprefix('app.')}"), key
    assert shown("left,h") == "← h"
    assert len({key.name for key in all_keys()}) == sum(len(group.keys) for group in GROUPS)


async def test_after_the_key_that_quits_nothing_is_a_key_any_more() -> None:
    """Typed in one go, each key is on its way before the one before it is done."""
    async with staged(panes=None) as stage:
        await stage.prompted()
        for key in "qones/":
            stage.app.simulate_key(key)
        for _ in range(100):
            await stage.pilot.pause(0.02)
            if not stage.app.is_running:
                break
        assert stage.app.return_code == 0 and stage.app._exception is None
        assert len(stage.app.screen_stack) <= 1
