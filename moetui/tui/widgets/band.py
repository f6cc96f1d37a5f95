"""Where a value lies among its controls, as one line of cells."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style

from moetui.tui.widgets.lines import Line

VALUE = "◆"
# One control in a cell, two or three, more.
_DOTS = "·:┇"
_EMPTY = " "


def band(value: float, controls: Sequence[float], width: int, here: Style, dots: Style) -> Line:
    """`width` cells from the smallest number (0 at the most) to the largest.

    Controls are dots, the value is ◆ and hides what is in its own cell. All at one place: ◆ alone
    at the left.
    """
    low, high = min(0.0, value, *controls), max([value, *controls])
    per_cell = (high - low) / (width - 1) if width > 1 and high > low else 0.0

    def cell(number: float) -> int:
        return round((number - low) / per_cell) if per_cell else 0

    counts = [0] * width
    for control in controls:
        counts[cell(control)] += 1
    at = cell(value)
    drawn = "".join(_dot(count) for count in counts)
    return (drawn[:at], dots), (VALUE, here), (drawn[at + 1 :], dots)


def _dot(count: int) -> str:
    return _EMPTY if not count else _DOTS[0] if count == 1 else _DOTS[1 + (count > 3)]
