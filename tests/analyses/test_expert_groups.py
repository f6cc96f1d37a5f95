"""Which experts become one or go: groups that were planted, and controls."""

from __future__ import annotations

import numpy as np

from moetui.analyses.expert_groups import (
    control_pairs,
    groups_of,
    least,
    merges,
    prunes,
    random_groups,
)
from moetui.trace import Ban, Deselect, Merge
from tests.fake_forward import FakeForward


def test_groups_are_those_that_were_planted() -> None:
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.normal(size=(4, 30)), [3, 2, 1, 2], axis=0)
    experts = centres + 0.1 * rng.normal(size=centres.shape)
    experts /= np.linalg.norm(experts, axis=1, keepdims=True)
    similarity = experts @ experts.T
    # Eight experts of four kinds: four joins.
    assert groups_of(similarity, 4) == [(0, 1, 2), (3, 4), (6, 7)]
    for removed in range(1, 8):
        groups = groups_of(similarity, removed)
        assert sum(len(g) - 1 for g in groups) == removed
        drawn = random_groups(groups, 8, np.random.default_rng(1))
        assert [len(g) for g in drawn] == [len(g) for g in groups]
        assert len({e for g in drawn for e in g}) == sum(map(len, drawn))


def test_the_least_are_named_first_of_equals() -> None:
    assert least(np.array([0.5, 0.1, 0.1, 0.4, 0.1]), 2) == (1, 2)


def test_control_pairs_have_about_the_load_of_the_pair() -> None:
    load = np.array([0.01, 0.02, 0.03, 0.5, 0.6, 0.7, 0.8, 0.9])
    found = control_pairs(load, (6, 7), wanted=5, rng=np.random.default_rng(0))
    assert len(set(found)) == 5 and (6, 7) not in found
    assert min(load[i] + load[j] for i, j in found) > 0.5
    assert len(control_pairs(load[:3], (0, 1), wanted=20, rng=np.random.default_rng(0))) == 2


def test_merges_are_weighted_by_load_where_there_is_any() -> None:
    load = np.array([0.5, 0.25, 0.0, 0.0])
    made = merges(3, [(0, 1), (2, 3)], load, aligned=True)
    assert made == [
        Merge(experts=(0, 1), layers=(3,), frequencies=(0.5, 0.25), aligned=True),
        Merge(experts=(2, 3), layers=(3,), frequencies=None, aligned=True),
    ]


def test_pruned_experts_cannot_be_chosen_and_softmax_forgets_them() -> None:
    assert prunes(FakeForward(), 1, (2,)) == [Ban(experts=(2,), layers=(1,))]
    sigmoid = FakeForward(shift_invariant=False)
    assert prunes(sigmoid, 1, (2,)) == [Deselect(experts=(2,), layers=(1,))]
