"""The session: one cursor, what is shown, and the load of every run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moetui.analyses.expert_load import run_load
from moetui.trace import Trace
from moetui.tui.moment import Cursor, Mode
from moetui.tui.session import Session
from tests.builders import make_trace
from tests.tui.fake_engine import FakeEngine


def started(steps: int = 0) -> tuple[Session, FakeEngine]:
    engine = FakeEngine(make_trace(16, 8, 16, 4, prompt_tokens=6))
    session = Session()
    engine.load("demo")
    engine.ready()
    engine.prefill()
    engine.step(steps)
    session.take(engine.snapshot())
    return session, engine


def another_run() -> Trace:
    """A run of another prompt of the same model."""
    trace = make_trace(16, 8, 16, 4, seed=1, prompt_tokens=6)
    return replace(trace, token_ids=trace.token_ids[::-1].copy())


def test_the_same_version_changes_nothing() -> None:
    session, engine = started()
    assert not session.take(engine.snapshot())
    engine.step()
    assert session.take(engine.snapshot())


def test_the_cursor_follows_the_newest_token_until_it_is_moved() -> None:
    session, engine = started()
    assert session.cursor.token == 5
    engine.step(2)
    session.take(engine.snapshot())
    assert session.cursor.token == 7
    session.move_token(-3)
    engine.step()
    session.take(engine.snapshot())
    assert session.cursor.token == 4
    session.follow()
    engine.step()
    session.take(engine.snapshot())
    assert session.cursor.token == 9


def test_a_step_past_the_end_follows_again() -> None:
    session, _ = started(steps=2)
    session.step(-1)
    assert (session.cursor.token, session.following) == (6, False)
    session.step(1)
    assert (session.cursor.token, session.following) == (7, False)
    session.step(1)
    assert session.following


def test_a_new_run_is_followed_again() -> None:
    session, engine = started(steps=2)
    session.move_token(-5)
    engine.finish()
    engine.prefill()
    session.take(engine.snapshot())
    assert session.following
    assert session.cursor.token == 5


def test_the_cursor_stays_within_the_model() -> None:
    session, _ = started()
    session.put(token=99, layer=99, expert=99)
    assert session.cursor == Cursor(5, 7, 15)
    session.put(token=-1, layer=-1, expert=-1)
    assert session.cursor == Cursor(0, 0, 0)


def test_the_cursor_starts_on_the_strongest_expert() -> None:
    session, engine = started()
    assert session.cursor.expert == engine.whole.expert_ids[5, 0, 0]


def test_chosen_experts_are_walked_by_number_and_round() -> None:
    session, engine = started()
    chosen = sorted(engine.whole.expert_ids[5, 0].tolist())
    session.put(expert=chosen[0])
    walked = []
    for _ in chosen:
        session.move_chosen(1)
        walked.append(session.cursor.expert)
    assert walked == [*chosen[1:], chosen[0]]
    session.move_chosen(-1)
    assert session.cursor.expert == chosen[-1]


def test_a_paused_view_stands_still_and_catches_up() -> None:
    session, engine = started()
    session.pause()
    engine.step(3)
    assert not session.take(engine.snapshot())
    assert session.shown.rows == 6
    assert session.latest.rows == 9
    session.pause()
    assert session.shown.rows == 9


def test_stopping_ends_with_what_was_stopped() -> None:
    session, engine = started()
    session.stopping = True
    engine.step()
    session.take(engine.snapshot())
    assert session.stopping  # the token that was under way came to its end
    engine.cancel()
    session.take(engine.snapshot())
    assert not session.stopping


def test_the_load_of_every_run_equals_that_of_its_whole_trace() -> None:
    session, engine = started()
    for _ in range(3):
        engine.step(3)
        session.take(engine.snapshot())
    engine.step()  # the last row comes, and a new run starts, between two looks
    first = engine.snapshot().recording
    engine.prefill(another_run())
    engine.step(2)
    session.take(engine.snapshot())
    second = engine.snapshot().recording
    assert first is not None and second is not None
    assert len(session.runs) == 2
    for load, recording in zip(session.runs, (first, second), strict=True):
        whole = run_load(recording.trace())
        np.testing.assert_array_equal(load.prefill, whole.prefill)
        np.testing.assert_array_equal(load.decode, whole.decode)
        assert (load.prefill_tokens, load.decode_tokens) == (6, whole.decode_tokens)


def test_runs_that_end_while_the_view_is_paused_are_counted() -> None:
    session, engine = started()
    session.pause()
    engine.finish()
    session.take(engine.snapshot())
    engine.prefill(another_run())
    session.take(engine.snapshot())
    assert len(session.runs) == 1  # what is shown stands still
    session.pause()
    assert [load.tokens for load in session.runs] == [16, 6]


def test_the_same_prompt_again_is_the_same_document_again() -> None:
    session, engine = started()
    engine.finish()
    session.take(engine.snapshot())
    for whole, tokens in ((None, [6]), (another_run(), [16, 6]), (None, [16, 6])):
        engine.prefill(whole)
        session.take(engine.snapshot())
        assert [load.tokens for load in session.runs] == tokens
        engine.finish()
        session.take(engine.snapshot())
    assert [load.tokens for load in session.runs] == [16, 16]


def test_another_model_starts_a_new_session() -> None:
    session, engine = started(steps=2)
    engine.load("other")
    session.take(engine.snapshot())
    assert session.runs == ()
    assert session.cursor == Cursor()


def test_what_is_kept_is_the_token_at_the_cursor() -> None:
    session, engine = started()
    session.put(token=3)
    assert session.keep()
    kept, first = session.kept, engine.snapshot().recording
    assert kept is not None
    assert (kept.recording, kept.rows, kept.token) == (first, 6, 3)
    assert session.moment.pair is not None
    engine.step(4)
    session.take(engine.snapshot())
    assert session.kept is not None and session.kept.rows == 10  # its run has gone on
    engine.step(2)  # the last rows come, and a new run starts, between two looks
    engine.prefill(another_run())
    session.take(engine.snapshot())
    assert session.kept.recording is first
    assert (session.kept.rows, session.kept.token) == (12, 3)
    a, b = session.moment.pair
    assert (a.recording, b.recording, b.token) == (first, engine.snapshot().recording, 5)


def test_before_a_run_there_is_nothing_to_keep() -> None:
    session = Session()
    assert not session.keep()
    assert session.kept is None and session.moment.pair is None


def test_the_difference_is_a_mode_once_a_token_is_kept() -> None:
    session, _ = started()
    seen = []
    for kept in (False, True):
        if kept:
            session.keep()
        for _ in range(3):
            seen.append(session.mode)
            session.next_mode()
    one, all_, difference = Mode.TOKEN, Mode.SESSION, Mode.DIFFERENCE
    assert seen == [one, all_, one, all_, difference, one]
    assert session.mode is all_


def test_another_model_lets_go_of_what_was_kept() -> None:
    session, engine = started()
    session.keep()
    session.mode = Mode.DIFFERENCE
    engine.load("other")
    session.take(engine.snapshot())
    assert session.kept is None
    assert session.mode is Mode.TOKEN


def test_a_dense_model_has_layers_and_tokens_but_no_experts() -> None:
    engine = FakeEngine(make_trace(6, 4, moe_layers=()))
    session = Session()
    engine.load("demo-dense")
    engine.ready()
    engine.prefill()
    session.take(engine.snapshot())
    session.put(layer=3, expert=5)
    assert session.cursor == Cursor(5, 3, 0)
    session.move_chosen(1)
    assert session.cursor.expert == 0
