"""The study `interference`: do the experts of a token work together, or get in each other's way?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from moetui.suites.moe_dynamics.interference_analyses import GeometryAnalysis, SeedAnalysis
from moetui.suites.moe_dynamics.interference_causal import NumbersAnalysis, PairsAnalysis
from moetui.suites.moe_dynamics.interference_measures import measures
from moetui.suites.moe_dynamics.interference_verdict import conclude
from moetui.suites.moe_dynamics.prompts import PROMPTS
from moetui.suites.moe_dynamics.study import Count, Positive, Setting, Text
from moetui.suites.plan import Analysis
from moetui.suites.results import CellResult, Measure, Published, Verdicts


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be changed; the fields say what they mean."""

    prompts: Annotated[
        tuple[Text, ...],
        msgspec.Meta(min_length=1, description="texts that the seed's comparison continues"),
    ] = PROMPTS
    written: Annotated[Positive, msgspec.Meta(description="tokens written after each of them")] = 8
    numbers: Annotated[
        Literal["few", "all"] | Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)],
        msgspec.Meta(
            description="numbers of experts a token to try: `few` (1, half, one and a half times "
            "and twice the native number k), `all` (1 to 2k), or a list"
        ),
    ] = "few"
    kl_documents: Annotated[
        Count,
        msgspec.Meta(
            description="on how many of the evaluation documents KL is measured too; an interval "
            "takes 20"
        ),
    ] = 30
    substitutions: Annotated[
        Count,
        msgspec.Meta(
            description="how often the experts of a layer are dealt out anew, for the null of the "
            "interference index; no forward passes of their own"
        ),
    ] = 199
    pairs: Annotated[
        Count,
        msgspec.Meta(
            description="how many pairs of experts, those chosen together most often in the middle "
            "one of `layers`, are dropped alone and together"
        ),
    ] = 5
    random_pairs: Annotated[
        Count, msgspec.Meta(description="how many random pairs of that layer, for their null")
    ] = 6
    pair_documents: Annotated[
        Positive,
        msgspec.Meta(description="evaluation documents that pairs are judged on; 200 are needed"),
    ] = 80


QUICK: Mapping[str, Any] = {
    "written": 4,
    "kl_documents": 5,
    "pairs": 1,
    "random_pairs": 3,
    "pair_documents": 20,
}
FULL: Mapping[str, Any] = {
    "numbers": "all",
    "kl_documents": 200,
    "substitutions": 999,
    "pairs": 20,
    "random_pairs": 20,
    "pair_documents": 400,
}


class Interference:
    """The study with its parameters set; see `moetui.suites.moe_dynamics.study.Study`."""

    name = "interference"
    question = (
        "Do the experts of a token work together, past one another or against one another, and "
        "does it take all of them?"
    )
    cost = (
        "about 25 passes over the evaluation documents: other numbers of experts, and experts "
        "dropped in pairs; with the defaults about four minutes of CPU time for the demo model"
    )
    published: tuple[Published, ...] = ()

    def __init__(self, own: Parameters, setting: Setting) -> None:
        self._own = own
        shared = setting.shared
        self.analyses: tuple[Analysis, ...] = (
            SeedAnalysis(own.prompts, own.written),
            GeometryAnalysis(
                setting.evaluation,
                shared.layers,
                draws=own.substitutions,
                max_tokens=shared.tokens,
            ),
            NumbersAnalysis(
                setting.evaluation,
                setting.calibration,
                own.numbers,
                kl_documents=own.kl_documents,
                max_tokens=shared.tokens,
            ),
            PairsAnalysis(
                setting.evaluation,
                shared.layers,
                pairs=own.pairs,
                random=own.random_pairs,
                limit=own.pair_documents,
                max_tokens=shared.tokens,
            ),
        )

    def texts(self) -> Any:
        """The prompts."""
        return self._own.prompts

    def measures(self, model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
        """Headline numbers, see `interference_measures`."""
        return measures(model, cells)

    def conclude(self, cells: Sequence[CellResult]) -> Verdicts:
        """Seed rule and corrected rule, see `interference_verdict`."""
        return conclude(cells)

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """None beside those of the numbers themselves."""
        return ()


def study(own: Parameters, setting: Setting) -> Interference:
    """The study with its parameters set."""
    return Interference(own, setting)
