"""Ranks of `mlx.launch` share the documents; what they find together is what one finds alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.suites.installed import SMALL, finish, timeless

pytestmark = pytest.mark.slow

SUITES = ["attention_router", "-m", "demo", *SMALL]


def test_two_ranks_find_what_one_process_finds(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    expected = finish(alone, *SUITES)
    launch = Path(sys.executable).with_name("mlx.launch")
    subprocess.run(
        [launch, "-n", "2", "--cwd", together, sys.executable, "-m", "moetui", "batch", *SUITES,
         "-o", "result.json"],
        check=True, capture_output=True, timeout=600,
    )  # fmt: skip
    assert timeless(together / "result.json") == expected
