"""What the command line says of a bad model: two lines on standard error, and exit code 2."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from moetui.demo import checkpoint
from moetui.errors import EXIT_USAGE
from tests.model.mutations import ROWS

SAMPLE = (
    "config a pipe",
    "weights cut short",
    "model_type of another family",
    "one NaN in the embedding",
    "only a tokenizer in Python",
    "a broken expression",
)


@pytest.mark.parametrize("row", SAMPLE)
def test_a_bad_model_is_two_lines_and_exit_code_2(tmp_path: Path, row: str) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(checkpoint("demo"), folder)
    harm, says = ROWS[row]
    harm(folder)
    done = subprocess.run(
        [sys.executable, "-m", "moetui", "trace", "-m", str(folder), "-p", "x"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    shutil.rmtree(folder)
    error, hint = done.stderr.splitlines()
    assert says is not None and error.startswith("error: ") and says in error
    assert hint.startswith("hint: ") and len(hint) > len("hint: ")
    assert (done.returncode, done.stdout) == (EXIT_USAGE, "")
