import asyncio
import re
from dataclasses import replace

import numpy as np
import pytest

from moetui.trace import Phase
from moetui.tui.moment import Cursor, Moment
from moetui.tui.panes import GenerationPane
from tests.builders import make_recording, make_runs, make_snapshot
from tests.tui.stage import rows, staged


def moment(cursor=(3, 1, 0), phase=Phase.RUNNING, runs=2, prompt=6, steps=4, **trace):
    snapshot = make_snapshot(make_recording(prompt, steps, **trace), phase=phase)
    return Moment(snapshot, Cursor(*cursor), runs=make_runs(runs, **trace))


def sets_at(shown, token, layer):
    """The experts of two tokens in a row, read from the trace itself."""
    trace = shown.snapshot.recording.trace()
    return [set(trace.expert_ids[t, layer].tolist()) for t in (token - 1, token)]


@pytest.mark.parametrize("token", [1, 3, 7])
async def test_the_step_at_the_cursor_says_who_hands_over(token):
    pane, shown = GenerationPane(), moment((token, 2, 0))
    async with staged(pane, moment=shown, size=(100, 24)):
        before, now = sets_at(shown, token, 2)
        line = rows(pane)[-1]
        assert f"keeps {len(before & now)} of 4" in line
        told = set(line.split())
        assert {f"−E{e}" for e in before - now} <= told
        assert {f"+E{e}" for e in now - before} <= told
        assert sum(word[0] in "−+" for word in told) == len(before ^ now)


async def test_every_layer_has_its_mean_beside_what_unrelated_tokens_share():
    pane, shown = GenerationPane(), moment(N=4)
    async with staged(pane, moment=shown, size=(100, 24)):
        counts = sum(run.counts for run in shown.runs)
        T = sum(run.tokens for run in shown.runs)
        # Of two different tokens of the session: the share of its pairs that meet in an expert.
        chance = (counts * (counts - 1)).sum(axis=1) / (T * (T - 1)) / 4
        for layer in range(4):
            kept = [len(a & b) / 4 for a, b in (sets_at(shown, t, layer) for t in range(1, 10))]
            told = f"{np.mean(kept):.3f}"[1:] + f" ({chance[layer]:.3f})".replace("0.", ".")
            assert rows(pane)[2 + layer].rstrip().endswith(told)
        assert "loads of 2 prompts" in rows(pane)[0]


async def test_a_bar_is_the_share_that_stays_and_the_first_token_has_none():
    pane = GenerationPane()
    shown = moment((0, 0, 0), N=2)
    ids = np.tile(np.arange(4, dtype=np.int16), (6, 2, 1))
    ids[3:] += 4  # all change at token 3, and nobody else ever
    prompt = replace(shown.snapshot.recording.prompt, expert_ids=ids)
    recording = type(shown.snapshot.recording)(prompt)
    shown = replace(shown, snapshot=make_snapshot(recording, phase=Phase.RUNNING))
    async with staged(pane, moment=shown, size=(80, 24)):
        assert rows(pane)[3][3:21] == "   ██ ██ ·  ██ ██ "
        assert "has no token before it" in rows(pane)[-1]


async def test_a_sequence_that_repeats_its_tokens_is_tested_once_the_run_has_ended():
    pane = GenerationPane()
    shown = moment(phase=Phase.READY, N=2, prompt=36)
    recording = shown.snapshot.recording
    again = replace(recording.prompt, token_ids=(np.arange(36) % 3).astype(np.int32))
    snapshot = make_snapshot(type(recording)(again), phase=Phase.READY)
    async with staged(pane, moment=replace(shown, snapshot=snapshot)) as (_, pilot):
        for _ in range(200):
            if pane.view.changes.q is not None:
                break
            await asyncio.sleep(0.02)
            await pilot.pause()
        assert pane.view.changes.reason is None
        assert f"{len(pane.view.changes.changes)} changes ◆" in rows(pane)[-2]


async def test_peaks_are_marked_under_their_steps():
    pane = GenerationPane()
    async with staged(pane, moment=moment(prompt=20, steps=10, N=3), size=(120, 20)):
        marked = {x // 3 for x, c in enumerate(rows(pane)[-3][3:]) if c == "▲"}
        assert marked == set(pane.view.changes.peaks) and marked
        assert "described, not tested" in rows(pane)[-2] or "occur again" in rows(pane)[-2]


async def test_a_long_run_is_not_read_anew_for_every_token():
    pane = GenerationPane()
    shown = moment(N=8)
    many = replace(shown.snapshot, rows=4000)
    one_more = replace(many, rows=4001)
    several = replace(many, rows=4100)
    basis = [pane.depends_on(replace(shown, snapshot=s)) for s in (many, one_more, several)]
    assert basis[0] == basis[1] != basis[2]
    ended = [replace(s, phase=Phase.READY) for s in (many, one_more)]
    basis = [pane.depends_on(replace(shown, snapshot=s)) for s in ended]
    assert basis[0] != basis[1]


async def test_one_token_says_what_is_missing():
    pane = GenerationPane()
    async with staged(pane, moment=moment((0, 0, 0), prompt=1, steps=0)):
        assert "One token has no token before it" in " ".join("".join(rows(pane)).split())


@pytest.mark.parametrize("width", [56, 78, 100])
async def test_who_hands_over_is_never_cut_without_a_sign(width):
    pane, shown = GenerationPane(), moment((7, 2, 0), E=64, k=8)
    async with staged(pane, moment=shown, size=(width, 24)):
        before, now = sets_at(shown, 7, 2)
        line = rows(pane)[-1].rstrip()
        whole = all(f"E{e}" in line.split("keeps")[1] for e in before ^ now)
        assert whole or line.endswith("…")
        assert f"keeps {len(before & now)} of 8" in line


@pytest.mark.parametrize("width", [40, 58, 78, 100, 120])
async def test_the_means_come_with_what_there_is_room_for(width):
    pane, shown = GenerationPane(), moment(N=4)
    async with staged(pane, moment=shown, size=(width, 24)):
        line, view = rows(pane)[0], pane.view
        assert f"generated {view.decoded.value:.3f}".replace("0.", ".") in line
        assert ("in 4 steps" in line) == (width >= 78)
        assert ("loads of 2 prompts" in line) == (width >= 100)


@pytest.mark.parametrize("token", range(8, 13))
async def test_the_cursor_never_hides_half_a_number(token):
    pane, shown = GenerationPane(), moment((token, 0, 0), N=2, prompt=36)
    async with staged(pane, moment=shown, size=(56, 20)):
        numbers = rows(pane)[1].partition("mean")[0].replace("▼", " ").split()
        assert set(numbers) <= {str(t) for t in range(0, 40, 5)} and "5" in numbers
        assert ("10" in numbers) == (token not in (10, 11))


@pytest.mark.parametrize("width", range(58, 67, 3))
async def test_the_last_step_stands_apart_from_the_mean(width):
    pane, whole = GenerationPane(), moment(N=2, prompt=36).snapshot.rows
    shown = moment((whole - 1, 0, 0), N=2, prompt=36)
    async with staged(pane, moment=shown, size=(width, 20)):
        assert re.search(r"▼ +mean \(chance\)$", rows(pane)[1].rstrip())
