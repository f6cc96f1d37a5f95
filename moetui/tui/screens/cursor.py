"""The keys that move: the one cursor, or what the active pane lets them move instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moetui.tui.panes.pane import Move, Pane

if TYPE_CHECKING:
    from textual.screen import Screen

    from moetui.tui.session import Session
    from moetui.tui.workspace import Workspace

    Base = Screen[None]
else:
    Base = object


class CursorActions(Base):
    """The part of the explorer's screen that moves the cursor along tokens, layers, experts.

    A pane that is read as a list or a page takes these keys for itself (`Pane.moved`).
    """

    session: Session
    workspace: Workspace
    _stale: bool

    def on_pane_cursor_moved(self, event: Pane.CursorMoved) -> None:
        """A click or a wheel in a pane moves the one cursor."""
        event.stop()
        self.session.put(event.token, event.layer, event.expert)
        self._stale = True

    def action_move_token(self, by: int) -> None:
        """Along the tokens."""
        if not self.workspace.active.moved(Move.ACROSS, by):
            self.session.move_token(by)
            self._stale = True

    def action_move_layer(self, by: int) -> None:
        """Along the layers."""
        if not self.workspace.active.moved(Move.DOWN, by):
            self.session.put(layer=self.session.cursor.layer + by)
            self._stale = True

    def action_move_expert(self, by: int) -> None:
        """Along the experts."""
        self.session.put(expert=self.session.cursor.expert + by)
        self._stale = True

    def action_move_chosen(self, by: int) -> None:
        """Along the experts that ran at the cursor."""
        self.session.move_chosen(by)
        self._stale = True

    def action_step(self, by: int) -> None:
        """Along the recording."""
        self.session.step(by)
        self._stale = True

    def action_first_token(self) -> None:
        """To the first token."""
        if not self.workspace.active.moved(Move.END, -1):
            self.session.put(token=0)
            self._stale = True

    def action_follow(self) -> None:
        """To the newest token, and stay on it."""
        if not self.workspace.active.moved(Move.END, 1):
            self.session.follow()
            self._stale = True
