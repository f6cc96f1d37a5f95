"""Experts removed, on a model whose losses are known in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from moetui.analyses.ablation import few_draws, unmatched
from moetui.analyses.cold_load import loads
from moetui.analyses.expert_ablation import UNUSED, ExpertAblation, expert_ablations
from moetui.analyses.expert_removal import (
    AblatedDocuments,
    LayerAblations,
    Mode,
    ablate,
    jobs,
    planned_ablations,
    whole,
)
from moetui.analyses.routed import RoutedDocument
from tests.fake_forward import FakeForward, log_probabilities
from tests.routed import routed_by

E, K, V = 12, 2, 12
NEVER = 9  # tokens 0 … 6 choose experts 0 … 8 at layer 0
TOKENS, DOCUMENTS = 10, 24


def model() -> FakeForward:
    """Expert 5 of layer 0 moves the logit of token 0 to where it should be, the others little."""
    pushes = np.random.default_rng(0).normal(size=(3, E)) * 0.01
    pushes[0, 5] = 2.0
    return FakeForward(layers=3, experts=E, k=K, vocabulary=V, push=pushes)


def documents(
    forward: FakeForward, *, count: int = DOCUMENTS, seed: int = 0
) -> list[RoutedDocument]:
    """Token 0 often, so that what moves its logit down or up counts."""
    rng = np.random.default_rng(seed)
    ids = rng.choice(7, (count, TOKENS), p=[0.4, *[0.1] * 6])
    return [
        routed_by(forward, row, domain=("prose", "code")[number % 2])
        for number, row in enumerate(ids)
    ]


def plan(forward: FakeForward, sample: Sequence[RoutedDocument], **sizes: int) -> Any:
    asked = {"coldest": 2, "hottest": 1, "wanted": 3, **sizes}
    return planned_ablations(loads(sample, forward.info), forward.info, (0, 2), seed=0, **asked)


def by_hand(expert: int) -> tuple[LayerAblations, ...]:
    """Expert `expert` of layer 0 beside all others that are used."""
    from moetui.analyses.ablation import Controls
    from moetui.analyses.expert_removal import Target

    others = tuple(e for e in range(8) if e != expert)
    controls = Controls(random=others, matched=others[:4], wanted=4)
    target = Target(expert=expert, role="coldest", controls=controls)
    experts = tuple(sorted({expert, *others}))
    return (LayerAblations(layer=0, row=0, load=(0.1,) * E, targets=(target,), experts=experts),)


def measured(
    forward: FakeForward,
    sample: list[RoutedDocument],
    layers: tuple[LayerAblations, ...],
    modes: tuple[Mode, ...] = ("deselect",),
) -> AblatedDocuments:
    half = len(sample) // 2
    return whole([
        ablate(forward, part, layers, modes, with_kl=[True] * len(part))
        for part in (sample[:half], sample[half:])
    ])  # fmt: skip


def only(found: AblatedDocuments) -> ExpertAblation:
    (one,) = expert_ablations(found, seed=0).ablations
    return one


def test_without_an_expert_that_is_never_routed_nothing_changes_and_no_pass_is_spent() -> None:
    forward = model()
    sample = documents(forward)
    forward.passes.clear()
    one = only(measured(forward, sample, by_hand(NEVER)))
    assert (one.used, one.delta_nll.value, one.kl.value) == (0, 0.0, 0.0)
    assert UNUSED in str(one.delta_nll.caveat)
    assert one.equivalence.outcome == "inconclusive", "0 in all documents has no interval"
    removed = {change.experts for _, changes in forward.passes for change in changes}  # type: ignore[union-attr]
    assert (NEVER,) not in removed and removed


def test_an_important_expert_costs_more_than_all_of_its_controls() -> None:
    forward = model()
    one = only(measured(forward, documents(forward), by_hand(5)))
    value, low = one.delta_nll.value, one.delta_nll.ci_low
    assert value is not None and low is not None and one.delta_nll.null_high is not None
    assert low > one.delta_nll.null_high and one.equivalence.outcome == "different"
    assert one.delta_nll.p == pytest.approx(1 / 8)
    assert one.matched.null_high is not None and value > one.matched.null_high
    assert one.kl.value is not None and one.kl.null_high is not None
    assert one.kl.value > one.kl.null_high


@pytest.mark.parametrize("mode", ["drop", "renormalise", "deselect"])
def test_the_cost_is_that_of_the_closed_form(mode: Mode) -> None:
    forward = model()
    sample = documents(forward)
    one = only(measured(forward, sample, by_hand(5), (mode,)))
    before, after, kl, n = 0.0, 0.0, 0.0, 0
    for document in sample:
        ids = document.ids.tolist()
        rows = [_logits(forward, ids, removed, mode) for removed in (None, 5)]
        plain, changed = (log_probabilities(row) for row in rows)
        at = np.arange(len(ids) - 1), ids[1:]
        before, after, n = before - plain[at].sum(), after - changed[at].sum(), n + len(ids) - 1
        kl += float((np.exp(plain) * (plain - changed)).sum())
    assert one.delta_nll.value == pytest.approx((after - before) / n, abs=1e-5)
    assert one.kl.value == pytest.approx(kl / (n + len(sample)), abs=1e-5)
    parts = [change.delta_nll for change in one.domains]
    assert [change.domain for change in one.domains] == ["prose", "code"]
    assert np.mean([part.value for part in parts]) == pytest.approx(one.delta_nll.value)


def _logits(forward: FakeForward, ids: list[int], removed: int | None, mode: Mode) -> Any:
    """[T, V]: token i uses the experts i + l and i + l + 1 of layer l, each with weight 1/2."""
    pushed = np.zeros(len(ids))
    for t, token in enumerate(ids):
        for layer in range(3):
            pair = [(token + layer) % E, (token + layer + 1) % E]
            weights = dict.fromkeys(pair, 0.5)
            if layer == 0 and removed in pair:
                (other,) = set(pair) - {removed}
                weights = {other: 1.0 if mode == "renormalise" else 0.5}
                if mode == "deselect":
                    weights[(token + layer + 2) % E] = 0.5
            pushed[t] += sum(w * forward.push[layer, e] for e, w in weights.items())
    logits = np.zeros((len(ids), V))
    logits[:, 0] = np.cumsum(pushed)
    return logits


def test_targets_are_the_coldest_and_the_hottest_and_no_expert_is_removed_twice() -> None:
    forward = model()
    sample = documents(forward)
    for layer in plan(forward, sample):
        f = np.array(layer.load)
        roles = {target.expert: target.role for target in layer.targets}
        hottest = [e for e, role in roles.items() if role == "hottest"]
        coldest = [e for e, role in roles.items() if role == "coldest"]
        assert f[hottest[0]] == f.max() and sorted(f[coldest]) == sorted(f)[:2]
        assert len(set(layer.experts)) == len(layer.experts) < 3 * (1 + 3 + 3)
        for target in layer.targets:
            beside = target.controls
            assert target.expert not in (*beside.random, *beside.matched)
            assert len(beside.random) == len(beside.matched) == 3
            assert {target.expert, *beside.random, *beside.matched} <= set(layer.experts)
    work = list(jobs(("drop", "deselect"), plan(forward, sample)))
    assert len(work) == len({(mode, at.layer, e) for mode, at, e in work})


def test_a_layer_of_few_experts_says_that_its_controls_are_few() -> None:
    forward = FakeForward(layers=3, experts=4, k=2, vocabulary=V)
    sample = documents(forward)
    layers = plan(forward, sample, wanted=20)
    found = expert_ablations(measured(forward, sample, layers), seed=0)
    assert all("instead of 20" in str(one.delta_nll.caveat) for one in found.ablations)
    # Every push is 0, so no removal costs anything.
    assert {one.delta_nll.value for one in found.ablations} == {0.0}


def test_means_over_layers_are_those_of_the_first_expert_of_each_role() -> None:
    forward = model()
    sample = documents(forward)
    found = expert_ablations(measured(forward, sample, plan(forward, sample)), seed=0)
    for role, mean in (("coldest", found.coldest), ("hottest", found.hottest)):
        of_layers: dict[int, float] = {}
        for one in found.ablations:
            if one.role == role:
                of_layers.setdefault(one.layer, one.delta_nll.value or 0.0)
        assert mean.value == pytest.approx(np.mean(list(of_layers.values())))
    assert found.n_documents == found.kl_documents == DOCUMENTS


def test_few_draws_and_controls_that_are_not_near_in_frequency_are_told() -> None:
    assert few_draws(20) is None and few_draws(19) is None
    assert few_draws(4) == "4 draws: p cannot be below 0.2"
    assert unmatched(0.1, [0.06, 0.19]) is None
    assert "0.128 to 0.196, beside 0.004" in str(unmatched(0.004, [0.128, 0.196]))
    assert unmatched(0.0, [0.01]) is not None and unmatched(0.1, []) is None
