"""What `cold_experts` comes to: headline numbers, the seed's rule, and the corrected one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from moetui.analyses.cold_load import ColdLoad
from moetui.analyses.cold_prompts import ColdPrompts
from moetui.analyses.expert_ablation import ExpertAblations
from moetui.analyses.pruning_plan import PruningPlan, PruningPlans
from moetui.analyses.trigger_tokens import TriggerTokens
from moetui.stats import EquivalenceTest, Statistic
from moetui.stats.minimum import LOAD
from moetui.suites.moe_dynamics.cold_experts_analyses import cold_plan
from moetui.suites.results import CellResult, Measure, Verdict, Verdicts
from moetui.suites.wording import claim

SEED_COLD = "share of experts cold (f < 1 %)"
SEED_UNUSED = "experts that no token used"
SHARE_UNDER = "share of experts with f_e under {}"
INCONCLUSIVE = "inconclusive"
BETTER_WITHOUT = "better without them"
R = TypeVar("R")

SEED_RULE = (
    "an expert is cold where under 1 % of the prompts' tokens use it, and safe to prune where none "
    "does: pruning opportunity if any is, else nothing to prune; over all models"
)
CORRECTED_RULE = (
    "at the threshold {}, by 95 % intervals over evaluation documents: no cold experts where no "
    "expert's interval reaches under it in any layer; undecided where some do, and lie under it "
    "with hits enough to tell in none; conditional where those under it are all used at the "
    "uniform share in some domain; else all experts that are cold on calibration documents (super "
    "experts spared) are removed at once: dead weight if ΔNLL on evaluation documents is "
    "equivalent to none within {:g} nats a token, rare but needed if its interval lies above "
    "that, better without them if it lies below minus that, else undecided. Every model must say "
    "so, else the models differ. Inconclusive where "
    "every layer is below a tenth of " + str(LOAD) + ", below 20 documents, or with data missing"
)


def measures(model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
    """The headline numbers of one model."""
    return tuple(_measures(model, cells))


def conclude(cells: Sequence[CellResult], cold_at: str) -> Verdicts:
    """Both verdicts over all models of the run."""
    models = tuple(dict.fromkeys(cell.model for cell in cells))
    seed = [_seed_of(model, _one(model, cells, ColdPrompts)) for model in models]
    corrected = [_corrected_of(model, cells, cold_at) for model in models]
    margin = next((c.result.margin for c in cells if isinstance(c.result, PruningPlans)), 0.01)
    return Verdicts(
        seed=_joint("seed rule", SEED_RULE, seed, _evidence(cells, "seed")),
        corrected=_joint(
            "corrected",
            CORRECTED_RULE.format(cold_at, margin),
            corrected,
            _evidence(cells, "corrected"),
        ),
        why_they_differ=_why(models, cells),
    )


def _one(model: str, cells: Sequence[CellResult], kind: type[R]) -> R | None:
    found = (cell.result for cell in cells if cell.model == model)
    return next((one for one in found if isinstance(one, kind)), None)


def _measures(model: str, cells: Sequence[CellResult]) -> Iterator[Measure]:
    seed, load = _one(model, cells, ColdPrompts), _one(model, cells, ColdLoad)
    if seed is not None:
        for name, statistic in ((SEED_COLD, seed.cold), (SEED_UNUSED, seed.unused)):
            yield Measure(model=model, label="seed", name=name, statistic=statistic)
    found: list[tuple[str, Statistic]] = []
    if load is not None:
        found += [
            (SHARE_UNDER.format(threshold.name), under)
            for threshold, under in zip(load.thresholds, load.under, strict=True)
        ]
        found.append(("entropy of the load over ln E, mean over layers", load.entropy))
    if (triggers := _one(model, cells, TriggerTokens)) is not None and triggers.tested:
        share = Statistic(
            value=triggers.discovered / triggers.tested,
            n_documents=triggers.found_on,
            caveat=f"of {triggers.tested:,} cells tested at a false discovery rate of "
            f"{triggers.level:g}; no interval",
        )
        found.append(("share of token × expert cells that are triggers", share))
    if (ablations := _one(model, cells, ExpertAblations)) is not None:
        found += [
            ("ΔNLL without the coldest expert of a layer", ablations.coldest),
            ("ΔNLL without a random expert of a layer", ablations.random),
            ("ΔNLL without the hottest expert of a layer", ablations.hottest),
        ]
    if (plans := _one(model, cells, PruningPlans)) is not None:
        found += [
            (f"ΔNLL of the plan {name}", plan.delta_nll)
            for plan in plans.plans
            for name in plan.rules
        ]
    for name, statistic in found:
        yield Measure(model=model, label="corrected", name=name, statistic=statistic)


def _seed_of(model: str, found: ColdPrompts | None) -> tuple[str, str]:
    """Outcome and statement for one model."""
    if found is None:
        return INCONCLUSIVE, f"{model}: the prompts were not read"
    unused, cold = int(found.unused.value or 0), len(found.experts)
    told = (
        f"{model}: {cold} of {found.of_experts} experts ({cold / found.of_experts:.1%}) are cold "
        f"on {found.prompts} prompts of {found.tokens} tokens, {unused} of them used by no token "
        "and so called safe to prune"
    )
    return "pruning opportunity" if unused else "nothing to prune", told


def _corrected_of(model: str, cells: Sequence[CellResult], cold_at: str) -> tuple[str, str]:
    load, plans = _one(model, cells, ColdLoad), _one(model, cells, PruningPlans)
    missing = [cell.reason for cell in cells if cell.model == model and cell.reason is not None]
    if load is None:
        return INCONCLUSIVE, f"{model}: {'; '.join(dict.fromkeys(missing)) or 'no load was read'}"
    reasons = [layer.reason for layer in load.layers if layer.reason]
    if len(reasons) == len(load.layers):
        return INCONCLUSIVE, f"{model}: {reasons[0]}"
    at = [threshold.name for threshold in load.thresholds].index(cold_at)
    cold, conditional = load.called("cold", at), load.called("conditional", at)
    undecided = load.called("undecided", at)
    told = (
        f"{model}: {len(cold)} of {len(load.experts)} experts cold at {cold_at} "
        f"({len(load.dead)} dead), {len(conditional)} conditional, {len(undecided)} undecided, on "
        f"{load.n_documents} documents"
    )
    if reasons:
        told += f"; {len(reasons)} of {len(load.layers)} layers cannot be judged: {reasons[0]}"
    if small := [layer.caveat for layer in load.layers if layer.caveat and not layer.reason]:
        told += f"; {len(small)} of {len(load.layers)} layers with few data ({small[0]})"
    if not cold:
        open_ = bool(undecided or reasons)
        outcome = "conditional" if conditional else "undecided" if open_ else "no cold experts"
        return outcome, f"{told}{_best(plans)}"
    plan = plan_at(plans, cold_at)
    if plan is None:
        why = "no plan was measured" if plans is None else "none is cold on calibration documents"
        outcome = INCONCLUSIVE if plans is None else "undecided"
        return outcome, f"{told}; {why}{_best(plans)}"
    outcome = {
        "equivalent": "dead weight",
        "different": BETTER_WITHOUT if (plan.delta_nll.value or 0.0) < 0 else "rare but needed",
        "undecided": "undecided",
        "inconclusive": INCONCLUSIVE,
    }[plan.equivalence.outcome]
    return outcome, f"{told}; {_cost(plan)}{_best(plans)}"


def plan_at(plans: PruningPlans | None, cold_at: str) -> PruningPlan | None:
    """The plan that drops what is cold at a threshold, None where that is nobody."""
    every = plans.plans if plans else ()
    return next((one for one in every if cold_plan(cold_at) in one.rules), None)


def _cost(plan: PruningPlan) -> str:
    """What a plan costs, in words."""
    test = plan.equivalence
    number = f"{plan.experts} expert{'s' if plan.experts > 1 else ''}"
    return (
        f"without {number} (plan {', '.join(plan.rules)}) ΔNLL is {claim(plan.delta_nll)} nats a "
        f"token, {_against_margin(test)}"
    )


def _against_margin(test: EquivalenceTest) -> str:
    """A loss inside the margin is still a loss; only one whose interval holds 0 may be none."""
    if test.outcome == "inconclusive":
        return f"inconclusive: {test.reason}"
    low, high = test.statistic.ci_low or 0.0, test.statistic.ci_high or 0.0
    what = "a loss" if low > 0 else "a gain" if high < 0 else "a change"
    where = {
        "equivalent": "smaller than the margin of",
        "different": "beyond the margin of",
        "undecided": "that may or may not be beyond the margin of",
    }
    return f"{what} {where[test.outcome]} {test.margin:g}"


def _best(plans: PruningPlans | None) -> str:
    """The largest plan that is safe."""
    if plans is None:
        return ""
    for plan in plans.plans:
        if plan.name == plans.recommended:
            return f"; largest plan that passes the equivalence test: {_cost(plan)}"
    return "; no pruning plan passes the equivalence test"


def _joint(
    label: str, rule: str, found: Sequence[tuple[str, str]], evidence: tuple[Measure, ...]
) -> Verdict:
    outcomes = {outcome for outcome, _ in found}
    outcome = outcomes.pop() if len(outcomes) == 1 else "models differ"
    return Verdict(
        label=label,
        outcome=outcome if found else INCONCLUSIVE,
        statement="; ".join(statement for _, statement in found) or "no model was read",
        rule=rule,
        evidence=evidence,
    )


def _evidence(cells: Sequence[CellResult], label: str) -> tuple[Measure, ...]:
    models = dict.fromkeys(cell.model for cell in cells)
    found = [one for model in models for one in _measures(model, cells) if one.label == label]
    return tuple(one for one in found if label == "seed" or "ΔNLL" not in one.name)


def _why(models: Sequence[str], cells: Sequence[CellResult]) -> str:
    """One sentence, of the first model that has both numbers."""
    for model in models:
        seed, load = _one(model, cells, ColdPrompts), _one(model, cells, ColdLoad)
        if seed is not None and load is not None:
            return (
                f"the seed counts {seed.tokens} tokens of {seed.prompts} prompts and calls unused "
                f"what these did not use; the corrected rule asks {load.n_tokens:,} tokens of "
                f"{load.n_documents} documents for an interval, and then the model itself what it "
                "loses without those experts."
            )
    return (
        "the seed counts a few prompts, the corrected rule asks for an interval over documents and "
        "for what the model loses."
    )
