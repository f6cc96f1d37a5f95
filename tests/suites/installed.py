"""Running `moetui batch` as its own process, and comparing what two runs wrote."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

# A run of attention_router on the demo model that takes seconds, and still has a dozen cells.
_FEW = {
    "corpus_documents": "60", "corpus_tokens": "16", "causal_documents": "6",
    "causal_tokens": "2", "mined_tokens": "1", "mined_contexts": "3", "shuffles": "1",
    "source_documents": "6", "source_tokens": "16", "prompts": '["127 + 45 =", "def f(n):"]',
    "contexts": '{"127": ["111 127", "abc 127"]}',
}  # fmt: skip
SMALL = [word for name, value in _FEW.items() for word in ("--parameter", f"{name}={value}")]
_TIMES = re.compile(rb'"(started|finished)": "[^"]*"|"seconds": [0-9.e+-]+')


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "moetui", "batch", *arguments]


def finish(folder: Path, *arguments: str) -> bytes:
    """The result of a run that ends, times blotted out."""
    subprocess.run(
        command(*arguments, "-o", "result.json", "--progress", "off"),
        cwd=folder, check=True, capture_output=True, timeout=600,
    )  # fmt: skip
    return timeless(folder / "result.json")


def events(folder: Path, *arguments: str) -> int:
    """How many lines of progress a whole run tells."""
    run = subprocess.run(
        command(*arguments, "-o", "told.json", "--progress", "json"),
        cwd=folder, check=True, capture_output=True, timeout=600,
    )  # fmt: skip
    return sum(line.startswith(b"{") for line in run.stderr.splitlines())


def kill_after(folder: Path, told: int, seconds: float, *arguments: str) -> bool:
    """Start a run and kill it `seconds` after it has told so many lines of its progress; whether
    it was still running then."""
    process = subprocess.Popen(
        command(*arguments, "-o", "result.json", "--progress", "json"),
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    for _ in range(told):
        process.stderr.readline()
    time.sleep(seconds)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return running


def timeless(path: Path) -> bytes:
    return _TIMES.sub(b"", path.read_bytes())
