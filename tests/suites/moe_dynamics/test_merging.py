"""The study `merging` on real forwards: planted copies merge, and every kind of model answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import moetui
from moetui.analyses.merge_front import FREQUENCY, OUTPUTS, RANDOM, MergeFront
from moetui.analyses.merged_pairs import MergedPair, MergedPairs
from moetui.analyses.output_similarity import OUTPUT, OutputSimilarity
from moetui.analyses.weight_similarity import ALIGNED, RAW, WeightSimilarity
from moetui.stats import EquivalenceTest, Statistic
from moetui.suites import run_prepared, suite
from moetui.suites.lines import text_of
from moetui.suites.moe_dynamics.merging_plan import SIMILARITIES, LayerKnown, pair_trials
from moetui.suites.moe_dynamics.merging_verdict import (
    MERGEABLE,
    corrected_outcome,
    point_name,
    seed_outcome,
)
from moetui.suites.results import SuiteResult, result_json, results_of
from moetui.suites.sections import sections
from moetui.trace import Merge
from tests.model.subject import Subject, subject_of
from tests.reference.values import DATA
from tests.suites.moe_dynamics.planted import InMemory, copy_expert

SMALL: dict[str, Any] = {
    "documents": 4, "calibration_documents": 4, "tokens": 10, "controls": 2,
    "control_documents": 2, "random_merges": 1, "removed": [0.25], "layers": ["mid"],
    "models": ["planted"],
}  # fmt: skip


def run(model: Any, **changed: Any) -> SuiteResult:
    prepared = suite("merging", {**SMALL, **changed})
    return run_prepared(prepared, source=InMemory(model))


def only(result: SuiteResult, kind: type[Any]) -> Any:
    [found] = results_of(result, "planted", kind)
    return found


@pytest.mark.slow
def test_a_copy_with_exchanged_neurons_merges_and_random_pairs_do_not() -> None:
    model = moetui.load("demo")
    copies = ((3, 9), (0, 12), (1, 5), (7, 14))
    for source, target in copies:
        copy_expert(model, 4, source, target, exchanged=True)
    result = run(
        model, layers=[4], documents=30, calibration_documents=20, tokens=48, controls=20,
        control_documents=25,
    )  # fmt: skip
    [pair] = only(result, MergedPairs).of("similar")
    assert pair.experts in copies and pair.similarity == pytest.approx(1, abs=1e-4)
    assert abs(pair.change.value) < 1e-5 and pair.equivalence.outcome == "equivalent"
    assert pair.moved.p == pytest.approx(1 / 21) and pair.moved.value < pair.moved.null_low / 10
    assert result.verdicts[0].corrected.outcome == "mergeable"
    assert result.verdicts[0].seed.outcome == "native"  # as they lie they are strangers
    aligned = only(result, WeightSimilarity).of(ALIGNED)[0]
    assert aligned.experts in copies and aligned.largest.value == pytest.approx(1, abs=1e-5)
    front = only(result, MergeFront)
    # Four of sixteen experts are copies: a quarter is removed for nothing.
    merged = front.at(OUTPUTS, 0.25)
    assert abs(merged.change.value) < 1e-5 and merged.equivalence.outcome == "equivalent"
    assert merged.change.value < front.random[0].value


def test_the_numbers_are_those_of_merges_made_by_hand() -> None:
    model = Subject("olmoe").model
    result = run(model)
    [pair] = only(result, MergedPairs).of("similar")
    outputs = only(result, OutputSimilarity)
    assert outputs.layers[0].similarities[0].what == OUTPUT
    assert pair.experts == outputs.layers[0].similarities[0].experts
    from moetui.suites.documents import Documents

    def ids(split: Any) -> list[Any]:
        texts = Documents(None, split, documents=4, tokens=10).texts(0)
        return [model.tokenize(text)[:10] for text in texts]

    traces = [model.trace(one, lens=0) for one in ids("calibration")]
    row = model.info.moe_layers.index(pair.layer)
    chosen = np.concatenate([t.expert_ids[:, row] for t in traces])
    load = tuple(float((chosen == e).any(axis=-1).mean()) for e in pair.experts)
    merge = Merge(experts=pair.experts, layers=(pair.layer,), frequencies=load, aligned=True)
    before = sum(float(model.nll(one).sum()) for one in ids("evaluation"))
    after = sum(float(model.nll(one, [merge]).sum()) for one in ids("evaluation"))
    tokens = sum(len(one) - 1 for one in ids("evaluation"))
    assert pair.change.value == pytest.approx((after - before) / tokens, abs=1e-5)
    assert pair.equivalence.outcome == "inconclusive"
    assert result.verdicts[0].corrected.outcome == "inconclusive"
    assert "documents" in result.verdicts[0].corrected.statement


@pytest.mark.parametrize(("seed_controls", "nulls"), [(0, 0), (4, 1)])
def test_the_seeds_pair_has_a_null_where_controls_are_merged_as_it_is(
    seed_controls: int, nulls: int
) -> None:
    result = run(Subject("olmoe").model, seed_controls=seed_controls)
    [pair] = only(result, MergedPairs).of("seed")
    assert sum(one.p is not None for one in (pair.beside, pair.moved)) == 2 * nulls
    shown = text_of(sections(result), 120)
    assert ("no controls merged as it is" in shown) == (not nulls)


def test_each_pair_has_controls_of_its_own_load_and_merged_as_it_is() -> None:
    load = np.array([9.0, 8.0, 9.5, 8.5, 9.2, 0.1, 0.2, 0.15, 0.12, 0.18])
    output, raw = np.zeros((2, 10, 10))
    output[0, 1], raw[5, 6] = 0.9, 0.9
    zeros = np.zeros((10, 10))
    layer = LayerKnown(
        layer=3, experts=10, load=load, reap=None, bytes_each=1, whole=True,
        similarity={
            name: {OUTPUT: output, RAW: raw}.get(name, zeros) for name in SIMILARITIES
        },
    )  # fmt: skip
    tried, changes = pair_trials([layer], controls=5, seed_controls=5, seed=0)
    merges = [change.interventions[0] for change in changes]
    for trial, change, merge in zip(tried, changes, merges, strict=True):
        assert isinstance(merge, Merge) and merge.experts == trial.experts
        seeds = trial.kind in ("seed", "random, as the seed")
        assert merge.aligned != seeds and (merge.frequencies is None) == seeds
        assert change.on_controls == trial.kind.startswith("random")
    by_kind = {trial.kind: trial.experts for trial in tried}
    assert by_kind["similar"] == (0, 1) and by_kind["seed"] == (5, 6)
    sums = {
        kind: [load[list(one.experts)].sum() for one in tried if one.kind == kind]
        for kind in ("random", "random, as the seed")
    }
    assert {kind: len(found) for kind, found in sums.items()} == dict.fromkeys(sums, 5)
    # Half of the pairs lie nearer to either than these bounds.
    assert min(sums["random"]) > 8 and max(sums["random, as the seed"]) < 10
    alone, _ = pair_trials([layer], controls=5, seed_controls=0, seed=0)
    assert {trial.kind for trial in alone} == {"similar", "seed", "random"}


@pytest.mark.parametrize("name", ["gpt_oss", "llama4", "deepseek_v3", "nemotron_h (latent)"])
def test_other_architectures_are_merged_and_pruned_too(name: str) -> None:
    found = subject_of(name)
    assert not isinstance(found, str)
    model = found.model
    result = run(model)
    assert not result.failures, result.failures
    front = only(result, MergeFront)
    assert {p.method for p in front.points} >= {OUTPUTS, FREQUENCY}
    assert RANDOM not in {p.method for p in front.points} and front.random[0].value is not None
    named = {measure.name for measure in result.measures}
    assert f"merging: {MERGEABLE}" in named
    assert {f"merging: {point_name(point)}" for point in front.points} <= named
    shown = text_of(sections(result), 120)
    assert "Merging against pruning" in shown and "One pair merged" in shown
    assert b"NaN" not in result_json(result)


def test_too_few_experts_for_a_size_are_told() -> None:
    found = subject_of("mixtral")
    assert not isinstance(found, str)
    result = run(found.model, removed=[0.25, 0.75])
    front = only(result, MergeFront)
    assert {p.share for p in front.points} == {0.25}
    assert "0.75 of the experts: a layer would keep 2, and a token uses 3" in front.refused


def test_a_dense_model_is_inconclusive_with_the_reason() -> None:
    result = run(moetui.load(DATA / "llama"))
    verdict = result.verdicts[0]
    assert verdict.seed.outcome == verdict.corrected.outcome == "inconclusive"
    assert "dense model" in verdict.corrected.statement
    assert not result.failures


def pair(outcome: str, *, p: float | None, low: float = 0.0) -> MergedPair:
    change = Statistic(value=low, ci_low=low, ci_high=low + 0.001)
    test = EquivalenceTest(outcome=outcome, margin=0.01, statistic=change, reason=None)  # type: ignore[arg-type]
    moved = Statistic(value=low, p=p)
    return MergedPair(
        layer=0, kind="similar", experts=(0, 1), similarity=0.5, load=Statistic(),
        change=change, equivalence=test, beside=Statistic(), moved=moved,
    )  # fmt: skip


def test_the_rules_follow_their_words() -> None:
    good, same = pair("equivalent", p=0.04), pair("equivalent", p=0.3)
    bad, open_ = pair("different", p=0.3, low=0.02), pair("undecided", p=0.04)
    better = pair("different", p=0.04, low=-0.02)
    unknown = pair("inconclusive", p=None)
    assert corrected_outcome([good, good, bad]) == "mergeable"
    assert corrected_outcome([good, same, same]) == "no better than random pairs"
    assert corrected_outcome([bad, bad, good]) == "not mergeable"
    assert corrected_outcome([bad, good, open_]) == "unclear"
    assert corrected_outcome([better]) == "unclear"
    assert corrected_outcome([unknown]) == "inconclusive"
    assert [seed_outcome(x) for x in (0.0, 0.3, 0.5)] == ["native", "partly", "mergeable"]
