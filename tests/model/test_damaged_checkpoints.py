"""Every row of the table: one clear error, or a model that works."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import moetui
from moetui.demo import checkpoint
from moetui.errors import EXIT_USAGE, ModelError
from tests.model.mutations import ROWS

PROMPT = "127 + 45 ="
PATIENCE = 60


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("demo"), folder)
    yield folder
    shutil.rmtree(tmp_path)  # pytest would keep the megabytes of every row


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """Interrupt what waits for ever, for instance for a pipe."""

    def interrupt(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("row", ROWS)
def test_a_checkpoint_is_one_clear_error_or_works(
    copy: Path, row: str, capfd: pytest.CaptureFixture[str]
) -> None:
    harm, says = ROWS[row]
    harm(copy)
    with no_longer_than(PATIENCE):
        if says is None:
            trace = moetui.load(copy).trace(PROMPT)
            assert np.isfinite(trace.logits).all() and np.isfinite(trace.router_logits).all()
        else:
            with pytest.raises(ModelError) as caught:
                moetui.load(copy)
            error = caught.value
            assert says in error.message
            assert error.hint and error.exit_code == EXIT_USAGE
            assert (error.message + error.hint).isprintable()  # no line break, no escape
            assert len(error.message) < 500
    assert capfd.readouterr() == ("", "")
