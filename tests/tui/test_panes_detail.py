import re

import pytest

from moetui.tui.moment import Cursor, Moment
from moetui.tui.panes import LayerDetailPane
from tests.builders import make_recording, make_snapshot
from tests.tui.stage import rows, staged


def moment(cursor=(2, 1, 0), **trace):
    return Moment(make_snapshot(make_recording(**trace)), Cursor(*cursor))


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_every_chosen_expert_has_its_numbers(size):
    pane = LayerDetailPane()
    async with staged(pane, moment=moment(N=4, E=16, k=4), size=size):
        text = "\n".join(rows(pane))
        for rank, e in enumerate(pane.view.chosen, 1):
            row = rf"{rank}  E{e.expert} +{e.logit:.3f} +{e.score:.4f} +{e.weight:.3f}"
            assert re.search(row, text)
        for e in pane.view.passed_over:
            assert re.search(rf"–  E{e.expert} +{e.logit:.3f} +{e.score:.4f}", text)


@pytest.mark.parametrize("size", [(60, 14), (80, 24), (200, 60)])
async def test_the_facts_of_the_decision_are_told(size):
    pane = LayerDetailPane()
    async with staged(pane, moment=moment(cursor=(3, 2, 0)), size=size):
        text, view = " ".join(" ".join(rows(pane)).split()), pane.view
        assert "L2 4 of 16" in text
        assert f"margin {view.margin:.3f} (chance {view.margin_chance:.3f})" in text
        assert f"entropy {view.entropy:.2f} nats ({view.entropy_normalized:.0%} of even)" in text
        assert f"Σ weights {view.weight_sum:.3f}" in text
        assert f"unexplained {view.completeness:.0e}" in text


async def test_the_first_passed_over_stays_where_rows_are_short():
    pane = LayerDetailPane()
    async with staged(pane, moment=moment(E=64, k=16), size=(70, 12)):
        text = rows(pane)
        assert f"–  E{pane.view.passed_over[0].expert} " in text[-1]


@pytest.mark.parametrize("size", [(70, 12), (98, 20)])
async def test_those_passed_over_fill_the_room_and_the_rest_is_counted(size):
    pane = LayerDetailPane()
    async with staged(pane, moment=moment(E=64, k=4), size=size):
        text = "\n".join(rows(pane))
        told = re.findall(r"–  E(\d+)", text)
        assert told == [str(e.expert) for e in pane.view.passed_over][: len(told)]
        assert int(re.search(r"… and (\d+) more", text)[1]) == 60 - len(told)
        assert all(line.strip() for line in rows(pane))
    async with staged(pane := LayerDetailPane(), moment=moment(E=64, k=4), size=(98, 80)):
        assert "\n".join(rows(pane)).count("–  E") == 60


async def test_no_margin_is_claimed_where_every_expert_ran():
    pane = LayerDetailPane()
    async with staged(pane, moment=moment(E=4, k=4)):
        assert "margin — (every eligible expert ran)" in "\n".join(rows(pane))


async def test_the_cursor_s_expert_is_pointed_at():
    recording = make_recording(E=16, k=4)
    third = int(recording.prompt.expert_ids[2, 1, 2])
    pane = LayerDetailPane()
    async with staged(pane, moment=Moment(make_snapshot(recording), Cursor(2, 1, third))):
        pointed = [line for line in rows(pane) if line.startswith("▶")]
        assert len(pointed) == 1
        assert f"E{third} " in pointed[0]


async def test_dense_layers_name_those_that_route():
    pane = LayerDetailPane()
    async with staged(pane, moment=moment(cursor=(2, 0, 0), N=4, moe_layers=(1, 3))):
        text = " ".join(" ".join(rows(pane)).split())
        assert "Layer 0 is dense. Layers that route: 1, 3." in text
