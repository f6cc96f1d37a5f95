"""Dialogs that ask for one thing out of several: the model to open, the pane to go to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from moetui.tui.screens.dialog import Dialog

BUNDLED = (
    ("demo", "bundled: a small mixture of experts, 8 layers × 16 experts"),
    ("demo-dense", "bundled: the same network without experts"),
)


class ModelDialog(Dialog[str]):
    """Type a name or path, or pick one that is bundled; answers with it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "app.focus_next"),
        Binding("up", "app.focus_previous"),
    ]

    def __init__(self, current: str) -> None:
        super().__init__()
        self._current = current

    def compose(self) -> ComposeResult:
        """An input, and below it what is there in any case."""
        with Vertical(classes="dialog -model") as box:
            box.border_title = "Open a model"
            yield Input(
                placeholder="a folder, or a name as in mlx-community/OLMoE-1B-7B-0125-4bit",
                id="model-name",
                compact=True,
            )
            yield OptionList(
                *(Option(_option(name, says), id=name) for name, says in BUNDLED),
                id="bundled",
                markup=False,
                compact=True,
            )
            yield Static(f"open now: {self._current}", classes="hint", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Answer with what was typed; nothing typed is no answer."""
        name = event.value.strip()
        if name:
            self.dismiss(name)
        else:
            self.notify("type a folder or a name, or pick one below", markup=False)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer with the bundled model."""
        self.dismiss(event.option.id)


class PaneDialog(Dialog[int]):
    """The list of panes; answers with the number of the one chosen.

    panes: title and help of each by number; the help's first sentence is shown.
    """

    def __init__(self, panes: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._panes = [(title, says.partition(". ")[0]) for title, says in panes]

    def compose(self) -> ComposeResult:
        """One line for each pane: number, title, what it shows."""
        with Vertical(classes="dialog -panes") as box:
            box.border_title = "Panes"
            yield OptionList(
                *(
                    Option(_option(f"{number}  {title}", says), id=str(number))
                    for number, (title, says) in enumerate(self._panes, start=1)
                ),
                markup=False,
                compact=True,
            )

    def on_key(self, event: events.Key) -> None:
        """A digit goes straight to its pane."""
        key = event.key
        if key.isdigit() and 1 <= int(key) <= len(self._panes):
            self.dismiss(int(key))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer with the pane's number."""
        self.dismiss(int(event.option.id or "1"))


def _option(name: str, says: str) -> Content:
    return Content.assemble((name, "bold"), ("  "), (says, "$secondary"))
