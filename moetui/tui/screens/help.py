"""Help: what the focused pane shows, and every key, from the table that makes the bindings."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from moetui.tui.keys import Group, keys_table
from moetui.tui.screens.dialog import Dialog


class HelpDialog(Dialog[None]):
    """Closes on Esc, `?` and `q`; arrows scroll."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("question_mark", "close", "close"),
        ("q", "close", "close"),
    ]

    def __init__(self, title: str, says: str, groups: Iterable[Group]) -> None:
        super().__init__()
        self._title, self._says, self._groups = title, says, tuple(groups)

    def compose(self) -> ComposeResult:
        """The pane's help, then the keys."""
        with Vertical(classes="dialog -help") as box:
            box.border_title = "Help"
            box.border_subtitle = "↑ ↓ scroll · Esc closes"
            with VerticalScroll():
                yield Static(
                    Content.assemble((self._title, "bold $accent"), "\n", self._says),
                    classes="pane-help",
                    markup=False,
                )
                yield Static(keys_text(self._groups), markup=False)


def keys_text(groups: Iterable[Group]) -> Content:
    """The keys under their headings, in two columns."""
    rows = keys_table(groups)
    width = max(len(keys) for _, keys, _ in rows) + 2
    lines: list[Content] = []
    for heading, members in groupby(rows, key=lambda row: row[0]):
        lines += [Content(""), Content.styled(heading, "bold")]
        lines += [
            Content.assemble((f"  {keys:<{width}}", "$accent"), says) for _, keys, says in members
        ]
    return Content("\n").join(lines[1:])
