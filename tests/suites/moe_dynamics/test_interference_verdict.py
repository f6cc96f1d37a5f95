"""The rules of `interference` on made-up numbers."""

from __future__ import annotations

import pytest

from moetui.analyses.better_with_fewer import BetterWithFewer, FewerExperts
from moetui.analyses.expert_interference import ExpertInterference, LayerInterference
from moetui.analyses.fewer_experts import CurvePoint
from moetui.analyses.seed_interference import SeedInterference
from moetui.stats import Statistic
from moetui.suites.moe_dynamics.interference_verdict import answer, conclude
from moetui.suites.results import CellResult


def cell(result, model="m", reason=None):
    return CellResult(
        model=model, analysis="x", status="done" if reason is None else "inconclusive",
        reason=reason, seconds=0.0, result=result,
    )  # fmt: skip


def numbers(*losses, unchanged=8):
    points = tuple(
        CurvePoint(
            experts=1, match=match, own=False, kl=None,
            nll=Statistic(value=loss, ci_low=loss - 0.004, ci_high=loss + 0.004),
        )
        for match, loss in zip(("each", "sum", "norm"), losses, strict=True)
    )  # fmt: skip
    better = BetterWithFewer(
        definition="", candidates=0, picked=(), picked_by=None, change=None,
        documents_better=None, documents=200,
    )  # fmt: skip
    return FewerExperts(
        native=4, checked=8, unchanged=unchanged, points=points, incomplete=None, better=better
    )


def geometry(index, *, share=None, null=1.0, p=0.01, share_p=0.01, documents=200):
    def statistic(value, around, p):
        return Statistic(
            value=value, ci_low=value - 0.01, ci_high=value + 0.01, null_mean=around,
            null_low=around - 0.02, null_high=around + 0.02, p=p,
        )  # fmt: skip

    plain = Statistic(value=2.0, ci_low=1.9, ci_high=2.1)
    share = index - 1 if share is None else share
    mean = LayerInterference(
        layer=None, index=statistic(index, null, p), greatest=plain,
        share=statistic(share, null - 1, share_p), excess=statistic(index - null, 0, None),
        top_cosine=plain, top_cosine_at_right_angles=plain,
    )  # fmt: skip
    return ExpertInterference(
        definition="", documents=documents, tokens=1, layers=(mean,), mean=mean,
        substituted_layers=(0,), substitutions=199, not_substituted=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "losses", "angles"),
    [
        ("cooperate", (0.5, 0.4, 0.3), geometry(1.3)),
        ("needed", (0.5, 0.4, 0.3), geometry(1.0, p=0.8, share_p=0.8)),
        ("needed", (0.5, 0.4, 0.3), geometry(1.3, share=0.0, share_p=0.7)),  # lengths alone
        ("interfere", (0.5, 0.4, 0.3), geometry(0.8)),
        ("needed", (0.5, 0.4, 0.3), geometry(1.1, null=1.3)),  # less alike, but none cancel
        ("not needed", (0.5, 0.4, 0.003), geometry(1.3)),
        ("unclear", (0.5, 0.4, 0.012), geometry(1.3)),
    ],
)
def test_the_rule_needs_loss_and_angles(outcome, losses, angles):
    found = answer([cell(numbers(*losses)), cell(angles)])
    assert found.outcome == outcome
    assert f"{min(losses):.3f} to {max(losses):.3f} nats" in found.statement


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ([cell(numbers(0.5, 0.4, 0.3, unchanged=7)), cell(geometry(1.3))], "changed 1 of 8"),
        ([cell(numbers(0.5, 0.4, 0.3)), cell(geometry(1.3, documents=19))], "below a tenth"),
        ([cell(None, reason="no router"), cell(geometry(1.3))], "no router"),
        ([], "not measured"),
    ],
)
def test_missing_data_and_a_native_number_that_is_no_no_op_are_inconclusive(cells, why):
    found = answer(cells)
    assert found.outcome == "inconclusive" and why in found.statement


def test_models_that_differ_are_told_one_by_one():
    cells = [
        cell(one, model)
        for model, index in (("a", 1.3), ("b", 0.8))
        for one in (numbers(0.5, 0.4, 0.3), geometry(index))
    ]
    corrected = conclude(cells).corrected
    assert corrected.outcome == "models differ"
    assert "a: cooperate" in corrected.statement and "b: interfere" in corrected.statement


@pytest.mark.parametrize(
    ("share", "outcome"), [(0.6, "cooperation confirmed"), (0.5, "independent")]
)
def test_the_seed_asks_for_more_than_half_of_the_prompts(share, outcome):
    none = Statistic(caveat="cannot be read")
    seed = SeedInterference(
        definition="", prompts=(), written=8, changed=Statistic(value=share), no_op=0,
        linearity=none, compatible=none,
    )  # fmt: skip
    verdict = conclude([cell(seed)]).seed
    assert verdict.outcome == outcome and f"{share:.0%}" in verdict.statement
