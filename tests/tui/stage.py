"""One pane, or several side by side, on a screen of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rich.style import Style
from textual.app import App, ComposeResult
from textual.containers import Horizontal
from textual.pilot import Pilot

from moetui.tui.moment import Moment
from moetui.tui.panes.pane import LinePane, Pane
from moetui.tui.themes import THEMES


class Stage(App[None]):
    """Shows panes side by side over the whole screen and keeps the messages they post."""

    CSS = "Pane { width: 1fr; height: 1fr; }"

    def __init__(self, panes: Sequence[Pane], theme: str = "dark") -> None:
        super().__init__()
        self.panes = panes
        self.moves: list[Pane.CursorMoved] = []
        self.register_theme(THEMES[theme])
        self.theme = THEMES[theme].name

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield from self.panes

    def on_pane_cursor_moved(self, message: Pane.CursorMoved) -> None:
        self.moves.append(message)


@asynccontextmanager
async def staged(
    *panes: Pane, moment: Moment, size: tuple[int, int] = (80, 24), theme: str = "dark"
) -> AsyncIterator[tuple[Stage, Pilot[None]]]:
    """The panes, showing `moment`, in a terminal of `size`."""
    app = Stage(panes, theme)
    async with app.run_test(size=size) as pilot:
        for pane in panes:
            pane.show(moment)
        await pilot.pause()
        yield app, pilot


def rows(pane: LinePane) -> list[str]:
    """What stands on the pane's rows."""
    return [pane.render_line(y).text for y in range(pane.size.height)]


def style_at(pane: LinePane, x: int, y: int) -> Style:
    """The style of one cell."""
    strip = pane.render_line(y).crop(x, x + 1)
    return next(iter(strip)).style or Style()
