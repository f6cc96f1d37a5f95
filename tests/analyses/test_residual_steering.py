"""The smallest change of the stream in real models: a true pass follows it, a shorter one fails."""

from __future__ import annotations

import numpy as np
import pytest

import moetui
from moetui.analyses.residual_steering import layer_rule, patch, random_follows, steer
from moetui.analyses.router_margin import MONOTONE
from moetui.analyses.routing_robustness import perturb, rounded_experts
from moetui.model import Model
from tests.model.test_routes import subject


@pytest.fixture(scope="module")
def demo() -> Model:
    return moetui.load("demo")


NAMES = ["olmoe", "deepseek_v3", "gpt_oss", "phimoe", "llama4", "bailing_moe (groups)"]


@pytest.mark.parametrize("name", NAMES)
def test_the_models_own_pass_chooses_the_expert_after_the_change(name: str) -> None:
    model = subject(name).model
    ids = np.random.default_rng(0).integers(3, 40, 9).astype(np.int32)
    trace = model.trace(ids, lens=0, streams=True)
    layer, row = model.info.moe_layers[-1], len(model.info.moe_layers) - 1
    rule = layer_rule([trace], row)
    tried = 0
    for expert in range(4):
        found = steer(model, trace, 8, layer, expert, rule)
        if found.delta is None:
            assert "group" in (found.reason or "")
            continue
        change = patch(trace, 8, layer, found.delta)
        read = model.read_contexts(ids[None], 8, interventions=[change])
        assert (read.experts[0, row] == expert).any() and found.follows and found.exact
        assert found.pair_bound <= found.length * (1 + 1e-6)
        if found.length == 0:
            continue
        tried += 1
        if rule.link == MONOTONE and found.rounds == 1:
            less = model.read_contexts(
                ids[None], 8, interventions=[patch(trace, 8, layer, 0.97 * found.delta)]
            )
            assert not (less.experts[0, row] == expert).any()
        rng = np.random.default_rng(expert)
        shorter = random_follows(model, trace, 8, layer, expert, found, 50, rng)
        assert shorter.mean() < 0.5
    assert tried or name in ("deepseek_v3", "bailing_moe (groups)")


def test_noise_flips_more_the_larger_it_is_and_none_flips_nothing(demo: Model) -> None:
    text = "The capital of France is Paris, and the capital of Italy is Rome."
    found = perturb(demo, text, 16, (1e-7, 0.05, 0.5), [], seed=0)
    share = found.changed / np.maximum(found.tokens, 1)
    assert share[0] < 1e-3 and share[0] <= share[1] < share[2]
    assert share[3] < 1e-3 and share[3] <= share[4] < share[5]
    assert found.reasons[:6] == ("",) * 6


def test_experts_with_fewer_bits_leave_the_model_as_it_was(demo: Model) -> None:
    few = rounded_experts(demo, ["12 + 7 ="], 8, 4)
    plain = demo.trace("12 + 7 =", lens=0, residuals=False).expert_ids
    assert np.shape(few[0]) == plain.shape
    after = demo.trace("12 + 7 =", lens=0, residuals=False).expert_ids
    assert np.array_equal(plain, after)
