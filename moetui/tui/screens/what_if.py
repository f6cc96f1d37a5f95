"""What-if: the dialog that asks for a change, and the keys that pin, choose and measure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from moetui.analyses.what_if import what_if
from moetui.trace import Engine, Phase, each
from moetui.trace.types import ModelInfo
from moetui.tui.change import KINDS, OF_EXPERTS, Choice, Kind, described, other_ks, request_at
from moetui.tui.layout import ORDER, SUITES, WHAT_IF
from moetui.tui.panes.reasons import no_routing
from moetui.tui.screens.dialog import Dialog

if TYPE_CHECKING:
    from textual.screen import Screen

    from moetui.tui.moment import Moment
    from moetui.tui.session import Session
    from moetui.tui.workspace import Workspace

    Base = Screen[None]
else:
    Base = object


class WhatIfDialog(Dialog[Choice]):
    """The kinds of change, each with its letter; answers with the choice to measure.

    target: says what a choice would change, with the cursor where it is.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "spread", "this layer or every layer"),
        Binding("right", "spread", "this layer or every layer", show=False),
    ]

    def __init__(self, choice: Choice, model: ModelInfo, target: Callable[[Choice], str]) -> None:
        super().__init__()
        self._choice, self._target = choice, target
        self._options = _options(choice, model)

    def compose(self) -> ComposeResult:
        """What would be changed, then one line for each kind."""
        with Vertical(classes="dialog -what-if") as box:
            box.border_title = "What if"
            box.border_subtitle = "a letter or Enter measures · Esc closes"
            yield Static(id="target", classes="hint", markup=False)
            yield OptionList(
                *(Option(_line(letter, option)) for letter, option in self._options),
                markup=False,
                compact=True,
            )
            yield Static(
                "← → one layer or every layer · x measures again · p pins experts",
                classes="hint",
                markup=False,
            )

    def on_mount(self) -> None:
        """Start at the choice made last."""
        kinds = [(option.kind, option.k) for _, option in self._options]
        chosen = (self._choice.kind, self._choice.k)
        self.query_one(OptionList).highlighted = kinds.index(chosen) if chosen in kinds else 0

    def action_spread(self) -> None:
        """Between one layer and every layer."""
        self._choice = replace(self._choice, everywhere=not self._choice.everywhere)
        self._tell(self.query_one(OptionList).highlighted or 0)

    def on_key(self, event: events.Key) -> None:
        """A letter measures at once."""
        for at, (letter, _) in enumerate(self._options):
            if event.character == letter:
                self._answer(at)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Say what that would change."""
        self._tell(event.option_index)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer with the kind chosen."""
        self._answer(event.option_index)

    def _chosen(self, at: int) -> Choice:
        option = self._options[at][1]
        return replace(self._choice, kind=option.kind, k=option.k)

    def _tell(self, at: int) -> None:
        self.query_one("#target", Static).update(Content(self._target(self._chosen(at))))

    def _answer(self, at: int) -> None:
        self.dismiss(self._chosen(at))


def _options(choice: Choice, model: ModelInfo) -> list[tuple[str, Choice]]:
    """(letter, choice) of every line; another k has its own digit where it is one."""
    options: list[tuple[str, Choice]] = []
    for kind, (letter, _) in KINDS.items():
        if kind is Kind.TOP_K:
            ks = other_ks(model)
            options += [(str(k) if k < 10 else "", Choice(kind, k)) for k in ks]
        else:
            options.append((letter, Choice(kind, choice.k)))
    return options


def _line(letter: str, option: Choice) -> Content:
    name, says = str(option.kind), KINDS[option.kind][1]
    if option.kind is Kind.TOP_K:
        name, says = f"k = {option.k}", f"every token uses {option.k} of the experts"
    return Content.assemble(
        (f"{letter:<3}", "$accent"), (f"{name:<18}", "bold"), (says, "$secondary")
    )


class WhatIfActions(Base):
    """The part of the explorer's screen behind `w`, `x` and `p`."""

    session: Session
    workspace: Workspace
    _engine: Engine
    _stale: bool

    def _focus_pane(self, number: int | None) -> None:
        raise NotImplementedError

    def _stop_suite(self) -> None:
        raise NotImplementedError

    def _suite_in_the_way(self) -> bool:
        raise NotImplementedError

    def action_pause(self) -> None:
        """Freeze the view, or go on."""
        raise NotImplementedError

    def action_what_if(self) -> None:
        """Go to the pane; there already, choose what to change and measure it."""
        if self.workspace.active.pane_id != WHAT_IF:
            self._focus_pane(ORDER.index(WHAT_IF) + 1)
        elif self._can_measure():
            self._choose()

    def action_measure(self) -> None:
        """Measure what was chosen last, at the cursor; in the pane of the suites, stop one."""
        if self.workspace.active.pane_id == SUITES:
            self._stop_suite()
            return
        if self._suite_in_the_way():
            return
        moment = self.session.moment
        recording, model = moment.snapshot.recording, moment.snapshot.model
        if not self._can_measure() or recording is None or model is None:
            return
        cursor, choice = moment.cursor, moment.choice
        if reason := choice.impossible(model, cursor.layer):
            self.notify(reason, severity="warning", markup=False)
            return
        changes = choice.changes(cursor.layer, cursor.expert)
        request = request_at(recording, moment.snapshot.rows, cursor.token, changes)
        if self.session.paused:
            self.action_pause()
        if self.session.latest.phase is Phase.RUNNING:
            self.notify("measured as soon as the run has ended", markup=False)
        self._engine.study(each(lambda forward: what_if(forward, request)))
        if not self._shows_what_if:
            self._focus_pane(ORDER.index(WHAT_IF) + 1)

    def action_pin(self) -> None:
        """Pin the expert under the cursor, or unpin it."""
        moment = self.session.moment
        model, layer = moment.snapshot.model, moment.cursor.layer
        if not self._can_measure() or model is None:
            return
        if layer not in model.moe_layers:
            self.notify(f"layer {layer} is dense: it has no expert to pin", markup=False)
            return
        done = "pinned" if self.session.pin() else "unpinned"
        self._stale = True
        choice = self.session.choice
        if self._shows_what_if and choice.kind in OF_EXPERTS:
            return  # its last line says what would be changed
        pins = ", ".join(f"E{expert} at L{at}" for at, expert in choice.pinned)
        cell, rest = f"E{moment.cursor.expert} at L{layer}", pins or "the one under the cursor"
        self.notify(f"{cell} {done}; what-if changes {rest}", markup=False)

    def what_if_commands(self) -> Iterable[SystemCommand]:
        """The kinds of change that need nothing else, for the command palette."""
        for kind, (_, says) in KINDS.items():
            if kind is not Kind.TOP_K:
                of = "the expert: " if kind in OF_EXPERTS else ""
                choose = partial(self._measure_kind, kind)
                yield SystemCommand(f"What if: {kind}", f"{of}{says}", choose)

    def _measure_kind(self, kind: Kind) -> None:
        self._measure_choice(replace(self.session.choice, kind=kind))

    def _measure_choice(self, choice: Choice | None) -> None:
        if choice is not None:
            self.session.choice = choice
            self._stale = True
            self.action_measure()

    def _choose(self) -> None:
        moment = self.session.moment
        if moment.snapshot.model is not None:
            dialog = WhatIfDialog(moment.choice, moment.snapshot.model, partial(target, moment))
            self.app.push_screen(dialog, self._measure_choice)

    @property
    def _shows_what_if(self) -> bool:
        return any(pane.pane_id == WHAT_IF for pane in self.workspace.shown())

    def _can_measure(self) -> bool:
        """Whether there is a model that routes and a token to look at; says so where not."""
        moment = self.session.moment
        model = moment.snapshot.model
        if model is not None and model.is_moe and moment.located is not None:
            return True
        self.notify(no_routing(moment), severity="warning", markup=False)
        return False


def target(moment: Moment, choice: Choice) -> str:
    """What `choice` would change at `moment`, and where it is judged; or why it cannot be done."""
    cursor, model = moment.cursor, moment.snapshot.model
    reason = choice.impossible(model, cursor.layer) if model is not None else None
    if reason:
        return reason
    changes = choice.changes(cursor.layer, cursor.expert)
    return f"{described(changes)}, judged after token {cursor.token}"
