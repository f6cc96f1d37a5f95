"""The seed's study of its prompts, against counts and passes of the demo model by hand."""

from __future__ import annotations

import numpy as np
import pytest

import moetui
from moetui.analyses.cold_prompts import ColdPrompts, cold_prompts
from moetui.model import Model
from moetui.suites.moe_dynamics.cold_experts import PROMPTS
from moetui.trace import Drop

THRESHOLD = 0.05


@pytest.fixture(scope="module")
def demo() -> Model:
    return moetui.load("demo")


@pytest.fixture(scope="module")
def found(demo: Model) -> ColdPrompts:
    return cold_prompts(
        demo, PROMPTS, threshold=THRESHOLD, triggers=20, ablated_layers=2, ablated_experts=1
    )


def test_cold_experts_are_those_that_few_tokens_of_the_prompts_use(
    demo: Model, found: ColdPrompts
) -> None:
    traces = [demo.trace(prompt, lens=0) for prompt in PROMPTS]
    experts = np.concatenate([trace.expert_ids for trace in traces])
    words = [token for trace in traces for token in trace.tokens]
    used = np.stack([(experts == e).any(axis=-1) for e in range(16)], axis=-1)  # [T, L, E]
    assert found.tokens == len(words) and found.prompts == 20
    cold = {(layer, e) for layer in range(8) for e in range(16)
            if used[:, layer, e].mean() < THRESHOLD}  # fmt: skip
    assert {(one.layer, one.expert) for one in found.experts} == cold and cold
    assert found.cold.value == pytest.approx(len(cold) / 128)
    assert found.unused.value == (used.sum(axis=0) == 0).sum()
    assert found.cold.ci_low is None and "as published" in str(found.cold.caveat)
    for one in found.experts:
        rows = np.flatnonzero(used[:, one.layer, one.expert])
        assert one.tokens == len(rows) and one.triggers == tuple(words[row] for row in rows[:20])


def test_the_impact_is_the_change_of_the_perplexity_of_the_prompts(
    demo: Model, found: ColdPrompts
) -> None:
    tried = [one for one in found.experts if one.perplexity_change is not None]
    assert len({one.layer for one in tried}) == len(tried) == 2

    def perplexity(*changes: Drop) -> float:
        return float(np.exp(np.concatenate([demo.nll(p, changes) for p in PROMPTS]).mean()))

    for one in tried:
        change = perplexity(Drop(experts=(one.expert,), layers=(one.layer,))) - perplexity()
        assert one.perplexity_change == pytest.approx(change, abs=1e-6)
