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
from moetui.trace import Ending, Forward, Phase, Snapshot, Watcher, each

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


def test_a_study_shows_what_it_yields_and_the_newest_stays(engine: EngineThread) -> None:
    engine.load("demo")
    engine.run("5 + 3 =", 2)
    run = wait(engine, finished)
    go_on = threading.Event()

    def job(forward: Forward) -> Iterator[object]:
        yield len(forward.trace("5 + 3 ="))
        go_on.wait(PATIENCE)
        yield forward.info.name

    engine.study(each(job))
    first = wait(engine, lambda s: s.finding is not None)
    assert run.recording is not None
    assert first.phase is Phase.STUDYING and first.finding == len(run.recording.prompt)
    go_on.set()
    last = wait(engine, lambda s: s.phase is Phase.READY)
    assert last.finding == "demo" and last.recording is run.recording
    assert (last.rows, last.run, last.ending) == (run.rows, run.run, run.ending)


def test_a_study_that_is_stopped_makes_no_further_pass(engine: EngineThread) -> None:
    engine.load("demo")
    engine.run("5 + 3 =", 2)
    wait(engine, finished)
    go_on, passed = threading.Event(), []

    def job(forward: Forward) -> Iterator[object]:
        yield "so far"
        go_on.wait(PATIENCE)
        passed.append(forward.trace("5 + 3 ="))

    engine.study(each(job))
    wait(engine, lambda s: s.finding == "so far")
    engine.cancel()
    go_on.set()
    stopped = wait(engine, lambda s: s.phase is Phase.READY)
    assert stopped.finding == "so far" and stopped.failure is None and not passed
    assert stopped.ending is Ending.LENGTH


def test_what_a_stopped_study_leaves_outlives_the_run_that_stopped_it(
    engine: EngineThread,
) -> None:
    engine.load("demo")
    engine.run("5 + 3 =", 2)
    wait(engine, finished)

    def counting(forward: Forward) -> Iterator[int]:
        for count in range(10**9):
            forward.trace("5 + 3 =", lens=0)
            yield count

    for follow in (engine.cancel, lambda: engine.run("9 - 3 =", 2)):
        engine.study(each(counting, stopped=lambda count: count + 10**9))
        wait(engine, lambda s: isinstance(s.finding, int) and 2 < s.finding < 10**9)
        follow()
        left = wait(engine, lambda s: s.phase is Phase.READY).left
        assert isinstance(left, int) and left > 10**9 + 2
    assert engine.snapshot().finding is None
    engine.load("demo")
    assert wait(engine, lambda s: s.phase is Phase.LOADING and s.model is None).left is None


def test_a_study_that_fails_leaves_nothing(engine: EngineThread) -> None:
    engine.load("demo")
    wait(engine, lambda s: s.phase is Phase.READY)

    def broken(forward: Forward) -> Iterator[str]:
        yield "so far"
        raise ZeroDivisionError("no such luck")

    engine.study(each(broken, stopped=lambda _: "left"))
    failed = wait(engine, lambda s: s.failure is not None)
    assert failed.finding == "so far" and failed.left is None


def endless(forward: Forward) -> Iterator[object]:
    """A study that would go on for ever."""
    while True:
        forward.trace("5 + 3 =", lens=0)
        yield "still there"


def test_a_prompt_and_another_study_take_the_place_of_a_study(engine: EngineThread) -> None:
    engine.load("demo")
    engine.run("5 + 3 =", 2)
    wait(engine, finished)
    engine.study(each(endless))
    wait(engine, lambda s: s.finding == "still there")
    engine.study(each(lambda forward: iter(["the other"])))
    wait(engine, lambda s: s.phase is Phase.READY and s.finding == "the other")
    engine.study(each(endless))
    wait(engine, lambda s: s.finding == "still there")
    engine.run("9 - 3 =", 2)
    done = wait(engine, lambda s: s.run == 2 and s.phase is Phase.READY)
    assert done.ending is Ending.LENGTH and done.finding is None


def test_a_model_that_is_loaded_takes_the_finding_away(engine: EngineThread) -> None:
    engine.load("demo")
    wait(engine, lambda s: s.phase is Phase.READY)
    engine.study(each(endless))
    wait(engine, lambda s: s.finding == "still there")
    engine.load("demo-dense")
    loaded = wait(engine, lambda s: s.phase is Phase.READY and s.model is not None)
    assert loaded.model is not None and not loaded.model.is_moe
    assert loaded.finding is None


def test_a_study_asked_of_the_run_before_is_left_out(engine: EngineThread) -> None:
    engine.load("demo")
    engine.run("5 + 3 =", 2)
    wait(engine, finished)
    engine.run("Once upon a time", 40)
    engine.study(each(lambda forward: iter(["of the wrong text"])))
    noted = wait(engine, lambda s: any("left out" in line for line in s.log))
    assert noted.run == 2 and noted.finding is None


def test_a_study_that_fails_is_told_and_the_run_before_it_stays(engine: EngineThread) -> None:
    engine.load("demo")
    engine.run("5 + 3 =", 2)
    before = wait(engine, finished)

    def refused(forward: Forward) -> Iterator[object]:
        yield from forward.trace("")

    def broken(forward: Forward) -> Iterator[object]:
        raise ZeroDivisionError("no such luck")

    for job, said in ((refused, "the prompt is empty"), (broken, "ZeroDivisionError")):
        engine.study(each(job))
        failed = wait(engine, lambda s: s.failure is not None and s.phase is Phase.READY)
        assert failed.failure is not None and said in failed.failure.message
        assert failed.recording is before.recording and failed.ending is Ending.LENGTH
        engine.study(each(lambda forward: iter(["well again"])))
        assert wait(engine, lambda s: s.finding == "well again").failure is None


def test_a_study_without_a_model_says_so(engine: EngineThread) -> None:
    engine.study(each(endless))
    failed = wait(engine, lambda s: s.failure is not None)
    assert failed.failure is not None and "no model" in failed.failure.message


def test_running_without_a_model_says_so(engine: EngineThread) -> None:
    engine.run("hello", 3)
    failed = wait(engine, lambda s: s.failure is not None)
    assert failed.failure is not None and "no model" in failed.failure.message


def test_the_engine_works_on_one_daemon_thread_that_ends_when_closed(engine: EngineThread) -> None:
    def serving() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "moetui-engine"]

    assert serving() and all(thread.daemon for thread in serving())
    engine.load("demo")
    engine.close()
    # Engines of tests before may still be ending: all of them have to.
    end = time.monotonic() + PATIENCE
    while serving() and time.monotonic() < end:
        time.sleep(0.01)
    assert not serving()


def test_a_stop_is_no_defect_of_what_is_studied(engine: EngineThread) -> None:
    engine.load("demo")
    engine.run("5 + 3 =", 2)
    wait(engine, finished)
    swallowed: list[Exception] = []

    def careful(forward: Forward, watcher: Watcher) -> None:
        watcher.show("under way")
        while True:
            try:
                forward.nll("5 + 3 =")
            except Exception as error:  # as a suite does, which goes on with its next analysis
                swallowed.append(error)

    engine.study(careful)
    wait(engine, lambda s: s.finding == "under way")
    engine.cancel()
    assert wait(engine, lambda s: s.phase is Phase.READY).failure is None and not swallowed


def test_every_token_and_every_step_of_a_fit_can_be_stopped() -> None:
    from moetui.model.tuned_lens import Recipe

    model, looks = moetui.load("demo"), []
    with model.before_passes(lambda: looks.append("look")):
        model.continuation("Once upon a time", 5)
        assert len(looks) == 1 + 5  # the prompt, then token by token
        looks.clear()
        texts = ["Once upon a time there was a king."] * 2
        model.fit_tuned_lens(texts, texts, seed=0, recipe=Recipe(steps=3))
        assert len(looks) == 2 * len(texts) + 3
