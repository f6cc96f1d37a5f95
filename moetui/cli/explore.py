"""`moetui [MODEL]`: the explorer."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from moetui.trace import Engine


def explore(model: str, debug: bool) -> NoReturn:
    """Run the explorer on `model` and end the process with its exit code.

    Raises SettingsError when the settings file cannot be used.
    """
    from moetui.settings import load_settings
    from moetui.tui.app import MoetuiApp

    app = MoetuiApp(_engine, model, settings=load_settings(), debug=debug)
    app.run()
    _leave(app.return_code or 0)


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
