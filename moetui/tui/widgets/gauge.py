"""Small bars and numbers for shares of one."""

from __future__ import annotations

from rich.style import Style

from moetui.tui.widgets.lines import Line

_WHOLE, _HALF, _REST = "━", "╸", "╌"


def gauge(share: float, width: int, full: Style, rest: Style) -> Line:
    """A thin bar of `share` (0 … 1) in exactly `width` cells, in steps of half a cell.

    What is not filled is drawn with another line, so that the bar needs no colour.
    """
    halves = round(min(max(share, 0.0), 1.0) * width * 2)
    bar = _WHOLE * (halves // 2) + _HALF * (halves % 2)
    return (bar, full), (_REST * (width - len(bar)), rest)


def probability(p: float) -> str:
    """Four cells: .973 or 1.00."""
    return "1.00" if p >= 0.9995 else f"{p:.3f}"[1:]
