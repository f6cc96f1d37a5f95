"""How far a suite is that runs here: its cells, its tokens, what is under way, what has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.cells import cell_len

from moetui.suites.live import SuiteRun
from moetui.suites.results import CellResult
from moetui.tui.panes.pane import Styles, wrapped
from moetui.tui.text import fitted, plain
from moetui.tui.widgets.gauge import gauge
from moetui.tui.widgets.lines import Line, spread

_MARKS = {"done": "✓", "inconclusive": "?", "failed": "✗"}
_WIDEST = 100


def progress_lines(
    run: SuiteRun, *, going_on: bool, seconds: float, paint: Styles, width: int, height: int
) -> list[Line]:
    """The run for a pane of that size; seconds: since it began. What has ended gives way first."""
    room = min(width, _WIDEST)
    head = [
        _title(run, paint, room),
        gauge(_share(run), room, paint.head, paint.faint),
        ((fitted(_counted(run, seconds), room), paint.text),),
        (),
        ((fitted(_now(run, going_on), room), paint.head),),
        *(((row, paint.muted),) for row in wrapped(_what_next(run, going_on), room)),
        (),
    ]
    return [*head[:height], *_newest(run.ended, paint, room, max(height - len(head), 0))]


def clock(seconds: float) -> str:
    """`0:42`, `1:03:20`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _title(run: SuiteRun, paint: Styles, width: int) -> Line:
    request = run.request
    also = " and random weights" if request.null_model else ""
    told = f" on {plain(request.model)}{also} · {request.preset or 'default'} plan"
    counted = f"{run.done}/{run.cells} cells"
    left: Line = ((request.name, paint.head),)
    room = width - len(request.name) - len(counted) - 1
    left = (*left, (fitted(told, min(cell_len(told), max(room, 0))), paint.muted))
    return spread(left, ((counted, paint.head),), width)


def _share(run: SuiteRun) -> float:
    """Of the cells, the texts of the one under way counted."""
    done, of = run.texts or (0, 1)
    return (run.done + done / max(of, 1)) / run.cells if run.cells else 0.0


def _counted(run: SuiteRun, seconds: float) -> str:
    more = " or more" if run.unplanned else ""
    told = f"{run.tokens_done:,} of about {run.tokens:,} tokens{more} · {clock(seconds)}"
    return f"{told} · {run.reused} cells from an earlier run" if run.reused else told


def _now(run: SuiteRun, going_on: bool) -> str:
    """The cell under way."""
    if not going_on:
        return "stopped"
    if run.current is None:
        return "planning" if not run.cells else "going on"
    cell = run.current
    texts = f" · text {run.texts[0]} of {run.texts[1]}" if run.texts else ""
    return f"{plain(cell.model)} · {cell.analysis} · {cell.part}{texts}"


def _what_next(run: SuiteRun, going_on: bool) -> str:
    folder = f"{run.request.folder}/.cells"
    if going_on:
        return f"Esc or x stops; what is finished stays in {folder}"
    return f"What was finished is in {folder}: b starts again and goes on from there."


def _newest(ended: Sequence[CellResult], paint: Styles, width: int, height: int) -> list[Line]:
    """The analyses that have ended, the newest at the bottom; how many came before, and how they
    ended, where not all fit."""
    told = [_ended(result, paint, width) for result in ended]
    if sum(map(len, told)) <= height:
        return [line for lines in told for line in lines]
    before = len(told) - 1
    shown = _cut(told[before], height - 1 if before else height, paint)
    while before and len(shown) + len(told[before - 1]) < height:
        before -= 1
        shown = [*told[before], *shown]
    if not before:
        return shown
    counts: Counter[str] = Counter(result.status for result in ended[:before])
    how = ", ".join(f"{counts[status]} {status}" for status in _MARKS if counts[status])
    return [((fitted(f"… {how} before", width), paint.muted),), *shown][: max(height, 0)]


def _cut(lines: list[Line], height: int, paint: Styles) -> list[Line]:
    """What fits of them, with a sign where that is not all."""
    if len(lines) <= height:
        return lines
    return [*lines[: max(height - 1, 1)], (("  …", paint.muted),)][: max(height, 0)]


def _ended(result: CellResult, paint: Styles, width: int) -> list[Line]:
    """An analysis that has ended: how, how long it took, and why where it did not end well."""
    took = f"{result.seconds:.1f} s"
    name = f"{_MARKS[result.status]} {plain(result.model)} · {result.analysis} {result.status}"
    style = paint.text if result.status == "done" else paint.head
    head = spread(((fitted(name, width - len(took) - 1), style),), ((took, paint.muted),), width)
    if result.reason is None:
        return [head]
    return [head, *((("  " + row, paint.muted),) for row in wrapped(result.reason, width - 2))]
