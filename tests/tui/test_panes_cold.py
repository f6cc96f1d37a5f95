import asyncio
import re
from dataclasses import replace

import pytest

from moetui.analyses.cold_experts import cold_experts
from moetui.trace import Phase
from moetui.tui.moment import Cursor, Moment
from moetui.tui.panes import ColdExpertsPane
from tests.builders import make_recording, make_runs, make_snapshot
from tests.tui.stage import rows, staged


def moment(prompts=3, cursor=(0, 1, 0), phase=Phase.READY, **trace):
    snapshot = make_snapshot(make_recording(**trace), phase=phase)
    return Moment(snapshot, Cursor(*cursor), runs=make_runs(prompts, **trace))


def line_of(pane, name):
    return next(line for line in rows(pane) if re.match(rf"[ ▶] *{name} ", line))


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_counts_stand_beside_what_chance_gives(size):
    pane = ColdExpertsPane()
    async with staged(pane, moment=moment(N=4, E=32, k=2), size=size):
        for name, load in [("all", pane.view.pooled), ("2", pane.view.layers[2])]:
            found = re.findall(r"(\d+) \(([\d.]+)\)", line_of(pane, name))
            assert found[0][0] == f"{load.never_fired.value:.0f}"
            assert float(found[0][1]) == pytest.approx(load.never_fired.null_mean, abs=0.51)
            assert [n for n, _ in found[1:5]] == [f"{b.value:.0f}" for b in load.below]
            entropy = f"{load.entropy.value:.2f} ({load.entropy.null_mean:.2f})"
            assert entropy in line_of(pane, name)


async def test_few_prompts_are_said_and_shown_as_hits_of_n():
    pane = ColdExpertsPane()
    async with staged(pane, moment=moment(3, E=8, k=2)):
        text = "\n".join(rows(pane))
        assert "3 prompts · 18 + 12 tokens" in text
        assert "too few prompts for an interval" in text
        hits = pane.view.hits[1]
        least = hits.index(min(hits))
        assert f"L1 least used  E{least} {hits[least]}/30" in text


async def test_wide_panes_split_prompt_and_generation():
    pane = ColdExpertsPane()
    async with staged(pane, moment=moment(N=2, E=16), size=(160, 20)):
        load = pane.view.layers[0]
        for part in (load.entropy_prefill, load.entropy_decode):
            assert f"{part.value:.2f} ({part.null_mean:.2f})" in line_of(pane, "0")


async def test_from_twenty_prompts_on_verdicts_follow():
    pane = ColdExpertsPane()
    shown = moment(60, N=2, E=8, k=2)
    async with staged(pane, moment=shown) as (_, pilot):
        for _ in range(100):
            if pane.view.high is not None:
                break
            await asyncio.sleep(0.05)
            await pilot.pause()
        assert pane.view == cold_experts(shown.runs)
        assert f"{pane.view.pooled.cold[0]} ?{pane.view.pooled.undecided[0]}" in line_of(
            pane, "all"
        )
        assert "approximate intervals: 60 prompts" in rows(pane)[0]
        assert "≤" in rows(pane)[-2]


async def test_no_verdict_is_worked_out_while_the_model_runs():
    pane = ColdExpertsPane()
    async with staged(pane, moment=moment(20, phase=Phase.RUNNING, N=1, E=4, k=1)) as (_, pilot):
        await asyncio.sleep(0.3)
        await pilot.pause()
        assert pane.view.high is None
        assert "no interval yet" in rows(pane)[0]


async def test_verdicts_on_an_older_session_are_dropped():
    pane = ColdExpertsPane()
    old = moment(20, N=1, E=4, k=1)
    async with staged(pane, moment=moment(3, N=1, E=4, k=1)):
        pane.on_cold_experts_pane_judged(pane.Judged(old.runs, cold_experts(old.runs)))
        assert pane.view.prompts == 3


async def test_the_cursor_s_layer_is_always_among_those_shown():
    pane = ColdExpertsPane()
    shown = moment(2, N=40, E=8, k=2)
    async with staged(pane, moment=shown, size=(80, 14)):
        for layer in (0, 17, 39):
            pane.show(replace(shown, cursor=Cursor(0, layer, 0)))
            assert f"▶{layer:>5}" in "\n".join(rows(pane))
