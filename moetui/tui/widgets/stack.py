"""A stacked bar of signed shares: what helped stands right of zero, what opposed left of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.style import Style

from moetui.tui.palette import PartMark
from moetui.tui.text import fitted
from moetui.tui.widgets.lines import Line, Span

ZERO = "│"


@dataclass(frozen=True)
class Scale:
    """`left` cells, the zero line, `right` cells."""

    left: int
    right: int
    cells_per_share: float

    @classmethod
    def fitting(cls, width: int, left: float, right: float) -> Scale:
        """The scale in `width` cells that holds sums up to `left` below and `right` above zero."""
        cells = max(width - 1, 1)
        below = min(math.ceil(cells * left / (left + right)), cells - 1)
        per_share = min((cells - below) / right, below / left if left > 0 else math.inf)
        return cls(below, cells - below, per_share)


def stack(shares: Sequence[float], marks: Sequence[PartMark], scale: Scale, faint: Style) -> Line:
    """The bar of one decision, exactly as wide as `scale`; NaN shares are no preference."""
    if not all(math.isfinite(share) for share in shares):
        text = fitted(" no preference", scale.right)
        return ((" " * scale.left + ZERO + text, faint),)
    against = [(-s, mark) for s, mark in zip(shares, marks, strict=True) if s < 0]
    towards = [(s, mark) for s, mark in zip(shares, marks, strict=True) if s > 0]
    left = _stretches(against, scale.cells_per_share, scale.left)[::-1]
    right = _stretches(towards, scale.cells_per_share, scale.right)
    before = scale.left - sum(len(text) for text, _ in left)
    after = scale.right - sum(len(text) for text, _ in right)
    return ((" " * before, faint), *left, (ZERO, faint), *right, (" " * after, faint))


def _stretches(parts: Sequence[tuple[float, PartMark]], scale: float, room: int) -> list[Span]:
    """Spans whose ends are rounded from the running sum, so that errors do not add up."""
    spans: list[Span] = []
    total, end = 0.0, 0
    for share, mark in parts:
        total += share
        stop = min(round(total * scale), room)
        if stop > end:
            spans.append((mark.stretch(stop - end), mark.style))
        end = max(end, stop)
    return spans
