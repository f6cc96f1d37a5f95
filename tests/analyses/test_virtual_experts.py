"""The batch step asks a router in wordings that share nothing with those that trained it."""

from __future__ import annotations

import numpy as np
import pytest

from moetui.analyses.probe_fit import halves, operand_folds
from moetui.analyses.probes import coded_items
from moetui.analyses.task_prompts import TASKS, TEMPLATES, TaskPrompt, crossed_prompts
from moetui.analyses.virtual_experts import VirtualExperts, virtual_experts

ITEMS = crossed_prompts(6, seed=0)
TASK = np.array([TASKS.index(item.task) for item in ITEMS])


def measured(hidden: np.ndarray, items: tuple[TaskPrompt, ...] = ITEMS) -> VirtualExperts:
    tokens = np.random.default_rng(1).integers(0, 2, (len(items), 5))
    return virtual_experts(items, hidden, tokens, depth=0.25, layer=2, seed=0)


def test_every_prompt_is_asked_once_of_a_router_that_shares_nothing_with_it() -> None:
    coded, asked = coded_items(ITEMS), np.zeros(len(ITEMS), int)
    for train, test in halves(coded, operand_folds(coded, seed=0)):
        asked[test] += 1
        assert not set(coded.templates[train]) & set(coded.templates[test])
        assert not set(coded.operands[train]) & set(coded.operands[test])
    assert (asked == 1).all()


def test_a_direction_for_every_operation_is_routed_by() -> None:
    rng = np.random.default_rng(0)
    found = measured(5 * np.eye(4)[TASK] + rng.normal(size=(len(ITEMS), 4)))
    assert found.accuracy.value is not None and found.accuracy.value > 0.95
    assert found.accuracy.p is not None and found.accuracy.p <= 0.002
    assert found.gain.ci_low is not None and found.gain.ci_low > 0.4
    assert found.log_loss.ci_high is not None and found.log_loss.ci_high < 0.5
    assert found.verdict == "measured" and len(found.warnings) == 1
    right = np.mean([route.routed == route.task for route in found.routes])
    assert found.accuracy.value == pytest.approx(right)
    losses = [-np.log(route.probability) for route in found.routes]
    assert found.log_loss.value == pytest.approx(np.mean(losses))


def test_noise_is_routed_no_better_than_by_chance() -> None:
    found = measured(np.random.default_rng(0).normal(size=(len(ITEMS), 6)))
    assert found.accuracy.p is not None and found.accuracy.p > 0.05
    assert found.accuracy.value == pytest.approx(0.25, abs=0.1)
    assert found.log_loss.value is not None and found.log_loss.value > np.log(4) - 0.02
    assert found.most_frequent.value == 0.25


def test_too_few_prompts_are_no_finding() -> None:
    items = crossed_prompts(3, seed=0, templates=TEMPLATES[:1])
    found = measured(np.ones((len(items), 2)), items)
    assert found.verdict == "inconclusive" and found.reason and found.accuracy.value is None
