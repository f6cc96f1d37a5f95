"""A result as tables and bars: what the report, the terminal, `compare` and the explorer draw.

Data only, so that all of them show the same numbers.
"""

from __future__ import annotations

import msgspec

from moetui.stats import Statistic

# A float stands for a description (a threshold, a parameter); a claim is a Statistic.
Value = str | int | float | Statistic | None


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of values under columns; every row has one value for each column.

    together: a statistic keeps its interval in its own cell even where one column alone holds any.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    caption: str | None = None
    together: bool = False


class Bars(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics on one axis from low to high, each with its interval and its null's band."""

    title: str
    rows: tuple[tuple[str, Statistic], ...]
    low: float
    high: float
    caption: str | None = None


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A heading and what stands under it: paragraphs, then tables, then bars."""

    heading: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    bars: tuple[Bars, ...] = ()


def estimate(statistic: Statistic) -> Statistic:
    """`statistic` without its null and its test, for where it is tested against something else."""
    return msgspec.structs.replace(
        statistic, null_mean=None, null_low=None, null_high=None, p=None, q=None
    )
