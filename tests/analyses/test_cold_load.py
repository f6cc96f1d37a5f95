"""Cold, conditional and dead experts, planted; and none where every expert is used alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moetui.analyses.cold_load import cold_load, loads
from moetui.analyses.routed import RoutedDocument
from tests.builders import make_model_info
from tests.routed import routed_by_hand

E, K, TOKENS = 8, 2, 60
INFO = make_model_info(num_layers=3, moe_layers=(0, 2), num_experts=E, top_k=K)
DEAD, CONDITIONAL, COLD = 1, 4, 6


def documents(avoided: Any, *, count: int = 80, seed: int = 0) -> list[RoutedDocument]:
    """Two of eight experts a layer and token, uniform but for those that `avoided` names:
    {expert: probability that a token shuns it} of layer 2, by domain."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        domain = ("prose", "code", "maths", "facts")[number % 4]
        liking = rng.random((TOKENS, 2, E))
        for expert, shun in avoided(domain).items():
            liking[rng.random(TOKENS) < shun, 1, expert] = 2
        found.append(routed_by_hand(liking.argsort(axis=-1)[..., :K], domain=domain))
    return found


def planted(domain: str) -> dict[int, float]:
    return {DEAD: 1.0, COLD: 0.98, CONDITIONAL: 0.0 if domain == "code" else 1.0}


def test_planted_experts_are_called_what_they_are() -> None:
    found = cold_load(documents(planted), INFO, seed=0)
    by_expert = {(one.layer, one.expert): one for one in found.experts}
    names = [threshold.name for threshold in found.thresholds]
    half = names.index("0.5×")
    assert by_expert[2, DEAD].dead and by_expert[2, DEAD].share.value == 0
    assert [e.expert for e in found.dead] == [DEAD]
    conditional = by_expert[2, CONDITIONAL]
    assert conditional.coldness is not None and conditional.coldness[half] == "conditional"
    assert (conditional.best_domain, conditional.dead) == ("code", False)
    assert conditional.in_best_domain is not None and conditional.in_best_domain.value is not None
    assert conditional.in_best_domain.value >= K / E
    cold = by_expert[2, COLD].coldness
    assert cold is not None and cold[half] == "cold" and not by_expert[2, COLD].dead
    assert {one.expert for one in found.called("cold", half)} == {DEAD, COLD}
    assert [layer.cold[half] for layer in found.layers if layer.cold] == [0, 2]
    assert found.layers[1].dead == 1


def test_experts_that_are_used_alike_are_none_of_them_cold() -> None:
    for seed in range(5):
        found = cold_load(documents(lambda domain: {}, seed=seed), INFO, seed=0)
        for at in range(4):
            assert not found.called("cold", at) and not found.called("conditional", at)
            assert found.under[at].value == 0
        assert not found.dead
        assert found.entropy.value == pytest.approx(1, abs=0.001)


def test_shares_under_a_threshold_and_entropy_are_those_of_the_counts() -> None:
    sample = documents(planted)
    found = cold_load(sample, INFO, seed=0)
    used = np.array([(np.array([d.experts for d in sample]) == e).any(-1) for e in range(E)])
    f = used.mean(axis=(1, 2)).T  # [L, E]
    for threshold, under in zip(found.thresholds, found.under, strict=True):
        assert under.value == pytest.approx((f < threshold.share).mean())
        assert under.null_mean == pytest.approx(0, abs=1e-9)
    p = f / f.sum(axis=1, keepdims=True)
    entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=1) / np.log(E)
    assert found.entropy.value == pytest.approx(entropy.mean())
    assert [one.share.value for one in found.experts if one.layer == 2] == pytest.approx(
        sorted(f[1])
    )


def test_an_even_router_looks_cold_on_a_few_tokens_and_that_is_its_null() -> None:
    few = [routed_by_hand(np.random.default_rng(s).random((2, 2, E)).argsort(-1)[..., :K])
           for s in range(20)]  # fmt: skip
    found = cold_load(few, INFO, seed=0)
    # Under 1 % of 40 tokens is no token at all.
    assert found.under[3].null_mean == pytest.approx((1 - K / E) ** 40)
    assert all(layer.reason for layer in found.layers), "no verdict on so little"
    assert all(one.coldness is None and one.dead is None for one in found.experts)


def test_a_layer_with_fewer_experts_has_no_others_that_are_dead() -> None:
    info = make_model_info(num_layers=2, num_experts=E, top_k=K, layer_experts=(E, 5))
    rng = np.random.default_rng(0)
    sample = []
    for _ in range(60):
        wide = rng.random((TOKENS, E)).argsort(-1)[:, :K]
        narrow = np.column_stack([rng.integers(0, 5, TOKENS), np.full(TOKENS, -1)])
        sample.append(routed_by_hand(np.stack([wide, narrow], axis=1)))
    found = cold_load(sample, info, seed=0)
    assert not found.dead and [layer.experts for layer in found.layers] == [E, 5]
    assert [layer.top_k for layer in found.layers] == [K, 1]
    assert loads(sample, info).share(1).sum() == pytest.approx(1)
