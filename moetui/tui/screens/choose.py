"""Dialogs that ask for one thing out of several: the model to open, the pane to go to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from moetui.demo import NAMES
from moetui.tui.models import ModelSearch, about, matching, name_width, row
from moetui.tui.screens.dialog import Dialog
from moetui.tui.text import plain

if TYPE_CHECKING:
    from moetui.model.inventory import FoundModel

_LOOK_EVERY_S = 0.1


class ModelDialog(Dialog[str]):
    """Type a name or path, or pick one of the models on this machine; answers with it.

    find: yields them, on a thread of its own, so that the dialog opens at once. What is typed
    filters the list. A model that is damaged or does not fit is not opened: the dialog says why.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "app.focus_next"),
        Binding("up", "app.focus_previous"),
    ]

    def __init__(self, current: str, find: Callable[[], Iterable[FoundModel]]) -> None:
        super().__init__()
        self._current = current
        self._search = ModelSearch(find)
        self._models: dict[str, FoundModel | None] = dict.fromkeys(NAMES)
        self._listed = 0

    def compose(self) -> ComposeResult:
        """An input, below it the models, below these what is to say of the highlighted one."""
        with Vertical(classes="dialog -model") as box:
            box.border_title = "Open a model"
            box.border_subtitle = "↑ ↓ choose · Enter opens · Esc closes"
            yield Input(
                placeholder="type to filter, or a folder, or org/name",
                id="model-name",
                compact=True,
                select_on_focus=False,
            )
            yield OptionList(id="models", markup=False, compact=True)
            yield Static("", id="about", markup=False)
            yield Static("", id="looking", classes="hint", markup=False)

    def on_mount(self) -> None:
        """Show what there is, and what else is found from now on."""
        self._timer = self.set_interval(_LOOK_EVERY_S, self._look)
        self.call_after_refresh(self._look)

    @property
    def looking(self) -> bool:
        """Whether there may be models that are not listed yet."""
        return not self._search.done or len(self._search.found) > self._listed

    def on_resize(self) -> None:
        """Lines are as wide as the list."""
        self.call_after_refresh(self._list)

    def _look(self) -> None:
        """Take over what has been found since the last look."""
        done, found = self._search.done, self._search.found[:]
        if len(found) != self._listed:
            self._listed = len(found)
            self._models |= {model.name: model for model in found}
            self._list()
        said = self._search.failure or ("" if done else "looking for models …")
        count = f"{len(found)} models" if done else ""
        parts = [plain(part) for part in (said, count, f"open now: {self._current}") if part]
        self.query_one("#looking", Static).update(" · ".join(parts))
        if done:
            self._timer.stop()

    def _list(self) -> None:
        """The models that match what is typed; the highlighted one stays so."""
        options = self.query_one(OptionList)
        at = options.highlighted_option
        names = matching(list(self._models), self.query_one(Input).value)
        room = name_width(list(self._models), options.scrollable_content_region.width)
        with self.prevent(OptionList.OptionHighlighted):
            options.set_options(Option(row(n, self._models[n], room), id=n) for n in names)
            if names:
                before = at.id if at is not None else None
                options.highlighted = names.index(before) if before in names else 0
        self._say()

    def _say(self) -> None:
        """What is to say of the highlighted model."""
        option = self.query_one(OptionList).highlighted_option
        model = self._models.get(option.id or "") if option is not None else None
        self.query_one("#about", Static).update(about(model) if model is not None else "")

    def on_input_changed(self) -> None:
        """Filter the list."""
        self._list()

    def on_option_list_option_highlighted(self) -> None:
        """Say more of that one."""
        self._say()

    def on_key(self, event: events.Key) -> None:
        """A letter typed in the list goes on with what is typed above it."""
        field = self.query_one(Input)
        if event.is_printable and event.character and not field.has_focus:
            event.stop()
            field.focus()
            field.cursor_position = len(field.value)
            field.insert_text_at_cursor(event.character)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Open what was typed if it is a name or path, else the highlighted one of those that
        match. The start of a listed org/name only leads to the list: another may be meant."""
        name = event.value.strip()
        options = self.query_one(OptionList)
        option = options.highlighted_option
        if not name:
            self.notify("type a folder or a name, or pick one below", markup=False)
        elif name in self._models:
            self._open(name)
        elif option is None or Path(name).exists():
            self.dismiss(name)
        elif "/" in name:
            options.focus()
        else:
            self._open(option.id or "")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Open the one picked."""
        self._open(event.option.id or "")

    def _open(self, name: str) -> None:
        """Answer with `name`, unless it is known that it cannot be opened."""
        model = self._models[name]
        if model is None or model.obstacle is None:
            self.dismiss(name)
        else:
            self.notify(
                f"{plain(name)} cannot be opened: {plain(model.obstacle)}",
                severity="warning",
                markup=False,
            )


class PaneDialog(Dialog[int]):
    """The list of panes; answers with the number of the one chosen.

    panes: title and help of each by number; the help's first sentence is shown.
    """

    def __init__(self, panes: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._panes = [(title, says.partition(". ")[0]) for title, says in panes]

    def compose(self) -> ComposeResult:
        """One line for each pane: number, title, what it shows."""
        with Vertical(classes="dialog -panes") as box:
            box.border_title = "Panes"
            box.border_subtitle = "a number or Enter goes there · Esc closes"
            yield OptionList(
                *(
                    Option(_option(f"{number}  {title}", says), id=str(number))
                    for number, (title, says) in enumerate(self._panes, start=1)
                ),
                markup=False,
                compact=True,
            )

    def on_key(self, event: events.Key) -> None:
        """A digit goes straight to its pane."""
        key = event.key
        if key.isdigit() and 1 <= int(key) <= len(self._panes):
            self.dismiss(int(key))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer with the pane's number."""
        self.dismiss(int(event.option.id or "1"))


def _option(name: str, says: str) -> Content:
    return Content.assemble((name, "bold"), ("  "), (says, "$secondary"))
