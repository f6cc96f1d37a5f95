"""Two verdicts on `interference`: the seed's, from k = 1, and one on loss and angles."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from moetui.analyses.ablation import MARGIN
from moetui.analyses.better_with_fewer import FewerExperts
from moetui.analyses.expert_interference import ExpertInterference
from moetui.analyses.fewer_experts import CurvePoint
from moetui.analyses.seed_interference import SeedInterference
from moetui.stats import Statistic, equivalent
from moetui.stats.minimum import ABLATION, enough, warning
from moetui.suites.moe_dynamics.interference_measures import fewest, measures, of_type
from moetui.suites.results import CellResult, Measure, Verdict, Verdicts

LEVEL = 0.05
INCONCLUSIVE = "inconclusive"
# The seed calls cooperation what breaks the output of most prompts.
MOST = 0.5

SEED_RULE = (
    "“k=1 breaks output”: cooperation confirmed if the continuation changes with one expert in "
    f"more than {MOST:.0%} of the prompts in every model, else independent (the seed states no "
    "threshold)"
)
CORRECTED_RULE = (
    "needed: with the fewest experts tried the loss rises by more than "
    f"{MARGIN:g} nats a token (95 % interval over documents) with weights as they were, with their "
    "sum and with the mixture's length as they were; not needed: within that margin in one of "
    "these ways. cooperate: needed, and the outputs of a token's experts point the same way more "
    "than those of other experts in their place (I and the cosine of two contributions above "
    "their nulls, p ≤ .05, and the interval of the difference of I above 0); interfere: I wholly "
    "below 1 and in the same sense below the null; needed: needed and neither; else unclear. Where "
    "models differ, every one is told. "
    f"Inconclusive below a tenth of {ABLATION}, without an interval, or with data missing"
)


class _Answer(msgspec.Struct, frozen=True):
    """What one model's numbers say, in a word and a sentence."""

    outcome: str
    statement: str


def conclude(cells: Sequence[CellResult]) -> Verdicts:
    """Both verdicts over all models of the run."""
    models = tuple(dict.fromkeys(cell.model for cell in cells))
    by_model = {m: [cell for cell in cells if cell.model == m] for m in models}
    return Verdicts(
        seed=_seed(by_model),
        corrected=_corrected(by_model),
        why_they_differ=(
            "A text that changes says that the model changed, not how its experts relate: taking "
            "all outputs but one away also takes away much of the mixture's length, and a single "
            "token that differs makes it another text; the corrected rule counts nats, holds the "
            "length, and asks whether the outputs are more alike than those of other experts."
        ),
    )


def answer(cells: Sequence[CellResult]) -> _Answer:
    """The corrected answer for one model; `cells` are its own."""
    numbers, geometry = of_type(cells, FewerExperts), of_type(cells, ExpertInterference)
    reason = _missing(cells, numbers, geometry)
    if reason is not None or numbers is None or geometry is None:
        return _Answer(INCONCLUSIVE, reason or "no numbers")
    points = fewest(numbers)
    need, mean = _needed(points), geometry.mean
    apart = _differ(mean.index)
    # Lengths alone move I; the cosine is free of them.
    excess = apart if apart == _differ(mean.share) == _sign(mean.excess) else 0
    cancels = mean.index.ci_high is not None and mean.index.ci_high < 1
    if excess < 0 and cancels:
        outcome = "interfere"
    elif need == "needed":
        outcome = "cooperate" if excess > 0 else "needed"
    else:
        outcome = need
    return _Answer(outcome, _told(numbers, geometry, points, need, excess))


def _missing(
    cells: Sequence[CellResult],
    numbers: FewerExperts | None,
    geometry: ExpertInterference | None,
) -> str | None:
    """Why there is no answer, None where there is one."""
    reasons = "; ".join(dict.fromkeys(cell.reason for cell in cells if cell.reason is not None))
    if numbers is None or geometry is None:
        return reasons or "not measured"
    if numbers.unchanged < numbers.checked:
        changed = numbers.checked - numbers.unchanged
        return (
            f"the native number of experts, asked for, changed {changed} of {numbers.checked} "
            "documents"
        )
    if enough(ABLATION, documents=geometry.documents) == INCONCLUSIVE:
        return warning(ABLATION, documents=geometry.documents)
    if not fewest(numbers):
        return "no smaller number of experts was tried"
    without = [p.nll.caveat for p in fewest(numbers) if p.nll.ci_low is None]
    if without or geometry.mean.index.ci_low is None:
        return next(iter(without), None) or geometry.mean.index.caveat or "no interval"
    return geometry.not_substituted


def _needed(points: Sequence[CurvePoint]) -> str:
    tests = [equivalent(point.nll, MARGIN).outcome for point in points]
    if "equivalent" in tests:
        return "not needed"
    dearer = [point.nll.ci_low is not None and point.nll.ci_low > MARGIN for point in points]
    return "needed" if all(dearer) else "unclear"


def _told(
    numbers: FewerExperts,
    geometry: ExpertInterference,
    points: Sequence[CurvePoint],
    need: str,
    excess: int,
) -> str:
    losses = [point.nll.value for point in points if point.nll.value is not None]
    least, most = min(losses), max(losses)
    index = geometry.mean.index
    than = {1: "more than", -1: "less than", 0: "no other than"}[excess]
    return (
        f"with {points[0].experts} of {numbers.native} experts a token the loss rises by "
        f"{least:.3f} to {most:.3f} nats a token, whichever of weights, their sum or the mixture's "
        f"length is kept ({need}); in layers {', '.join(map(str, geometry.substituted_layers))} I "
        f"is {index.value:.2f} "
        f"[{index.ci_low:.2f}, {index.ci_high:.2f}] of at most {geometry.mean.greatest.value:.2f}, "
        f"{than} with other experts in their place ({index.null_mean:.2f} "
        f"[{index.null_low:.2f}, {index.null_high:.2f}]); kinds of input that do better with "
        f"fewer experts: {len(numbers.better.picked)} picked of {numbers.better.candidates}, "
        f"{len(numbers.better.confirmed)} confirmed on new text"
    )


def _seed(by_model: dict[str, list[CellResult]]) -> Verdict:
    found = {m: of_type(cells, SeedInterference) for m, cells in by_model.items()}
    shares = {m: one.changed.value for m, one in found.items() if one is not None}
    known = {m: share for m, share in shares.items() if share is not None}
    if not known:
        reasons = {cell.reason for cells in by_model.values() for cell in cells if cell.reason}
        told = "inconclusive: " + ("; ".join(sorted(reasons)) or "no prompt was read")
        return _verdict("seed rule", INCONCLUSIVE, told, SEED_RULE, by_model, "seed")
    least = min(known.values())
    outcome = "cooperation confirmed" if least > MOST else "independent"
    said = ", ".join(f"{share:.0%} of the prompts ({m})" for m, share in known.items())
    told = f"{outcome}: with one expert a token the model writes something else after {said}"
    absent = [m for m in by_model if m not in known]
    if absent:
        told += f"; not measured: {', '.join(absent)}"
    return _verdict("seed rule", outcome, told, SEED_RULE, by_model, "seed")


def _corrected(by_model: dict[str, list[CellResult]]) -> Verdict:
    answers = {m: answer(cells) for m, cells in by_model.items()}
    outcomes = list(dict.fromkeys(one.outcome for one in answers.values()))
    outcome = outcomes[0] if len(outcomes) == 1 else "models differ"
    if not outcomes or INCONCLUSIVE in outcomes:
        outcome = INCONCLUSIVE
    told = "; ".join(f"{m}: {one.outcome}: {one.statement}" for m, one in answers.items())
    return _verdict(
        "corrected", outcome, told or "no model was read", CORRECTED_RULE, by_model, "corrected"
    )


def _verdict(
    label: str,
    outcome: str,
    statement: str,
    rule: str,
    by_model: dict[str, list[CellResult]],
    kind: str,
) -> Verdict:
    evidence: tuple[Measure, ...] = tuple(
        one for m, cells in by_model.items() for one in measures(m, cells) if one.label == kind
    )
    return Verdict(label=label, outcome=outcome, statement=statement, rule=rule, evidence=evidence)


def _differ(found: Statistic) -> int:
    """From what other experts give: 1 above it, −1 below, 0 where p is over the level."""
    if found.value is None or found.null_mean is None or found.p is None or found.p > LEVEL:
        return 0
    return 1 if found.value > found.null_mean else -1


def _sign(statistic: Statistic | None) -> int:
    """Of the interval: 1 wholly above 0, −1 wholly below, else 0."""
    if statistic is None or statistic.ci_low is None or statistic.ci_high is None:
        return 0
    return 1 if statistic.ci_low > 0 else -1 if statistic.ci_high < 0 else 0
