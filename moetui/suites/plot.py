"""Bars as text: value, interval and null band on one axis, without colours.

The signs survive terminals, pagers and fenced blocks, and each means the same everywhere.
"""

from __future__ import annotations

from moetui.stats import Statistic
from moetui.suites.tables import Bars
from moetui.suites.wording import ABSENT, cells, interval, number, padded, visible

VALUE, INTERVAL, NULL, GROUND = "●", "━", "░", "·"
BELOW, ABOVE = "◂", "▸"
_GAP = "  "


def bar_lines(bars: Bars, width: int) -> list[str]:
    """A row for each statistic, then the axis; no row is wider than `width` columns (≥ 40)."""
    labels = [visible(label) for label, _ in bars.rows]
    told = [_told(statistic) for _, statistic in bars.rows]
    figures = max(map(cells, told), default=0)
    label_width = min(max(map(cells, labels), default=0), max(width - figures - 24, 8))
    room = width - label_width - figures - 2 * len(_GAP)
    if room < 12:  # the numbers stand on a line of their own where they leave no axis
        figures, room = 0, width - label_width - len(_GAP)
    lines = []
    for label, said, (_, statistic) in zip(labels, told, bars.rows, strict=True):
        row = f"{padded(label, label_width)}{_GAP}{bar(statistic, bars.low, bars.high, room)}"
        lines.append((f"{row}{_GAP}{said}" if figures else row).rstrip())
        if not figures:
            lines.append(padded(" " * (label_width + len(_GAP)) + said, width).rstrip())
    low, high = _end(bars.low), _end(bars.high)
    axis = low + " " * max(room - len(low) - len(high), 1) + high
    return [*lines, " " * (label_width + len(_GAP)) + axis]


def legend(bars: Bars) -> str:
    """What the signs of this plot mean; those that it does not have are left out."""
    shown = [statistic for _, statistic in bars.rows]
    told = [f"{VALUE} value"]
    if any(s.ci_low is not None for s in shown):
        told.append(f"{INTERVAL} 95 % interval")
    if any(s.null_low is not None for s in shown):
        told.append(f"{NULL} central 95 % of the null")
    return "  ".join(told)


def bar(statistic: Statistic, low: float, high: float, width: int) -> str:
    """One axis of `width` columns: the null's band, over it the interval, over it the value.

    Arrows at the ends stand for what lies outside the axis.
    """
    axis = [GROUND] * width
    _fill(axis, statistic.null_low, statistic.null_high, low, high, NULL)
    _fill(axis, statistic.ci_low, statistic.ci_high, low, high, INTERVAL)
    value = statistic.value
    if value is not None:
        axis[_column(value, low, high, width)] = VALUE
        if value < low:
            axis[0] = BELOW
        if value > high:
            axis[-1] = ABOVE
    return "".join(axis)


def _fill(
    axis: list[str], start: float | None, stop: float | None, low: float, high: float, sign: str
) -> None:
    if start is None or stop is None or stop < low or start > high:
        return
    first, last = (_column(end, low, high, len(axis)) for end in (start, stop))
    axis[first : last + 1] = sign * (last - first + 1)


def _column(value: float, low: float, high: float, width: int) -> int:
    """The column in which `value` falls, kept on the axis."""
    share = (value - low) / (high - low) if high > low else 0.5
    return max(0, min(int(share * width), width - 1))


def _end(value: float) -> str:
    """An end of the axis: whole numbers without decimals."""
    return number(int(value) if value == int(value) else value)


def _told(statistic: Statistic) -> str:
    if statistic.value is None:
        return ABSENT
    known = statistic.ci_low is not None or statistic.ci_high is not None
    return number(statistic.value) + (f" {interval(statistic)}" if known else "")
