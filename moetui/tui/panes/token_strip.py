"""The prompt and what was generated, token by token, with the cursor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from rich.cells import cell_len
from rich.style import Style
from textual import events

from moetui.analyses.token_strip import TokenStrip, token_strip
from moetui.tui.moment import Moment
from moetui.tui.panes.pane import LinePane
from moetui.tui.panes.reasons import nothing_yet
from moetui.tui.text import fitted, plain
from moetui.tui.widgets.lines import Line, Span

Place = tuple[int, int]  # row and first cell of a token

GENERATED = "▸"


class TokenStripPane(LinePane[TokenStrip]):
    """Tokens wrapped to the width; the rows around the cursor are shown."""

    pane_id = "tokens"
    title = "tokens"
    help = (
        "The prompt, and after ▸ the generated tokens. · is a space, ⟦ ⟧ a control token, ‹ › part "
        "of a character. Click a token to look at it."
    )
    DEFAULT_CSS = "TokenStripPane { height: 3; }"

    _texts: Sequence[str] = ()
    _places: Sequence[Place] = ()
    _top: int = 0

    def view_of(self, moment: Moment) -> TokenStrip | None:
        """The tokens so far."""
        shown = moment.snapshot
        if shown.recording is None or not shown.rows:
            return None
        return token_strip(shown.recording, shown.rows, moment.cursor.token)

    def depends_on(self, moment: Moment) -> object:
        """The rows so far, and the one looked at."""
        shown = moment.snapshot
        return shown.recording, shown.rows, moment.cursor.token

    def empty_reason(self, moment: Moment) -> str:
        """Why there are no tokens."""
        return nothing_yet(moment)

    def lines(self, view: TokenStrip) -> list[Line]:
        """The rows of tokens around the cursor; arrows at the right edge say that there is more."""
        height, width = self.size.height, max(self.size.width - 2, 1)
        self._texts = self._shown(view, width)
        self._places = wrap([cell_len(text) for text in self._texts], width)
        rows = self._places[-1][0] + 1
        here = self._places[min(view.cursor, len(self._places) - 1)][0]
        self._top = min(max(here - height // 2, 0), max(rows - height, 0))
        shown = range(self._top, min(self._top + height, rows))
        lines = [self._row(view, row) for row in shown]
        if shown.start > 0:
            lines[0] = (*lines[0], *self._more("↑", lines[0]))
        if shown.stop < rows:
            lines[-1] = (*lines[-1], *self._more("↓", lines[-1]))
        return lines

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the token that was clicked."""
        if (offset := event.get_content_offset(self)) is None:
            return
        for at, (row, x) in enumerate(self._places):
            if row == offset.y + self._top and x <= offset.x < x + cell_len(self._texts[at]):
                self.post_message(self.CursorMoved(token=at))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel moves along the tokens."""
        self._move(1)
        event.stop()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel moves along the tokens."""
        self._move(-1)
        event.stop()

    def _move(self, by: int) -> None:
        if self.view is not None:
            last = len(self.view.tokens) - 1
            self.post_message(self.CursorMoved(token=max(0, min(self.view.cursor + by, last))))

    def _shown(self, view: TokenStrip, width: int) -> list[str]:
        """What stands for each token; the first generated one has ▸ before it."""
        texts = [chip(t, kind, width) for t, kind in zip(view.tokens, view.kinds, strict=True)]
        if view.prompt_tokens < len(texts):
            first = texts[view.prompt_tokens]
            texts[view.prompt_tokens] = fitted(GENERATED + first, min(cell_len(first) + 1, width))
        return texts

    def _row(self, view: TokenStrip, row: int) -> Line:
        spans: list[Span] = []
        used = 0
        for at, (token_row, x) in enumerate(self._places):
            if token_row == row:
                text = self._texts[at]
                spans += [(" " * (x - used), Style()), (text, self._style(view, at))]
                used = x + cell_len(text)
        return tuple(spans)

    def _style(self, view: TokenStrip, at: int) -> Style:
        paint = self.paint
        if at == view.cursor:
            return paint.cursor
        if view.kinds[at] != "text":
            return paint.muted
        return paint.text if at < view.prompt_tokens else paint.head

    def _more(self, arrow: str, line: Line) -> Line:
        used = sum(cell_len(text) for text, _ in line)
        return ((" " * (self.size.width - 1 - used) + arrow, self.paint.muted),)


@lru_cache(maxsize=65536)
def chip(token: str, kind: str, width: int) -> str:
    """A token as one piece of at most `width` cells."""
    text = plain(token) or "∅"
    if kind == "special":
        text = f"⟦{text}⟧"
    elif kind == "bytes":
        text = f"‹{text}›"
    return fitted(text, min(cell_len(text), width))


def wrap(widths: Sequence[int], width: int) -> list[Place]:
    """Where tokens of these widths stand, one cell apart, in rows of `width` cells."""
    places: list[Place] = []
    row, x = 0, 0
    for size in widths:
        if x and x + size > width:
            row, x = row + 1, 0
        places.append((row, x))
        x += size + 1
    return places
