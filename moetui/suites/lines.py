"""Sections as plain lines of a given width: what a terminal, a pager and the explorer show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from moetui.suites.grid import Grid, grid
from moetui.suites.plot import LEGEND, bar_lines
from moetui.suites.tables import Bars, Section, Table
from moetui.suites.wording import cells, padded, visible, wrapped

Role = Literal["heading", "text", "title", "head", "row", "bar", "note", "blank"]

MIN_WIDTH = 40
_GAP = "  "
# No column of words is made narrower than this.
_NARROWEST = 12


@dataclass(frozen=True)
class Line:
    """One line of visible text. role: what it is, for whoever has styles."""

    role: Role
    text: str = ""


BLANK = Line("blank")


def section_lines(section: Section, width: int) -> list[Line]:
    """`section` in at most `width` columns (never fewer than MIN_WIDTH)."""
    width = max(width, MIN_WIDTH)
    lines = [Line("heading", row) for row in wrapped(visible(section.heading), width)]
    for paragraph in section.text:
        lines += [BLANK, *(Line("text", row) for row in wrapped(visible(paragraph), width))]
    for table in section.tables:
        lines += [BLANK, *table_lines(table, width)]
    for bars in section.bars:
        lines += [BLANK, *_bars(bars, width)]
    return lines


def text_of(sections: Sequence[Section], width: int) -> str:
    """All sections as text, a blank line between them, and a line break at the end."""
    parts = ("\n".join(line.text for line in section_lines(s, width)) for s in sections)
    return "\n\n".join(parts) + "\n"


def table_lines(table: Table, width: int) -> list[Line]:
    """`table` in at most `width` columns: words are wrapped first, then the table is split."""
    found = grid(table)
    lines = [Line("title", row) for row in wrapped(found.title, width)]
    if not found.rows:
        lines.append(Line("row", "nothing to show"))
    else:
        for at, columns in enumerate(_blocks(found, width)):
            lines += [BLANK] * bool(at) + list(_block(found, columns, width))
    for note in (*((found.caption,) if found.caption else ()), *found.notes):
        lines += [Line("note", row) for row in wrapped(note, width)]
    return lines


def _bars(bars: Bars, width: int) -> list[Line]:
    lines = [Line("title", row) for row in wrapped(visible(bars.title), width)]
    lines += [Line("bar", row) for row in bar_lines(bars, width)]
    notes = [LEGEND, *([visible(bars.caption)] if bars.caption else [])]
    return [*lines, *(Line("note", row) for note in notes for row in wrapped(note, width))]


def _blocks(found: Grid, width: int) -> Iterator[list[int]]:
    """The columns in groups that fit side by side; every group repeats the leading words."""
    least = [_least(found, at, width) for at in range(len(found.columns))]
    lead = [0] if len(found.columns) > 1 else []
    block = list(lead)
    for at in range(len(lead), len(found.columns)):
        used = sum(least[i] for i in (*block, at)) + len(_GAP) * len(block)
        if used > width and len(block) > len(lead):
            yield block
            block = list(lead)
        block.append(at)
    yield block


def _least(found: Grid, at: int, width: int) -> int:
    """How narrow a column can be: words may be broken, numbers only where they are too long to
    stand beside the first column."""
    longest = max(cells(row[at]) for row in found.rows)
    head = max(map(cells, found.columns[at].split()), default=1)
    if not found.numeric[at]:
        return min(max(head, min(longest, _NARROWEST)), width // 2)
    room = width - len(_GAP) - _least(found, 0, width) if at else width // 2
    return min(max(head, longest), room)


def _block(found: Grid, columns: list[int], width: int) -> Iterator[Line]:
    widths = _widths(found, columns, width)
    heads = [wrapped(found.columns[at], widths[at]) for at in columns]
    yield from _rows("head", heads, columns, widths, found.numeric, bottom=True)
    yield Line("head", _GAP.join("─" * widths[at] for at in columns))
    for row in found.rows:
        parts = [wrapped(row[at], widths[at]) for at in columns]
        yield from _rows("row", parts, columns, widths, found.numeric)


def _widths(found: Grid, columns: list[int], width: int) -> dict[int, int]:
    """What every column is given: what it would like, less where that is too much in all."""
    least = {at: _least(found, at, width) for at in columns}
    liked = {
        at: max(cells(found.columns[at]), *(cells(row[at]) for row in found.rows)) for at in columns
    }
    room = width - len(_GAP) * (len(columns) - 1)
    while sum(liked.values()) > room:
        at = max(columns, key=lambda at: liked[at] - least[at])
        if liked[at] <= least[at]:
            break
        liked[at] -= 1
    return liked


def _rows(
    role: Role,
    parts: Sequence[list[str]],
    columns: list[int],
    widths: dict[int, int],
    numeric: Sequence[bool],
    *,
    bottom: bool = False,
) -> Iterator[Line]:
    """Cells of several lines side by side, aligned at the top or the bottom."""
    height = max(map(len, parts))
    filled = [
        [""] * (height - len(p)) + p if bottom else p + [""] * (height - len(p)) for p in parts
    ]
    for y in range(height):
        row = (
            padded(part[y], widths[at], right=numeric[at])
            for at, part in zip(columns, filled, strict=True)
        )
        yield Line(role, _GAP.join(row).rstrip())
