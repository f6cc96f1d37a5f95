"""The study on tiny random checkpoints: what each architecture allows, what is said where not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moetui.analyses.expert_ablation import ExpertAblations
from moetui.analyses.expert_scores import ExpertScores
from moetui.analyses.pruning_plan import PruningPlans
from moetui.analyses.waking_tokens import WakingTokens
from moetui.suites import SuiteResult, run_suite
from moetui.suites.results import results_of
from tests.model import tiny
from tests.reference.values import DATA

SMALL = {
    "documents": 22, "calibration_documents": 22, "tokens": 10, "layers": "mid", "coldest": 1,
    "controls": 1, "kl_documents": 2, "scan_tokens": 6, "scan_contexts": 1, "check_contexts": 3,
    "scan_context_tokens": 4, "prune_shares": [0.25], "prompts": ["127 + 45 =", "def f(n):"],
    "ablated_layers": 1, "ablated_experts": 1,
}  # fmt: skip


def run(folder: Path, **parameters: Any) -> SuiteResult:
    return run_suite("cold_experts", models=[str(folder)], parameters=SMALL | parameters)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3", "gpt_oss", "llama4"])
def test_every_analysis_has_a_result(family: str, tmp_path: Path) -> None:
    folder = DATA / family
    if family == "llama4":
        folder = tiny.save(*tiny.network(family), tmp_path)
    result = run(folder)
    own = [cell for cell in result.cells if cell.analysis not in ("cold_load", "trigger_tokens")]
    assert {(cell.analysis, cell.status, cell.reason) for cell in own} == {
        (cell.analysis, "done", None) for cell in own
    }
    (scores,), (plans,), (woken,) = (
        results_of(result, str(folder), kind) for kind in (ExpertScores, PruningPlans, WakingTokens)
    )
    assert scores.caveat is None and all(one.reap is not None for one in scores.experts)
    info = result.models[0].info
    assert info is not None
    for plan in plans.plans:
        sizes = dict(zip(info.moe_layers, info.expert_bytes, strict=True))
        assert plan.bytes_saved == sum(sizes[one.layer] * len(one.drop) for one in plan.layers)
        assert plan.bytes_saved and plan.delta_nll.ci_low is not None
    assert woken.experts and woken.tried == 6


@pytest.mark.slow
def test_where_another_expert_cannot_be_chosen_the_other_modes_can() -> None:
    folder = DATA / "phimoe"
    result = run(folder, prune_mode="deselect")
    reasons = {cell.analysis: cell.reason for cell in result.cells if cell.status == "inconclusive"}
    assert "`modes`" in str(reasons["expert_ablations"])
    assert "`prune_mode`" in str(reasons["pruning_plans"])
    result = run(folder, modes=["drop", "renormalise"], prune_mode="drop")
    (found,) = results_of(result, str(folder), ExpertAblations)
    assert {one.mode for one in found.ablations} == {"drop", "renormalise"}
    assert results_of(result, str(folder), PruningPlans)
    # Without its row of the router no expert has to be put in its place.
    (plans,) = results_of(run(folder), str(folder), PruningPlans)
    assert plans.plans and {plan.mode for plan in plans.plans} == {"remove"}


def test_a_dense_checkpoint_is_inconclusive() -> None:
    (found,) = run(DATA / "llama").verdicts
    assert found.corrected.outcome == "inconclusive"
