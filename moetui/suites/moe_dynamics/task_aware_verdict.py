"""Headline numbers and verdicts of the study `task_aware`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moetui.analyses.ablation import few_draws
from moetui.analyses.offload import LRU, OffloadPlan, OffloadRow
from moetui.analyses.seed_prediction import SeedPrediction, SeedTask
from moetui.analyses.task_aware import (
    BASELINES,
    BESIDE,
    PREDICTORS,
    PROBE,
    RecallAt,
    TaskAware,
)
from moetui.stats import Statistic
from moetui.stats.minimum import PREDICTION, enough, warning
from moetui.suites.moe_dynamics.attention_routing_verdict import LEAST_FIT, MARGIN, seed_measures
from moetui.suites.moe_dynamics.telling import DIFFER, INCONCLUSIVE, agreed, experts, limits, told
from moetui.suites.results import CellResult, Measure, Verdict, Verdicts

SEED_ACCURACY, SEED_FETCHED = 0.90, 0.50
PAYS, FORETELLS, NO_BETTER, UNCLEAR = (
    "prefetch pays",
    "foretells, and saves no more than what is free",
    "no better than what is free",
    "unclear",
)
SEED_RULE = (
    "prefetch viable if in every model one of the foretold experts is among the used ones for more "
    "than 90 % of the prompts and more than half of the used ones are foretold, means over the "
    "later layers; else not viable"
)
CORRECTED_RULE = (
    "by 95 % intervals over documents, mean over the layers after the probe's: the probe foretells "
    "where with the table of tokens at its side its recall@k is at least "
    f"{MARGIN:g} above that of every baseline known at its layer ({', '.join(BASELINES)}; "
    "intervals wholly above) and p ≤ 0.05 against streams exchanged within documents, and among "
    f"equal tokens; {PAYS!r} if with half of the experts in memory (the capacity nearest to "
    f"it) prefetching what both foretell also has a hit rate more than {MARGIN:g} above that of "
    "LRU, alone and with what the token foretells prefetched (by a probe of equal tokens); "
    f"{FORETELLS!r} if it has not; {NO_BETTER!r} where a gain lies wholly below {MARGIN:g}; else "
    f"{UNCLEAR!r}. Inconclusive below a tenth of "
    f"{PREDICTION}, without an interval, without the null, or with too few draws of it to reach "
    "that p"
)
WHY = (
    "The published scores are of a map fitted to the very prompts that it is scored on, with more "
    "features than prompts, and one hit among k counts as a success; the corrected recall is of "
    "documents that nothing was fitted to, beside predictors that cost nothing, and caches say "
    "what it saves."
)


def measures(model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
    """Of one model; what is missing is left out."""
    found: list[Measure] = []
    for cell in cells:
        if isinstance(cell.result, SeedTask):
            found += seed_measures(model, cell.result.scores)
        elif isinstance(cell.result, TaskAware):
            found += [*_recalls(model, cell.result), *_caches(model, cell.result.plan)]
    return tuple(found)


def _corrected(model: str, name: str, statistic: Statistic | None) -> Iterator[Measure]:
    if statistic is not None and statistic.value is not None:
        yield Measure(model=model, label="corrected", name=name, statistic=statistic)


def _recalls(model: str, found: TaskAware) -> Iterator[Measure]:
    for name in PREDICTORS:
        sizes = _sizes(found, name)
        for rank, one in enumerate(sizes):
            # Named by the multiple of k, so that models of different k have the same measures.
            yield from _corrected(model, f"recall@{_TIMES[rank]}, {name}", one.recall)
        for over in (one for first in sizes[:1] for one in first.gains):
            if name in (PROBE, BESIDE):
                yield from _corrected(model, f"gain of {name} over {over.over}", over.gain)


_TIMES = ("k", "1.5k", "2k")


def _caches(model: str, plan: OffloadPlan | None) -> Iterator[Measure]:
    if plan is None:
        return
    half = half_of(plan)
    for row in plan.rows:
        if row.capacity == half:
            name = f"hit rate, half of the experts, {row.policy}"
            yield from _corrected(model, name, row.hit_rate)
            if row.policy in (f"{LRU} + {PROBE}", f"{LRU} + {BESIDE}"):
                yield from _corrected(model, f"{name}, over the token's", row.over_token)


def conclude(cells: Sequence[CellResult]) -> Verdicts:
    """Both verdicts over all models of the run."""
    own = [cell for cell in cells if cell.analysis in ("task_prompts", "task_aware")]
    return Verdicts(
        topic="task_aware", seed=_seed(own), corrected=_judged(own), why_they_differ=WHY
    )


def half_of(plan: OffloadPlan) -> int:
    """The capacity nearest to half of a layer's experts, the smaller of two."""
    sizes = sorted({row.capacity for row in plan.rows})
    return min(sizes, key=lambda size: abs(size - plan.num_experts / 2))


def _seed(cells: Sequence[CellResult]) -> Verdict:
    found = {c.model: c.result for c in cells if isinstance(c.result, SeedTask)}
    outcomes = {
        model: _seed_outcome(found[model].scores) if model in found else INCONCLUSIVE
        for model in dict.fromkeys(cell.model for cell in cells)
    }
    outcome = agreed(outcomes)
    said = "; ".join(_seed_sentence(model, one) for model, one in found.items())
    return Verdict(
        label="seed rule",
        outcome=outcome,
        statement=said if outcome != INCONCLUSIVE else _why_not(cells) or "nothing was measured",
        rule=SEED_RULE,
        evidence=tuple(
            measure for model, one in found.items() for measure in seed_measures(model, one.scores)
        ),
    )


def _seed_outcome(found: SeedPrediction) -> str:
    scores = found.mean.fitted
    viable = scores.any_overlap > SEED_ACCURACY and scores.fetched > SEED_FETCHED
    return "prefetch viable" if viable else "not viable"


def _seed_sentence(model: str, found: SeedTask) -> str:
    scores, constant = found.scores.mean.fitted, found.scores.mean.constant
    return (
        f"in {model} a map of the stream that leaves layer {found.probe_layer} names one of the "
        f"used experts for {scores.any_overlap:.0%} of the {found.scores.prompts} prompts that it "
        f"was fitted to (always the most frequent: {constant.any_overlap:.0%}; drawn at random: "
        f"{found.scores.chance_overlap:.0%}) and {scores.fetched:.0%} of all used experts (always "
        f"the most frequent: {constant.fetched:.0%})"
    )


def _judged(cells: Sequence[CellResult]) -> Verdict:
    found = {c.model: c.result for c in cells if isinstance(c.result, TaskAware)}
    models = dict.fromkeys(cell.model for cell in cells)
    reasons = {
        model: reason
        for model in models
        if (reason := _insufficient(found.get(model), [c for c in cells if c.model == model]))
    }
    outcomes = {
        model: INCONCLUSIVE if model in reasons else corrected_outcome(found[model])
        for model in models
    }
    outcome = agreed(outcomes)
    said = [f"{model}: {reason}" for model, reason in reasons.items()]
    if outcome != INCONCLUSIVE:
        apart = outcome == DIFFER
        said = [_sentence(m, found[m], outcomes[m] if apart else None) for m in models]
    lead = f"{DIFFER}: " if outcome == DIFFER else ""
    return Verdict(
        label="corrected",
        outcome=outcome,
        statement=lead + ("; ".join(said) or "nothing was measured"),
        rule=CORRECTED_RULE,
        evidence=tuple(
            one
            for model, result in found.items()
            for one in (*_recalls(model, result), *_caches(model, result.plan))
            if not one.name.startswith(("recall@1.5k", "recall@2k"))
        ),
    )


def corrected_outcome(found: TaskAware) -> str:
    """The rule; all gains have intervals, those of the probe a null."""
    gains = [one.gain for one in _at_k(found, BESIDE).gains]
    ends = _all_limits(gains)
    if len(ends) < len(gains):
        return INCONCLUSIVE
    if min(high for _, high in ends) < MARGIN:
        return NO_BETTER
    if min(low for low, _ in ends) <= MARGIN or any(g.p is None or g.p > 0.05 for g in gains):
        return UNCLEAR
    row = _prefetching(found.plan)
    saved = [] if row is None else _all_limits([row.over_lru, row.over_token])
    return PAYS if len(saved) == 2 and min(low for low, _ in saved) > MARGIN else FORETELLS


def _all_limits(some: Sequence[Statistic | None]) -> list[tuple[float, float]]:
    """The intervals of those that have one."""
    return [ends for one in some if one is not None and (ends := limits(one)) is not None]


def _prefetching(plan: OffloadPlan | None) -> OffloadRow | None:
    """LRU with what probe and token foretell fetched, half of the experts in memory."""
    if plan is None:
        return None
    wanted = (f"{LRU} + {BESIDE}", half_of(plan))
    return next((row for row in plan.rows if (row.policy, row.capacity) == wanted), None)


def _insufficient(found: TaskAware | None, cells: Sequence[CellResult]) -> str | None:
    if found is None:
        return _why_not(cells) or "nothing was measured"
    sizes = {"documents": found.documents, "tokens": found.tokens}
    if enough(PREDICTION, **sizes) == "inconclusive":
        return warning(PREDICTION, **sizes)
    if found.fit_documents < LEAST_FIT:
        return f"{found.fit_documents} calibration documents, {LEAST_FIT} needed to fit"
    gains = [one.gain for one in _at_k(found, BESIDE).gains]
    without = next((g.caveat or "no interval" for g in gains if limits(g) is None), None)
    if without is not None:
        return without
    if any(g.p is None for g in gains):
        return "no null was drawn (shuffles=0)"
    few = few_draws(found.shuffles)
    return None if few is None else f"{few} (shuffles={found.shuffles})"


def _sizes(found: TaskAware, predictor: str) -> tuple[RecallAt, ...]:
    named = (one.sizes for one in found.mean.predictors if one.predictor == predictor)
    return next(named, ())


def _at_k(found: TaskAware, predictor: str) -> RecallAt:
    return _sizes(found, predictor)[0]


def _why_not(cells: Sequence[CellResult]) -> str:
    return "; ".join(dict.fromkeys(cell.reason for cell in cells if cell.reason is not None))


def _sentence(model: str, found: TaskAware, outcome: str | None) -> str:
    """outcome: of this model, where models differ."""
    both, named = _at_k(found, BESIDE), f", {outcome}:" if outcome is not None else ""
    others = ", ".join(
        f"{name} {told(_at_k(found, name).recall)}" for name in PREDICTORS if name != BESIDE
        and _sizes(found, name)
    )  # fmt: skip
    return (
        f"in {model}{named} from layer {found.probe_layer} {BESIDE} together recall "
        f"{told(both.recall)} of the {experts(found.k)} of later layers ({others}){_saving(found)}"
    )


def _saving(found: TaskAware) -> str:
    row = _prefetching(found.plan)
    if row is None or found.plan is None:
        return ""
    plain = next(r for r in found.plan.rows if (r.policy, r.capacity) == (LRU, row.capacity))
    moved = ""
    if plain.bytes_per_token.value and row.bytes_per_token.value:
        more = row.bytes_per_token.value / plain.bytes_per_token.value
        moved = f", for {more:.2f} times the bytes"
    return (
        f"; with {row.capacity} of {found.plan.num_experts} experts of a layer in memory fetching "
        f"what they foretell takes the hit rate from {told(plain.hit_rate)} by LRU to "
        f"{told(row.hit_rate)}{moved} ({told(row.over_token)} above fetching what the token "
        "foretells)"
    )
