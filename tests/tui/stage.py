"""One pane on a screen of its own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from collections.abc import AsyncIterator

from textual.app import App, ComposeResult
from textual.geometry import Size

from moetui.tui.moment import Moment
from moetui.tui.panes.pane import Pane


class Stage(App[None]):
    """Shows one pane over the whole screen and keeps the messages it posts."""

    def __init__(self, pane: Pane) -> None:
        super().__init__()
        self.pane = pane
        self.moves: list[Pane.CursorMoved] = []

    def compose(self) -> ComposeResult:
        yield self.pane

    def on_pane_cursor_moved(self, message: Pane.CursorMoved) -> None:
        self.moves.append(message)
