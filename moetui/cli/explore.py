"""`moetui [MODEL]`: the explorer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moetui.trace import Engine


def explore(model: str, debug: bool) -> int:
    """Run the explorer on `model`; the exit code.

    Raises SettingsError when the settings file cannot be used.
    """
    from moetui.settings import load_settings
    from moetui.tui.app import MoetuiApp

    app = MoetuiApp(_engine, model, settings=load_settings(), debug=debug)
    app.run()
    return app.return_code or 0


def _engine() -> Engine:
    """The engine that runs mlx on a thread of its own; mlx is not imported before `load`."""
    from moetui.model.engine import EngineThread

    return EngineThread()
