"""Study `task_aware`: can an early layer tell which experts later layers need, in time to fetch
them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from moetui.suites.moe_dynamics.prompts import PROMPTS
from moetui.suites.moe_dynamics.study import Count, Positive, Setting, Text
from moetui.suites.moe_dynamics.task_aware_analyses import (
    CacheRun,
    TaskAwareAnalysis,
    TaskPromptsAnalysis,
)
from moetui.suites.moe_dynamics.task_aware_verdict import conclude, measures
from moetui.suites.plan import Analysis
from moetui.suites.results import CellResult, Measure, Published, Verdicts

NAME = "task_aware"
GPT_OSS = "openai/gpt-oss-20b"
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be changed; the fields say what they mean."""

    probe_layer: Annotated[
        Count | None,
        msgspec.Meta(
            description="decoder layer whose output the probe reads, as in the published run's "
            "`-p 4`; null: as deep as that is there, 4 of 24"
        ),
    ] = None
    prompts: Annotated[
        tuple[Text, ...],
        msgspec.Meta(
            min_length=2,
            description="texts whose last token the published predictor is fitted to and scored on",
        ),
    ] = PROMPTS
    sampled_tokens: Annotated[
        Positive,
        msgspec.Meta(
            description="tokens of each calibration document, drawn at random, that the probe is "
            "fitted to; it is judged on every token of the evaluation documents"
        ),
    ] = 64
    shuffles: Annotated[
        Count,
        msgspec.Meta(
            description="draws of each null: streams exchanged within documents, or among equal "
            "tokens, and fitted anew; 19 or more can reach the p of 0.05 that a finding takes"
        ),
    ] = 20
    cache_documents: Annotated[
        Positive,
        msgspec.Meta(
            description="how many of the evaluation documents, drawn at random, the caches are run "
            "over; an interval takes 20"
        ),
    ] = 60
    cache_shares: Annotated[
        tuple[Share, ...],
        msgspec.Meta(
            min_length=1,
            description="shares of a layer's experts that are kept in memory; at least those of "
            "one token are",
        ),
    ] = (0.25, 0.5, 0.75)
    bandwidth: Annotated[
        float,
        msgspec.Meta(
            gt=0,
            description="10⁹ bytes a second at which experts are fetched: about 3 for a solid "
            "state disk, 25 for host memory over PCIe 4.0 × 16",
        ),
    ] = 3.0


QUICK: Mapping[str, Any] = {"cache_documents": 20}
FULL: Mapping[str, Any] = {
    "shuffles": 99,
    "cache_documents": 120,
    "cache_shares": [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875],
}


class TaskAwareStudy:
    """The study with its parameters set; see `moetui.suites.moe_dynamics.study.Study`."""

    name = NAME
    question = (
        "Does an early layer tell which experts later layers will need, and what would fetching "
        "them in time save?"
    )
    published: tuple[Published, ...] = (
        Published(model=GPT_OSS, measure="seed accuracy, any overlap", value=0.94),
        Published(model=GPT_OSS, measure="seed experts fetched", value=0.53),
    )

    def __init__(self, own: Parameters, setting: Setting) -> None:
        self._own, self._setting = own, setting
        self.analyses: tuple[Analysis, ...] = (
            TaskPromptsAnalysis(own.prompts, own.probe_layer),
            TaskAwareAnalysis(
                setting,
                probe_layer=own.probe_layer,
                sampled=own.sampled_tokens,
                shuffles=own.shuffles,
                caches=CacheRun(
                    documents=own.cache_documents,
                    shares=own.cache_shares,
                    bandwidth=own.bandwidth,
                ),
            ),
        )

    @property
    def cost(self) -> str:
        """Passes over both halves of the corpus."""
        shared = self._setting.shared
        documents = shared.documents + shared.calibration_documents
        return (
            f"{documents} documents of {shared.tokens} tokens, once; with the defaults about "
            "half a minute of CPU time for the demo model"
        )

    def texts(self) -> Any:
        """The prompts."""
        return self._own.prompts

    def measures(self, model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
        """See `moetui.suites.moe_dynamics.task_aware_verdict`."""
        return measures(model, cells)

    def conclude(self, cells: Sequence[CellResult]) -> Verdicts:
        """See `moetui.suites.moe_dynamics.task_aware_verdict`."""
        return conclude(cells)

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """What the plan leaves out."""
        return (
            "task_aware: the plan counts what is fetched and how long that takes, not what a given "
            "runtime computes meanwhile; it is of the tokens read here, one request at a time",
        )


def study(own: Parameters, setting: Setting) -> TaskAwareStudy:
    """The study with its parameters set."""
    return TaskAwareStudy(own, setting)
