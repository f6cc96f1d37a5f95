"""`moetui batch task_aware` on the bundled model, and what its rules say."""

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

import moetui
from moetui.analyses.offload import LRU
from moetui.analyses.seed_prediction import SeedTask
from moetui.analyses.task_aware import BASELINES, BESIDE, PROBE, TaskAware
from moetui.demo import checkpoint
from moetui.stats import Statistic
from moetui.suites import run_suite, sections
from moetui.suites.moe_dynamics import preset, study_suite
from moetui.suites.moe_dynamics.study import Shared
from moetui.suites.moe_dynamics.task_aware import Parameters
from moetui.suites.moe_dynamics.task_aware_analyses import probe_layer_of
from moetui.suites.moe_dynamics.task_aware_verdict import (
    FORETELLS,
    INCONCLUSIVE,
    NO_BETTER,
    PAYS,
    UNCLEAR,
    corrected_outcome,
    half_of,
)
from moetui.suites.plans import PlanDocument, plan_document
from tests.builders import make_model_info

SMALL = {
    "documents": 24,
    "calibration_documents": 24,
    "tokens": 24,
    "probe_layer": 5,
    "shuffles": 19,
    "cache_documents": 20,
    "cache_shares": [0.25, 0.5],
}


@pytest.fixture(scope="module")
def result():
    return run_suite("task_aware", models=["demo"], parameters=SMALL)


def found(result, kind):
    return next(cell.result for cell in result.cells if isinstance(cell.result, kind))


@pytest.mark.parametrize(("layers", "layer"), [(24, 4), (16, 2), (8, 1), (4, 0), (48, 8)])
def test_the_probe_is_as_deep_as_in_the_published_run(layers, layer):
    info = make_model_info(num_layers=layers)
    assert probe_layer_of(None, info) == layer and probe_layer_of(3, info) == 3


def test_own_parameters_are_none_of_the_shared_ones():
    assert not set(Parameters.__struct_fields__) & set(Shared.__struct_fields__)


def test_the_run_is_whole(result):
    assert [cell.status for cell in result.cells] == ["done"] * 3
    one = found(result, TaskAware)
    assert one.probe_layer == 5 and [layer.layer for layer in one.layers] == [6, 7]
    assert one.gate_missing is None and (one.documents, one.fit_documents) == (24, 24)
    assert [size.m for size in one.mean.predictors[0].sizes] == [4, 6, 8]
    for at, name in enumerate((PROBE, BESIDE)):
        predictor = one.mean.predictors[at]
        assert predictor.predictor == name
        assert [gain.over for gain in predictor.sizes[0].gains] == list(BASELINES)


def test_the_plan_is_in_bytes_of_the_checkpoint(result):
    plan = found(result, TaskAware).plan
    # Three matrices of 128 × 32 in half precision.
    assert plan.expert_bytes == (3 * 128 * 32 * 2,) * 8
    assert plan.all_bytes == 8 * 16 * plan.expert_bytes[0] < file_size()
    assert plan.digest == result.models[0].info.digest and plan.documents == 20
    assert half_of(plan) == 8 and {row.capacity for row in plan.rows} == {4, 8}
    lru = next(row for row in plan.rows if (row.policy, row.capacity) == (LRU, 8))
    assert lru.memory_bytes == 8 * 8 * plan.expert_bytes[0]
    # All layers: what is missed of 4 × 8 experts a token, each of the same size.
    missed = (1 - lru.hit_rate.value) * 4 * 8 * plan.expert_bytes[0]
    assert lru.bytes_per_token.value == pytest.approx(missed)
    assert lru.stall_ms.value == pytest.approx(missed / plan.bandwidth * 1e3)
    policies = [row.policy for row in plan.rows if row.capacity == 8]
    ahead = [
        "token identity", "probe of equal tokens", "probe", "probe and token",
        "gate, one router early",
    ]  # fmt: skip
    assert policies == ["LRU", "LFU", "Belady", *(f"LRU + {name}" for name in ahead)]


def file_size():
    return (checkpoint("demo") / "model.safetensors").stat().st_size


def test_the_probes_recall_is_that_of_an_independent_regression(result):
    """scikit-learn on what the model itself says of the same documents."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    from moetui.suites.documents import Documents

    model, one = moetui.load("demo"), found(result, TaskAware)
    sides = []
    for split in ("calibration", "evaluation"):
        texts = Documents(None, split, documents=24, tokens=24).sample(0).documents
        traces = [model.trace(model.tokenize(t.text)[:24], lens=0, streams=True) for t in texts]
        x = np.concatenate([t.streams.leaving[:, 5] for t in traces])
        y = np.concatenate([t.expert_ids[:, 6] for t in traces])
        sides.append((x.astype(float), y))
    (x, y), (asked, truth) = sides
    scaler = StandardScaler().fit(x)
    hot = np.zeros((len(y), 16))
    np.put_along_axis(hot, y.astype(int), 1.0, axis=1)
    fit = Ridge(alpha=one.penalty * len(x)).fit(scaler.transform(x), hot)
    told = np.argsort(-fit.predict(scaler.transform(asked)), axis=1)[:, :4]
    share = np.mean([len(set(a) & set(b)) / 4 for a, b in zip(told, truth, strict=True)])
    assert one.layers[0].predictors[0].sizes[0].recall.value == pytest.approx(share, abs=1e-3)


def test_with_more_features_than_prompts_the_published_scores_are_perfect(result):
    scores = found(result, SeedTask).scores
    assert scores.features == 128 > scores.prompts == 20
    assert scores.mean.fitted.any_overlap == scores.mean.fitted.fetched == 1.0
    assert result.verdicts[0].seed.outcome == "prefetch viable"


def test_both_rules_speak_in_sentences(result):
    verdicts = result.verdicts[0]
    assert verdicts.topic == "task_aware"
    assert verdicts.corrected.outcome in (PAYS, FORETELLS, NO_BETTER)
    assert "of the 4 experts of later layers" in verdicts.corrected.statement
    assert "with 8 of 16 experts of a layer in memory" in verdicts.corrected.statement
    names = [measure.name for measure in result.measures]
    assert "task_aware: gain of probe over token identity" in names
    assert "task_aware: hit rate, half of the experts, LRU + probe" in names
    headings = [section.heading for section in sections.sections(result)]
    assert "What keeping some experts in memory would cost" in headings


def test_a_probe_after_all_routers_and_a_dense_model_are_inconclusive_with_the_reason():
    late = run_suite("task_aware", models=["demo"], parameters={**SMALL, "probe_layer": 7})
    assert "no layer routes after the probe's, 7" in late.verdicts[0].corrected.statement
    dense = run_suite("task_aware", models=["demo-dense"], parameters=SMALL)
    for one in (late, dense):
        assert {one.verdicts[0].seed.outcome, one.verdicts[0].corrected.outcome} == {INCONCLUSIVE}
    assert "dense model" in dense.verdicts[0].corrected.statement


def test_a_null_of_few_draws_is_inconclusive_and_says_so():
    few = run_suite("task_aware", models=["demo"], parameters={**SMALL, "shuffles": 18})
    verdict = few.verdicts[0].corrected
    assert verdict.outcome == INCONCLUSIVE
    assert "18 draws: p cannot be below 0.053 (shuffles=18)" in verdict.statement
    one = found(few, TaskAware).mean.predictors[0].sizes[0].recall
    assert "18 draws: p cannot be below 0.053" in one.caveat


def test_the_plans_are_as_large_as_they_say():
    def tokens(parameters):
        suite = study_suite("task_aware", parameters)
        return sum(part.tokens or 0 for one in suite.analyses for part in one.parts(seed=0))

    assert tokens({}) <= 80_000
    assert tokens(preset("task_aware", "quick")) < tokens({}) / 4


def test_the_plan_is_collected_with_the_other_plans(result):
    document = plan_document([result])
    (model,) = document.models
    assert model.model == "demo" and model.plans == (found(result, TaskAware).plan,)
    # What is written is read back as the same kind of plan.
    raw = msgspec.json.encode(document)
    assert msgspec.json.decode(raw)["models"][0]["plans"][0]["type"] == "offload_plan"
    assert msgspec.json.decode(raw, type=PlanDocument) == document


@pytest.mark.parametrize(
    ("gains", "hits", "outcome"),
    [
        ((0.02, 0.03), (0.05, 0.02), PAYS),
        ((0.02, 0.03), (0.05, 0.005), FORETELLS),
        ((0.02, 0.03), (0.005, 0.05), FORETELLS),
        ((0.005, 0.03), (0.05, 0.05), UNCLEAR),
        ((-0.02, 0.03), (0.05, 0.05), NO_BETTER),
        ((0.02, -0.1), (0.05, 0.05), NO_BETTER),
    ],
)
def test_the_corrected_rule_asks_for_every_baseline_and_for_caches(result, gains, hits, outcome):
    one = found(result, TaskAware)
    lows = [*gains, 0.5, 0.5, 0.5]
    made = tuple(
        replace(gain, gain=Statistic(value=low + 0.01, ci_low=low, ci_high=low + 0.02, p=0.04))
        for gain, low in zip(one.mean.predictors[1].sizes[0].gains, lows, strict=True)
    )
    probe, both = one.mean.predictors[:2]
    both = replace(both, sizes=(replace(both.sizes[0], gains=made), *both.sizes[1:]))
    over = [Statistic(value=low + 0.01, ci_low=low, ci_high=low + 0.02) for low in hits]
    rows = tuple(
        replace(row, over_lru=over[0], over_token=over[1])
        if (row.policy, row.capacity) == (f"{LRU} + {BESIDE}", 8)
        else row
        for row in one.plan.rows
    )
    mean = replace(one.mean, predictors=(probe, both, *one.mean.predictors[2:]))
    assert corrected_outcome(replace(one, mean=mean, plan=replace(one.plan, rows=rows))) == outcome
