"""The peak of a process's memory is its own, in bytes, and stays."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from moetui.model import memory
from moetui.model.memory import peak_memory

BLOCK = 300 << 20
PROGRAM = f"""
from moetui.model.memory import peak_memory
before = peak_memory()
block = bytearray(b"x") * {BLOCK}
during = peak_memory()
del block
print(before, during, peak_memory())
"""


def test_what_was_taken_and_given_back_counts() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    before, during, after = map(int, run.stdout.split())
    assert BLOCK <= during - before < 1.2 * BLOCK
    # Linux counts pages in batches: the peak is exact to less than a megabyte.
    assert after > during - (1 << 20)


def test_what_the_parent_holds_does_not_count() -> None:
    block = bytearray(b"x") * BLOCK
    program = "from moetui.model.memory import peak_memory; print(peak_memory())"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert len(block) == BLOCK
    assert int(run.stdout) < BLOCK


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_without_proc_the_peak_is_what_getrusage_says_in_the_units_of_the_platform(
    platform: str, unit: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(sys, "platform", platform)
    assert peak_memory() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
