"""The study `context_attention_routing` on the demo model and on tiny ones."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scipy import stats

import moetui
from moetui.analyses.context_attention_routing import (
    ContextAttentionRouting,
    SeedContexts,
)
from moetui.analyses.context_relations import Relation
from moetui.stats import Statistic
from moetui.suites.moe_dynamics import study_suite
from moetui.suites.moe_dynamics.context_attention_routing import CONTEXTS
from moetui.suites.moe_dynamics.context_attention_routing_verdict import conclude
from moetui.suites.results import AnalysisResult, CellResult
from tests.model.intervened import tiny
from tests.suites.moe_dynamics.driven import driven, result

SMALL = {
    "documents": 40, "tokens": 24, "layers": ["mid"], "mined_tokens": 2, "mined_contexts": 8,
    "permutations": 999,
}  # fmt: skip
NAME = "context_attention_routing"


@pytest.fixture(scope="module")
def demo():
    model = moetui.load("demo")
    return model, *driven(NAME, model, **SMALL)


@pytest.mark.parametrize(
    ("beyond", "said"),
    [
        ((0.02, 0.05), "shared causes"),  # surely above 0, and no more than ranks may leave
        ((0.05, 0.15), "unclear"),
        ((0.12, 0.30), "attention matters"),
        ((-0.05, 0.05), "shared causes"),
    ],
)
def test_attention_matters_only_beyond_what_ranks_may_leave_of_common_causes(
    beyond: tuple[float, float], said: str
) -> None:
    raw = Statistic(value=0.4, ci_low=0.3, ci_high=0.5, p=0.0001)
    rest = Statistic(value=sum(beyond) / 2, ci_low=beyond[0], ci_high=beyond[1], p=0.0001)
    relation = Relation(layer=None, raw=raw, partial=rest, hidden=raw)
    found = ContextAttentionRouting(
        definition="", seed_definition="", targets=(), layers=(), mean=relation, mean_layers=(4,),
        without_attention=(), fewest=30, permutations=9999, reason=None,
        seed=SeedContexts(
            word="127", token_text="127", kept=(), dropped=(), layers=(), corrected=(), reason="few"
        ),
    )  # fmt: skip
    cell = CellResult(
        model="demo", analysis=NAME, status="done", reason=None, seconds=0.0, result=found
    )
    assert conclude([cell]).corrected.outcome == said


def test_every_context_of_the_seed_is_kept_or_dropped_with_a_reason(demo):
    _, _, cells = demo
    seed = result(cells, NAME).seed
    assert sorted([*seed.kept, *(one.context for one in seed.dropped)]) == sorted(CONTEXTS)
    assert all(one.reason for one in seed.dropped) and len(seed.kept) >= 4


def test_a_targets_number_follows_from_traces(demo):
    model, suite, cells = demo
    found = result(cells, NAME)
    analysis = next(a for a in suite.analyses if a.name == NAME)
    assert len(found.targets) == 2 and found.fewest == 8
    documents = {}
    for part in next(a for a in suite.analyses if a.name == "routing").parts(seed=0):
        for one in part.inputs.documents:
            documents[one.id] = model.tokenize(one.text)[:24]
    needs = {"routing": driven_needs(suite, model)}
    target = found.targets[0]
    part = analysis.parts(seed=0)[1]
    (read,) = analysis.read(model, part, needs, seed=0, step=lambda *_: None).targets
    assert read.token_id == target.token_id
    looks, goes = [], []
    for context in read.contexts:
        ids = documents[context.use.document]
        place = int(np.flatnonzero(ids[8:] == target.token_id)[0]) + 8
        trace = model.trace(ids[: place + 1], lens=0, attention=True)
        row = trace.attention[4, :, -1].astype(float)
        near = [row[:, place - d] if place > d else 0 * row[:, 0] for d in range(1, 9)]
        rest = row[:, 1 : max(1, place - 8)].sum(-1)
        looks.append(np.stack([row[:, 0], *near, rest, row[:, place]], axis=-1))
        dense = np.zeros(16)
        weights = trace.expert_weights[-1, 4]
        dense[trace.expert_ids[-1, 4]] = weights / weights.sum()
        goes.append(dense)
    pairs = [(a, b) for a in range(8) for b in range(a)]
    attention = [np.abs(looks[a] - looks[b]).sum(-1).mean() / 2 for a, b in pairs]
    routing = [np.abs(goes[a] - goes[b]).sum() / 2 for a, b in pairs]
    expected = stats.spearmanr(np.round(attention, 6), np.round(routing, 6)).statistic
    assert target.layers[0].raw.value == pytest.approx(expected, abs=5e-3)  # ties by rounding


def driven_needs(suite, model):
    routing = next(a for a in suite.analyses if a.name == "routing")
    return [
        routing.read(model, part, {}, seed=0, step=lambda *_: None)
        for part in routing.parts(seed=0)
    ]


def test_few_targets_have_no_interval_and_no_verdict(demo):
    _, suite, cells = demo
    (verdicts,) = suite.conclude(cells)
    assert verdicts.corrected.outcome == "inconclusive"
    assert "2 targets" in verdicts.corrected.statement
    assert verdicts.seed.outcome in {"strong", "context-dependent", "weak"}
    mean = result(cells, NAME).seed.layers[0].correlation.value
    assert f"{mean:.2f} (demo)" in verdicts.seed.statement


def test_fewer_permutations_than_by_default_are_told(demo):
    _, suite, cells = demo
    told = "999 permutations in each of Mantel's tests, where 9,999 are the default"
    assert any(told in caveat for caveat in suite.caveats(cells))
    whole = study_suite(NAME, {**SMALL, "permutations": 9999})
    assert not any("permutations" in caveat for caveat in whole.caveats(cells))


def test_the_result_survives_json(demo):
    found = result(demo[2], NAME)
    again = msgspec.json.decode(msgspec.json.encode(found), type=AnalysisResult)
    assert msgspec.json.encode(again) == msgspec.json.encode(found)


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "gpt_oss", "llama4"])
def test_other_architectures_are_read(name):
    small = {**SMALL, "documents": 30, "tokens": 16, "mined_contexts": 5, "layers": ["first"]}
    _, cells = driven(NAME, tiny(name), **small)
    found = result(cells, NAME)
    assert found.without_attention == () and len(found.targets) == 2
    assert all(one.layers[0].raw.value is not None for one in found.targets)


def test_a_layer_without_attention_is_named():
    model = tiny("qwen3_next")
    trace = model.trace(list(range(1, 9)), lens=0, attention=True)
    lacking = [n for n in model.info.moe_layers if np.isnan(trace.attention[n]).all()]
    assert lacking
    small = {**SMALL, "documents": 30, "tokens": 16, "mined_contexts": 5, "layers": "all"}
    _, cells = driven(NAME, model, **small)
    assert result(cells, NAME).without_attention == tuple(lacking)


def test_a_dense_model_is_inconclusive_with_the_reason():
    suite, cells = driven(NAME, moetui.load("demo-dense"), **SMALL)
    (verdicts,) = suite.conclude(cells)
    assert verdicts.corrected.outcome == verdicts.seed.outcome == "inconclusive"
    assert "dense model" in verdicts.corrected.statement
