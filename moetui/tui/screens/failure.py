"""The dialog that says what went wrong and what to do next."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Static

from moetui.trace import Failure
from moetui.tui.screens.dialog import Dialog
from moetui.tui.text import plain


class FailureDialog(Dialog[bool]):
    """Cause and next step; answers True for "choose another model"."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("left", "app.focus_previous", "button before"),
        ("right", "app.focus_next", "button after"),
    ]

    def __init__(self, failure: Failure) -> None:
        super().__init__()
        self._failure = failure

    def compose(self) -> ComposeResult:
        """The cause, the next step, two buttons."""
        with Vertical(classes="dialog -failure") as box:
            box.border_title = "That did not work"
            yield Static(plain(self._failure.message), classes="cause", markup=False)
            yield Static(f"→ {plain(self._failure.hint)}", classes="hint", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Choose another model", variant="primary", id="choose", compact=True)
                yield Button("Close", id="close", compact=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Answer with the button."""
        self.dismiss(event.button.id == "choose")
