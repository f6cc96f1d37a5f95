"""The engine on its own thread: commands in, snapshots out, nobody waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import moetui
from moetui.model.engine import EngineThread
from moetui.trace import Ending, Phase, Snapshot

PATIENCE = 60.0


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


def finished(snapshot: Snapshot) -> bool:
    return snapshot.phase is Phase.READY and snapshot.run > 0


def test_a_run_asked_for_while_loading_follows_the_load(engine: EngineThread) -> None:
    engine.load("demo")
    engine.run("127 + 45 =", 5)
    done = wait(engine, finished)
    assert done.recording is not None
    assert done.rows == done.recording.rows == len(done.recording.prompt) + 5
    assert done.ending is Ending.LENGTH
    assert done.tokens_per_second is not None and done.memory_bytes


def test_the_recording_is_what_generate_yields(engine: EngineThread) -> None:
    engine.load("demo")
    engine.run("def fibonacci(n):", 6)
    done = wait(engine, finished)
    assert done.recording is not None
    generation = moetui.load("demo").generate("def fibonacci(n):", 6)
    expected = moetui.trace.join([generation.prompt, *generation])
    recorded = done.recording.trace(done.rows)
    assert np.array_equal(recorded.token_ids, expected.token_ids)
    assert np.array_equal(recorded.router_logits, expected.router_logits)
    assert np.array_equal(recorded.logits, expected.logits)


def test_versions_only_rise_and_rows_are_there_when_promised(engine: EngineThread) -> None:
    engine.load("demo")
    engine.run("Once upon a time", 30)
    last, rows = -1, 0
    while not finished(snapshot := engine.snapshot()):
        assert snapshot.version >= last
        last = snapshot.version
        if snapshot.recording is not None:
            assert snapshot.recording.rows >= snapshot.rows >= rows
            rows = snapshot.rows
        time.sleep(0.001)


def test_cancel_stops_a_run_and_the_engine_goes_on(engine: EngineThread) -> None:
    engine.load("demo")
    engine.run("Once upon a time", 100_000)
    wait(engine, lambda s: s.rows > 8)
    engine.cancel()
    stopped = wait(engine, finished)
    assert stopped.ending is Ending.CANCELLED
    engine.run("5 + 3 =", 2)
    again = wait(engine, lambda s: s.run == 2 and s.phase is Phase.READY)
    assert again.ending is Ending.LENGTH


def test_a_new_run_takes_the_place_of_the_one_under_way(engine: EngineThread) -> None:
    engine.load("demo")
    engine.run("Once upon a time", 100_000)
    wait(engine, lambda s: s.rows > 8)
    engine.run("5 + 3 =", 2)
    done = wait(engine, lambda s: s.run == 2 and s.phase is Phase.READY)
    assert done.recording is not None and done.recording.prompt.tokens[0] == "5"


def test_a_load_can_be_stopped(engine: EngineThread) -> None:
    engine.load("demo")
    engine.cancel()
    wait(engine, lambda s: s.phase is Phase.EMPTY)
    engine.load("demo")
    ready = wait(engine, lambda s: s.phase is Phase.READY)
    assert ready.model is not None


def test_a_bad_model_is_a_failure_and_another_can_be_loaded(
    engine: EngineThread, tmp_path: Path
) -> None:
    engine.load(str(tmp_path))
    failed = wait(engine, lambda s: s.failure is not None)
    assert failed.phase is Phase.EMPTY and failed.model is None
    assert failed.failure is not None
    assert "config.json" in failed.failure.message and failed.failure.hint
    engine.load("demo-dense")
    ready = wait(engine, lambda s: s.phase is Phase.READY)
    assert ready.failure is None


def test_a_typing_error_does_not_cost_the_model_that_works(
    engine: EngineThread, tmp_path: Path
) -> None:
    engine.load("demo")
    engine.run("5 + 3 =", 2)
    before = wait(engine, finished)
    engine.load(str(tmp_path / "demmo"))
    failed = wait(engine, lambda s: s.failure is not None)
    assert failed.phase is Phase.READY and failed.model == before.model
    assert failed.recording is before.recording and failed.rows == before.rows
    engine.run("5 + 4 =", 2)
    assert wait(engine, lambda s: s.run == 2 and s.phase is Phase.READY).failure is None


def test_a_bad_prompt_is_a_failure_and_the_model_stays(engine: EngineThread) -> None:
    engine.load("demo")
    engine.run("", 3)
    failed = wait(engine, lambda s: s.failure is not None)
    assert failed.phase is Phase.READY and failed.model is not None


def test_running_without_a_model_says_so(engine: EngineThread) -> None:
    engine.run("hello", 3)
    failed = wait(engine, lambda s: s.failure is not None)
    assert failed.failure is not None and "no model" in failed.failure.message


def test_the_engine_works_on_one_daemon_thread_that_ends_when_closed(engine: EngineThread) -> None:
    def serving() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "moetui-engine"]

    before = len(serving())
    assert all(thread.daemon for thread in serving())
    engine.load("demo")
    engine.close()
    end = time.monotonic() + PATIENCE
    while len(serving()) >= before and time.monotonic() < end:
        time.sleep(0.01)
    assert len(serving()) == before - 1
