"""What can be taken away from the explorer: JSON of a pane or the screen, a picture, a value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from textual import work

from moetui.tui.clipboard import copy, value_at
from moetui.tui.export import ExportError, pane_json, screen_json, write_new

if TYPE_CHECKING:
    from textual.screen import Screen

    from moetui.settings import Settings
    from moetui.tui.session import Session
    from moetui.tui.workspace import Workspace

    Base = Screen[None]
else:
    Base = object


class TakeAway(Base):
    """The part of the explorer's screen behind `e`, `E`, `s` and `y`."""

    session: Session
    settings: Settings
    workspace: Workspace

    def action_export_pane(self) -> None:
        """Write the active pane's view, the very object it has drawn."""
        pane = self.workspace.active
        if pane.view is None:
            self.notify(f"nothing to export: {pane.empty_reason(pane.moment)}", markup=False)
            return
        moment, view, name = pane.moment, pane.view, pane.pane_id
        self._write(name, "json", lambda: pane_json(moment, name, view))

    def action_export_screen(self) -> None:
        """Write the trace of all rows shown and the view of every pane, shown or not."""
        moment = self.session.moment
        if moment.snapshot.model is None:
            self.notify("nothing to export: no model is open", markup=False)
            return
        shown = set(self.workspace.shown())
        views = {
            pane.pane_id: pane.view if pane in shown else pane.view_of(moment)
            for pane in self.workspace.panes
        }
        self._write("screen", "json", lambda: screen_json(moment, views))

    def action_screenshot(self) -> None:
        """Write a picture of the screen."""
        picture = self.app.export_screenshot(title="moetui").encode()
        self._write("screen", "svg", lambda: picture)

    def action_copy_value(self) -> None:
        """Copy the values under the cursor."""
        value = value_at(self.session.moment)
        if value is None:
            self.notify("nothing to copy: run a prompt first", markup=False)
            return
        self.notify(f"{value}\ncopied by {copy(self.app, value)}", markup=False)

    @work
    async def _write(self, subject: str, suffix: str, make: Callable[[], bytes]) -> None:
        """Make and write the file on a thread: a long recording takes a second to spell out."""
        folder = self.settings.export_dir or Path.cwd()
        try:
            path = await asyncio.to_thread(
                lambda: write_new(folder, subject, suffix, make(), datetime.now())
            )
        except ExportError as error:
            self.notify(
                f"{error.message}\n→ {error.hint}", title="Not exported", severity="error",
                timeout=10, markup=False,
            )  # fmt: skip
            return
        self.notify(str(path), title="Exported", timeout=8, markup=False)
