"""The explorer on a stage: a hand-driven engine, and panes that only say what they were shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from textual.pilot import Pilot

from moetui.settings import Settings
from moetui.tui.app import MoetuiApp
from moetui.tui.layout import ORDER
from moetui.tui.moment import Moment
from moetui.tui.panes.pane import Pane
from moetui.tui.screens.explorer import ExplorerScreen
from tests.builders import make_trace
from tests.tui.fake_engine import FakeEngine

PROMPT_ROWS, ROWS = 6, 16


class Seen(msgspec.Struct, frozen=True):
    """What a stub pane makes of a moment."""

    pane: str
    token: int
    layer: int
    expert: int
    rows: int
    runs: int


class StubPane(Pane):
    """Counts the moments it was shown."""

    shows = 0

    def view_of(self, moment: Moment) -> Seen | None:
        if not moment.snapshot.rows:
            return None
        cursor = moment.cursor
        return Seen(
            self.pane_id,
            cursor.token,
            cursor.layer,
            cursor.expert,
            moment.snapshot.rows,
            len(moment.runs),
        )

    def empty_reason(self, moment: Moment) -> str:
        return "no prompt has been run"

    def draw(self) -> None:
        self.shows += 1


def stub_panes() -> list[Pane]:
    made = [
        type(f"Stub{name}", (StubPane,), {"pane_id": name, "title": name, "help": f"about {name}"})
        for name in ORDER
    ]
    return [pane() for pane in made]


class Stage:
    """One running explorer and the strings to pull."""

    def __init__(self, app: MoetuiApp, engine: FakeEngine, pilot: Pilot[Any]) -> None:
        self.app, self.engine, self.pilot = app, engine, pilot

    @property
    def screen(self) -> ExplorerScreen:
        explorer = self.app.screen_stack[0]
        assert isinstance(explorer, ExplorerScreen)
        return explorer

    @property
    def session(self) -> Any:
        return self.screen.session

    def pane(self, name: str) -> Pane:
        return next(p for p in self.screen.workspace.panes if p.pane_id == name)

    async def settle(self) -> None:
        """Wait until the engine's newest state and all keys are on the screen."""
        await self.until(lambda: self._drawn)
        await self.pilot.pause(0.04)
        await self.until(lambda: self._drawn and bool(self.text.strip()))

    async def until(self, seen: Callable[[], bool]) -> None:
        """Wait for `seen`; a slow machine gets the time it needs."""
        for _ in range(500):
            await self.pilot.pause()
            if seen() or not self.app.is_running:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"not seen:\n{self.text}")

    @property
    def _drawn(self) -> bool:
        newest = self.engine.snapshot().version
        return self.session.latest.version == newest and not self.screen._stale

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.settle()

    async def prompted(self) -> None:
        """Model loaded, prompt of six tokens traced."""
        await self.settle()
        self.engine.ready()
        await self.settle()
        self.engine.prefill()
        await self.settle()

    @property
    def toasts(self) -> list[str]:
        return [n.message for n in self.app._notifications]

    @property
    def text(self) -> str:
        """All text on the screen."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)


@asynccontextmanager
async def staged(
    size: tuple[int, int] = (120, 40),
    *,
    model: str = "demo",
    settings: Settings | None = None,
    export_dir: Path | None = None,
    panes: Callable[[], Sequence[Pane]] | None = stub_panes,
    **trace: Any,
) -> AsyncIterator[Stage]:
    shape: dict[str, Any] = {"T": ROWS, "N": 8, "E": 16, "k": 4, "prompt_tokens": PROMPT_ROWS}
    engine = FakeEngine(make_trace(**{**shape, **trace}))
    chosen = settings or Settings(export_dir=export_dir)
    app = MoetuiApp(lambda: engine, model, settings=chosen, panes=panes, debug=True)
    async with app.run_test(size=size, notifications=True) as pilot:
        await pilot.pause()
        yield Stage(app, engine, pilot)
