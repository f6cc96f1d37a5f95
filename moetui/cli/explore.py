"""The explorer: on a model, on a saved trace, or on a batch result."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from moetui.errors import UsageError

if TYPE_CHECKING:
    from moetui.suites import SuiteResult
    from moetui.trace import Engine, Trace
    from moetui.tui.app import MoetuiApp


def require_terminal(instead: str) -> None:
    """Raises UsageError, with what to do instead, where there is no terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("the explorer needs a terminal", instead)


def explore(model: str, debug: bool) -> NoReturn:
    """Run the explorer on `model` and end the process with its exit code.

    Raises SettingsError when the settings file cannot be used.
    """
    from moetui.settings import load_settings
    from moetui.tui.app import MoetuiApp

    _run(MoetuiApp(_engine, model, settings=load_settings(), debug=debug))


def explore_trace(trace: Trace, debug: bool) -> NoReturn:
    """Run the explorer on a saved trace; no model is loaded until one is asked for."""
    from moetui.settings import load_settings
    from moetui.trace.replay import Replay
    from moetui.tui.app import MoetuiApp

    replay = partial(Replay, trace, _engine)
    _run(MoetuiApp(replay, None, settings=load_settings(), debug=debug))


def explore_result(result: SuiteResult, file: Path, debug: bool) -> NoReturn:
    """Run the explorer on a batch result; no model is loaded until one is asked for."""
    from moetui.settings import load_settings
    from moetui.tui.app import MoetuiApp
    from moetui.tui.moment import OpenedResult

    opened = OpenedResult(file.name, result)
    _run(MoetuiApp(_engine, None, settings=load_settings(), result=opened, debug=debug))


def _run(app: MoetuiApp) -> NoReturn:
    """Run it to its end. Raises KeyboardInterrupt, with the terminal restored, for an interrupt."""
    app.run()
    if app.return_code is None:  # nobody left it: an interrupt has cancelled it
        raise KeyboardInterrupt
    _leave(app.return_code)


def _leave(code: int) -> NoReturn:
    """End the process now: the engine's thread may be deep inside mlx, whose own threads abort
    a process that finalises under them. The terminal is restored and all files are written."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _engine() -> Engine:
    """The engine that runs mlx on a thread of its own; mlx is not imported before `load`."""
    from moetui.model.engine import EngineThread

    return EngineThread()
