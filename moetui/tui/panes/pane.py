"""What every pane is: a title, one sentence of help, a view made from a moment, and its drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Generic, TypeVar

import msgspec
from rich.style import Style
from textual import events
from textual.message import Message
from textual.theme import Theme
from textual.widget import Widget

from moetui.tui.moment import Moment
from moetui.tui.palette import Depth, Ramp, depth_of, ramp, signed_ramp
from moetui.tui.text import plain
from moetui.tui.widgets.lines import Line, Lines

View = TypeVar("View", bound=msgspec.Struct)


class Move(Enum):
    """Where a cursor key points."""

    ACROSS = "across"  # ← →
    DOWN = "down"  # ↑ ↓
    END = "end"  # Home, End


class Pane(Widget):
    """Base of all panes.

    A subclass names itself, makes its result (`view_of`, pure: the analyses' own result type) and
    draws it (`draw`). `view` is the object on the screen and therefore the one that is exported.
    """

    pane_id: ClassVar[str]
    title: ClassVar[str]
    help: ClassVar[str]

    view: msgspec.Struct | None = None
    moment: Moment = Moment()
    _drawn_for: object = None

    @dataclass
    class CursorMoved(Message):
        """The mouse asks for another cursor; None leaves that coordinate where it is."""

        token: int | None = None
        layer: int | None = None
        expert: int | None = None

    def view_of(self, moment: Moment) -> msgspec.Struct | None:
        """The result that this pane shows at `moment`; None when there is nothing to show."""
        raise NotImplementedError

    def empty_reason(self, moment: Moment) -> str:
        """Why there is nothing to show, and what would change that."""
        raise NotImplementedError

    def draw(self) -> None:
        """Bring the screen up to date with `self.view`."""
        raise NotImplementedError

    def moved(self, move: Move, by: int) -> bool:
        """Take a cursor key (by: -1 or 1); False leaves it to the one cursor of all panes."""
        return False

    def depends_on(self, moment: Moment) -> object:
        """What `view_of` looks at: while this stays equal, the view is not made again."""
        return moment

    def show(self, moment: Moment) -> None:
        """Show `moment`; called at most 30 times a second, from the app's timer."""
        self.moment = moment
        basis = self.depends_on(moment)
        if self._drawn_for is None or self._drawn_for != basis:
            self._drawn_for = basis
            self.view = self.view_of(moment)
        self.draw()


@dataclass(frozen=True)
class Styles:
    """What a pane draws with: the theme's texts, the map's ramp and that of differences."""

    text: Style
    muted: Style
    faint: Style
    head: Style
    cursor: Style
    ramp: Ramp
    signed: Ramp
    depth: Depth
    dark: bool


class LinePane(Pane, Lines, Generic[View]):
    """A pane that draws lines of spans; a subclass gives `lines`."""

    view: View | None = None

    can_focus = True
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "pane--muted",
        "pane--faint",
        "pane--head",
        "pane--cursor",
    }
    DEFAULT_CSS = """
    LinePane { height: 1fr; width: 1fr; color: $foreground; }
    LinePane > .pane--muted { color: $text-muted; }
    LinePane > .pane--faint { color: $text-disabled; }
    LinePane > .pane--head { color: $foreground; text-style: bold; }
    LinePane > .pane--cursor { color: $foreground; text-style: bold reverse; }
    """

    _styles: Styles | None = None

    def lines(self, view: View) -> Sequence[Line]:
        """What stands on the screen, for `view`, the cursor and `self.size`."""
        raise NotImplementedError

    def draw(self) -> None:
        """Draw the view, or why there is none."""
        if self.is_mounted and self.size.width and self.size.height:
            self.set_lines(self._reason() if self.view is None else self.lines(self.view))

    @property
    def paint(self) -> Styles:
        """Styles for the present theme, built once."""
        if self._styles is None:
            text = self._part("")
            muted, faint = self._part("pane--muted"), self._part("pane--faint")
            depth, dark = depth_of(self.app), self.app.current_theme.dark
            levels = ramp(depth, dark, text, faint)
            self._styles = Styles(
                text=text,
                muted=muted,
                faint=faint,
                head=self._part("pane--head"),
                cursor=self._part("pane--cursor"),
                ramp=levels,
                signed=signed_ramp(levels, dark),
                depth=depth,
                dark=dark,
            )
        return self._styles

    def on_mount(self) -> None:
        """Follow the theme."""
        self.app.theme_changed_signal.subscribe(self, self._follow_theme)

    def on_resize(self, event: events.Resize) -> None:
        """Draw for the new room."""
        self.draw()

    def notify_style_update(self) -> None:
        """Styles may have changed: make them anew when next asked."""
        super().notify_style_update()
        self._styles = None

    def _follow_theme(self, _theme: Theme) -> None:
        self._styles = None
        self.draw()
        self.refresh()

    def _part(self, name: str) -> Style:
        style = self.get_component_rich_style(name) if name else self.rich_style
        return Style(color=style.color, bold=style.bold, reverse=style.reverse)

    def _reason(self) -> list[Line]:
        """The empty state: the reason in the middle, wrapped at words."""
        width, height = self.size
        rows = wrapped(self.empty_reason(self.moment), max(1, min(width - 4, 64)))
        above = max(0, (height - len(rows)) // 2)
        indent = " " * max(0, (width - max(map(len, rows), default=0)) // 2)
        return [()] * above + [((indent + row, self.paint.muted),) for row in rows]


def wrapped(text: str, width: int) -> list[str]:
    """`text` made plain and broken at spaces into rows of at most `width` characters."""
    rows = [""]
    for word in plain(text).split():
        if rows[-1] and len(rows[-1]) + 1 + len(word) > width:
            rows.append("")
        rows[-1] = f"{rows[-1]} {word}" if rows[-1] else word
    return rows
