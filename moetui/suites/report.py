"""A result as a Markdown report: for a terminal, a pager and a web page alike.

Tables are aligned in the source, plots are text in fenced blocks, and no text of a model, a
prompt or a corpus can act as Markdown or steer a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from moetui.suites.grid import Grid, grid
from moetui.suites.plot import bar_lines, legend
from moetui.suites.results import SuiteResult
from moetui.suites.sections import sections
from moetui.suites.tables import Bars, Section, Table
from moetui.suites.verdict_sections import overview
from moetui.suites.wording import cells, padded, visible, wrapped

PLOT_WIDTH = 100
# Of prose: a paragraph in one line is no reading in a pager.
TEXT_WIDTH = 100

# Brackets alone are no link: only what follows them makes one.
_ACTIVE = re.compile(r"[\\`*<|~&$]|\](?=[(\[:])|(?<![^\W_])_|_(?![^\W_])")
# A line that starts so would be a heading, a list, a quote or a rule.
_BLOCK_START = re.compile(r"^([#>]|[+\-=](?!\d)|\d+(?=[.)](\s|$)))")


def report(results: Sequence[SuiteResult], failures: Mapping[str, str] | None = None) -> str:
    """All results as Markdown, an overview before several; nothing is read, computed or dated anew.

    failures: suites without a result, and why.
    """
    failures = failures or {}
    if len(results) == 1 and not failures:
        return markdown(_head(results[0]), sections(results[0]))
    parts = [markdown("# All verdicts", (overview(results, failures),))]
    parts += [markdown(_head(result), sections(result)) for result in results]
    return "\n".join(parts)


def _head(result: SuiteResult) -> str:
    models = ", ".join(record.name for record in result.models if record.null_of is None)
    return f"# {escaped(result.suite)}: {escaped(models)}"


def markdown(head: str, parts: tuple[Section, ...]) -> str:
    """`head`, a line of Markdown, and the sections under it."""
    blocks = [head, *(block for section in parts for block in _section(section))]
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """`text` as Markdown that shows exactly its visible form, in one line."""
    safe = _ACTIVE.sub(lambda match: "\\" + match[0], visible(text))
    return _BLOCK_START.sub(_unblocked, safe.strip())


def _paragraph(text: str) -> str:
    """`text` over as many lines as it takes; one paragraph in Markdown too."""
    return "\n".join(map(escaped, wrapped(visible(text), TEXT_WIDTH)))


def _unblocked(match: re.Match[str]) -> str:
    """The start of a line as plain text; of a number, the sign after it is what makes a list."""
    sign = match[0]
    return f"{sign}\\" if sign.isdigit() else f"\\{sign}"


def _section(section: Section) -> Iterator[str]:
    yield f"## {escaped(section.heading)}"
    yield from map(_paragraph, section.text)
    for table in section.tables:
        yield from _table(table)
    for bars in section.bars:
        yield from _bars(bars)


def _table(table: Table) -> Iterator[str]:
    found = grid(table)
    yield f"**{escaped(found.title)}**"
    yield _rows(found) if found.rows else "nothing to show"
    if found.caption:
        yield _paragraph(found.caption)
    yield from map(_paragraph, found.notes)


def _rows(found: Grid) -> str:
    """The table with its columns aligned in the source too."""
    columns = [escaped(column) for column in found.columns]
    rows = [[escaped(cell) for cell in row] for row in found.rows]
    widths = [
        max(3, cells(column), *(cells(row[at]) for row in rows))
        for at, column in enumerate(columns)
    ]
    rule = [
        "-" * (width - 1) + ":" if right else "-" * width
        for width, right in zip(widths, found.numeric, strict=True)
    ]
    return "\n".join(
        "| " + " | ".join(_aligned(row, widths, found.numeric)) + " |"
        for row in (columns, rule, *rows)
    )


def _aligned(row: list[str], widths: list[int], numeric: tuple[bool, ...]) -> Iterator[str]:
    for cell, width, right in zip(row, widths, numeric, strict=True):
        yield padded(cell, width, right=right)


def _bars(bars: Bars) -> Iterator[str]:
    yield f"**{escaped(bars.title)}**"
    # Longer than any run of backticks inside; in a fence nothing is escaped.
    rows = [row.replace("`", "'") for row in bar_lines(bars, PLOT_WIDTH)]
    yield "\n".join(["```text", *rows, legend(bars), "```"])
    if bars.caption:
        yield _paragraph(bars.caption)
