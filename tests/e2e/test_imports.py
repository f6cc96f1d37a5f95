"""What a start imports: nothing heavy before it is needed.

Every case runs in a process of its own, since an import cannot be undone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

HEAVY = {"mlx", "mlx_lm", "transformers", "torch", "textual", "numpy", "scipy", "sklearn"}

# Runs one command line and then says, on the last line, what the process has imported.
COMMAND = """
import json, sys
from moetui.__main__ import main
try:
    main()
finally:
    print()
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""

# The explorer with the engine that ships. `load` is the first thing that may import mlx: it is
# asked what had been drawn and imported by then, before it reaches the engine.
FIRST_FRAME = """
import asyncio, json, sys
from moetui.model.engine import EngineThread
from moetui.trace import Phase
from moetui.tui.app import MoetuiApp

def imported():
    return sorted({name.partition(".")[0] for name in sys.modules})

class Watched(EngineThread):
    def load(self, model):
        found.update(frame=app.export_screenshot(), at_load=imported())
        super().load(model)

async def explore():
    async with app.run_test(size=(120, 40)) as pilot:
        # The demo prompt runs by itself; the interpreter must not end under a working engine.
        while not ((now := app.engine.snapshot()).run and now.phase is Phase.READY):
            assert now.failure is None, now.failure
            await pilot.pause(0.05)
        found.update(loaded=imported())

found = {}
app = MoetuiApp(engine_factory=Watched, model="demo")
asyncio.run(explore())
print(json.dumps(found))
"""


def run(program: str, *arguments: str) -> tuple[str, Any]:
    """The program's output before its last line, and that line as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown, _, last = done.stdout.rstrip().rpartition("\n")
    return shown, json.loads(last)


def test_importing_moetui_imports_nothing_heavy() -> None:
    program = """
import json, sys
import moetui
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    _, imported = run(program)
    assert "moetui" in imported
    assert not HEAVY & set(imported)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        *(
            [command, "--help"]
            for command in ("trace", "models", "doctor", "open", "compare", "schema")
        ),
    ],
)
def test_answering_about_itself_imports_nothing_heavy(arguments: list[str]) -> None:
    shown, imported = run(COMMAND, *arguments)
    assert "moetui" in shown
    assert not HEAVY & set(imported)


@pytest.mark.parametrize("form", ["text", "json"])
def test_listing_models_imports_nothing_that_runs_them(form: str) -> None:
    shown, imported = run(COMMAND, "models", "--format", form)
    assert "demo-dense" in shown
    assert not (HEAVY - {"numpy"}) & set(imported)


def test_first_frame_is_drawn_before_mlx_or_transformers_is_imported() -> None:
    _, found = run(FIRST_FRAME)
    # A frame was on the screen: the demo prompt stands in it (blanks are escaped in the SVG).
    assert "127&#160;+&#160;45" in found["frame"]
    model_libraries = {"mlx", "mlx_lm", "transformers", "torch"}
    assert "textual" in found["at_load"]
    assert not model_libraries & set(found["at_load"])
    # The same probe does see them once the model is there.
    assert {"mlx", "mlx_lm", "transformers"} <= set(found["loaded"])
