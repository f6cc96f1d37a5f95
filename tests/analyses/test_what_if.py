import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from moetui.analyses.what_if import WhatIf, WhatIfRequest, what_if
from moetui.errors import UsageError
from moetui.trace import Ban, Deselect, Drop, Force, ScalePart, TopK
from tests.fake_forward import FakeForward

V = 32
# Token i chooses experts i + l and i + l + 1 at layer l, each with weight ½.
TEXT = (3, 4, 5, 0, 9, 0)


def request(*changes, ids=TEXT, row=2, prompt_tokens=4, **more):
    return WhatIfRequest(
        token_ids=ids, row=row, prompt_tokens=prompt_tokens, changes=changes, **more
    )


def found(forward, *changes, **more):
    """The last and most complete finding."""
    *_, last = what_if(forward, request(*changes, **more))
    return last


def push(experts=24, layers=4, **of):
    """[L, E]: `l1e5=2.0` is what expert 5 of layer 1 adds to the logit of token 0."""
    table = np.zeros((layers, experts))
    for name, value in of.items():
        layer, expert = name[1:].split("e")
        table[int(layer), int(expert)] = value
    return table


def kl(x, y):
    """KL of the softmax of (x, 0, 0, …) and of (y, 0, 0, …), V tokens."""
    log_zx, log_zy = math.log(math.exp(x) + V - 1), math.log(math.exp(y) + V - 1)
    p = math.exp(x - log_zx)
    return p * (x - y) + log_zy - log_zx


def nll(token, x):
    return math.log(math.exp(x) + V - 1) - (x if token == 0 else 0.0)


def test_dropping_an_expert_has_the_kl_of_its_closed_form():
    # Tokens 4 and 5 of the text use expert 6 at layer 1 (as 4+1+1 and 5+1), token 3 does not.
    finding = found(FakeForward(push=push(l1e6=2.0)), Drop(experts=(6,), layers=(1,)))
    assert finding.tokens_using == 2
    assert finding.kl.statistic.value == pytest.approx(kl(2.0, 0.0), rel=1e-6)
    assert not finding.identical


def test_the_tokens_that_followed_are_scored_with_and_without():
    finding = found(FakeForward(push=push(l1e6=2.0)), Drop(experts=(6,), layers=(1,)))
    # 2 tokens × ½ × 2.0 from the judged row on; none of the tokens that follow uses expert 6.
    expected = np.mean([nll(token, 0.0) - nll(token, 2.0) for token in (0, 9, 0)])
    assert finding.followed == 3 and finding.followed_generated == 2
    assert finding.delta_nll.statistic.value == pytest.approx(expected, rel=1e-5)
    assert finding.delta_nll.statistic.n_tokens == 3
    assert "the model chose some of these tokens itself" in finding.delta_nll.statistic.caveat
    assert "itself" not in finding.kl.statistic.caveat


def test_renormalised_the_others_take_over_the_weight():
    forward = FakeForward(push=push(l1e6=2.0, l1e7=1.0))
    finding = found(forward, Drop(experts=(6,), layers=(1,), renormalise=True))
    # Before: tokens 4 (5, 6) and 5 (6, 7) give ½·2 + ½·2 + ½·1; after: 5 alone has 7 with weight 1.
    assert finding.kl.statistic.value == pytest.approx(kl(2.5, 1.0), rel=1e-6)


@pytest.mark.parametrize("change", [Deselect, Ban])
def test_without_an_expert_the_next_best_works(change):
    forward = FakeForward(push=push(l1e6=2.0, l1e8=3.0))
    finding = found(forward, change(experts=(6,), layers=(1,)), ids=(5,), row=0)
    # Token 5 chooses 6 and 7; without 6 it chooses 7 and 8.
    assert finding.kl.statistic.value == pytest.approx(kl(1.0, 1.5), rel=1e-6)


def test_a_forced_expert_takes_the_slot_of_the_weakest():
    forward = FakeForward(push=push(l1e7=2.0, l1e20=3.0))
    finding = found(forward, Force(experts=(20,), layers=(1,)), ids=(5,), row=0)
    assert finding.kl.statistic.value == pytest.approx(kl(1.0, 1.5), rel=1e-6)
    assert finding.tokens_using == 0


def test_what_no_token_selects_reads_as_exactly_nothing():
    forward = FakeForward(push=np.ones((4, 24)), steering=[(1, 20)])
    finding = found(forward, Drop(experts=(20,), layers=(1,)))
    assert finding.identical and finding.tokens_using == 0
    assert finding.kl.statistic.value == 0.0
    assert finding.delta_nll.statistic.value == 0.0
    assert finding.routing.statistic.value == 0.0
    assert finding.kl.larger_than == 0 and finding.kl.statistic.p == 1.0
    assert all(token.before == token.after for token in finding.next_tokens)
    assert all(shift.before == shift.after for shift in finding.layers)


def test_controls_are_the_same_change_to_twenty_other_experts_of_the_layer():
    finding = found(FakeForward(), Drop(experts=(6,), layers=(1,), renormalise=True))
    assert finding.planned == len(finding.controls) == 20
    drawn = [control.changes[0] for control in finding.controls]
    assert all(d.layers == (1,) and d.renormalise for d in drawn)
    experts = [d.experts for d in drawn]
    assert len(set(experts)) == 20 and (6,) not in experts
    assert finding.control == "random experts" and finding.possible == 23


def test_the_draw_follows_its_recorded_seed():
    change = Drop(experts=(6,), layers=(1,))
    first, again, other = (found(FakeForward(), change, seed=seed) for seed in (7, 7, 8))
    assert first.controls == again.controls != other.controls
    assert first.kl.statistic.seed == 7


def test_the_value_is_ranked_among_its_controls():
    # Every expert of layer 1 pushes as much as its number; token 10 uses 11 and 12.
    table = np.zeros((4, 24))
    table[1] = np.arange(24) / 10
    finding = found(FakeForward(push=table), Drop(experts=(12,), layers=(1,)), ids=(10,), row=0)
    expected = {e: kl(1.15, 1.15 - e / 20) if e in (11, 12) else 0.0 for e in range(24)}
    drawn = [control.changes[0].experts[0] for control in finding.controls]
    assert list(finding.kl.controls) == pytest.approx([expected[e] for e in drawn], rel=1e-6)
    assert finding.kl.larger_than == 20
    assert finding.kl.statistic.p == pytest.approx(1 / 21)
    low, high = np.quantile([expected[e] for e in drawn], [0.025, 0.975])
    assert finding.kl.statistic.null_low == pytest.approx(low)
    assert finding.kl.statistic.null_high == pytest.approx(high, rel=1e-6)
    # Of the controls only expert 11 is used by the token, if it was drawn at all.
    used = [control for control in finding.controls if control.tokens]
    assert len(used) == drawn.count(11) == finding.kl.larger_than_used


def test_ties_count_against_the_value():
    # All experts alike: each used one does the same as the one looked at.
    forward = FakeForward(push=np.ones((4, 24)), experts=24, k=24)
    finding = found(forward, Drop(experts=(12,), layers=(1,)))
    assert finding.kl.larger_than == 0
    assert finding.kl.statistic.p == 1.0
    assert finding.kl.larger_than_used == 0


def test_with_fewer_than_twenty_others_all_are_taken_and_their_number_said():
    finding = found(FakeForward(experts=8), Drop(experts=(6,), layers=(1,)))
    drawn = sorted(control.changes[0].experts[0] for control in finding.controls)
    assert drawn == [0, 1, 2, 3, 4, 5, 7]
    assert finding.possible == finding.planned == 7
    assert "7 controls: there are no more" in finding.kl.statistic.caveat
    assert finding.kl.statistic.p == pytest.approx((1 + 7 - finding.kl.larger_than) / 8)


def test_without_any_other_expert_there_is_no_control_and_no_p():
    finding = found(FakeForward(experts=1, k=1), Drop(experts=(0,), layers=(1,)))
    assert finding.controls == () and finding.done
    assert finding.kl.statistic.p is None and finding.kl.statistic.null_low is None
    assert "no control is possible" in finding.kl.statistic.caveat


def test_one_prompt_claims_nothing():
    finding = found(FakeForward(), Drop(experts=(6,), layers=(1,)))
    for measure in (finding.kl, finding.delta_nll, finding.routing):
        assert "no effect is claimed" in measure.statistic.caveat
        assert measure.statistic.n_documents == 1
        assert measure.statistic.ci_low is None


def test_findings_grow_by_one_control_each_and_the_first_has_the_value():
    change = Drop(experts=(6,), layers=(1,))
    findings = list(what_if(FakeForward(push=push(l1e6=2.0)), request(change)))
    assert [len(f.controls) for f in findings] == list(range(21))
    assert {f.kl.statistic.value for f in findings} == {findings[0].kl.statistic.value}
    assert [f.done for f in findings] == [False] * 20 + [True]
    assert findings[0].kl.statistic.p is None
    assert "7 of 20 controls so far" in findings[7].kl.statistic.caveat
    assert findings[7].controls == findings[20].controls[:7]


def test_a_pass_is_spent_only_when_it_is_asked_for():
    forward = FakeForward()
    findings = what_if(forward, request(Drop(experts=(6,), layers=(1,))))
    next(findings)
    assert [kind for kind, _ in forward.passes] == ["trace", "nll", "trace", "nll"]
    next(findings)
    assert [kind for kind, _ in forward.passes[4:]] == ["trace", "nll"]


def test_at_the_end_of_the_text_nothing_is_scored_and_no_pass_spent_on_it():
    forward = FakeForward()
    finding = found(forward, Drop(experts=(6,), layers=(1,)), row=5)
    assert finding.followed == 0 and finding.delta_nll is None
    assert {kind for kind, _ in forward.passes} == {"trace"}


def test_later_layers_tell_how_their_choice_changed():
    # Token 5 uses expert 6 at layer 1; without it layers 2 and 3 choose one expert further on:
    # {7, 8} → {8, 9} share one of three.
    forward = FakeForward(push=push(l1e6=2.0), steering=[(1, 6)])
    finding = found(forward, Drop(experts=(6,), layers=(1,)))
    assert [shift.layer for shift in finding.layers] == [2, 3]
    assert finding.layers[0].before == (7, 8) and finding.layers[0].after == (8, 9)
    assert [shift.change for shift in finding.layers] == pytest.approx([2 / 3, 2 / 3])
    assert [shift.control for shift in finding.layers] == [0.0, 0.0]
    assert not any(shift.direct for shift in finding.layers)
    assert finding.routing.statistic.value == pytest.approx(2 / 3)
    assert finding.routing.larger_than == 20


def test_layers_whose_selection_is_edited_are_marked_and_left_out_of_the_mean():
    forward = FakeForward(steering=[(0, 5)])
    finding = found(forward, Deselect(experts=(5,), layers=(0, 1)), ids=(5,), row=0)
    # Layer 0: {5, 6} → {6, 7}, so layers 1 to 3 move on by one; layer 1 was edited besides.
    assert [(shift.layer, shift.direct) for shift in finding.layers] == [
        (1, True), (2, False), (3, False),
    ]  # fmt: skip
    assert finding.routing.statistic.value == pytest.approx(2 / 3)


def test_the_last_layer_has_none_after_it():
    finding = found(FakeForward(), Drop(experts=(6,), layers=(3,)))
    assert finding.layers == () and finding.routing is None


def test_removing_attention_is_seen_by_the_router_of_its_own_layer():
    forward = FakeForward(attention=[0.0, 1.5, 0.0, 0.0])
    finding = found(forward, ScalePart(part="attention", factor=0.0, layers=(1,)))
    assert [shift.layer for shift in finding.layers] == [1, 2, 3]
    assert finding.kl.statistic.value == pytest.approx(kl(3 * 1.5, 0.0), rel=1e-6)
    assert finding.control == "other layers" and finding.tokens_using is None
    assert sorted(control.changes[0].layers for control in finding.controls) == [(0,), (2,), (3,)]


def test_another_k_is_compared_with_the_same_k_in_other_layers():
    forward = FakeForward(push=push(l1e6=1.0, l1e7=3.0), moe_layers=(1, 2, 3))
    finding = found(forward, TopK(k=1, layers=(1,)), ids=(5,), row=0)
    # Token 5 uses 6 and 7 with ½ each, then 6 alone.
    assert finding.kl.statistic.value == pytest.approx(kl(2.0, 1.0), rel=1e-6)
    assert sorted(control.changes[0].layers for control in finding.controls) == [(2,), (3,)]
    # The control in the last layer has no layer after it, hence one routing value less.
    assert len(finding.kl.controls) == 2 and len(finding.routing.controls) == 1


def test_a_change_in_every_layer_has_no_control():
    finding = found(FakeForward(), TopK(k=1))
    assert finding.controls == () and "no control" in finding.kl.statistic.caveat


def test_an_expert_dropped_in_every_layer_is_compared_with_others_there():
    finding = found(FakeForward(), Drop(experts=(6,)))
    assert all(control.changes[0].layers is None for control in finding.controls)
    assert [shift.layer for shift in finding.layers] == [1, 2, 3]


def test_several_experts_in_several_layers_are_drawn_anew_in_each():
    changes = (Drop(experts=(6, 7), layers=(1,)), Drop(experts=(9,), layers=(2,)))
    finding = found(FakeForward(), *changes)
    assert finding.control == "random sets of 3 experts"
    assert len(set(finding.controls)) == 20
    for control in finding.controls:
        first, second = control.changes
        assert (first.layers, second.layers) == ((1,), (2,))
        assert len(set(first.experts)) == 2 and not {6, 7} & set(first.experts)
        assert len(second.experts) == 1 and 9 not in second.experts


def test_next_tokens_are_those_of_either_distribution():
    finding = found(FakeForward(push=push(l1e6=-8.0)), Drop(experts=(6,), layers=(1,)))
    shown = {token.token_id: token for token in finding.next_tokens}
    # Pushed down by 8 token 0 is the last of 32; without that all are equally probable.
    z = math.exp(-8.0) + V - 1
    assert shown[1].before == pytest.approx(1 / z) and shown[1].after == pytest.approx(1 / V)
    assert shown[0].before == pytest.approx(math.exp(-8.0) / z)
    assert shown[0].rank_before == V - 1 and shown[0].rank_after == 0
    assert shown[0].text == " w0"
    assert sum(token.after for token in finding.next_tokens) == pytest.approx(len(shown) / V)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([], "nothing to change"),
        ([Drop(experts=(24,), layers=(1,))], "no expert 24"),
        ([Drop(experts=(1,), layers=(9,))], "layer 9 does not route"),
        ([Force(experts=(1, 2, 3), layers=(1,))], "3 experts cannot be forced: a token uses 2"),
        ([Deselect(experts=tuple(range(23)), layers=(1,))], "fewer than 2 are left"),
    ],
)
def test_what_the_model_cannot_be_asked_is_refused_before_it_is_changed(changes, said):
    forward = FakeForward()
    with pytest.raises(UsageError, match=said):
        found(forward, *changes)
    assert not any(interventions for _, interventions in forward.passes)


@pytest.mark.parametrize("row", [-1, 6])
def test_a_row_outside_the_text_is_refused(row):
    with pytest.raises(UsageError, match=f"token {row} of a text of 6"):
        found(FakeForward(), Drop(experts=(1,), layers=(1,)), row=row)


def test_a_finding_survives_json():
    finding = found(FakeForward(push=push(l1e6=2.0)), Drop(experts=(6,), layers=(1,)))
    assert msgspec.json.decode(msgspec.json.encode(finding), type=WhatIf) == finding
    assert msgspec.json.schema(WhatIf)


class WithoutLens(FakeForward):
    """As an architecture whose logit lens cannot be read: no trace has one."""

    def trace(self, *of, **more):
        return replace(super().trace(*of, **more), lens=None)


def test_next_tokens_have_their_text_where_the_lens_cannot_be_read():
    finding = found(WithoutLens(push=push(l1e6=2.0)), Drop(experts=(6,), layers=(1,)))
    assert [token.text for token in finding.next_tokens] == [
        f" w{token.token_id}" for token in finding.next_tokens
    ]
