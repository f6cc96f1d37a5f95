"""How long a user waits: `--help`, the explorer's first frame, the demo model ready, quitting.

    python -m tests.benchmarks.startup [--runs 5]

Times whole processes of the installed `moetui` in a pseudo-terminal, from the start of the
process to the bytes on the screen. Medians are reported, with the range.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import select
import statistics
import subprocess
import sys
import termios
import time
from pathlib import Path

COMMAND = str(Path(sys.executable).parent / "moetui")
PATIENCE = 120.0
_STYLE = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """One run of the explorer at 120×40, and when something was first on its screen."""

    def __init__(self) -> None:
        self._screen, inner = pty.openpty()
        termios.tcsetwinsize(inner, (40, 120))
        environment = {**os.environ, "TERM": "xterm-256color"}
        self._begun = time.perf_counter()
        self._process = subprocess.Popen(
            [COMMAND], stdin=inner, stdout=inner, stderr=inner, env=environment
        )
        os.close(inner)
        self._seen = b""

    def until(self, text: bytes) -> float:
        """Seconds from the start of the process until `text` is on the screen."""
        while text not in _STYLE.sub(b"", self._seen):
            ready, _, _ = select.select([self._screen], [], [], PATIENCE)
            if not ready:
                raise TimeoutError(f"{text!r} never came")
            self._seen += os.read(self._screen, 1 << 16)
        return time.perf_counter() - self._begun

    def quit(self) -> float:
        """Seconds from the key q to the end of the process."""
        pressed = time.perf_counter()
        os.write(self._screen, b"q")
        while self._process.poll() is None:
            if select.select([self._screen], [], [], 0.005)[0]:
                try:
                    os.read(self._screen, 1 << 16)
                except OSError:  # the other side is closed
                    break
        code = self._process.wait()
        os.close(self._screen)
        if code != 0:
            raise RuntimeError(f"the explorer ended with exit code {code}")
        return time.perf_counter() - pressed


def one_run() -> dict[str, float]:
    """The figures of one start to READY, and of one that is left while it loads."""
    start = time.perf_counter()
    subprocess.run([COMMAND, "--help"], check=True, capture_output=True)
    figures = {"--help": time.perf_counter() - start}
    whole = Terminal()
    figures["first frame"] = whole.until(b"Prompt")
    figures["demo model ready"] = whole.until(b"READY")
    figures["quit when ready"] = whole.quit()
    early = Terminal()
    early.until(b"LOADING")
    figures["quit while loading"] = early.quit()
    return figures


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = [one_run() for _ in range(parser.parse_args().runs)]
    for name in runs[0]:
        times = sorted(run[name] for run in runs)
        print(f"{name:20s} {statistics.median(times):.2f} s  ({times[0]:.2f} to {times[-1]:.2f})")


if __name__ == "__main__":
    main()
