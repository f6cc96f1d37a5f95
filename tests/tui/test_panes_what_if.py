import re
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from rich.style import Style

from moetui.analyses.what_if import WhatIfRequest, what_if
from moetui.trace import Deselect, Drop, Phase, TopK
from moetui.tui.change import Choice, Kind, other_ks, request_at
from moetui.tui.moment import Cursor, Moment
from moetui.tui.panes import WhatIfPane
from moetui.tui.panes.what_if import number
from moetui.tui.widgets.band import VALUE, band
from moetui.tui.widgets.lines import line_width
from tests.builders import make_model_info, make_recording, make_snapshot
from tests.fake_forward import FakeForward, make_what_if
from tests.tui.stage import rows, staged

NONE = Style()
SIZES = [(60, 10), (78, 18), (56, 15), (96, 20)]


def findings(change=None, *, row=2, **forward):
    """Token i uses experts i + l and i + l + 1 at layer l (`tests.fake_forward`)."""
    push = np.zeros((4, 24))
    push[1, 6] = 2.0
    model = FakeForward(**{"push": push, "steering": [(1, 6)], **forward})
    request = WhatIfRequest(
        token_ids=(3, 4, 5, 0, 9, 0),
        row=row,
        prompt_tokens=4,
        changes=(change or Drop(experts=(6,), layers=(1,)),),
    )
    return list(what_if(model, request))


def moment(finding=None, *, phase=Phase.READY, choice=None, cursor=(2, 1, 0), **trace):
    recording = make_recording(**{"E": 24, "k": 2, **trace})
    snapshot = make_snapshot(recording, finding=finding, phase=phase)
    return Moment(snapshot, Cursor(*cursor), choice=choice or Choice())


async def shown(finding, size=(96, 20), **more):
    pane = WhatIfPane()
    async with staged(pane, moment=moment(finding, **more), size=size):
        return rows(pane)


def text_of(lines):
    """All words, whatever row they stand on."""
    return " ".join(" ".join(lines).split())


def numbers(line):
    return re.findall(r"[-+]?\d+(?:\.\d+)?(?:e-\d+)?(?:/\d+)?", line)


@pytest.mark.parametrize("size", SIZES)
async def test_each_number_stands_beside_its_controls(size):
    *_, finding = findings()
    lines = await shown(finding, size)
    kl = next(line for line in lines if line.startswith("KL nats"))
    measure = finding.kl
    told = [
        number(n) for n in (measure.statistic.value, *np.quantile(measure.controls, [0, 0.5, 1]))
    ]
    assert numbers(kl)[:6] == [*told, f"{measure.larger_than}/20", f"{measure.statistic.p:.3f}"]
    assert any(line.startswith("ΔNLL nats") and "+" in line for line in lines)
    assert any(line.startswith("routing 1−J") and "0.667" in line for line in lines)


async def test_what_was_changed_where_it_is_judged_and_what_follows_are_told():
    *_, finding = findings()
    lines = await shown(finding)
    assert lines[0].startswith("drop E6 at L1 · weights kept")
    assert lines[0].rstrip().endswith("20 controls · seed 0")
    assert lines[1].startswith("after token 2 ·w5 (3 read, 2 use it) · 3 followed (2 its own)")


async def test_the_sentence_describes_and_gives_no_verdict():
    *_, finding = findings()
    text = text_of(await shown(finding))
    used = sum(bool(control.tokens) for control in finding.controls)
    assert (
        f"larger than {finding.kl.larger_than} of 20 random experts "
        f"({finding.kl.larger_than_used} of the {used} in use here)"
    ) in text
    assert not re.search(r"significant|effect\b|important|causes", text)


async def test_what_changes_nothing_reads_as_nothing():
    *_, finding = findings(Drop(experts=(20,), layers=(1,)))
    lines = await shown(finding)
    assert all(numbers(line)[:1] == ["0"] for line in lines[3:5])
    idle = sum(value == 0 for value in finding.kl.controls)
    said = "leaves the next-token logits as they were, bit for bit. No token read selects it."
    assert f"{said} So do {idle} of 20 controls." in text_of(lines)


async def test_next_tokens_with_probabilities_and_ranks_before_and_after():
    *_, finding = findings()
    lines = await shown(finding)
    row = next(line for line in lines if line.startswith("·w0"))
    token = next(t for t in finding.next_tokens if t.token_id == 0)
    assert row.split()[1:6] == [
        f"{token.before:.3f}"[1:], f"{token.after:.3f}"[1:], "1", "→", "1",
    ]  # fmt: skip


@pytest.mark.parametrize("size", [(78, 18), (56, 15), (96, 20)])
async def test_later_layers_show_their_change_beside_that_of_the_controls(size):
    *_, finding = findings()
    text = text_of(await shown(finding, size))
    assert "L2 0.67 (0)" in text and "L3 0.67 (0)" in text and "L1 0" not in text


async def test_layers_edited_by_the_change_itself_are_marked():
    *_, finding = findings(Deselect(experts=(6,)))
    text = text_of(await shown(finding))
    assert "*edited itself" in text and "L2* " in text


async def test_progress_and_where_it_stopped_are_told():
    partial = findings()[6]
    lines = await shown(partial, phase=Phase.STUDYING)
    assert lines[0].rstrip().endswith("control 7 of 20 · Esc stops")
    lines = await shown(partial)
    assert lines[0].rstrip().endswith("stopped after 6 of 20 controls")
    assert "larger than 6 of 6 random experts" in text_of(lines)


async def test_the_first_finding_has_its_value_and_no_band_yet():
    lines = await shown(findings()[0], phase=Phase.STUDYING)
    assert "no control yet" in lines[3] and number(findings()[0].kl.statistic.value) in lines[3]


async def test_fewer_controls_than_twenty_are_told():
    *_, finding = findings(experts=8, push=np.ones((4, 8)), steering=())
    lines = await shown(finding)
    assert lines[0].rstrip().endswith("only 7 controls exist")
    assert "of 7 random experts" in text_of(lines)
    *_, finding = findings(TopK(k=1, layers=(1,)), push=np.ones((4, 24)) * np.arange(24))
    assert "of 3 other layers." in text_of(await shown(finding))


async def test_without_controls_or_followers_or_later_layers_that_is_said():
    *_, finding = findings(TopK(k=1), push=np.ones((4, 24)) * np.arange(24), row=5)
    text = text_of(await shown(finding))
    assert "There is nothing to draw as a control." in text and "no token follows" in text
    *_, finding = findings(Drop(experts=(8,), layers=(3,)))
    text = text_of(await shown(finding))
    assert "no layer follows" in text and "no routing layer follows" in text


async def test_the_last_line_says_what_the_keys_would_do_at_the_cursor():
    *_, finding = findings()
    choice = Choice(Kind.DESELECT, pinned=((1, 3), (2, 5), (2, 7)))
    lines = await shown(finding, choice=choice)
    assert lines[-1].startswith("x de-select E3 at L1, E5+E7 at L2, token 2")
    assert lines[-1].rstrip().endswith("w another  p pin")
    lines = await shown(finding, cursor=(2, 0, 0), N=4, moe_layers=(1, 2, 3))
    assert lines[-1].startswith("layer 0 is dense: drop needs a layer that routes")


async def test_before_anything_is_measured_the_next_step_is_named():
    text = text_of(await shown(None, cursor=(2, 1, 4)))
    assert "Nothing is measured yet. x measures: drop E4 at L1. w chooses another change" in text
    text = text_of(await shown(None, phase=Phase.STUDYING))
    assert "Measuring: first the change itself, then its controls." in text


async def test_what_another_study_found_is_not_shown_here():
    pane = WhatIfPane()
    async with staged(pane, moment=moment(object())):
        assert pane.view is None


async def test_a_long_list_of_pins_leaves_the_progress_on_the_screen():
    *_, finding = findings(Drop(experts=tuple(range(12)), layers=(1,)))
    for width in (56, 78):
        (first, *_) = await shown(finding, (width, 15))
        assert first.rstrip().endswith(" only 1 control exists")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1e-12, "1e-12"),
        (0.0004, "4e-04"),
        (0.1314, "0.131"),
        (123.4, "123"),
    ],
)
def test_only_nothing_is_written_as_nothing(value, told):
    assert number(value) == told
    assert number(0.00123, digits=1) == "0.001" and number(0.00042, digits=1) == "4.2e-04"
    assert number(0.00042, signed=True, digits=1) == "+4.2e-04"


@pytest.mark.parametrize("width", [1, 2, 12, 60])
@pytest.mark.parametrize("value", [-3.0, 0.0, 0.5, 9.0])
def test_a_band_is_exactly_as_wide_as_asked_and_shows_the_value(width, value):
    for controls in ([], [0.0] * 20, np.linspace(-1, 2, 20).tolist()):
        line = band(value, controls, width, NONE, NONE)
        assert line_width(line) == width
        assert "".join(text for text, _ in line).count(VALUE) == 1


def test_controls_stand_where_they_lie_between_nothing_and_the_largest():
    line = band(10.0, [0.0, 5.0, 5.0, 2.0, 2.0, 2.0, 2.0], 11, NONE, NONE)
    assert "".join(text for text, _ in line) == "· ┇  :    ◆"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Kind.DROP, [Drop(experts=(4,), layers=(2,))]),
        (Kind.RENORMALISE, [Drop(experts=(4,), layers=(2,), renormalise=True)]),
        (Kind.DESELECT, [Deselect(experts=(4,), layers=(2,))]),
        (Kind.TOP_K, [TopK(k=3, layers=(2,))]),
    ],
)
def test_a_choice_becomes_the_interventions_it_names(kind, expected):
    assert list(Choice(kind, k=3).changes(2, 4)) == expected
    everywhere = [msgspec.structs.replace(change, layers=None) for change in expected]
    assert list(Choice(kind, k=3, everywhere=True).changes(2, 4)) == everywhere


def test_pins_take_the_place_of_the_cursor_layer_by_layer():
    choice = Choice(pinned=((1, 7), (1, 3), (2, 5)))
    assert choice.changes(0, 0) == (
        Drop(experts=(3, 7), layers=(1,)), Drop(experts=(5,), layers=(2,)),
    )  # fmt: skip
    assert replace(choice, everywhere=True).changes(0, 0) == (Drop(experts=(3, 5, 7)),)


def test_dense_layers_can_lose_a_part_but_no_expert():
    model = make_model_info(moe_layers=(1, 2, 3))
    assert Choice().impossible(model, 0) and not Choice().impossible(model, 1)
    assert Choice(pinned=((1, 0),)).impossible(model, 0) is None
    assert Choice(Kind.TOP_K, pinned=((1, 0),)).impossible(model, 0)
    assert Choice(Kind.NO_ATTENTION).impossible(model, 0) is None


def test_other_ks_are_near_the_own_one_and_never_it():
    assert other_ks(make_model_info(top_k=4, num_experts=16)) == [1, 3, 5, 8]
    assert other_ks(make_model_info(top_k=1, num_experts=2)) == [2]
    assert other_ks(make_model_info(top_k=1, num_experts=1)) == []


def test_the_text_reaches_at_most_sixty_four_tokens_past_the_judged_one():
    recording = make_recording(6, 100)
    request = request_at(recording, 90, 3, ())
    assert (len(request.token_ids), request.row, request.prompt_tokens) == (68, 3, 6)
    assert len(request_at(recording, 90, 80, ()).token_ids) == 90
    whole = recording.trace().token_ids.tolist()
    assert list(request_at(recording, 106, 50, ()).token_ids) == whole


def test_made_findings_show_what_they_are_asked_to():
    assert len(make_what_if(make_model_info(), measured=1).controls) == 1
