"""`cold_experts`: what do rarely used experts compute; are they dead weight, or rare but needed?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from moetui.analyses.ablation import MARGIN
from moetui.analyses.expert_removal import Mode
from moetui.analyses.expert_scores import Score
from moetui.analyses.pruning_plan import PruneMode
from moetui.analyses.trigger_tokens import LEVEL, MIN_OCCURRENCES
from moetui.suites.moe_dynamics.cold_experts_analyses import (
    ColdLoadAnalysis,
    ColdPromptsAnalysis,
    PlanRules,
    PromptInputs,
    ScoresAnalysis,
    TriggerTokensAnalysis,
)
from moetui.suites.moe_dynamics.cold_experts_causal import (
    AblationAnalysis,
    AblationChoice,
    PruningAnalysis,
    WakingAnalysis,
    WakingInputs,
)
from moetui.suites.moe_dynamics.cold_experts_verdict import (
    SEED_COLD,
    SEED_UNUSED,
    conclude,
    measures,
)
from moetui.suites.moe_dynamics.prompts import PROMPTS
from moetui.suites.moe_dynamics.study import Count, Positive, Setting, Text
from moetui.suites.plan import Analysis
from moetui.suites.results import CellResult, Measure, Published, Verdicts

GPT_OSS = "openai/gpt-oss-20b"
Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Above0 = Annotated[float, msgspec.Meta(gt=0)]

QUICK: Mapping[str, Any] = {"coldest": 1, "scan_tokens": 256, "check_contexts": 20}
FULL: Mapping[str, Any] = {
    "coldest": 1_000_000,
    "controls": 20,
    "modes": ["drop", "renormalise", "deselect"],
    "kl_documents": 100,
    "scan_tokens": 16_384,
    "scan_contexts": 4,
    "check_contexts": 100,
    "prune_controls": 20,
    "trigger_experts": 1_000_000,
}


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be changed, with the seed's values first; the fields say what they mean."""

    prompts: Annotated[
        tuple[Text, ...],
        msgspec.Meta(min_length=1, description="texts on which the seed counts its cold experts"),
    ] = PROMPTS
    threshold: Annotated[
        Share,
        msgspec.Meta(description="share of tokens under which the seed calls an expert cold"),
    ] = 0.01
    ablated_layers: Annotated[
        Count,
        msgspec.Meta(
            description="in how many layers, of those that have any, the seed's cold experts are "
            "dropped one by one on its prompts"
        ),
    ] = 3
    ablated_experts: Annotated[
        Count, msgspec.Meta(description="how many of them in each of these layers")
    ] = 5
    seed_triggers: Annotated[
        Count, msgspec.Meta(description="how many tokens the seed lists for a cold expert")
    ] = 20
    cold_at: Annotated[
        Literal["0.1×", "0.25×", "0.5×", "1%"],
        msgspec.Meta(
            description="threshold of the corrected verdict: so many times the uniform share k/E, "
            "or 1 % of tokens; counts and a pruning plan are given for all four"
        ),
    ] = "1%"
    trigger_experts: Annotated[
        Count,
        msgspec.Meta(description="of how many experts of each layer, coldest first, triggers are "
                     "listed; the tests are over all"),
    ] = 16  # fmt: skip
    trigger_top: Annotated[
        Count, msgspec.Meta(description="how many triggers of an expert are listed")
    ] = 5
    trigger_occurrences: Annotated[
        Positive,
        msgspec.Meta(description="how often a token must occur on the calibration documents"),
    ] = MIN_OCCURRENCES
    trigger_level: Annotated[
        Share,
        msgspec.Meta(description="false discovery rate of triggers over all their cells"),
    ] = LEVEL
    coldest: Annotated[
        Count,
        msgspec.Meta(
            description="how many of the coldest experts of each layer of `layers` are removed in "
            "the model's forward, and woken; coldest by calibration documents"
        ),
    ] = 2
    hottest: Annotated[
        Count, msgspec.Meta(description="how many of the most used ones are removed, to compare")
    ] = 1
    controls: Annotated[
        Positive,
        msgspec.Meta(
            description="random control experts beside each of them, and as many of like "
            "frequency; fewer where the layer has no more"
        ),
    ] = 4
    modes: Annotated[
        tuple[Mode, ...],
        msgspec.Meta(
            min_length=1,
            description="how an expert is removed: drop (its output counts nothing), renormalise "
            "(drop, and the other weights grow), deselect (the next best is routed)",
        ),
    ] = ("deselect",)
    kl_documents: Annotated[
        Count,
        msgspec.Meta(
            description="on how many evaluation documents, drawn at random, KL is measured too; "
            "an interval takes 20"
        ),
    ] = 20
    margin: Annotated[
        Above0,
        msgspec.Meta(description="nats a token within which ΔNLL counts as none (equivalence)"),
    ] = MARGIN
    scan_tokens: Annotated[
        Positive,
        msgspec.Meta(
            description="how many tokens of the vocabulary are put behind a text to wake an "
            "expert: all where there are no more, else those it was seen at and random ones"
        ),
    ] = 1024
    scan_contexts: Annotated[
        Positive, msgspec.Meta(description="behind how many calibration texts each is tried")
    ] = 2
    scan_context_tokens: Annotated[
        Positive, msgspec.Meta(description="length of these texts in tokens")
    ] = 8
    check_contexts: Annotated[
        Count,
        msgspec.Meta(
            description="behind how many evaluation texts the best token of an expert is tried "
            "again; an interval takes 20"
        ),
    ] = 20
    prune_by: Annotated[
        Score,
        msgspec.Meta(
            description="score by which the lowest experts are dropped: reap, ean or frequency, "
            "on calibration documents; frequency where outputs are not known"
        ),
    ] = "reap"
    prune_shares: Annotated[
        tuple[Share, ...],
        msgspec.Meta(description="shares of the experts of every layer to drop, a plan for each"),
    ] = (0.0625, 0.125, 0.25)
    prune_mode: Annotated[
        PruneMode,
        msgspec.Meta(
            description="how the experts of a plan are removed: remove (as in a checkpoint without "
            "them, their rows of the router gone too), or as in `modes`"
        ),
    ] = "remove"
    prune_controls: Annotated[
        Count,
        msgspec.Meta(description="random plans of the same size measured beside each plan"),
    ] = 4


class ColdExperts:
    """The study with its parameters set; see `moetui.suites.moe_dynamics.study.Study`."""

    name = "cold_experts"
    question = (
        "Are rarely used experts dead weight that can be pruned, or do they handle rare but "
        "critical cases?"
    )
    cost = (
        "at most 1,300,000 tokens through the model with the defaults, fewer where experts are "
        "rare (a document that does not use one needs no pass without it); some six minutes of CPU "
        "time for the demo model"
    )
    published: tuple[Published, ...] = (
        Published(model=GPT_OSS, measure=SEED_COLD, value=0.129),
        Published(model=GPT_OSS, measure=SEED_UNUSED, value=50.0),
    )

    def __init__(self, own: Parameters, setting: Setting) -> None:
        self._own = own
        shared = setting.shared
        rules = PlanRules(
            by=own.prune_by,
            shares=own.prune_shares,
            controls=own.prune_controls,
        )
        self.analyses: tuple[Analysis, ...] = (
            ColdPromptsAnalysis(
                PromptInputs(
                    prompts=own.prompts,
                    threshold=own.threshold,
                    triggers=own.seed_triggers,
                    ablated_layers=own.ablated_layers,
                    ablated_experts=own.ablated_experts,
                )
            ),
            ColdLoadAnalysis(),
            TriggerTokensAnalysis(
                experts=own.trigger_experts,
                top=own.trigger_top,
                min_occurrences=own.trigger_occurrences,
                level=own.trigger_level,
            ),
            ScoresAnalysis(rules),
            AblationAnalysis(
                setting.evaluation,
                AblationChoice(
                    layers=shared.layers,
                    coldest=own.coldest,
                    hottest=own.hottest,
                    controls=own.controls,
                    modes=own.modes,
                    kl_documents=own.kl_documents,
                    margin=own.margin,
                ),
                max_tokens=shared.tokens,
            ),
            WakingAnalysis(
                WakingInputs(
                    layers=shared.layers,
                    coldest=own.coldest,
                    tokens=own.scan_tokens,
                    contexts=own.scan_contexts,
                    context_tokens=own.scan_context_tokens,
                    checks=own.check_contexts,
                )
            ),
            PruningAnalysis(
                setting.evaluation,
                mode=own.prune_mode,
                margin=own.margin,
                passes=(4 + len(own.prune_shares)) * (1 + own.prune_controls),
                max_tokens=shared.tokens,
            ),
        )

    def texts(self) -> Any:
        """The seed's prompts."""
        return self._own.prompts

    def measures(self, model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
        """See `moetui.suites.moe_dynamics.cold_experts_verdict`."""
        return measures(model, cells)

    def conclude(self, cells: Sequence[CellResult]) -> Verdicts:
        """Seed rule and corrected rule."""
        return conclude(cells, self._own.cold_at)

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """What a reader of plans must know."""
        return (
            "Plans: experts were chosen on calibration documents and judged on evaluation "
            "documents of the same corpus; texts of other kinds may need what these did not use. "
            "Nothing is claimed safe without the equivalence test.",
        )


def study(own: Parameters, setting: Setting) -> ColdExperts:
    """The study with its parameters set."""
    return ColdExperts(own, setting)
