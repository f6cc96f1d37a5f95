"""The study of cold experts from end to end, on a model whose routing is known by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from moetui.analyses.cold_load import ColdLoad
from moetui.analyses.expert_ablation import ExpertAblations
from moetui.analyses.pruning_plan import PruningPlans
from moetui.analyses.waking_tokens import WakingTokens
from moetui.cli import run as command
from moetui.suites import SuiteResult, result_json, run_suite
from moetui.suites.report import report
from moetui.suites.results import results_of
from moetui.suites.sections import sections
from tests.suites.moe_dynamics.worded import Only, WordedForward, corpus

E, K = 12, 2
# Words 0 … 6 use the experts 0 … 7 of layer 0; word 9, which is rare, the experts 9 and 10; and
# nothing uses 8 and 11.
SHARES = {**dict.fromkeys(range(7), 1.0), 9: 0.06}
SMALL = {
    "documents": 40, "calibration_documents": 40, "tokens": 16, "layers": "first",
    "controls": 1, "coldest": 2, "scan_tokens": 12, "kl_documents": 20, "prune_shares": [0.25],
    "prompts": ["w1 w2 w3", "w4 w5 w6 w0"], "trigger_occurrences": 5, "cold_at": "0.25×",
}  # fmt: skip


def model(rare: float, **changes: Any) -> WordedForward:
    """What the rare experts do to the logit of token 0; the frequent ones move it little."""
    push = np.random.default_rng(1).normal(size=(2, E)) * 0.02
    push[0, 9:11] = rare
    return WordedForward(
        layers=2, experts=E, k=K, vocabulary=12, push=push, expert_bytes=(1000, 2000), **changes
    )


def run(tmp_path: Path, forward: Any, **parameters: Any) -> SuiteResult:
    return run_suite(
        "cold_experts",
        parameters=SMALL | parameters,
        corpus=corpus(tmp_path / "words.jsonl", SHARES),
        source=Only(forward),
    )


def one(result: SuiteResult, kind: type[Any]) -> Any:
    (found,) = results_of(result, "demo", kind)
    return found


@pytest.fixture(scope="module")
def cheap(tmp_path_factory: pytest.TempPathFactory) -> SuiteResult:
    """Rare experts that hardly matter."""
    return run(tmp_path_factory.mktemp("cheap"), model(1e-3))


def test_rare_experts_that_cost_nothing_are_dead_weight(cheap: SuiteResult) -> None:
    load = one(cheap, ColdLoad)
    cold = {(e.layer, e.expert) for e in load.called("cold", 1)}
    assert {(0, 8), (0, 11), (0, 9), (0, 10)} <= cold
    assert {(e.layer, e.expert) for e in load.dead} == {(0, 8), (0, 11), (1, 9), (1, 0)}
    (found,) = cheap.verdicts
    assert found.topic == "cold_experts" and found.corrected.outcome == "dead weight"
    assert "smaller than the margin of 0.01" in found.corrected.statement
    plan = next(p for p in one(cheap, PruningPlans).plans if "cold at 0.25×" in p.rules)
    layers = {layer.layer: layer.drop for layer in plan.layers}
    assert layers[0] == (8, 9, 10, 11)
    assert plan.safe and plan.bytes_saved == 1000 * len(layers[0]) + 2000 * len(layers[1])


def test_rare_experts_that_matter_are_needed(tmp_path: Path) -> None:
    # Attention makes token 0 too likely, and the rare experts take that back.
    result = run(tmp_path, model(-2.0, attention=(4.0, 0.0)))
    (found,) = result.verdicts
    assert found.corrected.outcome == "rare but needed"
    assert "a loss beyond the margin of 0.01" in found.corrected.statement
    assert not any(plan.safe for plan in one(result, PruningPlans).plans if plan.kind == "cold")


def test_rare_experts_that_only_harm_are_not_called_needed(tmp_path: Path) -> None:
    (found,) = run(tmp_path, model(60.0)).verdicts
    assert found.corrected.outcome == "better without them"
    assert "a gain beyond the margin of 0.01" in found.corrected.statement


def test_the_seed_counts_its_prompts_and_is_labelled(cheap: SuiteResult) -> None:
    (found,) = cheap.verdicts
    assert found.seed.label == "seed rule" and found.seed.outcome == "pruning opportunity"
    # Seven words use nine of twelve experts of each layer at most; the rest is called prunable.
    by_name = {m.name: m.statistic for m in cheap.measures if m.label == "seed"}
    assert by_name["cold_experts: experts that no token used"].value == 2 * (E - 8)
    assert "8 of them used by no token" in found.seed.statement


def test_each_number_has_its_own_cells_and_the_same_name_in_every_run(cheap: SuiteResult) -> None:
    assert [cell.status for cell in cheap.cells] == ["done"] * len(cheap.cells)
    names = [measure.name for measure in cheap.measures]
    assert len(names) == len(set(names))
    for name in ("share of experts with f_e under 1%", "ΔNLL without the coldest expert of a layer",
                 "ΔNLL of the plan cold at 0.25×"):  # fmt: skip
        assert f"cold_experts: {name}" in names


def test_experts_that_no_document_uses_are_searched_for_and_dead_only_if_nothing_wakes_them(
    cheap: SuiteResult,
) -> None:
    found = {(w.layer, w.expert): w for w in one(cheap, WakingTokens).experts}
    # Word 8 goes to 8 and 9, word 11 to 11 and 0: they are in the vocabulary, not in the texts.
    assert found[0, 8].woken_by == 2 and found[0, 8].success.value == 1.0
    assert not any(one.dead for one in found.values())


def test_what_is_drawn_are_the_numbers_of_the_result(cheap: SuiteResult) -> None:
    headings = [section.heading for section in sections(cheap)]
    for heading in ("Cold experts by interval", "Pruning plans", "Inputs that wake cold experts"):
        assert heading in headings
    text = " ".join(report([cheap], {}).split())
    plan = next(p for p in one(cheap, PruningPlans).plans if p.recommended)
    assert f"largest that is safe: {plan.name}" in text
    assert "othing is claimed safe without the equivalence test" in text


def test_a_model_that_refuses_a_way_of_removing_says_so(tmp_path: Path) -> None:
    from moetui.errors import UsageError

    class Refusing(WordedForward):
        def nll(self, text_or_ids: Any, interventions: Any = ()) -> Any:
            if interventions:
                raise UsageError("no other expert can be chosen here", "drop it")
            return super().nll(text_or_ids)

    forward = Refusing(layers=2, experts=E, k=K, vocabulary=12)
    result = run(tmp_path, forward, ablated_layers=0)
    status = {cell.analysis: (cell.status, cell.reason) for cell in result.cells}
    for name in ("expert_ablations", "pruning_plans"):
        assert status[name][0] == "inconclusive" and "try" in str(status[name][1])
    assert status["cold_load"][0] == "done"
    (found,) = result.verdicts
    assert found.corrected.outcome == "inconclusive"


def test_a_dense_model_is_inconclusive_with_the_reason(tmp_path: Path) -> None:
    result = run(tmp_path, WordedForward(layers=2, moe_layers=(), vocabulary=12))
    (found,) = result.verdicts
    assert found.seed.outcome == found.corrected.outcome == "inconclusive"
    own = [cell for cell in result.cells if cell.analysis != "sanity"]
    assert {cell.status for cell in own} == {"inconclusive"} and "rout" in str(own[0].reason)


def test_below_twenty_documents_nothing_is_concluded(tmp_path: Path) -> None:
    result = run(tmp_path, model(1e-3), documents=12, calibration_documents=12)
    (found,) = result.verdicts
    assert found.corrected.outcome == "inconclusive" and "12 documents" in found.corrected.statement
    ablations = one(result, ExpertAblations)
    assert all(a.delta_nll.ci_low is None for a in ablations.ablations)


@pytest.fixture
def batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any) -> Any:
    corpus(tmp_path / "words.jsonl", SHARES)
    monkeypatch.chdir(tmp_path)

    def call(forward: Any, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("moetui.suites.models.Loaded", lambda: Only(forward))
        given = [f"--parameter={name}={json.dumps(value)}" for name, value in SMALL.items()]
        code = command([
            "batch", "cold_experts", *given, "--corpus", "words.jsonl", "--progress", "off",
            "--export-plan", "plan.json", *arguments,
        ])  # fmt: skip
        out, err = capfd.readouterr()
        return code, out, err

    return call


def test_plans_are_exported_as_one_document(batch: Any, tmp_path: Path, cheap: SuiteResult) -> None:
    from jsonschema import Draft202012Validator

    from moetui.cli.schema_documents import schema

    code, out, _ = batch(model(1e-3))
    assert code == 0 and out.splitlines()[-1] == "plan.json"
    document = json.loads((tmp_path / "plan.json").read_text())
    Draft202012Validator(schema("plans")).validate(document)
    (found,) = document["models"]
    assert (found["model"], found["suite"]) == ("demo", "cold_experts")
    told = json.loads(result_json(cheap))
    (cell,) = [c for c in told["cells"] if c["analysis"] == "pruning_plans"]
    assert found["plans"] == cell["result"]["plans"]
    assert {plan["type"] for plan in found["plans"]} == {"pruning"}
    read = {c["analysis"]: c["result"] for c in told["cells"]}
    assert found["chosen_on"] == read["calibration_routing"]
    assert found["judged_on"] == read["routing"]
    digests = [found[on]["corpus"]["digest"] for on in ("chosen_on", "judged_on")]
    assert len(set(digests)) == 2, "judged on other texts than those it was chosen on"
    assert document["terms"].keys() == {"safe", "recommended"}


def test_every_plan_has_random_plans_of_its_size_beside_it_and_all_its_rules_in_words(
    cheap: SuiteResult,
) -> None:
    for plan in one(cheap, PruningPlans).plans:
        assert plan.controls == 4 and plan.delta_nll.null_mean is not None
        assert len(plan.by) == len(plan.rules)


def test_without_a_plan_there_is_one_clear_line_and_the_results_stay(
    batch: Any, tmp_path: Path
) -> None:
    code, out, err = batch(WordedForward(layers=2, moe_layers=(), vocabulary=12))
    assert code == 1 and "no plan to export" in err and "hint: the results were written" in err
    assert not (tmp_path / "plan.json").exists()
    (written,) = out.split()
    assert msgspec.json.decode((tmp_path / written).read_bytes())["suite"] == "cold_experts"


def test_a_suite_that_makes_no_plans_is_refused_before_it_runs(tmp_path: Path, capfd: Any) -> None:
    code = command(["batch", "attention_router", "--export-plan", str(tmp_path / "plan.json")])
    out, err = capfd.readouterr()
    assert (code, out) == (2, "") and "attention_router makes no plans" in err
