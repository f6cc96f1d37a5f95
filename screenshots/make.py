"""Makes the pictures of the README from the demo model: `python screenshots/make.py`.

The real app with the real engine, headless, at the three sizes that the layouts are made for.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SIZES = ((80, 24), (120, 40), (200, 60))
PATIENCE_S = 120.0

# The picture must not depend on the terminal that makes it.
for name in [*os.environ]:
    if name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM") or name.startswith("TEXTUAL_"):
        del os.environ[name]


async def picture(width: int, height: int, theme: str, path: Path) -> None:
    """One run of the prompt that the explorer starts with, and a picture of its end."""
    from moetui.model.engine import EngineThread
    from moetui.settings import Settings
    from moetui.trace import Phase
    from moetui.tui.app import MoetuiApp

    settings = Settings(theme="light" if theme == "light" else "dark", max_tokens=12)
    app = MoetuiApp(EngineThread, "demo", settings=settings)
    async with app.run_test(size=(width, height)) as pilot:
        waited = 0.0
        while not (app.engine.snapshot().rows and app.engine.snapshot().phase is Phase.READY):
            await pilot.pause(0.1)
            waited += 0.1
            if waited > PATIENCE_S:
                raise TimeoutError(f"no run after {PATIENCE_S:.0f} s: {app.engine.snapshot()}")
        await pilot.pause(0.2)
        # The last token of the prompt, in the middle of the model: where the answer is made.
        rows = len(app.engine.snapshot().recording.prompt)  # type: ignore[union-attr]
        await pilot.press("home", *["right"] * (rows - 1), *["down"] * 4, "right_curly_bracket")
        await pilot.pause(0.3)
        path.write_text(app.export_screenshot(title="moetui"), "utf-8")
        print(path)


def main(arguments: list[str]) -> None:
    """All sizes in the dark theme, the middle one in the light theme too.

    Each in a process of its own, so that the memory shown is that of one model.
    """
    if arguments:
        width, height, theme, name = arguments
        asyncio.run(picture(int(width), int(height), theme, HERE / name))
        return
    pictures = [(w, h, "dark", f"explorer-{w}x{h}.svg") for w, h in SIZES]
    for what in [*pictures, (120, 40, "light", "explorer-120x40-light.svg")]:
        subprocess.run([sys.executable, __file__, *map(str, what)], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
