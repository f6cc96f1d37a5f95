"""The last line: keys that can be pressed now, each whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.binding import Binding
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget

_SPACED = 90  # cells, from which on there is room between the keys
_STAY = ("help", "leave")  # actions whose keys are never left out: help lists all the others
_MORE, _STYLE = "… ", "bold $footer-key-foreground"


class KeyLine(Widget):
    """The keys with a word for the line, as many as fit; `…` stands where some are left out.

    From the right, keys are left out whole; help and quit stay.
    """

    def __init__(self) -> None:
        super().__init__(id="keys")
        self._ends: list[tuple[int, str]] = []

    def on_mount(self) -> None:
        """Follow what can be done."""
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def on_unmount(self) -> None:
        """Follow it no longer."""
        self.screen.bindings_updated_signal.unsubscribe(self)

    def render(self) -> Content:
        """The line; where each key ends is kept for the mouse."""
        line, self._ends = Content("" if self._spaced else " "), []
        for one, label in self._fitting():
            line += label
            self._ends.append((line.cell_length, one.key))
        return line

    def on_click(self, event: events.Click) -> None:
        """Press the key that was clicked."""
        for end, key in self._ends:
            if event.x < end:
                self.app.simulate_key(key)
                return

    def _changed(self, _: Screen[object]) -> None:
        self.refresh()

    def _fitting(self) -> list[tuple[Binding, Content]]:
        """The keys that fit, with their labels."""
        found: dict[str, Binding] = {}
        for active in self.screen.active_bindings.values():
            if active.binding.show:
                found.setdefault(active.binding.action, active.binding)
        labelled = [(one, self._label(one)) for one in found.values()]
        keys = [pair for pair in labelled if pair[0].action not in _STAY]
        last = [pair for pair in labelled if pair[0].action in _STAY]
        room = self.size.width  # the space at the left is that which the last key does not need
        if _width(keys) + _width(last) > room and last:
            last[0] = (last[0][0], Content.styled(_MORE, _STYLE) + last[0][1])
        while keys and _width(keys) + _width(last) > room:
            keys.pop()
        return keys + last

    def _label(self, one: Binding) -> Content:
        key, says = self.app.get_key_display(one), one.description
        if self._spaced:
            return Content.styled(f" {key} ", _STYLE) + f"{says} "
        return Content.styled(key, _STYLE) + f" {says} "

    @property
    def _spaced(self) -> bool:
        return self.size.width >= _SPACED


def _width(labelled: Sequence[tuple[Binding, Content]]) -> int:
    return sum(label.cell_length for _, label in labelled)
