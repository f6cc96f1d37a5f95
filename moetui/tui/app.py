"""The explorer's application: engine, settings, themes, and the way in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.text import Text
from textual.app import App, SystemCommand
from textual.events import Event, InputEvent
from textual.screen import Screen

from moetui.settings import Settings
from moetui.trace import Engine
from moetui.tui.keys import all_keys, changed, remapped, shown
from moetui.tui.moment import OpenedResult
from moetui.tui.panes.pane import Pane
from moetui.tui.screens.explorer import ExplorerScreen
from moetui.tui.text import plain
from moetui.tui.themes import THEMES

PaneFactory = Callable[[], Sequence[Pane]]


class MoetuiApp(App[int]):
    """The explorer.

    engine_factory: makes the engine; called once, and it must not import mlx before `load`.
    model: what to load first, None for nothing. panes: makes the panes (those that ship, by
    default). result: a batch result to show first.
    debug: show a traceback where the app would otherwise say one line.
    """

    CSS_PATH = "moetui.tcss"
    TITLE = "moetui"
    ENABLE_COMMAND_PALETTE = True

    def __init__(
        self,
        engine_factory: Callable[[], Engine],
        model: str | None,
        *,
        settings: Settings | None = None,
        panes: PaneFactory | None = None,
        result: OpenedResult | None = None,
        debug: bool = False,
    ) -> None:
        self.settings = settings or Settings()
        self.key_groups = remapped(self.settings.keys)
        super().__init__()
        self.engine = engine_factory()
        self.model = model
        self._result = result
        self._make_panes = panes or _shipped_panes
        self._show_traceback = debug
        self.left = False
        for theme in THEMES.values():
            self.register_theme(theme)
        self.theme = THEMES[self.settings.theme].name

    def get_default_screen(self) -> ExplorerScreen:
        """The explorer itself."""
        return ExplorerScreen(
            self.engine,
            self.model,
            self.settings,
            self._make_panes(),
            self.key_groups,
            self._result,
        )

    def on_mount(self) -> None:
        """Take the user's keys."""
        self.set_keymap({f"moetui.{name}": keys for name, keys in changed(self.key_groups)})

    async def action_quit(self) -> None:
        """Leave at once: the engine is told to end, never waited for."""
        self.left = True
        self.engine.close()
        self.exit(0)

    def action_help_quit(self) -> None:
        """Ctrl-C, which a terminal in this mode hands on as a key: say what quits."""
        keys = next(key.keys for key in all_keys(self.key_groups) if key.name == "quit")
        self.notify(f"{shown(keys)} quits", markup=False)

    async def on_event(self, event: Event) -> None:
        """What is typed after the key that quits finds no explorer any more."""
        if not (self.left and isinstance(event, InputEvent)):
            await super().on_event(event)

    def action_switch_theme(self) -> None:
        """Dark to light, and back."""
        dark, light = THEMES["dark"].name, THEMES["light"].name
        self.theme = light if self.theme == dark else dark

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The command palette: every action of the key table, panes and themes."""
        if not isinstance(screen, ExplorerScreen):
            return
        yield from screen.commands()
        yield SystemCommand("Light or dark", "switch the theme", self.action_switch_theme)
        yield SystemCommand("Theme", "choose any theme", self.action_change_theme)

    def _fatal_error(self) -> None:
        """A defect ends the app with two lines, or with the traceback under `--debug`."""
        if self._show_traceback:
            super()._fatal_error()
        elif not self._exit_renderables:  # what follows the first defect only repeats it
            error = self._exception
            cause = f"error: {type(error).__name__}: {plain(str(error))}"
            hint = "hint: this is a defect; run again with `moetui --debug …` and report it"
            self.panic(Text(f"{cause}\n{hint}"))


def _shipped_panes() -> Sequence[Pane]:
    from moetui.tui.panes import PANES

    return [pane() for pane in PANES]
