"""What every pane is: a title, one sentence of help, a view made from a moment, and its drawing."""

from __future__ import annotations

from typing import ClassVar

import msgspec
from textual.widget import Widget

from moetui.tui.moment import Moment


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

    def view_of(self, moment: Moment) -> msgspec.Struct | None:
        """The result that this pane shows at `moment`; None when there is nothing to show."""
        raise NotImplementedError

    def empty_reason(self, moment: Moment) -> str:
        """Why there is nothing to show, and what would change that."""
        raise NotImplementedError

    def draw(self) -> None:
        """Bring the screen up to date with `self.view`."""
        raise NotImplementedError

    def show(self, moment: Moment) -> None:
        """Show `moment`; called at most 30 times a second, from the app's timer."""
        self.moment = moment
        self.view = self.view_of(moment)
        self.draw()
