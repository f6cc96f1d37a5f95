"""A suite from the dialog to its result on the screen, and everything that may come between."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from moetui import suites
from moetui.suites import live
from moetui.suites.live import SuiteRequest, SuiteRun
from moetui.suites.models import Loaded
from moetui.suites.names import NAMES
from moetui.suites.results import CellResult
from moetui.trace import Phase
from moetui.tui.panes.suite_progress import clock
from moetui.tui.screens.failure import FailureDialog
from moetui.tui.screens.suites import SuiteDialog
from tests.suites.toy import ToyModel, ToySuite
from tests.tui.stage_app import Stage, staged

TEXTS = ("one", "two", "three", "four", "five")


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, Any]]:
    """What was asked for; a suite of six cells takes the place of every other when it runs."""
    found: list[tuple[str, Any, Any]] = []

    def suite(name: str, parameters: Any, *, preset: Any) -> ToySuite:
        found.append((name, parameters["models"], preset))
        return ToySuite(parameters["models"], TEXTS)

    monkeypatch.setattr(live, "suite", suite)
    monkeypatch.setattr(Loaded, "identity", lambda self, ref: f"digest of {ref.label}")
    return found


async def started(stage: Stage, *keys: str) -> None:
    """A suite was chosen, `keys` pressed in the dialog, and it was started."""
    await stage.prompted()
    stage.engine.finish()
    await stage.settle()
    await stage.press("b", "b", *keys, "enter")
    assert stage.engine.calls[-1] == ("study",)


async def goes_on(stage: Stage, count: int | None = None) -> None:
    """The run shows its next `count` states, or all of them."""
    stage.engine.find(ToyModel("synthetic"), count)  # type: ignore[arg-type]
    await stage.settle()


async def test_the_dialog_tells_of_every_suite_what_it_asks_and_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    async with staged((80, 24), panes=None) as stage:
        await stage.prompted()
        stage.engine.finish()
        await stage.press("b", "b")
        assert isinstance(stage.app.screen, SuiteDialog)
        assert (
            "Does what attention adds decide" in stage.text and "minute of CPU time" in stage.text
        )
        for name in NAMES:
            assert name in stage.text and " cells, " in stage.text
            # Nothing of it is cut: the end of the costs, and the last of the ways to run it.
            cost = suites.suite(name, {"models": ["synthetic"]}).cost.split()
            last = cost[-1] if len(" ".join(cost)) <= 240 else "--describe`)"
            assert last in stage.text and "an earlier run finished: taken up" in stage.text
            assert ("cells, no tokens to read" in stage.text) == (name == "anatomy")
            await stage.press("down")
        quick = next(line for line in stage.text.splitlines() if " cells, about" in line)
        await stage.press("right", "right")
        full = next(line for line in stage.text.splitlines() if " cells, about" in line)
        assert quick != full
        assert "random weights too: off" in stage.text
        await stage.press("n")
        assert "random weights too: on" in stage.text and "2 models" in stage.text


async def test_what_is_chosen_is_what_runs(
    tmp_path: Path, asked: list[tuple[str, Any, Any]]
) -> None:
    async with staged(panes=None, export_dir=tmp_path) as stage:
        await started(stage, "down", "right", "right")
        await goes_on(stage, 1)
        run = stage.session.suite_run
        assert asked == [(NAMES[1], ["synthetic"], "full")]
        assert run.request.folder == tmp_path / "results" and run.request.resume
        assert not run.request.null_model


async def test_cells_tokens_and_ended_analyses_are_shown_while_it_runs(tmp_path: Path) -> None:
    async with staged((80, 24), panes=None, export_dir=tmp_path) as stage:
        await started(stage)
        # Begun, planned; then of each part: it starts, its texts, it is finished.
        await goes_on(stage, 2)
        assert "0/6 cells" in stage.text and "0 of about 19 tokens" in stage.text
        await goes_on(stage, 4)
        assert "1/6 cells" in stage.text and "6 of about 19 tokens" in stage.text
        assert f"STUDYING {NAMES[0]} 1/6 cells" in stage.text
        await goes_on(stage, 1)
        assert "synthetic · count · texts 2" in stage.text
        await goes_on(stage, 10)
        assert "count done" in stage.text


def ended(name: str, status: Any = "done", reason: str | None = None) -> CellResult:
    return CellResult(
        model="m", analysis=name, status=status, reason=reason, seconds=1.0, result=None
    )


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (120, 40)])
@pytest.mark.parametrize("count", [1, 3, 9, 40])
async def test_what_has_ended_is_listed_or_counted(size: tuple[int, int], count: int) -> None:
    every = [
        ended(f"a{at}", "failed", "no such luck") if at % 3 == 2 else ended(f"a{at}")
        for at in range(count)
    ]
    request = SuiteRequest(name=NAMES[0], model="m", folder=Path("results"))
    async with staged(size, panes=None) as stage:
        await stage.prompted()
        await stage.press("b")
        run = SuiteRun(request=request, cells=50, done=count, ended=tuple(every), started=0.0)
        stage.engine.say(phase=Phase.STUDYING, finding=run)
        await stage.settle()
        listed = re.findall(r"[✓✗] m · (a\d+) (done|failed)", stage.text)
        newest = [(one.analysis, one.status) for one in every]
        assert listed and listed == newest[count - len(listed) :]
        assert stage.text.count("no such luck") == [status for _, status in listed].count("failed")
        counted = re.search(r"… (?:(\d+) done)?(?:, )?(?:(\d+) failed)? before", stage.text)
        gone = [status for _, status in newest[: count - len(listed)]]
        if counted is None:
            assert not gone
        else:
            told = [int(number or 0) for number in counted.groups()]
            assert told == [gone.count("done"), gone.count("failed")] and gone


async def test_a_reason_that_is_longer_than_the_room_is_cut_with_a_sign() -> None:
    every = (ended("first"), ended("last", "failed", "so very long a reason " * 30))
    request = SuiteRequest(name=NAMES[0], model="m", folder=Path("results"))
    async with staged((60, 16), panes=None) as stage:
        await stage.prompted()
        await stage.press("b")
        run = SuiteRun(request=request, cells=50, done=2, ended=every, started=0.0)
        stage.engine.say(phase=Phase.STUDYING, finding=run)
        await stage.settle()
        assert "… 1 done before" in stage.text and "✗ m · last failed" in stage.text
        assert stage.text.splitlines()[-2].strip() == "…"


async def test_its_result_opens_in_the_pane_and_is_on_disk(tmp_path: Path) -> None:
    async with staged((120, 40), panes=None, export_dir=tmp_path) as stage:
        await started(stage)
        await goes_on(stage)
        files = list((tmp_path / "results").glob("toy_*.json"))
        assert len(files) == 1 and stage.toasts[-1] == str(files[0])
        assert files[0].name in stage.text and "6/6" not in stage.text
        view = stage.pane("suites").view
        assert view is stage.session.result.result
        assert json.loads(files[0].read_bytes())["suite"] == "toy"
        await stage.press("1", "b", "b")
        assert isinstance(stage.app.screen, SuiteDialog)


@pytest.mark.parametrize("key", ["escape", "x"])
async def test_it_can_be_stopped_and_says_what_is_kept(tmp_path: Path, key: str) -> None:
    async with staged((80, 24), panes=None, export_dir=tmp_path) as stage:
        await started(stage)
        await goes_on(stage, 7)
        await stage.press(key)
        assert stage.engine.calls[-1] == ("cancel",)
        assert "stopped" in stage.text and "1/6 cells" in stage.text
        assert str(tmp_path)[:20] in stage.text and "b starts again" in stage.text
        await stage.press("b")
        assert isinstance(stage.app.screen, SuiteDialog)


async def test_elsewhere_a_stop_is_told_by_a_toast(tmp_path: Path) -> None:
    async with staged((80, 24), panes=None, export_dir=tmp_path) as stage:
        await started(stage)
        await goes_on(stage, 7)
        await stage.press("1", "escape")
        assert stage.toasts[-1].startswith("1 of 6 cells are kept in ")


async def test_meanwhile_the_panes_can_be_read_and_nothing_else_is_started(tmp_path: Path) -> None:
    async with staged((80, 24), panes=None, export_dir=tmp_path) as stage:
        await started(stage)
        await goes_on(stage, 3)
        calls = list(stage.engine.calls)
        await stage.press("1", "down", "left")
        assert stage.session.cursor.layer == 1
        for keys in (("x",), ("o",), ("b", "b"), ("slash", "enter")):
            await stage.press("escape" if stage.screen._typing else "1", *keys)
            assert stage.toasts[-1].startswith(f"{NAMES[0]} is running: Esc stops it")
            assert len(stage.app.screen_stack) == 1
        assert stage.engine.calls == calls
        assert stage.session.latest.phase is Phase.STUDYING


async def test_a_suite_that_fails_shows_cause_and_next_step(tmp_path: Path) -> None:
    async with staged((80, 24), panes=None, export_dir=tmp_path) as stage:
        await started(stage)
        await goes_on(stage, 3)
        stage.engine.fail("nothing succeeded: boom", "run it again", Phase.READY)
        await stage.settle()
        assert isinstance(stage.app.screen, FailureDialog)
        assert "nothing succeeded: boom" in stage.text and "→ run it again" in stage.text
        await stage.press("escape", "1", "down")
        assert stage.session.cursor.layer == 1


async def test_without_a_model_or_while_a_prompt_runs_the_dialog_stays_away() -> None:
    async with staged((80, 24), panes=None) as stage:
        await stage.settle()
        await stage.press("b", "b")
        assert stage.toasts[-1].startswith("a suite needs a model")
        await stage.prompted()
        await stage.press("b")
        assert stage.toasts[-1].startswith("the engine is busy")
        assert len(stage.app.screen_stack) == 1


def test_clocks() -> None:
    assert [clock(s) for s in (0.4, 59.9, 60, 3600 + 125)] == ["0:00", "0:59", "1:00", "1:02:05"]
