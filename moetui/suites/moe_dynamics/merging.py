"""The study `merging`: can experts that are alike become one without the model getting worse?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from moetui.suites.moe_dynamics.merging_similarity import OutputAnalysis, WeightAnalysis
from moetui.suites.moe_dynamics.merging_trials import FrontAnalysis, PairAnalysis
from moetui.suites.moe_dynamics.merging_verdict import MERGEABLE, conclude, measures
from moetui.suites.moe_dynamics.study import Count, Positive, Setting, Study
from moetui.suites.plan import Analysis
from moetui.suites.results import CellResult, Measure, Published, Verdicts

NAME = "merging"

Share = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be changed, with the seed's values as defaults; the fields say what they mean."""

    threshold: Annotated[
        Annotated[float, msgspec.Meta(ge=-1, le=1)],
        msgspec.Meta(
            description="weight cosine from which the seed's rule calls two experts mergeable "
            "(its -t)"
        ),
    ] = 0.8
    experts: Annotated[
        Annotated[int, msgspec.Meta(ge=2)],
        msgspec.Meta(
            description="experts of a layer, drawn at random where it has more, whose weights are "
            "compared pair by pair; time grows with its square and with the cube of an expert's "
            "neurons. All are compared by what they put out"
        ),
    ] = 16
    output_tokens: Annotated[
        Positive,
        msgspec.Meta(
            description="tokens of each calibration document, drawn at random, that every expert "
            "of a layer is applied to"
        ),
    ] = 16
    controls: Annotated[
        Count, msgspec.Meta(description="random pairs that are merged beside each similar one")
    ] = 20
    seed_controls: Annotated[
        Count,
        msgspec.Meta(
            description="random pairs that are merged as the seed merges, unweighted and not "
            "aligned, beside its pair; fewer than 19 leave p above 0.05, none leave it out"
        ),
    ] = 4
    control_documents: Annotated[
        Positive,
        msgspec.Meta(
            description="how many of the evaluation documents, drawn at random, random pairs and "
            "random merges are tried on"
        ),
    ] = 32
    removed: Annotated[
        tuple[Share, ...],
        msgspec.Meta(
            description="parts of the experts of every layer that are removed, by merging and by "
            "pruning"
        ),
    ] = (0.125, 0.25, 0.5)
    random_merges: Annotated[
        Count,
        msgspec.Meta(
            description="random merges beside those of each size; beside n of them no p is below "
            "1/(n + 1): 19 or more can reach 0.05"
        ),
    ] = 5


QUICK: Mapping[str, Any] = {"control_documents": 20, "removed": [0.25], "random_merges": 3}
FULL: Mapping[str, Any] = {
    "experts": 64,
    "seed_controls": 20,
    "control_documents": 200,
    "removed": [0.0625, 0.125, 0.25, 0.375, 0.5],
    "random_merges": 20,
}


class Merging:
    """See `moetui.suites.moe_dynamics.study.Study`."""

    name = NAME
    question = (
        "Can experts that are alike be merged without quality loss, and is that better than "
        "leaving some out?"
    )
    cost = (
        "about 30 passes over the evaluation documents; with the defaults 430,000 tokens and "
        "about five minutes of CPU time for the demo model"
    )
    published: tuple[Published, ...] = (
        Published(model="openai/gpt-oss-20b", measure=MERGEABLE, value=0.0),
    )

    def __init__(self, own: Parameters, setting: Setting) -> None:
        self.analyses: tuple[Analysis, ...] = (
            OutputAnalysis(setting, own.output_tokens),
            WeightAnalysis(setting.shared.layers, experts=own.experts, threshold=own.threshold),
            PairAnalysis(
                setting,
                draws=own.controls,
                seed_draws=own.seed_controls,
                controls=own.control_documents,
            ),
            FrontAnalysis(
                setting,
                draws=own.random_merges,
                controls=own.control_documents,
                shares=own.removed,
            ),
        )

    def texts(self) -> Any:
        """No text is a parameter."""
        return []

    def measures(self, model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
        """Headline numbers."""
        return measures(model, cells)

    def conclude(self, cells: Sequence[CellResult]) -> Verdicts:
        """Seed rule and corrected rule."""
        return conclude(cells)

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """Of what a merge is here."""
        return (
            "merging: routers are left as they are and nothing is trained after a merge; what a "
            "merged model could learn again is not measured",
        )


def study(own: Parameters, setting: Setting) -> Study:
    """The study with its parameters set."""
    return Merging(own, setting)
