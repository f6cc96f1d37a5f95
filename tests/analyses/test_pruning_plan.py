"""Pruning plans: who goes, who stays, what the whole costs, by closed forms."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from moetui.analyses.pruning_plan import (
    UNUSED,
    LayerPruning,
    PlannedPruning,
    PruningPlans,
    planned_pruning,
    prune,
    pruning_plans,
)
from moetui.analyses.routed import RoutedDocument
from moetui.trace import Ban, Deselect
from tests.fake_forward import FakeForward
from tests.routed import routed_by

E, K, V = 12, 2, 12
BYTES = (100, 200, 300)


def model(pushes: dict[tuple[int, int], float]) -> FakeForward:
    push = np.zeros((3, E))
    for at, value in pushes.items():
        push[at] = value
    return FakeForward(layers=3, experts=E, k=K, vocabulary=V, push=push, expert_bytes=BYTES)


def documents(forward: FakeForward, count: int = 24) -> list[RoutedDocument]:
    ids = np.random.default_rng(0).choice(7, (count, 10), p=[0.4, *[0.1] * 6])
    return [routed_by(forward, row) for row in ids]


def planned(
    forward: FakeForward,
    candidates: Sequence[Sequence[int]],
    *,
    name: str = "x",
    protected: Sequence[tuple[int, int]] = (),
    controls: int = 0,
) -> PlannedPruning:
    flags = np.zeros((3, E), bool)
    for at in protected:
        flags[at] = True
    return planned_pruning(
        "cold", name, "by hand", candidates, flags, forward.info,
        least=(K,) * 3, controls=controls, seed=0,
    )  # fmt: skip


def plans(forward: FakeForward, *of: PlannedPruning) -> PruningPlans:
    found = prune(forward, documents(forward), of, "deselect")
    return pruning_plans([found], forward.info, seed=0)


def test_the_cost_is_that_of_all_of_its_experts_gone_at_once() -> None:
    forward = model({(0, 5): 1.0, (1, 3): -2.0})
    plan = planned(forward, [[5], [3, 4], []])
    sample = documents(forward)
    (one,) = plans(forward, plan).plans
    changes = [Deselect(experts=(5,), layers=(0,)), Deselect(experts=(3, 4), layers=(1,))]
    together = [forward.nll(d.ids, changes).sum(dtype=float) for d in sample]
    before = [d.nll.sum(dtype=float) for d in sample]
    n = sum(len(d.nll) for d in sample)
    assert one.delta_nll.value == pytest.approx((sum(together) - sum(before)) / n)
    apart = [
        sum(forward.nll(d.ids, [change]).sum(dtype=float) for d in sample) - sum(before)
        for change in changes
    ]
    assert one.delta_nll.value != pytest.approx(sum(apart) / n, rel=0.01), "it is no sum of parts"


def test_what_is_saved_is_the_size_of_the_experts_that_go() -> None:
    forward = model({})
    (one,) = plans(forward, planned(forward, [[5], [3, 4], [0, 1, 2]])).plans
    assert (one.experts, one.of_experts) == (6, 36)
    assert one.bytes_saved == 100 + 2 * 200 + 3 * 300
    assert one.bytes_of_experts == 12 * (100 + 200 + 300)
    assert one.layers[1] == LayerPruning(layer=1, drop=(3, 4), keep=10)
    unknown = FakeForward(layers=3, experts=E, k=K, vocabulary=V)
    (one,) = plans(unknown, planned(unknown, [[5], [], []])).plans
    assert one.bytes_saved is None and one.bytes_of_experts is None


def test_super_experts_stay_and_no_layer_is_left_with_fewer_than_a_token_uses() -> None:
    forward = model({})
    plan = planned(forward, [list(range(E)), [7], []], protected=[(0, 0), (1, 7)], controls=20)
    first, *rest = plan.layers
    assert not rest, "the one candidate of layer 1 is protected"
    assert first.drop == tuple(range(1, 11)) and first.keep == K
    assert plan.spared == ((0, 0), (0, 11), (1, 7))
    assert len(plan.controls) == 20
    for control in plan.controls:
        assert [layer.layer for layer in control] == [0]
        assert len(set(control[0].drop)) == len(first.drop) and 0 not in control[0].drop


def test_a_costly_plan_is_not_safe_and_a_plan_that_costs_next_to_nothing_is() -> None:
    forward = model({(0, 5): 2.0, (0, 2): 1e-4})
    costly, cheap = planned(forward, [[5], [], []]), planned(forward, [[2], [], []], name="y")
    found = {plan.name: plan for plan in plans(forward, costly, cheap).plans}
    assert found["x"].equivalence.outcome == "different" and not found["x"].safe
    assert found["y"].equivalence.outcome == "equivalent" and found["y"].safe
    assert found["y"].delta_nll.value != 0


def test_a_plan_of_experts_that_nobody_uses_costs_exactly_nothing_and_proves_nothing() -> None:
    forward = model({(0, 9): 3.0})
    (one,) = plans(forward, planned(forward, [[9], [], []])).plans
    assert one.delta_nll.value == 0 and UNUSED in str(one.delta_nll.caveat)
    assert one.equivalence.outcome == "inconclusive" and not one.safe
    assert not [c for _, c in forward.passes if c], "and takes no pass"


def test_random_plans_of_the_same_size_stand_beside_it() -> None:
    forward = model({(0, 5): 2.0})
    (one,) = plans(forward, planned(forward, [[5], [], []], controls=20)).plans
    value, high, p = one.delta_nll.value, one.delta_nll.null_high, one.delta_nll.p
    assert value is not None and high is not None and p is not None
    # Some of the 20 draw the costly expert too, none costs more: as little as this is no feat.
    assert value >= high and p == 1.0


def test_larger_plans_of_a_kind_are_recommended_only_while_all_smaller_ones_are_safe() -> None:
    forward = model({(0, 5): 2.0, (0, 2): 1e-4, (1, 3): 1e-4, (1, 4): 1e-4})
    small = planned(forward, [[2], [], []], name="small")
    bad = planned(forward, [[2, 5], [], []], name="bad")
    large = planned(forward, [[2], [3, 4], []], name="large")
    found = plans(forward, large, small, bad)
    assert [(p.name, p.safe) for p in found.plans] == [
        ("small", True), ("bad", False), ("large", True),
    ]  # fmt: skip
    assert found.recommended == "small"
    assert [p.name for p in found.plans if p.recommended] == ["small"]
    other = msgspec.structs.replace(large, kind="score")
    assert plans(forward, other, small, bad).recommended == "large"


def test_rules_that_drop_nobody_are_named() -> None:
    forward = model({})
    found = plans(forward, planned(forward, [[], [], []], name="none"))
    assert found.plans == () and found.empty == ("none",) and found.recommended is None


def test_without_rows_of_the_router_tokens_that_use_none_of_them_are_asked_too() -> None:
    forward = model({(0, 9): 3.0})
    unused = planned(forward, [[9], [], []])
    sample = documents(forward)
    forward.passes.clear()
    found = prune(forward, sample, (unused,), "remove")
    assert len(forward.passes) == len(sample)
    assert {changes for _, changes in forward.passes} == {(Ban(experts=(9,), layers=(0,)),)}
    (plan,) = pruning_plans([found], forward.info, seed=0).plans
    assert plan.mode == "remove" and "checkpoint without them" in plan.mode_meaning
