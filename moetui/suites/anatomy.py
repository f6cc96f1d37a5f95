"""The `anatomy` suite: what a model's weights alone say of its routers and experts.

One of the published texts calls a model a "pseudo" mixture, another calls the same one "native";
both are read here off the weights, beside what matrices of independent entries show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from moetui.analyses.matrix_ranks import LayerRanks, layer_ranks, matrix_ranks
from moetui.analyses.pair_similarity import partners
from moetui.analyses.parameter_shares import ParameterShares, parameter_shares
from moetui.analyses.weight_similarity import drawn_experts
from moetui.suites.anatomy_verdict import GATE_DIFFERENCE, conclude, measures
from moetui.suites.layers import MEANING, LayersAsked, routing_layers
from moetui.suites.moe_dynamics.merging_similarity import WeightAnalysis
from moetui.suites.moe_dynamics.merging_verdict import MERGEABLE
from moetui.suites.names import Preset
from moetui.suites.parameters import parameters_of
from moetui.suites.plan import Analysis, Needs, Outcome, Part, Step
from moetui.suites.results import CellResult, Measure, Published, Verdicts, digest
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo

NAME = "anatomy"
Text = Annotated[str, msgspec.Meta(min_length=1)]
Several = Annotated[int, msgspec.Meta(ge=2)]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be changed; the fields say what they mean."""

    models: Annotated[
        tuple[Text, ...],
        msgspec.Meta(min_length=1, description="models to look into: demo, a folder, org/name"),
    ] = ("demo",)
    layers: Annotated[LayersAsked, msgspec.Meta(description=MEANING)] = "all"
    experts: Annotated[
        Several,
        msgspec.Meta(
            description="experts of a layer, drawn at random where it has more, that are compared "
            "pair by pair; time grows with its square, memory is that of the experts of two layers"
        ),
    ] = 16
    rank_experts: Annotated[
        Several,
        msgspec.Meta(
            description="experts of a layer, drawn at random where it has more, whose matrices' "
            "rank is taken"
        ),
    ] = 8
    energy: Annotated[
        Annotated[float, msgspec.Meta(gt=0, lt=1)],
        msgspec.Meta(description="part of a matrix's energy that its effective rank holds"),
    ] = 0.95
    threshold: Annotated[
        Annotated[float, msgspec.Meta(ge=-1, le=1)],
        msgspec.Meta(
            description="weight cosine from which the seed's rule calls two experts mergeable"
        ),
    ] = 0.8


QUICK: Mapping[str, Any] = {"layers": ["first", "mid", "last"], "experts": 8, "rank_experts": 4}
FULL: Mapping[str, Any] = {"experts": 64, "rank_experts": 64}


class RankInputs(msgspec.Struct, frozen=True, kw_only=True):
    """The layers as asked for, how many experts of each, and the energy."""

    layers: LayersAsked
    experts: int
    energy: float


@dataclass(frozen=True, eq=False)
class ReadRanks:
    """The layers, ascending."""

    layers: tuple[LayerRanks, ...]


class RankAnalysis:
    """The effective rank of routers and experts; no forward pass."""

    name = "matrix_ranks"
    needs: tuple[str, ...] = ()
    partial_type: Any = ReadRanks

    def __init__(self, layers: LayersAsked, *, experts: int, energy: float) -> None:
        self._inputs = RankInputs(layers=layers, experts=experts, energy=energy)

    def settings(self, *, seed: int) -> Any:
        """The energy."""
        return self._inputs.energy

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without experts that can be read."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """All layers in one."""
        return (Part(name="weights", inputs=self._inputs, tokens=0),)

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> ReadRanks:
        """Layer by layer, so that the experts of two are in memory at a time."""
        given: RankInputs = part.inputs
        layers = partners(routing_layers(given.layers, model.info), model.info.moe_layers)
        found: list[LayerRanks] = []
        for layer, partner in layers.items():
            found.append(
                layer_ranks(
                    model,
                    layer,
                    partner,
                    experts=drawn_experts(model.bank_size(layer), given.experts, seed),
                    others=()
                    if partner is None
                    else drawn_experts(model.bank_size(partner), given.experts, seed),
                    energy=given.energy,
                )
            )
            step(len(found), len(layers))
        return ReadRanks(tuple(found))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Beside random matrices."""
        layers = [one for partial in partials for one in partial.layers]
        return Outcome(matrix_ranks(layers, energy=self._inputs.energy, seed=seed))


class NoInputs(msgspec.Struct, frozen=True):
    """Nothing but the model."""


@dataclass(frozen=True, eq=False)
class ReadShares:
    """The one result."""

    shares: ParameterShares


class ParameterAnalysis:
    """Where the learnt numbers are; of dense models too."""

    name = "parameters"
    needs: tuple[str, ...] = ()
    partial_type: Any = ReadShares

    def settings(self, *, seed: int) -> Any:
        """Nothing."""

    def unfit(self, info: ModelInfo) -> str | None:
        """Every model has parameters."""
        return None

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """The model as a whole."""
        return (Part(name="parameters", inputs=NoInputs(), tokens=0),)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> ReadShares:
        """No forward pass."""
        return ReadShares(parameter_shares(model, no_router(model.info)))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """As it was read."""
        return Outcome(partials[0].shares)


class Anatomy:
    """The suite with its parameters set; see `moetui.suites.plan.Suite`."""

    name = NAME
    question = (
        "What are routers and experts made of: do the experts share their weights, how many "
        "directions do they use, and where are the parameters?"
    )
    cost = "no forward pass but the model's self-test; seconds for the demo model"
    published: tuple[Published, ...] = (
        Published(model="openai/gpt-oss-20b", measure=GATE_DIFFERENCE, value=1.0),
        Published(model="openai/gpt-oss-20b", measure=MERGEABLE, value=0.0),
    )

    def __init__(self, parameters: Parameters) -> None:
        self._given = given = parameters
        self.analyses: tuple[Analysis, ...] = (
            ParameterAnalysis(),
            RankAnalysis(given.layers, experts=given.rank_experts, energy=given.energy),
            WeightAnalysis(given.layers, experts=given.experts, threshold=given.threshold),
        )

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models to look into, each once."""
        return tuple(dict.fromkeys(self._given.models))

    @property
    def parameters(self) -> Parameters:
        """All parameters, defaults filled in."""
        return self._given

    def prompts_digest(self) -> str:
        """No text is read."""
        return digest([])

    def measures(self, model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
        """Headline numbers."""
        return measures(model, cells)

    def conclude(self, cells: Sequence[CellResult]) -> tuple[Verdicts, ...]:
        """The published claims, and what the weights show."""
        return (conclude(cells),)

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """What could not be read, and how far weights go."""
        notes = [f"{c.model}, {c.analysis}: {c.reason}" for c in cells if c.reason is not None]
        return (
            *notes,
            "weights alone do not say what experts do with the inputs that they get: "
            "`moetui batch merging` compares their outputs, and merges them",
        )


def suite(parameters: Mapping[str, Any], *, corpus: str | Path | None = None) -> Anatomy:
    """The suite with `parameters`; no corpus is read.

    Raises UsageError for an unknown parameter.
    """
    return Anatomy(parameters_of(Parameters, parameters, NAME))


def preset(name: str, which: Preset) -> Mapping[str, Any]:
    """The parameters that differ under `which`."""
    return QUICK if which == "quick" else FULL
