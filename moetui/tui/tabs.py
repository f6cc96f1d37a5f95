"""The tab line: the panes by number, and where the cursor is."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from moetui.tui.moment import Mode, Moment
from moetui.tui.text import plain

_DIGITS = 9


class TabLine(Widget):
    """Titles while they fit, else the active title and the numbers of the others. Where the token
    strip is active, which stands above, the title of a single pane below it is told too.

    titles: the panes' titles by number, starting at 1. strip: the number of the token strip.
    """

    class Chosen(Message):
        """A pane's number was clicked."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self, titles: Sequence[str], strip: int) -> None:
        super().__init__(id="tabs")
        self._titles, self._strip = tuple(titles), strip
        self._active = 1
        self._shown: frozenset[int] = frozenset()
        self._moment = Moment()
        self._ends: list[tuple[int, int]] = []

    def show(self, active: int, shown: frozenset[int], moment: Moment) -> None:
        """Mark the active pane and those on the screen, and say where the cursor is."""
        self._active, self._shown, self._moment = active, shown, moment
        self.refresh()

    def render(self) -> Content:
        """The line; where each number ends is kept for the mouse."""
        told = [Content.styled(f"{text} ", "$secondary") for text in where(self._moment)]
        right = told[0]
        room = self.size.width - right.cell_length - 1
        tabs = self._tabs(everywhere=True)
        if _width(tabs) > room:
            tabs = self._tabs(everywhere=False)
            if len(told) > 1 and self.size.width - _width(tabs) - 1 < told[1].cell_length:
                # Those beyond the digits have keys of their own.
                tabs = [t for t in tabs if t[0] <= _DIGITS or t[0] in self._named]
            room = self.size.width - _width(tabs) - 1
            right = next((text for text in told if text.cell_length <= room), Content(""))
        line, self._ends = Content(""), []
        for number, tab in tabs:
            line += tab
            self._ends.append((line.cell_length, number))
        gap = self.size.width - line.cell_length - right.cell_length
        return line + Content(" " * gap) + right if gap > 0 else line

    def _tabs(self, everywhere: bool) -> list[tuple[int, Content]]:
        return [
            (number, self._tab(number, title if everywhere or number in self._named else ""))
            for number, title in enumerate(self._titles, start=1)
        ]

    @property
    def _named(self) -> frozenset[int]:
        """The numbers that stand with their titles in any case."""
        one_below = self._active == self._strip and len(self._shown) == 2
        return self._shown if one_below else frozenset({self._active})

    def _tab(self, number: int, title: str) -> Content:
        # Reversed, not coloured: the active pane is seen without colours too.
        label = f" {number} {title} " if title else f" {number} "
        if number == self._active:
            return Content.styled(label, "bold reverse $accent on $background")
        return Content.styled(label, "$foreground" if number in self._shown else "$secondary")

    def on_click(self, event: events.Click) -> None:
        """Go to the pane whose number or title was clicked."""
        for end, number in self._ends:
            if event.x < end:
                self.post_message(self.Chosen(number))
                return


def _width(tabs: Sequence[tuple[int, Content]]) -> int:
    return sum(tab.cell_length for _, tab in tabs)


def where(moment: Moment) -> list[str]:
    """The cursor in words: token and its text, layer, expert; Σ or Δ in these modes.

    Several wordings, the longest first: the mode changes what the numbers mean and is said in each.
    """
    located = moment.located
    if located is None:
        return [""]
    trace, row = located
    cursor, rows = moment.cursor, moment.snapshot.rows
    token = plain(trace.tokens[row])
    long = [f"token {cursor.token} of {rows} {token}", f"layer {cursor.layer}"]
    short = [f"token {cursor.token} {token}", f"L{cursor.layer}"]
    if trace.model.is_moe:
        long.append(f"expert {cursor.expert}")
        short.append(f"E{cursor.expert}")
    summed: list[str] = ["Δ B − A"] if moment.mode is Mode.DIFFERENCE else []
    if moment.mode is Mode.SESSION:
        summed = [f"Σ {len(moment.runs)} runs" if len(moment.runs) != 1 else "Σ 1 run"]
    return [" · ".join([*parts, *summed]) for parts in (long, short, short[1:], [])]
