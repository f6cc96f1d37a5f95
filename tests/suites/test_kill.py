"""A run that is killed at any moment loses at most the cell it was in."""

import time

import numpy as np
import pytest

from tests.suites.installed import SMALL, finish, kill_after

pytestmark = pytest.mark.slow

MOMENTS = 24
SUITES = ["attention_router", "-m", "demo", *SMALL]


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    begun = time.monotonic()
    expected = finish(whole, *SUITES)
    took = time.monotonic() - begun
    # Spread over the whole run, at random within each stretch of it.
    moments = (np.arange(MOMENTS) + np.random.default_rng(0).random(MOMENTS)) / MOMENTS * took
    killed, kept = 0, []
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        folder.mkdir()
        killed += kill_after(folder, moment, *SUITES)
        kept.append(len(list(folder.glob(".cells/*.cell"))))
        assert not (folder / "result.json").exists() or number > MOMENTS // 2
        if number % 4 == 3:  # again, while it resumes
            kill_after(folder, took / 3, *SUITES, "--resume")
        assert finish(folder, *SUITES, "--resume") == expected
        assert not [p for p in folder.rglob("*") if p.name.startswith(".result")]
    assert killed >= 20
    # The kills met runs that had nothing, something, and nearly everything.
    assert min(kept) == 0 and len(set(kept)) >= 5
