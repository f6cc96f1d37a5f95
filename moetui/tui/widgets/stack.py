"""A stacked bar of signed shares: what helped stands right of zero, what opposed left of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.style import Style

from moetui.tui.palette import PartMark
from moetui.tui.widgets.lines import Line, Span

ZERO = "│"


def stack(
    shares: Sequence[float],
    marks: Sequence[PartMark],
    width: int,
    reach: tuple[float, float],
    faint: Style,
) -> Line:
    """The bar in exactly `width` cells, one of which is the zero line.

    reach: the largest sums left and right of zero that must fit, so that bars compare. Each
    stretch is labelled with its part's letter.
    """
    left_room, right_room = _rooms(width, reach)
    if not all(math.isfinite(share) for share in shares):
        return (
            (f"{'':{left_room}}", faint),
            (ZERO, faint),
            (f"{'no preference':{right_room}.{right_room}}", faint),
        )
    scale = right_room / reach[1]
    against = [(-s, mark) for s, mark in zip(shares, marks, strict=True) if s < 0]
    towards = [(s, mark) for s, mark in zip(shares, marks, strict=True) if s > 0]
    left = _stretches(against[::-1], scale, left_room)
    right = _stretches(towards, scale, right_room)
    pad = left_room - sum(len(text) for text, _ in left)
    rest = right_room - sum(len(text) for text, _ in right)
    return ((" " * pad, faint), *left, (ZERO, faint), *right, (" " * rest, faint))


def _rooms(width: int, reach: tuple[float, float]) -> tuple[int, int]:
    """Cells left and right of the zero line."""
    cells = max(width - 1, 1)
    left = 0
    if reach[0] > 0:
        left = min(max(1, round(cells * reach[0] / (reach[0] + reach[1]))), cells - 1)
    return left, cells - left


def _stretches(parts: Sequence[tuple[float, PartMark]], scale: float, room: int) -> list[Span]:
    """Spans whose ends are rounded from the running sum, so that errors do not add up."""
    spans: list[Span] = []
    total, end = 0.0, 0
    for share, mark in parts:
        total += share
        stop = min(round(total * scale), room)
        if stop > end:
            size = stop - end
            text = mark.letter.center(size, " ") if size > 1 else mark.letter
            spans.append((text, mark.style))
        end = max(end, stop)
    return spans
