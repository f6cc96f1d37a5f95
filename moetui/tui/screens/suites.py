"""Suites: the dialog that asks which one to run, and the keys that start and stop it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from moetui.errors import MoetuiError
from moetui.settings import Settings
from moetui.sizes import size_text
from moetui.suites.live import SuiteRequest, SuiteRun, suite_study
from moetui.suites.names import NAMES, Preset
from moetui.trace import Engine
from moetui.trace.types import ModelInfo
from moetui.tui.layout import ORDER, SUITES
from moetui.tui.screens.dialog import Dialog
from moetui.tui.text import plain

if TYPE_CHECKING:
    from textual.screen import Screen

    from moetui.tui.session import Session
    from moetui.tui.workspace import Workspace

    Base = Screen[None]
else:
    Base = object

PRESETS: tuple[Preset | None, ...] = ("quick", None, "full")
FOLDER = "results"
_BEAT_S = 1.0
_COST = 240  # characters, so that the whole dialog stands on 80 × 24


@dataclass(frozen=True)
class SuiteChoice:
    """What is to be run: a suite, its plan, whether on random weights too, whether cells that an
    earlier run finished are taken up."""

    name: str = NAMES[0]
    preset: Preset | None = "quick"
    null_model: bool = False
    resume: bool = True


class SuiteDialog(Dialog[SuiteChoice]):
    """What can be run, each with its question and its cost; answers with the choice to start."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "plan(-1)", "a smaller plan"),
        Binding("right", "plan(1)", "a larger plan"),
        Binding("n", "null_model", "random weights too"),
        Binding("r", "resume", "finished cells"),
    ]

    def __init__(self, choice: SuiteChoice, model: ModelInfo) -> None:
        super().__init__()
        self._choice, self._model = choice, model

    def compose(self) -> ComposeResult:
        """The names, what the highlighted one asks and costs, and the ways to run it."""
        with Vertical(classes="dialog -suites") as box:
            box.border_title = f"Run a suite on {plain(self._model.name)}"
            box.border_subtitle = "Enter starts · Esc closes"
            yield OptionList(*(Option(name) for name in NAMES), markup=False, compact=True)
            yield Static(id="suite-about", markup=False)
            yield Static(id="suite-ways", markup=False)

    def on_mount(self) -> None:
        """Start at the choice made last."""
        self.query_one(OptionList).highlighted = NAMES.index(self._choice.name)

    def action_plan(self, by: int) -> None:
        """Quick, default or full."""
        at = PRESETS.index(self._choice.preset) + by
        self._choose(replace(self._choice, preset=PRESETS[max(0, min(at, len(PRESETS) - 1))]))

    def action_null_model(self) -> None:
        """With the null model, or without."""
        self._choose(replace(self._choice, null_model=not self._choice.null_model))

    def action_resume(self) -> None:
        """Take up what earlier runs finished, or do it again."""
        self._choose(replace(self._choice, resume=not self._choice.resume))

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Say what that one asks."""
        self._choose(replace(self._choice, name=NAMES[event.option_index]))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer with the choice."""
        self.dismiss(replace(self._choice, name=NAMES[event.option_index]))

    def _choose(self, choice: SuiteChoice) -> None:
        self._choice = choice
        self.query_one("#suite-about", Static).update(about(choice, self._model))
        self.query_one("#suite-ways", Static).update(_ways(choice, self._model))


def about(choice: SuiteChoice, model: ModelInfo) -> Content:
    """What the suite asks, what its plan comes to, and what it takes in words."""
    from moetui.suites import suite
    from moetui.suites.models import Loaded, with_nulls
    from moetui.suites.runner import plan

    try:
        chosen = suite(choice.name, {"models": [model.name]}, preset=choice.preset)
        refs = with_nulls(chosen.models, Loaded(), null_model=choice.null_model, seed=0)
        cells = plan(chosen, refs, seed=0)
    except MoetuiError as error:
        return Content(f"{error.message}\n→ {error.hint}")
    tokens = sum(cell.tokens or 0 for cell in cells)
    more = " or more" if any(cell.tokens is None for cell in cells) else ""
    models = f"{len(refs)} models, " if len(refs) > 1 else ""
    read = f"about {tokens:,} tokens{more}" if tokens or more else "no tokens to read"
    told = f"{models}{len(cells)} cells, {read}"
    cost = chosen.cost
    if len(cost) > _COST:
        more = f" … (all of it: `moetui batch {choice.name} --describe`)"
        cost = shorten(cost, _COST, placeholder=more)
    return Content.assemble((chosen.question, "bold"), f"\n{told}\n", (cost, "$secondary"))


def _ways(choice: SuiteChoice, model: ModelInfo) -> Content:
    """The keys of the dialog, and how each of them stands."""
    parts: list[Content | tuple[str, str] | str] = [("← →", "$accent"), " plan  "]
    for preset in PRESETS:
        name = preset or "default"
        parts.append((f" {name} ", "bold reverse" if preset == choice.preset else "$secondary"))
    size = size_text(model.weight_bytes)
    null = f"on, {size} more memory" if choice.null_model else "off"
    kept = "taken up" if choice.resume else "done again"
    parts += [("\nn  ", "$accent"), f"random weights too: {null}"]
    parts += [("\nr  ", "$accent"), f"cells that an earlier run finished: {kept}"]
    return Content.assemble(*parts)


class SuiteActions(Base):
    """The part of the explorer's screen behind `b`: start a suite, stop it, say how it ended."""

    session: Session
    settings: Settings
    workspace: Workspace
    _engine: Engine
    _stale: bool
    _suite_choice = SuiteChoice()
    _beat = 0.0
    _told: SuiteRun | None = None

    def _focus_pane(self, number: int | None) -> None:
        raise NotImplementedError

    def _stopping(self) -> None:
        raise NotImplementedError

    def action_pause(self) -> None:
        """Freeze the view, or go on."""
        raise NotImplementedError

    def action_suites(self) -> None:
        """Go to the pane; there already, choose a suite to run."""
        if not self._in_suites:
            self._focus_pane(ORDER.index(SUITES) + 1)
        elif not self._suite_in_the_way():
            self._choose_suite()

    def suite_commands(self) -> Iterable[SystemCommand]:
        """For the command palette."""
        yield SystemCommand("Run a suite", "choose one, its plan, and start it", self._choose_suite)

    def _choose_suite(self) -> None:
        snapshot = self.session.latest
        if snapshot.model is None:
            self.notify("a suite needs a model: o opens one", severity="warning", markup=False)
        elif self.session.busy:
            told = "the engine is busy: Esc stops what it does, or wait for its end"
            self.notify(told, severity="warning", markup=False)
        else:
            dialog = SuiteDialog(self._suite_choice, snapshot.model)
            self.app.push_screen(dialog, self._start_suite)

    def _start_suite(self, choice: SuiteChoice | None) -> None:
        model = self.session.latest.model
        if choice is None or model is None:
            return
        self._suite_choice = choice
        request = SuiteRequest(
            name=choice.name,
            model=model.name,
            preset=choice.preset,
            null_model=choice.null_model,
            resume=choice.resume,
            folder=(self.settings.export_dir or Path.cwd()) / FOLDER,
        )
        if self.session.paused:
            self.action_pause()
        self._engine.study(suite_study(request))
        self._focus_pane(ORDER.index(SUITES) + 1)

    def _stop_suite(self) -> None:
        if self.session.suite_run is not None:
            self._engine.cancel()
            self._stopping()

    def _suite_in_the_way(self) -> bool:
        """Whether a suite has the engine, so that nothing else can; says so."""
        run = self.session.suite_run
        if run is None:
            return False
        told = f"{run.request.name} is running: Esc stops it, its finished cells are kept"
        self.notify(told, severity="warning", markup=False)
        return True

    def _follow_suite(self) -> None:
        """Say once how a run has ended; while it goes on, its clock is drawn every second."""
        run, snapshot = self.session.suite_ended, self.session.latest
        if self.session.suite_run is not None:
            if time.monotonic() - self._beat >= _BEAT_S:
                self._beat, self._stale = time.monotonic(), True
        elif run is not None and run is not self._told:
            self._told = run
            if run.result is not None:
                self._tell_result(run)
            elif snapshot.failure is None and not self._says_so:
                kept = f"{run.done} of {run.cells} cells are kept in {run.request.folder}/.cells"
                self._tell(f"{kept}\nb goes on from there", f"{run.request.name} stopped")

    def _tell_result(self, run: SuiteRun) -> None:
        failed = len(run.result.failures) if run.result is not None else 0
        told = f"{run.file}" if self._in_suites else f"{run.file}\nb shows it"
        self._tell(told, f"{run.request.name} done" + (f", {failed} failed" if failed else ""))

    def _tell(self, told: str, title: str) -> None:
        self.notify(told, title=title, timeout=8, markup=False)

    @property
    def _in_suites(self) -> bool:
        return self.workspace.active.pane_id == SUITES

    @property
    def _says_so(self) -> bool:
        """Whether the pane is there and says itself that a run was stopped."""
        return self._in_suites and self.session.result is None
