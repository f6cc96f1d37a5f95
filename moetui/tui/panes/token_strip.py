"""The prompt and what was generated, token by token, with the cursor."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.style import Style
from textual import events

from moetui.analyses.token_strip import TokenStrip, token_strip
from moetui.tui.moment import Moment
from moetui.tui.panes.pane import LinePane
from moetui.tui.panes.reasons import nothing_yet
from moetui.tui.text import fitted, plain
from moetui.tui.widgets.lines import Line, Span

Place = tuple[int, int, int]  # row, first cell, width of a token


class TokenStripPane(LinePane):
    """Tokens wrapped to the width; the rows around the cursor are shown."""

    pane_id = "tokens"
    title = "tokens"
    help = "The prompt and the generated tokens (after ▸). Click one to look at it."
    DEFAULT_CSS = "TokenStripPane { height: auto; min-height: 1; max-height: 3; }"

    view: TokenStrip | None = None
    _places: Sequence[Place] = ()
    _top: int = 0

    def view_of(self, moment: Moment) -> TokenStrip | None:
        """The tokens so far."""
        shown = moment.snapshot
        if shown.recording is None or not shown.rows:
            return None
        return token_strip(shown.recording, shown.rows, moment.cursor.token)

    def empty_reason(self, moment: Moment) -> str:
        """Why there are no tokens."""
        return nothing_yet(moment)

    def lines(self) -> list[Line]:
        """The rows of tokens around the cursor."""
        view = self.view
        assert view is not None
        width, height = self.size
        texts = [fitted(t, min(cell_len(t), width)) for t in self._texts(view)]
        self._places = wrap([cell_len(text) for text in texts], width)
        rows = self._places[-1][0] + 1
        here = self._places[min(view.cursor, len(texts) - 1)][0]
        self._top = min(max(here - height // 2, 0), max(rows - height, 0))
        lines: list[list[Span]] = [[] for _ in range(height)]
        for at, (text, (row, x, _)) in enumerate(zip(texts, self._places, strict=True)):
            if self._top <= row < self._top + height:
                line = lines[row - self._top]
                used = sum(cell_len(t) for t, _ in line)
                line += [(" " * (x - used), Style()), (text, self._style(view, at))]
        return [tuple(line) for line in lines]

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the token that was clicked."""
        for at, (row, x, width) in enumerate(self._places):
            if row == event.y + self._top and x <= event.x < x + width:
                self.post_message(self.CursorMoved(token=at))

    def _texts(self, view: TokenStrip) -> list[str]:
        """What stands for each token; the first generated one has ▸ before it."""
        texts = []
        for at, (token, kind) in enumerate(zip(view.tokens, view.kinds, strict=True)):
            text = plain(token) or "∅"
            if kind == "special":
                text = f"⟦{text}⟧"
            elif kind == "bytes":
                text = f"‹{text}›"
            texts.append(f"▸{text}" if at == view.prompt_tokens else text)
        return texts

    def _style(self, view: TokenStrip, at: int) -> Style:
        paint = self.paint
        if at == view.cursor:
            return paint.cursor
        if view.kinds[at] != "text":
            return paint.muted
        return paint.head if at >= view.prompt_tokens else paint.text


def wrap(widths: Sequence[int], width: int) -> list[Place]:
    """Where tokens of these widths stand, one cell apart, in rows of `width` cells."""
    places: list[Place] = []
    row, x = 0, 0
    for size in widths:
        if x and x + size > width:
            row, x = row + 1, 0
        places.append((row, x, size))
        x += size + 1
    return places
