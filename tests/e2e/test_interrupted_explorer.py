"""An interrupt of the explorer: the terminal as it was, exit code 130, and a line that says so."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moetui.errors import INTERRUPTED

PATIENCE_S = 120.0
LEFT = b"\x1b[?1049l"  # back from the alternate screen


class OnTerminal:
    """The explorer on a terminal of its own; `told` is all that it has written there."""

    def __init__(self, home: Path) -> None:
        self._ours, self._theirs = pty.openpty()
        termios.tcsetwinsize(self._theirs, (24, 80))
        self.before = self.settings
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moetui"],
            stdin=self._theirs, stdout=self._theirs, stderr=self._theirs, env=environment,
        )  # fmt: skip
        self.told = b""

    @property
    def settings(self) -> list[object]:
        """Of the terminal: raw or not, and the like."""
        return list(termios.tcgetattr(self._theirs))

    def read(self, until: bytes | None) -> None:
        """Take what it writes, until that comes; without it, until the process has ended."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if select.select([self._ours], [], [], 0.05)[0]:
                self.told += os.read(self._ours, 65536)
            elif until is None and self.process.poll() is not None:
                return
            if until is not None and until in self.told:
                return
        raise AssertionError(f"not within {PATIENCE_S:.0f} s: {self.told[-2000:]!r}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def explorer(tmp_path: Path) -> Iterator[OnTerminal]:
    opened = OnTerminal(tmp_path)
    yield opened
    opened.close()


@pytest.mark.parametrize("when", [b"\x1b[?1049h", b"LOADING", b"READY"])
def test_it_ends_as_any_command_does(explorer: OnTerminal, when: bytes) -> None:
    explorer.read(until=when)
    explorer.process.send_signal(signal.SIGINT)
    explorer.read(until=None)
    assert explorer.process.returncode == 130
    assert explorer.settings == explorer.before
    assert b"Traceback" not in explorer.told
    _, left, after = explorer.told.rpartition(LEFT)
    assert left
    assert after.decode().strip().endswith(INTERRUPTED)
