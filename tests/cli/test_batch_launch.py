"""`moetui batch` under mlx.launch, where models fail and ranks end."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_batch_failures import REPOSITORY, TIMEOUT, WORKER, batch
from tests.model.test_distributed import LAUNCH, free_ports

pytestmark = pytest.mark.slow

_TIMES = re.compile(rb'"(started|finished)": "[^"]*"|"seconds": [0-9.e+-]+')


def launch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = ["-n", "2", "--backend", "ring", "--starting-port", str(free_ports(2))]
    return subprocess.run(
        [LAUNCH, *options, "--cwd", folder, "--", *WORKER, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def timeless(path: Path) -> bytes:
    return _TIMES.sub(b"", path.read_bytes())


def test_a_failed_model_does_not_make_one_rank_end_another(tmp_path: Path) -> None:
    """mlx.launch ends all at the first that exits with a failure; the result may not be there."""
    arguments = ["-m", "./none", "-m", "demo", "--null-model", "--progress", "off"]
    run = launch(tmp_path, *arguments, "-o", "together.json")
    # Rank 0 ends last of all, or mlx.launch ends who is still on his way out by SIGTERM.
    told = run.stderr.replace("rank 1 exited with code -15", "")
    assert "rank 1 exited" not in told and "rank 0 was killed" not in told
    assert "rank 0 exited with code 1" in run.stderr
    code, _, _ = batch(tmp_path, *arguments, "-o", "alone.json")
    assert code == 1
    assert timeless(tmp_path / "together.json") == timeless(tmp_path / "alone.json")


def test_an_error_is_told_once(tmp_path: Path) -> None:
    run = launch(tmp_path, "-m", "./none", "-o", "result.json", "--progress", "off")
    assert run.stderr.count("error: no such model") == 1
    assert "rank 0 exited with code 2" in run.stderr
