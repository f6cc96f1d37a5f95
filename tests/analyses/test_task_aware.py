"""What an early layer foretells of later ones, in worlds whose routing has a known cause."""

from dataclasses import replace

import mlx.core as mx
import msgspec
import numpy as np
import pytest

import moetui
from moetui.analyses.probed_documents import (
    ProbedDocument,
    later_layers,
    read_probed,
    some_tokens,
)
from moetui.analyses.task_aware import (
    BESIDE,
    EQUAL,
    GATE_AT_PROBE,
    GATE_BEFORE,
    POPULARITY,
    PREVIOUS,
    PROBE,
    TOKEN,
    task_aware,
)
from moetui.suites.moe_dynamics.task_aware_verdict import (
    FORETELLS,
    NO_BETTER,
    PAYS,
    corrected_outcome,
)
from tests.analyses.worlds import E, K, seldom_seen, world

SIZES = (2, 3, 4)


def probed(some, first, layers):
    """Documents as the analysis reads them: layers route alike, the probe sees `attention`."""
    return [
        ProbedDocument(
            id=str(first + d),
            ids=one.ids.astype(np.int32),
            experts=np.stack([one.experts] * layers, axis=1),
            stream=one.attention.astype(np.float32),
        )
        for d, one in enumerate(some)
    ]


def read(kind, first=0, documents=30, gates=None):
    """Documents of a world, of three layers; gates: asked, which tells them the truth, and early
    the experts of other tokens."""
    found = probed(world(kind, documents, first=first), first, 3)
    if gates is None:
        return found
    return [
        replace(one, at_probe=one.experts[:, :2], before=one.experts[::-1, :2]) for one in found
    ]


def rare(kind, first=0, seed=0):
    """Documents of many tokens that are seldom seen; see `seldom_seen`."""
    return probed(seldom_seen(kind, 60, first=first, seed=seed), first, 2)


def judged(kind, gates=None, shuffles=20):
    return task_aware(
        read(kind),
        read(kind, first=1000, gates=gates),
        probe_layer=1,
        moe_layers=(0, 2, 5),
        num_experts=E,
        sizes=SIZES,
        gate_missing=None if gates else "not asked",
        shuffles=shuffles,
        seed=0,
    )


@pytest.fixture(scope="module")
def worlds():
    return {kind: judged(kind)[0] for kind in ("chance", "token", "attention", "habit")}


def at(found, predictor, size=0):
    return next(one for one in found.mean.predictors if one.predictor == predictor).sizes[size]


def value(found, predictor, size=0):
    return at(found, predictor, size).recall.value


def over(found, predictor, baseline):
    return next(one.gain for one in at(found, predictor).gains if one.over == baseline)


def test_routing_by_chance_is_foretold_by_popularity_and_by_nothing_beyond(worlds):
    found = worlds["chance"]
    popular = value(found, POPULARITY)
    assert popular > K / E + 0.05
    for name in (PROBE, BESIDE, TOKEN):
        assert value(found, name) == pytest.approx(popular, abs=0.03)
    gain = over(found, PROBE, POPULARITY)
    assert gain.ci_low < 0.01 and gain.null_low - 0.03 < gain.value < gain.null_high + 0.03
    assert value(found, PREVIOUS) < popular


def test_routing_by_the_token_is_known_from_the_token_alone(worlds):
    found = worlds["token"]
    assert value(found, TOKEN) > 0.95
    assert over(found, PROBE, TOKEN).ci_high < -0.3
    assert abs(over(found, BESIDE, TOKEN).value) < 0.02


def test_routing_that_the_probe_can_see_is_found(worlds):
    found = worlds["attention"]
    assert value(found, PROBE) > 0.75
    for baseline in (TOKEN, PREVIOUS, POPULARITY):
        gain = over(found, PROBE, baseline)
        assert gain.ci_low > 0.3 and gain.p == pytest.approx(1 / 21)


def judged_rare(kind, seed=0):
    return task_aware(
        rare(kind, seed=seed), rare(kind, first=1000, seed=seed), probe_layer=1,
        moe_layers=(0, 2), num_experts=E, sizes=SIZES, gate_missing="not asked", shuffles=20,
        seed=seed,
    )[0]  # fmt: skip


def test_a_probe_that_sees_the_token_alone_is_no_better_than_equal_tokens():
    found = judged_rare("token")
    assert over(found, PROBE, TOKEN).ci_low > 0  # the table does not know every token
    beside = over(found, BESIDE, EQUAL)
    assert beside.value == pytest.approx(0, abs=1e-12) and beside.p == 1
    assert over(found, PROBE, EQUAL).p > 0.05 and corrected_outcome(found) == NO_BETTER
    # What an exchange leaves of probe and table together is what the row of equal tokens says.
    assert value(found, EQUAL) == pytest.approx(value(found, BESIDE) - beside.value)
    beyond = judged_rare("token and place")
    assert over(beyond, PROBE, EQUAL).ci_low > 0.2 and corrected_outcome(beyond) in (
        PAYS,
        FORETELLS,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["token", "token and chance"])
def test_simulated_tokens_are_hardly_ever_called_a_finding(kind):
    called = [corrected_outcome(judged_rare(kind, seed)) for seed in range(1, 21)]
    assert sum(one in (PAYS, FORETELLS) for one in called) <= 1


def test_persistence_is_found_by_the_token_before_and_by_nothing_else(worlds):
    found = worlds["habit"]
    # Four times in five the token has what the one before had; else k of E by chance; and the
    # first of 30 tokens has none before it, and is given what is popular. 3 in 100 are by chance,
    # and the token after these too.
    stays = 0.8 * (1 - 0.03) ** 2
    expected = (29 / 30) * (stays + (1 - stays) * K / E) + (1 / 30) * K / E
    assert value(found, PREVIOUS) == pytest.approx(expected, abs=0.03)
    for name in (PROBE, TOKEN, POPULARITY):
        assert value(found, name) < 0.4
    assert over(found, PROBE, PREVIOUS).ci_high < -0.3


def test_more_experts_recall_more_and_all_recall_everything(worlds):
    for found in worlds.values():
        for one in found.mean.predictors:
            values = [size.recall.value for size in one.sizes]
            assert values == sorted(values) and [size.m for size in one.sizes] == list(SIZES)


def test_only_layers_after_the_probe_are_foretold(worlds):
    found = worlds["chance"]
    assert [one.layer for one in found.layers] == [2, 5]
    assert later_layers(1, (0, 2, 5)) == (2, 5) and later_layers(5, (0, 2, 5)) == ()
    with pytest.raises(ValueError, match="after the probe"):
        task_aware(
            read("chance", documents=2), read("chance", documents=2), probe_layer=5,
            moe_layers=(0, 2, 5), num_experts=E, sizes=SIZES, gate_missing=None, shuffles=0, seed=0,
        )  # fmt: skip


def test_gates_are_judged_by_the_sets_they_name_and_filled_up_with_popular_experts():
    found, foretold = judged("chance", gates=True, shuffles=0)
    assert value(found, GATE_AT_PROBE) == 1.0  # it was given the truth
    judge = read("chance", first=1000, gates=True)
    same = [
        len(set(a.tolist()) & set(b.tolist()))
        for one in judge
        for a, b in zip(one.experts[:, 0], one.experts[::-1, 0], strict=True)
    ]
    assert value(found, GATE_BEFORE) == pytest.approx(np.mean(same) / K)
    assert value(found, GATE_BEFORE, 2) > value(found, GATE_BEFORE)
    assert over(found, PROBE, GATE_AT_PROBE).value == pytest.approx(value(found, PROBE) - 1)
    assert set(foretold.experts) == {PROBE, BESIDE, TOKEN, GATE_BEFORE}  # no draws, no equals
    for layer in foretold.experts[GATE_BEFORE]:
        whole = np.concatenate([one.before[:, 0] for one in judge])
        assert (np.sort(layer, axis=1) == np.sort(whole, axis=1)).all()


def test_a_router_asked_early_is_judged_by_its_own_order_beyond_the_k_it_would_choose():
    judge = []
    for one in read("chance", first=1000):
        first, second = np.moveaxis(one.experts[:, 1:], -1, 0)
        wrong = np.where((first + 1) % E == second, (first + 2) % E, (first + 1) % E)
        ranked = np.stack([wrong, first, second], axis=-1)
        judge.append(replace(one, at_probe=ranked, before=ranked))
    found, _ = task_aware(
        read("chance"), judge, probe_layer=1, moe_layers=(0, 2, 5), num_experts=E, sizes=SIZES,
        gate_missing=None, shuffles=0, seed=0,
    )  # fmt: skip
    gate = next(one for one in found.mean.predictors if one.predictor == GATE_AT_PROBE)
    assert [at.recall.value for at in gate.sizes] == [0.5, 1.0, 1.0]


def test_without_gates_the_reason_is_told(worlds):
    found = worlds["chance"]
    assert found.gate_missing == "not asked"
    assert GATE_BEFORE not in [one.predictor for one in found.mean.predictors]
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


@pytest.fixture(scope="module")
def model():
    return moetui.load("demo")


def test_what_is_read_of_the_model_is_what_a_trace_holds(model):
    ids = model.tokenize("The capital of France is Paris, and the sum is 4.")
    found = read_probed(model, "x", ids, 2, gates=True)
    trace = model.trace(ids, lens=0, streams=True)
    np.testing.assert_array_equal(found.stream, trace.streams.leaving[:, 2])
    np.testing.assert_array_equal(found.experts, trace.expert_ids)
    for row, layer in enumerate((3, 4, 5, 6, 7)):
        block = model.network.model.layers[layer]
        gain, weight = (
            np.array(one.weight.astype(mx.float32))
            for one in (block.post_attention_layernorm, block.mlp.gate)
        )
        for ranked, stream in (
            (found.at_probe, trace.streams.leaving[:, 2]),
            (found.before, trace.streams.at_router[:, layer - 1]),
        ):
            normed = stream / np.sqrt((stream**2).mean(-1, keepdims=True) + 1e-5) * gain
            expected = np.argsort(-(normed @ weight.T), axis=-1)[:, : 2 * model.info.top_k]
            np.testing.assert_array_equal(ranked[:, row], expected)
    part = some_tokens(read_probed(model, "x", ids, 2, gates=False), np.array([1, 4]))
    np.testing.assert_array_equal(part.stream, found.stream[[1, 4]])
    assert part.at_probe is None and part.ids.tolist() == ids[[1, 4]].tolist()
