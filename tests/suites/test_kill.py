"""A run that is killed at any moment loses at most the cell it was in."""

import numpy as np
import pytest

from tests.suites.installed import SMALL, events, finish, kill_after

pytestmark = pytest.mark.slow

MOMENTS = 22
SUITES = ["attention_router", "-m", "demo", *SMALL]


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    expected = finish(whole, *SUITES)
    told = events(whole, *SUITES)
    rng = np.random.default_rng(0)
    # Spread over what the run tells, and at random from there: within a pass, a write, a test.
    moments = np.linspace(0, told - 4, MOMENTS).astype(int).tolist()
    killed, kept = 0, []
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        folder.mkdir()
        killed += kill_after(folder, moment, rng.uniform(0, 0.06), *SUITES)
        kept.append(len(list(folder.glob(".cells/*.cell"))))
        if number % 4 == 3:  # again, while it resumes
            kill_after(folder, 6, rng.uniform(0, 0.06), *SUITES, "--resume")
        assert finish(folder, *SUITES, "--resume") == expected
        # What was being written is never taken for a result.
        assert [p.name for p in folder.glob("*.json")] == ["result.json"]
    assert killed >= 20
    # The kills met runs that had nothing, something, and nearly everything.
    assert min(kept) == 0 and max(kept) >= 8 and len(set(kept)) >= 5
