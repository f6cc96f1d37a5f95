"""A table in words: every statistic spread over the columns that are needed to judge it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moetui.stats import Statistic
from moetui.suites.tables import Table, Value
from moetui.suites.wording import (
    ABSENT,
    claim,
    interval,
    null,
    number,
    probability,
    visible,
)

# What stands beside a value, and how it is said.
_BESIDE: tuple[tuple[str, Callable[[Statistic], str]], ...] = (
    ("95 % interval", interval),
    ("null [95 %]", null),
    ("p", lambda s: probability(s.p)),
    ("q", lambda s: probability(s.q)),
    ("documents", lambda s: number(s.n_documents)),
    ("tokens", lambda s: number(s.n_tokens)),
    ("n effective", lambda s: ABSENT if s.n_effective is None else f"{s.n_effective:,.0f}"),
)


@dataclass(frozen=True)
class Grid:
    """A table as text. Every row has one visible cell for each column.

    numeric: by column, whether it is set to the right. notes: the caveats of the statistics, in
    the order of the marks (a), (b) … that stand after the values; the one that all share has none.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    caption: str | None
    notes: tuple[str, ...]


class _Notes:
    """Caveats by letter; the same caveat has the same letter."""

    def __init__(self, table: Table) -> None:
        self.found: dict[str, str] = {}
        told = [v.caveat for row in table.rows for v in row if isinstance(v, Statistic)]
        shared = told[0] if len(told) > 1 and len(set(told)) == 1 else None
        # A mark at every value of a table marks none.
        self.shared = None if shared is None else visible(shared)

    def mark(self, statistic: Statistic) -> str:
        """` (a)` for a statistic with a caveat that others of the table do not have."""
        if statistic.caveat is None or self.shared is not None:
            return ""
        letter = self.found.setdefault(visible(statistic.caveat), _letter(len(self.found)))
        return f" ({letter})"

    def lines(self) -> tuple[str, ...]:
        """What stands under the table."""
        if self.shared is not None:
            return (f"all values: {self.shared}",)
        return tuple(f"({letter}) {caveat}" for caveat, letter in self.found.items())


def grid(table: Table) -> Grid:
    """`table` in words.

    Where one column holds statistics, interval, null, p and sizes get columns of their own, as
    far as any row has them; where several do, or the table wants them together, each says its
    interval and null in its own cell.
    """
    notes = _Notes(table)
    holding = sum(_holds_statistics(table, at) for at in range(len(table.columns)))
    spread = holding == 1 and not table.together
    columns: list[str] = []
    numeric: list[bool] = []
    cells: list[list[str]] = []
    for at, name in enumerate(table.columns):
        values = [row[at] for row in table.rows]
        if spread and _holds_statistics(table, at):
            named = _spread(name, values, notes)
        else:
            named = [(visible(name), [_cell(value, notes) for value in values])]
        known = [value for value in values if value is not None]
        right = bool(known) and not any(isinstance(value, str) for value in known)
        columns += [column for column, _ in named]
        cells += [column for _, column in named]
        numeric += [right] * len(named)
    return Grid(
        title=visible(table.title),
        columns=tuple(columns),
        rows=tuple(tuple(column[row] for column in cells) for row in range(len(table.rows))),
        numeric=tuple(numeric),
        caption=None if table.caption is None else visible(table.caption),
        notes=notes.lines(),
    )


def _holds_statistics(table: Table, at: int) -> bool:
    return any(isinstance(row[at], Statistic) for row in table.rows)


def _spread(name: str, values: Sequence[Value], notes: _Notes) -> list[tuple[str, list[str]]]:
    """The column of values, then those beside it that say anything."""
    first = [
        number(v.value) + notes.mark(v) if isinstance(v, Statistic) else _cell(v, notes)
        for v in values
    ]
    found = [(visible(name), first)]
    for beside, say in _BESIDE:
        column = [say(v) if isinstance(v, Statistic) else "" for v in values]
        if any(cell not in ("", ABSENT) for cell in column):
            found.append((beside, column))
    return found


def _cell(value: Value, notes: _Notes) -> str:
    if isinstance(value, Statistic):
        return claim(value) + notes.mark(value)
    return visible(value) if isinstance(value, str) else number(value)


def _letter(index: int) -> str:
    head, last = divmod(index, 26)
    return (_letter(head - 1) if head else "") + chr(ord("a") + last)
