"""The room for the panes, and which of them stand in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from textual.containers import Container

from moetui.tui.layout import COLUMNS, DENSE, ORDER, SUITES, TOKENS, Plan, plan
from moetui.tui.panes.linked import LayerPane
from moetui.tui.panes.pane import Pane


class Workspace(Container):
    """All panes but the token strip, in a grid of twelve columns that is laid anew when needed."""

    def __init__(self, panes: Sequence[Pane]) -> None:
        self.panes = sorted(panes, key=lambda pane: ORDER.index(pane.pane_id))
        super().__init__(*(p for p in self.panes if p.pane_id != TOKENS), id="workspace")
        self.maximised: str | None = None
        self.plan: Plan = plan(80, 24)
        self._layers, self._dense = 0, False
        self._recent: list[str] = []
        self.active = self.panes[0]
        for number, pane in enumerate(self.panes, start=1):
            pane.can_focus = True
            pane.add_class("pane")
            pane.border_title = f"{number} {pane.title.capitalize()}"

    @property
    def titles(self) -> list[str]:
        """The panes' titles by number."""
        return [pane.title.capitalize() for pane in self.panes]

    @property
    def tokens(self) -> Pane:
        """The token strip, which stands outside the grid."""
        return self._named(TOKENS)

    def number(self, pane: Pane) -> int:
        """The number that `pane` carries on the screen."""
        return self.panes.index(pane) + 1

    def shown(self) -> Iterator[Pane]:
        """The panes on the screen, the token strip among them."""
        return (self._named(name) for name in (*self.plan.panes, TOKENS))

    @property
    def home(self) -> int:
        """The number of the pane to look at first."""
        return ORDER.index(DENSE if self._dense else ORDER[0]) + 1

    def take_model(self, layers: int, dense: bool) -> bool:
        """Lay out for that model from now on; says whether that has made another pane active."""
        self._layers, self._dense = layers, dense
        lost = dense and self.active.pane_id not in (DENSE, TOKENS, SUITES)
        if lost:
            self.bring(self.home)
        return lost

    def lay_out(self, width: int, height: int) -> None:
        """Lay the panes out for a terminal of that size."""
        self.plan = plan(
            width,
            height,
            recent=self._recent,
            maximised=self.maximised,
            layers=self._layers,
            dense=self._dense,
        )
        self.display = bool(self.plan.panes)
        self.styles.grid_size_columns = COLUMNS
        self.styles.grid_rows = " ".join("1fr" if r is None else str(r) for r in self.plan.rows)
        for pane in self.panes:
            if pane.pane_id != TOKENS:
                pane.display = pane.pane_id in self.plan.panes
        for name, span in zip(self.plan.panes, self.plan.spans, strict=True):
            self._named(name).styles.column_span = span
        for pane in self.panes:
            if isinstance(pane, LayerPane):
                pane.linked = len(self.plan.panes) > 1
        alone = self.plan.tokens_height is None
        self.tokens.styles.height = "1fr" if alone else self.plan.tokens_height

    def bring(self, number: int) -> Pane | None:
        """Make the pane with that number the active one; None where there is no such pane."""
        if not 1 <= number <= len(self.panes):
            return None
        pane = self.panes[number - 1]
        self.activate(pane)
        if self.maximised is not None:
            self.maximised = pane.pane_id
        return pane

    def activate(self, pane: Pane) -> None:
        """Note that the user looks at `pane`, so that its slot keeps showing it."""
        self.active = pane
        name = pane.pane_id
        self._recent = [name, *(other for other in self._recent if other != name)]

    def next_number(self, by: int) -> int:
        """The number after the active pane's, round and round."""
        return (self.panes.index(self.active) + by) % len(self.panes) + 1

    def toggle_maximised(self) -> None:
        """Give the active pane all the room, or take it back."""
        self.maximised = None if self.maximised else self.active.pane_id

    def _named(self, name: str) -> Pane:
        return next(pane for pane in self.panes if pane.pane_id == name)
