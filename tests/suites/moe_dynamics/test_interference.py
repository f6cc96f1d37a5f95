"""The study `interference` on the demo model and on tiny ones of other architectures."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

import moetui
from moetui.suites.results import AnalysisResult
from moetui.trace import TopK
from tests.model.intervened import tiny
from tests.suites.moe_dynamics.driven import driven, result

SMALL = {
    "documents": 20, "calibration_documents": 12, "tokens": 12, "layers": ["mid"], "written": 2,
    "prompts": ["Once upon a time", "def f(n):"], "kl_documents": 4, "substitutions": 19,
    "pairs": 1, "random_pairs": 2, "pair_documents": 20,
}  # fmt: skip


@pytest.fixture(scope="module")
def demo():
    model = moetui.load("demo")
    return model, *driven("interference", model, **SMALL)


def test_every_analysis_answers_and_the_results_survive_json(demo):
    _, _, cells = demo
    assert [cell.reason for cell in cells] == [None] * len(cells)
    for cell in cells:
        again = msgspec.json.decode(msgspec.json.encode(cell.result), type=AnalysisResult)
        assert msgspec.json.encode(again) == msgspec.json.encode(cell.result)


def test_the_index_is_that_of_the_models_own_outputs(demo):
    model, suite, cells = demo
    found = result(cells, "expert_interference")
    documents = next(a for a in suite.analyses if a.name == "routing").parts(seed=0)
    values = {layer: [] for layer in model.info.moe_layers}
    for part in documents:
        for one in part.inputs.documents:
            ids = model.tokenize(one.text)[:12]
            trace = model.trace(ids, lens=0, expert_outputs=True)
            parts = trace.expert_weights[..., None].astype(float) * trace.expert_outputs
            index = (parts.sum(2) ** 2).sum(-1) / (parts**2).sum((2, 3))
            for place, layer in enumerate(model.info.moe_layers):
                values[layer] += index[:, place].tolist()
    for layer in found.layers:
        assert layer.index.value == pytest.approx(np.mean(values[layer.layer]), rel=1e-4)
        assert layer.index.value <= layer.greatest.value
    assert found.substituted_layers == (4,) and found.not_substituted is None
    assert found.mean.index.value == pytest.approx(found.layers[4].index.value)


def test_the_native_number_is_no_change_and_one_expert_is_topk(demo):
    model, suite, cells = demo
    numbers, seed = result(cells, "fewer_experts"), result(cells, "seed_interference")
    assert numbers.unchanged == numbers.checked == 1
    assert seed.no_op == len(seed.prompts) == 2
    assert seed.linearity.value < 1e-5
    own = next(p for p in numbers.points if p.experts == 1 and p.own)
    change, tokens = 0.0, 0
    for part in next(a for a in suite.analyses if a.name == "routing").parts(seed=0):
        for one in part.inputs.documents:
            ids = model.tokenize(one.text)[:12]
            change += (model.nll(ids, (TopK(k=1),)) - model.nll(ids)).sum(dtype=float)
            tokens += len(ids) - 1
    assert own.nll.value == pytest.approx(change / tokens, abs=1e-6)
    assert {p.experts for p in numbers.points} == {1, 2, 6, 8} and len(numbers.points) == 12


def test_verdicts_quote_what_was_measured(demo):
    _, suite, cells = demo
    (verdicts,) = suite.conclude(cells)
    assert verdicts.topic == "interference"
    assert verdicts.seed.label == "seed rule"
    changed = result(cells, "seed_interference").changed.value
    assert f"{changed:.0%} of the prompts (demo)" in verdicts.seed.statement
    mean = result(cells, "expert_interference").mean
    assert f"I is {mean.index.value:.2f}" in verdicts.corrected.statement
    names = [one.name for one in suite.measures("demo", cells)]
    assert "interference: interference index I, mean of the layers asked for" in names
    assert len(names) == len(set(names))
    changed = next(one for one in suite.measures("demo", cells) if "continuation" in one.name)
    assert np.mean(changed.units) == changed.statistic.value and len(changed.units) == 2


TINY = {**SMALL, "tokens": 8, "calibration_documents": 3, "pairs": 0, "random_pairs": 1,
        "numbers": [1], "pair_documents": 2, "kl_documents": 0}  # fmt: skip


def test_few_documents_are_inconclusive():
    suite, cells = driven("interference", tiny("mixtral"), **{**TINY, "documents": 19})
    (verdicts,) = suite.conclude(cells)
    assert verdicts.corrected.outcome == "inconclusive"
    assert "below a tenth" in verdicts.corrected.statement
    assert verdicts.seed.outcome != "inconclusive"


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "gpt_oss", "bailing_moe"])
def test_other_architectures_are_measured_as_far_as_they_allow(name):
    suite, cells = driven("interference", tiny(name), **TINY)
    assert [cell.reason for cell in cells] == [None] * len(cells)
    numbers = result(cells, "fewer_experts")
    assert numbers.unchanged == numbers.checked
    assert (numbers.incomplete is None) == (name != "bailing_moe")
    assert len(numbers.points) == (3 if name != "bailing_moe" else 1)
    assert suite.conclude(cells)[0].corrected.outcome in {
        "needed", "not needed", "cooperate", "interfere", "unclear",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "reason"), [("llama4", "one expert a token"), ("demo-dense", "dense model")]
)
def test_where_nothing_can_interfere_it_says_so(name, reason):
    model = moetui.load(name) if name == "demo-dense" else tiny(name)
    suite, cells = driven("interference", model, **TINY)
    (verdicts,) = suite.conclude(cells)
    for verdict in (verdicts.seed, verdicts.corrected):
        assert verdict.outcome == "inconclusive" and reason in verdict.statement
