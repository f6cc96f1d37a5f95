"""How the explorer looks, guarded by pictures; every number in them is asserted elsewhere.

`pytest --snapshot-update tests/tui/test_app_pictures.py` after a look at the new ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from moetui.settings import Settings
from moetui.trace import Phase
from moetui.tui.app import MoetuiApp
from moetui.tui.moment import OpenedResult
from moetui.tui.screens.choose import ModelDialog
from moetui.tui.screens.explorer import ExplorerScreen
from tests.builders import make_trace
from tests.fake_dossier import make_dossier
from tests.fake_forward import FakeForward
from tests.suites.sample import make_result
from tests.tui.fake_engine import FakeEngine
from tests.tui.found import MODELS

SIZES = [(80, 24), (120, 40), (200, 60)]


def explorer(**trace: Any) -> tuple[MoetuiApp, FakeEngine]:
    shape: dict[str, Any] = {"T": 24, "N": 12, "E": 32, "k": 4, "prompt_tokens": 9, "seed": 3}
    engine = FakeEngine(make_trace(**{**shape, **trace}))
    return MoetuiApp(lambda: engine, "demo", settings=Settings(), debug=True), engine


async def shown(pilot: Pilot[Any], engine: FakeEngine) -> None:
    """Wait until the engine's newest state is on the screen."""
    screen = pilot.app.screen_stack[0]
    assert isinstance(screen, ExplorerScreen)
    for _ in range(200):
        await pilot.pause(0.02)
        if screen.session.latest.version == engine.snapshot().version and not screen._stale:
            break
    await pilot.pause(0.1)


async def played(pilot: Pilot[Any], engine: FakeEngine) -> None:
    """A prompt and its continuation, the cursor in the middle."""
    await shown(pilot, engine)
    engine.ready()
    await shown(pilot, engine)
    engine.prefill()
    engine.finish()
    await shown(pilot, engine)
    await pilot.press("left", "left", *["down"] * 5, "right_curly_bracket")
    await shown(pilot, engine)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_explorer(snap_compare: Any, size: tuple[int, int]) -> None:
    app, engine = explorer()

    async def before(pilot: Pilot[Any]) -> None:
        await played(pilot, engine)

    assert snap_compare(app, terminal_size=size, run_before=before)


async def compared(pilot: Pilot[Any], engine: FakeEngine) -> None:
    """A token kept, another run, and the cursor where both can be compared."""
    await played(pilot, engine)
    await pilot.press("c")
    other = make_trace(T=24, N=12, E=32, k=4, prompt_tokens=9, seed=4)
    # Some layers choose as before, so that there is something to tell from chance.
    ids = other.expert_ids.copy()
    ids[:, 4:7] = engine.whole.expert_ids[:, 4:7]
    token_ids = other.token_ids.copy()
    token_ids[:4] += 40
    engine.prefill(replace(other, expert_ids=ids, token_ids=token_ids))
    engine.finish()
    await shown(pilot, engine)
    await pilot.press("left", "left", "c")
    pilot.app.clear_notifications()
    await shown(pilot, engine)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_comparison(snap_compare: Any, size: tuple[int, int]) -> None:
    app, engine = explorer()

    async def before(pilot: Pilot[Any]) -> None:
        await compared(pilot, engine)

    assert snap_compare(app, terminal_size=size, run_before=before)


@pytest.mark.parametrize("theme", ["moetui-dark", "moetui-light"])
def test_the_difference_map(snap_compare: Any, theme: str) -> None:
    app, engine = explorer()
    app.theme = theme

    async def before(pilot: Pilot[Any]) -> None:
        await compared(pilot, engine)
        await pilot.press("m", "m", "1")
        await shown(pilot, engine)

    assert snap_compare(app, terminal_size=(120, 40), run_before=before)


@pytest.mark.parametrize(
    "key", ["question_mark", "0", "o", "w"], ids=["help", "panes", "model", "what-if"]
)
def test_dialogs(snap_compare: Any, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExplorerScreen, "_find_models", lambda self: iter(MODELS))
    app, engine = explorer()

    async def before(pilot: Pilot[Any]) -> None:
        await played(pilot, engine)
        await pilot.press(*([key, key] if key == "w" else [key]))
        await pilot.pause(0.3)
        while isinstance(pilot.app.screen, ModelDialog) and pilot.app.screen.looking:
            await pilot.pause(0.1)
        for field in pilot.app.screen.query(Input):
            field.cursor_blink = False
        await pilot.pause(0.1)

    assert snap_compare(app, terminal_size=(100, 30), run_before=before)


def test_a_failure(snap_compare: Any) -> None:
    app, engine = explorer()

    async def before(pilot: Pilot[Any]) -> None:
        await shown(pilot, engine)
        engine.fail("./weights is not a model folder: config.json is missing", "name a folder")
        await shown(pilot, engine)
        await pilot.pause(0.3)

    assert snap_compare(app, terminal_size=(100, 30), run_before=before)


def test_a_dense_model(snap_compare: Any) -> None:
    app, engine = explorer(moe_layers=())

    async def before(pilot: Pilot[Any]) -> None:
        await played(pilot, engine)

    assert snap_compare(app, terminal_size=(120, 40), run_before=before)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_what_if(snap_compare: Any, size: tuple[int, int]) -> None:
    app, engine = explorer()
    push = np.abs(np.random.default_rng(1).normal(size=(12, 32))) / 30
    push[5, 8] = 3.0
    forward = FakeForward(layers=12, experts=32, k=4, vocabulary=96, push=push, steering=[(5, 8)])

    async def before(pilot: Pilot[Any]) -> None:
        await played(pilot, engine)
        screen = pilot.app.screen_stack[0]
        assert isinstance(screen, ExplorerScreen)
        screen.session.put(token=3, layer=5, expert=8)
        await pilot.press("x")
        engine.find(forward)
        await shown(pilot, engine)

    assert snap_compare(app, terminal_size=size, run_before=before)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_result(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine(make_trace())
    result = OpenedResult("attention_router.json", make_result())
    app = MoetuiApp(lambda: engine, None, settings=Settings(), result=result, debug=True)

    async def before(pilot: Pilot[Any]) -> None:
        await pilot.press("right", "right")
        await shown(pilot, engine)

    assert snap_compare(app, terminal_size=size, run_before=before)


def test_the_light_theme(snap_compare: Any) -> None:
    app, engine = explorer()
    app.theme = "moetui-light"

    async def before(pilot: Pilot[Any]) -> None:
        await played(pilot, engine)

    assert snap_compare(app, terminal_size=(120, 40), run_before=before)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_steps_of_a_run(snap_compare: Any, size: tuple[int, int]) -> None:
    # Steps that keep some of their experts and change them at one token.
    whole = make_trace(T=24, N=12, E=32, k=4, prompt_tokens=9, seed=3)
    token, layer = np.arange(24)[:, None, None], np.arange(12)[:, None]
    ids = (np.arange(4) + token // 2 + 14 * (token > 15) + layer) % 32
    engine = FakeEngine(replace(whole, expert_ids=ids.astype(np.int16)))
    app = MoetuiApp(lambda: engine, "demo", settings=Settings(), debug=True)

    async def before(pilot: Pilot[Any]) -> None:
        await played(pilot, engine)
        await pilot.press("g")
        await shown(pilot, engine)

    assert snap_compare(app, terminal_size=size, run_before=before)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("finished", [True, False], ids=["done", "under-way"])
def test_the_dossier_of_an_expert(snap_compare: Any, size: tuple[int, int], finished: bool) -> None:
    app, engine = explorer()
    found = make_dossier(engine.whole.model, at=-1 if finished else 0)

    async def before(pilot: Pilot[Any]) -> None:
        await played(pilot, engine)
        await pilot.press("d")
        engine.say(finding=found, phase=Phase.READY if finished else Phase.STUDYING)
        await shown(pilot, engine)

    assert snap_compare(app, terminal_size=size, run_before=before)
