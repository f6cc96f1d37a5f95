"""A batch result to read: the same sections, and the same numbers, as its report.

While a suite runs here, how far it is stands in the place of the result.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType

from moetui.suites.live import SuiteRun
from moetui.suites.results import SuiteResult
from moetui.trace import Phase
from moetui.tui.moment import Moment, suite_run
from moetui.tui.panes.pane import LinePane, Move
from moetui.tui.panes.suite_progress import progress_lines
from moetui.tui.text import fitted, plain
from moetui.tui.widgets.lines import Line, spread

if TYPE_CHECKING:
    from moetui.suites.lines import Line as Text
    from moetui.suites.lines import Role

# Below this width the list of sections gives its room to the page.
_WITH_LIST, _LIST = 110, 30
_WIDEST = 130
_WHEEL = 3


@dataclass(frozen=True)
class _Page:
    """A result laid out for a width. starts: the line at which each section begins."""

    headings: tuple[str, ...]
    lines: tuple[Text, ...]
    starts: tuple[int, ...]

    def section_at(self, line: int) -> int:
        """The section that holds `line`."""
        return max(i for i, start in enumerate(self.starts) if start <= max(line, 0))


class SuitesPane(LinePane[SuiteResult]):
    """The sections of a result under one another; its own keys scroll and leap."""

    pane_id = "suites"
    title = "suites"
    help = (
        "Runs a suite on the open model and shows its result, or that of `moetui batch` opened "
        "with `moetui open FILE.json`. b or Enter chooses a suite, its plan (quick, default, full) "
        "and whether random weights are run too; Esc or x stops it within a token, and what is "
        "finished is kept for the next start. The result is written as `moetui batch` writes it, "
        "to the folder results of the working directory. It has the verdict by the "
        "seed's rule beside the corrected one, every measure with its 95 % interval, its null and "
        "its size, what does not separate from the null model, and the caveats. ↑ ↓ scroll, PgUp "
        "and PgDn by pages, ← → go to the section before and after, Home and End to the ends; "
        "`e` exports the result."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "screen.suites", "choose a suite", show=False),
        Binding("pageup", "page(-1)", "page up", show=False),
        Binding("pagedown", "page(1)", "page down", show=False),
    ]

    _top = 0
    _page: _Page | None = None
    _page_of: tuple[object, int] | None = None

    def view_of(self, moment: Moment) -> SuiteResult | None:
        """The result that was opened or found, unless a suite is running."""
        if moment.result is None or _running(moment) is not None:
            return None
        return moment.result.result

    def depends_on(self, moment: Moment) -> object:
        """The result, and whether a suite runs."""
        return moment.result, _running(moment) is not None

    def empty_reason(self, moment: Moment) -> str:
        """How to get one."""
        run = _running(moment)
        if run is not None:
            return f"{run.request.name} is running: {run.done} of {run.cells} cells are finished."
        return (
            "No result is open. b chooses a suite to run on the open model. In a terminal, "
            "`moetui batch attention_router -m MODEL` runs one and writes its result; "
            "`moetui open FILE.json` shows it here."
        )

    def _reason(self) -> list[Line]:
        """The run that is under way, or was stopped; else how to get a result."""
        run = suite_run(self.moment.snapshot)
        if run is None:
            return super()._reason()
        going_on = _running(self.moment) is not None
        return progress_lines(
            run,
            going_on=going_on,
            # Not the snapshot's: the statistics of a cell may take a while without a word.
            seconds=time.monotonic() - run.started if going_on else run.seconds,
            paint=self.paint,
            width=self.size.width,
            height=self.size.height,
        )

    def lines(self, view: SuiteResult) -> list[Line]:
        """What is shown and where in it, then the page, beside its list where it is wide."""
        page = self._laid_out(view)
        self._top = self._within(self._top)
        here = page.section_at(self._top)
        shown = page.lines[self._top : self._top + self._room]
        rows: list[Line] = [((line.text, self._style(line.role)),) for line in shown]
        if self._listed:
            rows = self._beside(page, here, rows)
        return [self._head(view, page, here), (), *rows]

    def moved(self, move: Move, by: int) -> bool:
        """Scroll by a line, go to another section, or to an end."""
        if self.view is None:
            return True
        page = self._laid_out(self.view)
        if move is Move.DOWN:
            self._go(self._top + by)
        elif move is Move.END:
            self._go(0 if by < 0 else len(page.lines))
        else:
            here = page.section_at(self._top)
            inside = by < 0 and self._top > page.starts[here]
            at = here if inside else max(0, min(here + by, len(page.starts) - 1))
            self._go(page.starts[at])
        return True

    def action_page(self, by: int) -> None:
        """Scroll by what fits, less a line that stays in sight."""
        if self.view is not None:
            self._go(self._top + by * max(self._room - 1, 1))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel scrolls."""
        self._wheel(event, _WHEEL)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel scrolls."""
        self._wheel(event, -_WHEEL)

    def on_click(self, event: events.Click) -> None:
        """Go to the section that was clicked in the list."""
        at = event.get_content_offset(self)
        if self.view is None or at is None or not self._listed or at.x >= _LIST:
            return
        page = self._laid_out(self.view)
        section = at.y - 2
        if 0 <= section < len(page.starts):
            self._go(page.starts[section])

    def _wheel(self, event: events.MouseEvent, by: int) -> None:
        if self.view is not None:
            self._go(self._top + by)
            event.stop()

    def _go(self, line: int) -> None:
        self._top = self._within(line)
        self.draw()

    def _within(self, line: int) -> int:
        """`line` kept where the page can begin: any section may stand at the top."""
        if self._page is None:
            return 0
        last = max(len(self._page.lines) - self._room, self._page.starts[-1], 0)
        return max(0, min(line, last))

    @property
    def _room(self) -> int:
        return max(self.size.height - 2, 1)

    @property
    def _listed(self) -> bool:
        return self.size.width >= _WITH_LIST

    def _laid_out(self, view: SuiteResult) -> _Page:
        """The page for the present width, made once; its section stays when the width changes."""
        width = min(self.size.width - (_LIST if self._listed else 0), _WIDEST)
        if self._page is None or self._page_of != (view, width):
            before = self._page
            section = before.section_at(self._top) if before is not None else 0
            same = self._page_of is not None and self._page_of[0] is view
            self._page, self._page_of = _page(view, width), (view, width)
            self._top = self._page.starts[section] if same else 0
        return self._page

    def _head(self, view: SuiteResult, page: _Page, here: int) -> Line:
        """Suite and file; the section where there is no list of them, and how far down it is."""
        paint, width = self.paint, self.size.width
        file = self.moment.result.file if self.moment.result is not None else ""
        last = max(len(page.lines) - self._room, 1)
        share = f"{min(self._top / last, 1):.0%}"
        told = f"{here + 1}/{len(page.starts)} {share}"
        if not self._listed:
            told = f"{page.headings[here]} {told}"
        left: Line = ((f"{plain(view.suite)} ", paint.head),)
        room = width - len(told) - len(plain(view.suite)) - 3
        left = (*left, (fitted(plain(file), max(room, 0)).rstrip(), paint.muted))
        return spread(left, ((told, paint.muted),), width)

    def _beside(self, page: _Page, here: int, rows: list[Line]) -> list[Line]:
        """The list of sections at the left of the page."""
        paint, made = self.paint, []
        for y in range(min(max(len(rows), len(page.headings)), self._room)):
            row = rows[y] if y < len(rows) else ()
            name = page.headings[y] if y < len(page.headings) else ""
            mark = "▶" if y == here else " "
            text = fitted(f"{mark}{name}" if name else "", _LIST - 2)
            style = paint.cursor if y == here else paint.muted
            made.append(((text, style), ("  ", paint.text), *row))
        return made

    def _style(self, role: Role) -> Style:
        paint = self.paint
        styles = {
            "heading": paint.cursor, "title": paint.head, "head": paint.muted, "note": paint.muted,
        }  # fmt: skip
        return styles.get(role, paint.text)


def _running(moment: Moment) -> SuiteRun | None:
    """The run of a suite that is under way."""
    return suite_run(moment.snapshot) if moment.snapshot.phase is Phase.STUDYING else None


def _page(view: SuiteResult, width: int) -> _Page:
    """All sections for `width`, a blank line between them."""
    from moetui.suites.lines import BLANK, section_lines
    from moetui.suites.sections import sections

    lines: list[Text] = []
    starts: list[int] = []
    found = sections(view)
    for section in found:
        starts.append(len(lines))
        lines += [*section_lines(section, width), BLANK]
    return _Page(tuple(plain(s.heading) for s in found), tuple(lines), tuple(starts))
