"""The analyses of `cold_experts` that need no intervention: counts, triggers, scores, plans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np

from moetui.analyses.cold_load import ColdLoad, Loads, cold_load, loads
from moetui.analyses.cold_prompts import ColdPrompts, cold_prompts
from moetui.analyses.expert_scores import (
    ExpertScores,
    Score,
    expert_scores,
    output_sums,
    ranking,
    super_experts,
)
from moetui.analyses.pruning_plan import Kind, LayerPruning, PlannedPruning, planned_pruning
from moetui.analyses.routed import RoutedDocument
from moetui.analyses.trigger_tokens import RoutedTokens, TriggerTokens, trigger_tokens
from moetui.suites.moe_dynamics.routing import CALIBRATION, ROUTING, routed
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo

SCORES = "expert_scores"


class PromptInputs(msgspec.Struct, frozen=True, kw_only=True):
    """See `moetui.analyses.cold_prompts.cold_prompts`."""

    prompts: tuple[str, ...]
    threshold: float
    triggers: int
    ablated_layers: int
    ablated_experts: int


class ColdPromptsAnalysis:
    """The seed's own study of its prompts."""

    name = "cold_prompts"
    needs: tuple[str, ...] = ()
    partial_type: Any = ColdPrompts

    def __init__(self, inputs: PromptInputs) -> None:
        self._inputs = inputs

    def settings(self, *, seed: int) -> None:
        """Nothing: all is in the part."""

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One; how long prompts are only a tokenizer tells."""
        return (Part(name="prompts", inputs=self._inputs),)

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> Any:
        """Every prompt, and again without some cold experts."""
        given: PromptInputs = part.inputs
        return cold_prompts(
            model,
            given.prompts,
            threshold=given.threshold,
            triggers=given.triggers,
            ablated_layers=given.ablated_layers,
            ablated_experts=given.ablated_experts,
        )

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """What the part found."""
        return Outcome(partials[0])


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs of a part that rests on the documents of other analyses, and on these settings."""

    settings: dict[str, Any]


class ColdLoadAnalysis:
    """Which experts are cold on the evaluation documents; no pass of its own."""

    name = "cold_load"
    needs: tuple[str, ...] = (ROUTING,)
    partial_type: Any = ColdLoad

    def settings(self, *, seed: int) -> None:
        """Nothing: all is in the part."""

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One: intervals need all documents."""
        return (Part(name="all documents", inputs=Whole(settings={}), tokens=0),)

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> Any:
        """The whole statistic."""
        return cold_load(routed(needs[ROUTING]), model.info, seed=seed)

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Inconclusive where no layer can be judged."""
        found: ColdLoad = partials[0]
        reasons = [layer.reason for layer in found.layers]
        return Outcome(found, reasons[0] if all(reasons) else None)


class TriggerTokensAnalysis:
    """Triggers found on calibration documents, their lift on evaluation documents."""

    name = "trigger_tokens"
    needs: tuple[str, ...] = (CALIBRATION, ROUTING)
    partial_type: Any = TriggerTokens

    def __init__(self, *, experts: int, top: int, min_occurrences: int, level: float) -> None:
        self._experts = experts
        self._options = {"top": top, "min_occurrences": min_occurrences, "level": level}

    def settings(self, *, seed: int) -> None:
        """Nothing: all is in the part."""

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One: the tests are a family."""
        inputs = Whole(settings={"experts": self._experts, **self._options})
        return (Part(name="all documents", inputs=inputs, tokens=0),)

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> Any:
        """The tests over all experts; those of the coldest are listed."""
        info, found = model.info, routed(needs[CALIBRATION])
        load = loads(found, info)
        coldest = [np.argsort(load.share(row), kind="stable") for row in range(len(load.experts))]
        only = {
            (layer, int(expert))
            for layer, order in zip(info.moe_layers, coldest, strict=True)
            for expert in order[: self._experts]
        }
        return trigger_tokens(
            routed_tokens(found, info),
            model.token_text,
            judged=routed_tokens(routed(needs[ROUTING]), info),
            only=only,
            seed=seed,
            **part_options(part),
        )

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Inconclusive where no token is frequent enough to be tested."""
        found: TriggerTokens = partials[0]
        if found.tested:
            return Outcome(found)
        return Outcome(found, f"no token occurs {found.min_occurrences} times: nothing was tested")


def part_options(part: Part) -> dict[str, Any]:
    """What is handed on to `trigger_tokens`."""
    return {name: value for name, value in part.inputs.settings.items() if name != "experts"}


def routed_tokens(documents: Sequence[RoutedDocument], info: ModelInfo) -> RoutedTokens:
    """Tokens and experts of documents, for their triggers."""
    return RoutedTokens(
        ids=[one.ids for one in documents],
        experts=[one.experts for one in documents],
        layers=info.moe_layers,
        num_experts=info.num_experts,
    )


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of experts, and the plans that follow from them."""

    scores: ExpertScores
    planned: tuple[PlannedPruning, ...]


class PlanRules(msgspec.Struct, frozen=True, kw_only=True):
    """by: the score by which the lowest experts are dropped, shares: of the experts of every layer;
    controls: random plans for each plan."""

    by: Score
    shares: tuple[float, ...]
    controls: int


class ScoresAnalysis:
    """Scores on calibration documents, and the plans of whom to drop."""

    name = SCORES
    needs: tuple[str, ...] = (CALIBRATION,)
    partial_type: Any = Scored

    def __init__(self, rules: PlanRules) -> None:
        self._rules = rules

    def settings(self, *, seed: int) -> None:
        """Nothing: all is in the part."""

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One: intervals and ranks need all documents."""
        return (Part(name="all documents", inputs=self._rules, tokens=0),)

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> Scored:
        """Scores and plans."""
        documents = routed(needs[CALIBRATION])
        return Scored(
            scores=expert_scores(documents, model.info, seed=seed),
            planned=plans_by_rules(documents, model.info, part.inputs, seed=seed),
        )

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """The scores; what plans come to is for those who measure them."""
        return Outcome(partials[0].scores)


def plans_by_rules(
    documents: Sequence[RoutedDocument], info: ModelInfo, rules: PlanRules, *, seed: int
) -> tuple[PlannedPruning, ...]:
    """The experts that are cold at each threshold, and the lowest by score, a plan for every share;
    super experts stay. Where outputs are not known the score is the frequency. Rules that choose
    the same experts share a plan."""
    outputs, load = output_sums(documents, info), loads(documents, info)
    largest = np.zeros((len(info.moe_layers), info.num_experts))
    protected = super_experts(largest if outputs is None else outputs.largest)
    by: Score = rules.by if outputs is not None else "frequency"
    chosen = [*_cold(documents, info, seed), *_lowest(documents, info, load, by, rules.shares)]
    planned: dict[tuple[LayerPruning, ...], PlannedPruning] = {}
    for rule in chosen:
        plan = planned_pruning(
            rule.kind,
            rule.name,
            f"{rule.told} on calibration documents",
            rule.candidates,
            protected,
            info,
            least=load.top_k,
            controls=rules.controls,
            seed=seed,
        )
        if (same := planned.get(plan.layers)) is not None:
            plan = msgspec.structs.replace(
                same, rules=(*same.rules, rule.name), by=(*same.by, *plan.by)
            )
        planned[plan.layers] = plan
    return tuple(planned.values())


class _Rule(NamedTuple):
    """Whom a plan would drop: [L], experts of every layer in the order in which they would go."""

    kind: Kind
    name: str
    told: str
    candidates: list[list[int]]


def cold_plan(threshold: str) -> str:
    """Name of the plan that drops what is cold at a threshold."""
    return f"cold at {threshold}"


def _cold(documents: Sequence[RoutedDocument], info: ModelInfo, seed: int) -> Iterator[_Rule]:
    judged = cold_load(documents, info, seed=seed)
    for at, threshold in enumerate(judged.thresholds):
        cold = judged.called("cold", at)
        yield _Rule(
            "cold",
            cold_plan(threshold.name),
            f"upper limit of f_e under {threshold.name}, hits enough to tell, in no domain at the "
            "uniform share,",
            [[e.expert for e in cold if e.layer == layer] for layer in info.moe_layers],
        )


def _lowest(
    documents: Sequence[RoutedDocument],
    info: ModelInfo,
    load: Loads,
    by: Score,
    shares: Sequence[float],
) -> Iterator[_Rule]:
    order = ranking(documents, info, by)
    assert order is not None
    for share in shares:
        lowest = [
            np.argsort(order[row, :E], kind="stable")[: int(share * E)].tolist()
            for row, E in enumerate(load.experts)
        ]
        told = f"the lowest {share:.4g} of the experts of every layer by {by}"
        yield _Rule("score", f"{by} {share:.4g}", told, lowest)
