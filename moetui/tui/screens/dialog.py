"""What all dialogs share: a framed box over the explorer that Esc closes."""

from __future__ import annotations

from typing import ClassVar, TypeVar

from textual.binding import BindingType
from textual.screen import ModalScreen

Answer = TypeVar("Answer")


class Dialog(ModalScreen[Answer | None]):
    """A modal box; Esc closes it with no answer."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "close", "Close")]

    def action_close(self) -> None:
        """Close with no answer."""
        self.dismiss(None)
