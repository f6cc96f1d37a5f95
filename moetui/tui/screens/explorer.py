"""The explorer's one screen: polls the engine, shares one cursor, and obeys the keys."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from textual import events, on
from textual.app import ComposeResult, SystemCommand
from textual.screen import Screen
from textual.widgets import Input, Static

from moetui.settings import Settings
from moetui.trace import Engine, Failure, Phase
from moetui.tui.key_line import KeyLine
from moetui.tui.keys import GROUPS, Group, bindings
from moetui.tui.layout import GENERATION, ORDER, SUITES, TOKENS, too_small
from moetui.tui.moment import OpenedResult
from moetui.tui.panes.compare import ComparePane, kept_says
from moetui.tui.panes.pane import Pane
from moetui.tui.prompt import DEFAULT_PROMPT, PromptBar, PromptInput
from moetui.tui.screens.choose import ModelDialog, PaneDialog
from moetui.tui.screens.cursor import CursorActions
from moetui.tui.screens.expert_dossier import DossierActions
from moetui.tui.screens.failure import FailureDialog
from moetui.tui.screens.help import HelpDialog
from moetui.tui.screens.suites import SuiteActions
from moetui.tui.screens.takeaway import TakeAway
from moetui.tui.screens.what_if import WhatIfActions
from moetui.tui.session import Session
from moetui.tui.status import StatusLine
from moetui.tui.tabs import TabLine
from moetui.tui.workspace import Workspace

if TYPE_CHECKING:
    from moetui.model.inventory import FoundModel

FRAMES_PER_SECOND = 30
DEMO = "demo"


class ExplorerScreen(
    SuiteActions, DossierActions, TakeAway, WhatIfActions, CursorActions, Screen[None]
):
    """Everything that is not a dialog.

    The engine's newest snapshot is pulled 30 times a second; keys only change the session and
    mark it stale, so that many keys between two frames cost one drawing.
    """

    BINDINGS = bindings(GROUPS)
    AUTO_FOCUS = None

    def __init__(
        self,
        engine: Engine,
        model: str | None,
        settings: Settings,
        panes: Sequence[Pane],
        groups: Sequence[Group],
        result: OpenedResult | None = None,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.session = Session(result)
        self.settings = settings
        self.workspace = Workspace(panes)
        self._engine = engine
        self._model = model
        self._stale, self._left = True, False
        self._failure: Failure | None = None
        # The bundled model is there to be looked at: its first prompt runs by itself.
        self._pending: str | None = DEFAULT_PROMPT if model == DEMO else None

    def compose(self) -> ComposeResult:
        """Status, prompt, token strip, tab line, panes, keys; and the line for small terminals."""
        result = self.session.result
        yield StatusLine(self._model or (result.file if result else ""))
        # What was opened without a model has not read the prompt that a model would start with.
        yield PromptBar(DEFAULT_PROMPT if self._model is not None else "")
        yield self.workspace.tokens
        yield TabLine(self.workspace.titles, ORDER.index(TOKENS) + 1)
        yield self.workspace
        yield KeyLine()
        yield Static("moetui needs a larger terminal: at least 60 × 16", id="too-small")

    def on_mount(self) -> None:
        """Take the keys; load the model once the first frame is on the screen."""
        if self.session.result is not None:
            self.workspace.bring(ORDER.index(SUITES) + 1)
            self._arrange()
        self.workspace.active.focus()
        self.set_interval(1 / FRAMES_PER_SECOND, self._poll)
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        if self._model is not None:
            self._engine.load(self._model)
        # What lives as long as the app need not be looked through by every collection.
        gc.collect()
        gc.freeze()

    # -- keys ---------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether `action` can be done now: while a prompt is typed, letters are letters."""
        if self._left:
            return False
        if action == "run_prompt":
            return self._typing
        if action == "unwind":
            return self._typing or self.workspace.maximised is not None or self.session.busy
        return not self._typing or action == "next_pane"

    @property
    def _typing(self) -> bool:
        return isinstance(self.focused, Input)

    async def action_leave(self) -> None:
        """Quit; keys that are on their way already do nothing any more."""
        self._left = True
        await self.app.action_quit()

    # -- what is on the screen ---------------------------------------------------------------

    def _poll(self) -> None:
        snapshot = self._engine.snapshot()
        shape = self._shape
        busy = self.session.busy
        if self.session.take(snapshot):
            self._stale = True
        if self.session.busy is not busy:
            self.refresh_bindings()
        if self._shape != shape:
            self._take_shape()
        self._report(snapshot.failure)
        self._follow_suite()
        if snapshot.phase is Phase.READY and self._pending is not None:
            prompt, self._pending = self._pending, None
            self._start(prompt)
        if self._stale:
            self._stale = False
            self._draw()

    def _draw(self) -> None:
        moment = self.session.moment
        work = self.workspace
        for pane in work.shown():
            pane.show(moment)
        # The status is the engine's own: it goes on while the view is paused.
        session = self.session
        self.query_one(StatusLine).show(session.latest, session.paused, session.stopping)
        shown = frozenset(work.number(pane) for pane in work.shown())
        self.query_one(TabLine).show(work.number(work.active), shown, moment)

    def _report(self, failure: Failure | None) -> None:
        """Say once what went wrong."""
        if failure is not None and failure is not self._failure:
            self._pending = None
            self.app.push_screen(FailureDialog(failure), self._after_failure)
        self._failure = failure

    def _after_failure(self, choose: bool | None) -> None:
        if choose:
            self.action_choose_model()

    @property
    def _shape(self) -> tuple[int, bool]:
        """What the layout asks of the model: its layers, and whether it is dense."""
        model = self.session.shown.model
        return (model.num_layers, not model.is_moe) if model else (0, False)

    def _take_shape(self) -> None:
        """Lay out for another model; on a pane that has nothing to say of it, go to one that has.

        Somebody who is typing goes on typing.
        """
        layers, dense = self._shape
        if self.workspace.take_model(layers, dense) and isinstance(self.focused, Pane):
            self.set_focus(self.workspace.active)
        self._arrange()

    def _arrange(self) -> None:
        width, height = self.app.size
        self.workspace.lay_out(width, height)
        self.set_class(too_small(width, height), "-too-small")
        self.set_class(self.workspace.plan.framed, "-framed")
        self.set_class(self.workspace.plan.roomy, "-roomy")
        self._stale = True

    def on_resize(self) -> None:
        """Lay everything out anew."""
        self._arrange()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """The focused pane is the active one."""
        if isinstance(event.widget, Pane):
            self.workspace.activate(event.widget)
            self._stale = True

    # -- prompt and model --------------------------------------------------------------------

    @on(Input.Submitted, "#prompt")
    def action_run_prompt(self) -> None:
        """Run what stands in the prompt, now or as soon as the model is ready."""
        field = self.query_one(PromptInput)
        prompt = field.prompt
        if not prompt.strip():
            self.notify("nothing to run: type a prompt first", severity="warning", markup=False)
            return
        field.remember(prompt)
        if self._suite_in_the_way():
            return
        self._focus_pane(self.workspace.home)
        phase = self.session.latest.phase
        if phase is Phase.LOADING:
            self._pending = prompt
            self.notify("the prompt runs as soon as the model is ready", markup=False)
        elif phase is Phase.EMPTY:
            self.notify("no model is open: press o to open one", severity="warning", markup=False)
        else:
            self._start(prompt)

    def _start(self, prompt: str) -> None:
        self.query_one(PromptInput).remember(prompt)
        if self.session.paused:
            self.session.pause()
        if self.session.latest.phase is Phase.RUNNING:
            self._engine.cancel()
        elif self.session.latest.phase is Phase.STUDYING:
            self._stopping()
        self._engine.run(prompt, self.settings.max_tokens)

    def action_focus_prompt(self) -> None:
        """Type a prompt."""
        self.set_focus(self.query_one(PromptInput))

    def action_choose_model(self) -> None:
        """Ask for a model and load it."""
        if self._suite_in_the_way():
            return
        self.app.push_screen(ModelDialog(self._model or DEMO, self._find_models), self._open)

    def _find_models(self) -> Iterable[FoundModel]:
        """The models on this machine; the memory of the one that is open counts as free."""
        from moetui.model.inventory import find_models

        held = self.session.latest.memory_bytes if self.session.latest.model else None
        return find_models(self.settings.model_folders, freed=held or 0)

    def _open(self, model: str | None) -> None:
        if model is None or self._suite_in_the_way():
            return
        self._model, self._pending = model, None
        self.query_one(StatusLine).ask(model)
        if self.session.busy:
            self._engine.cancel()
        self._engine.load(model)

    def action_unwind(self) -> None:
        """Leave the prompt, else the maximised pane, else stop what the engine does."""
        if self._typing:
            self.set_focus(self.workspace.active)
        elif self.workspace.maximised is not None:
            self.action_maximise_pane()
        elif self.session.busy:
            self._pending = None
            self._engine.cancel()
            self._stopping()

    def _stopping(self) -> None:
        """Say that what is under way comes to its end: a long prompt's pass takes seconds."""
        self.session.stopping = True
        self._stale = True

    # -- view and mode -----------------------------------------------------------------------

    def action_pause(self) -> None:
        """Freeze the view, or go on; the run is not touched."""
        self.session.pause()
        self._stale = True

    def action_mode(self) -> None:
        """One token, all runs of the session, or the difference to A."""
        self.session.next_mode()
        self._stale = True

    def action_compare(self) -> None:
        """Keep the cursor's token as A; once there is one, go to the pane that compares."""
        if self.session.kept is None:
            self.action_keep()
        else:
            self._focus_pane(ORDER.index(ComparePane.pane_id) + 1)

    def action_keep(self) -> None:
        """Keep the cursor's token as A, in place of the one before."""
        if not self.session.keep():
            self.notify("nothing to keep as A: run a prompt first", markup=False)
            return
        self._stale = True
        if not any(isinstance(pane, ComparePane) for pane in self.workspace.shown()):
            self.notify(kept_says(self.session.moment), title="A kept", markup=False)

    # -- panes -------------------------------------------------------------------------------

    @on(TabLine.Chosen)
    def _tab_chosen(self, event: TabLine.Chosen) -> None:
        self._focus_pane(event.number)

    def action_show_pane(self, number: int) -> None:
        """Go to the pane with that number."""
        self._focus_pane(number)

    def action_generation(self) -> None:
        """Go to the pane of the steps."""
        self._focus_pane(ORDER.index(GENERATION) + 1)

    def action_next_pane(self, by: int) -> None:
        """Go to the next pane, on the screen or not."""
        self._focus_pane(self.workspace.next_number(by))

    def action_maximise_pane(self) -> None:
        """Give the active pane all the room, or take it back."""
        self.workspace.toggle_maximised()
        self._focus_pane(self.workspace.number(self.workspace.active))

    def action_list_panes(self) -> None:
        """List the panes."""
        panes, titles = self.workspace.panes, self.workspace.titles
        listed = [(title, pane.help) for title, pane in zip(titles, panes, strict=True)]
        self.app.push_screen(PaneDialog(listed), self._focus_pane)

    def _focus_pane(self, number: int | None) -> None:
        pane = self.workspace.bring(number) if number is not None else None
        if pane is not None:
            self._arrange()
            self.set_focus(pane)

    # -- help --------------------------------------------------------------------------------

    def action_help(self) -> None:
        """Help for the focused pane, and all keys."""
        pane = self.workspace.active
        self.app.push_screen(HelpDialog(pane.title.capitalize(), pane.help, self.groups))

    def commands(self) -> Iterable[SystemCommand]:
        """This screen's part of the command palette."""
        for key in (key for group in self.groups for key in group.keys):
            if key.in_palette:
                title = key.name.replace("_", " ").capitalize()
                yield SystemCommand(title, key.says, getattr(self, f"action_{key.action}"))
        for number, pane in enumerate(self.workspace.panes, start=1):
            go = partial(self._focus_pane, number)
            yield SystemCommand(f"Pane {number}: {pane.title}", pane.help, go)
        yield from self.what_if_commands()
        yield from self.suite_commands()
