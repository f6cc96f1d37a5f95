"""Sections as plain lines of a given width: what a terminal, a pager and the explorer show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from moetui.suites.grid import Grid, grid
from moetui.suites.plot import bar_lines, legend
from moetui.suites.tables import Bars, Section, Table
from moetui.suites.wording import cells, padded, visible, wrapped

Role = Literal["heading", "text", "title", "head", "row", "bar", "note", "blank"]

MIN_WIDTH = 40
_GAP = "  "
# How narrow a column of words is made: the second only where that saves splitting the table.
_NARROW = (20, 16)


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
        tried = [_blocks(found, width, narrow) for narrow in _NARROW]
        least, blocks = min(tried, key=lambda one: len(one[1]))
        for at, columns in enumerate(blocks):
            lines += [BLANK] * bool(at) + list(_block(found, columns, least, width))
    for note in (*((found.caption,) if found.caption else ()), *found.notes):
        lines += [Line("note", row) for row in wrapped(note, width)]
    return lines


def _bars(bars: Bars, width: int) -> list[Line]:
    lines = [Line("title", row) for row in wrapped(visible(bars.title), width)]
    lines += [Line("bar", row) for row in bar_lines(bars, width)]
    notes = [legend(bars), *([visible(bars.caption)] if bars.caption else [])]
    return [*lines, *(Line("note", row) for note in notes for row in wrapped(note, width))]


def _blocks(found: Grid, width: int, narrow: int) -> tuple[list[int], list[list[int]]]:
    """How narrow every column can be, and the columns in groups that fit side by side; every
    group repeats the leading words."""
    lead = _lead(found, width, narrow)
    least = _fewest(found, lead, width, narrow)
    blocks = [list(lead)]
    for at in range(len(lead), len(found.columns)):
        used = sum(least[i] for i in (*blocks[-1], at)) + len(_GAP) * len(blocks[-1])
        if used > width and len(blocks[-1]) > len(lead):
            blocks.append(list(lead))
        blocks[-1].append(at)
    return least, blocks


def _lead(found: Grid, width: int, narrow: int) -> list[int]:
    """The words that say what a row is: the first column, and those after it in half the room."""
    lead = [0] if len(found.columns) > 1 else []
    for at in range(1, len(found.columns) - 1):
        widths = [_least(found, i, width // 2, narrow) for i in (*lead, at)]
        if found.numeric[at] or sum(widths) + len(_GAP) * len(lead) > width // 2:
            break
        lead.append(at)
    return lead


def _fewest(found: Grid, lead: list[int], width: int, narrow: int) -> list[int]:
    """How narrow every column can be made."""
    first = [_least(found, at, width // 2, narrow) for at in lead]
    room = width - sum(first) - len(_GAP) * len(lead)
    rest = range(len(lead), len(found.columns))
    return first + [_least(found, at, room, narrow) for at in rest]


def _least(found: Grid, at: int, room: int, narrow: int) -> int:
    """How narrow a column can be: words may be broken, numbers only where they do not fit."""
    longest = max(cells(row[at]) for row in found.rows)
    head = max(map(cells, found.columns[at].split()), default=1)
    return min(max(head, longest if found.numeric[at] else min(longest, narrow)), room)


def _block(found: Grid, columns: list[int], least: Sequence[int], width: int) -> Iterator[Line]:
    widths = _widths(found, columns, least, width)
    heads = [wrapped(found.columns[at], widths[at]) for at in columns]
    yield from _rows("head", heads, columns, widths, found.numeric, bottom=True)
    yield Line("head", _GAP.join("─" * widths[at] for at in columns))
    for row in found.rows:
        parts = [wrapped(row[at], widths[at]) for at in columns]
        yield from _rows("row", parts, columns, widths, found.numeric)


def _widths(found: Grid, columns: list[int], least: Sequence[int], width: int) -> dict[int, int]:
    """What every column is given: what it would like, less where that is too much in all."""
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
