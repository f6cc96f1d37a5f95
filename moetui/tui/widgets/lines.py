"""A widget made of lines of styled spans, which repaints only the lines that changed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

Span = tuple[str, Style]
Line = tuple[Span, ...]


class Lines(Widget):
    """Draws `set_lines` from the top; the rest is blank.

    Texts must be plain (see `moetui.tui.text`). Every segment gets a style, also the blank ones:
    under NO_COLOR Textual's filter fails on segments without.
    """

    _lines: Sequence[Line] = ()

    def set_lines(self, lines: Sequence[Line]) -> None:
        """Show `lines`, one a row."""
        old, self._lines = self._lines, lines
        width = self.size.width
        if not width:
            return
        changed = [
            Region(0, y, width, 1)
            for y in range(max(len(old), len(lines)))
            if (old[y] if y < len(old) else None) != (lines[y] if y < len(lines) else None)
        ]
        if changed:
            self.refresh(*changed)

    def render_line(self, y: int) -> Strip:
        """Row `y` as a strip of exactly the widget's width."""
        width, base = self.size.width, self.rich_style
        line = self._lines[y] if y < len(self._lines) else ()
        segments = [Segment(text, base + style) for text, style in line if text]
        return Strip(segments).adjust_cell_length(width, base)


def line_width(line: Line) -> int:
    """Cells that `line` takes."""
    return sum(cell_len(text) for text, _ in line)


def spread(left: Line, right: Line, width: int) -> Line:
    """`left` at the left and `right` at the right edge; `right` gives way where both do not fit."""
    gap = width - line_width(left) - line_width(right)
    return (*left, (" " * gap, Style()), *right) if gap > 0 else left


def ticks(labels: Sequence[tuple[int, str]], width: int) -> str:
    """Texts placed at their columns, those that would touch the one before left out."""
    line, end = "", 0
    for at, text in labels:
        if at >= end and at + cell_len(text) <= width:
            line += " " * (at - len(line)) + text
            end = len(line) + 1
    return line + " " * (width - len(line))
