"""Every row of the table: one clear error, or a model that works."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import moetui
from moetui.demo import checkpoint
from moetui.errors import EXIT_USAGE, ModelError
from moetui.model import budget
from moetui.model.engine import EngineThread
from moetui.trace import Phase, Snapshot
from tests.model.editing import TOKENIZER, edit_json
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


@pytest.fixture
def engine() -> Iterator[EngineThread]:
    engine = EngineThread()
    yield engine
    engine.close()


def wait(engine: EngineThread, until: Callable[[Snapshot], bool]) -> Snapshot:
    end = time.monotonic() + PATIENCE
    while not until(snapshot := engine.snapshot()):
        assert time.monotonic() < end, f"still {snapshot.phase} {snapshot.detail}"
        time.sleep(0.005)
    return snapshot


# One row for every stage of a load.
STAGES = (
    "config a pipe",
    "weights cut short",
    "hidden_size of another model",
    "a broken expression",
    "NaN in the last norm",
    "sound weights, no sound result",
)


def test_the_engine_lives_on_after_bad_models(engine: EngineThread, tmp_path: Path) -> None:
    last = None
    for row in STAGES:
        folder = tmp_path / row.replace(" ", "-")
        shutil.copytree(checkpoint("demo"), folder)
        harm, says = ROWS[row]
        harm(folder)
        engine.load(str(folder))
        failed = wait(engine, lambda s, old=last: s.failure is not None and s.failure is not old)
        last = failed.failure
        assert says is not None and failed.failure is not None and failed.phase is Phase.EMPTY
        assert says in failed.failure.message and failed.failure.hint
    engine.load("demo")
    engine.run(PROMPT, 3)
    done = wait(engine, lambda s: s.phase is Phase.READY and s.run > 0)
    assert done.failure is None and done.model is not None
    shutil.rmtree(tmp_path)


def test_a_panic_in_the_tokenizer_is_a_failure_and_the_engine_lives_on(
    engine: EngineThread, copy: Path
) -> None:
    """Its expression backtracks without end on some texts; Rust panics are no Exceptions."""
    splits = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}
    edit_json(copy, TOKENIZER, pre_tokenizer={**splits, "invert": False})
    engine.load(str(copy))
    engine.run("a" * 60 + "!", 3)
    failed = wait(engine, lambda s: s.failure is not None)
    assert failed.failure is not None and "tokenizer fails on this text" in failed.failure.message
    engine.run("5 + 3 =", 2)
    assert wait(engine, lambda s: s.phase is Phase.READY and s.run > 0).failure is None


def test_a_model_that_does_not_fit_does_not_cost_the_one_that_works(
    engine: EngineThread, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.load("demo")
    before = wait(engine, lambda s: s.phase is Phase.READY)
    monkeypatch.setattr(budget, "available_memory", lambda: 10**6)
    monkeypatch.setattr(budget, "on_device", lambda info, available, active: available)
    engine.load(str(copy))
    failed = wait(engine, lambda s: s.failure is not None)
    assert failed.failure is not None and "does not fit into memory" in failed.failure.message
    assert failed.phase is Phase.READY and failed.model == before.model
