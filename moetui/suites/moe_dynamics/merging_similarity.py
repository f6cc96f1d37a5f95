"""The analyses of `merging` that compare experts: by their outputs, and by their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from moetui.analyses.output_similarity import OutputSums, output_similarity, output_sums
from moetui.analyses.pair_similarity import partners
from moetui.analyses.weight_similarity import LayerWeights, layer_weights, weight_similarity
from moetui.suites.documents import in_parts
from moetui.suites.layers import LayersAsked, routing_layers
from moetui.suites.moe_dynamics.routing import CALIBRATION, RoutingText, routed
from moetui.suites.moe_dynamics.study import Setting
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo

OUTPUTS = "expert_outputs"
WEIGHTS = "expert_weights"


class OutputTexts(msgspec.Struct, frozen=True, kw_only=True):
    """Calibration documents from the one at `first` on; in each, `rows` tokens at which every
    expert is applied, in the layers as asked for."""

    documents: tuple[RoutingText, ...]
    first: int
    max_tokens: int
    rows: int
    layers: LayersAsked


@dataclass(frozen=True, eq=False)
class ReadOutputs:
    """The sums of the documents of a part."""

    documents: tuple[OutputSums, ...]


class OutputAnalysis:
    """What every expert puts out on calibration documents."""

    name = OUTPUTS
    needs: tuple[str, ...] = (CALIBRATION,)
    partial_type: Any = ReadOutputs

    def __init__(self, setting: Setting, rows: int) -> None:
        self._setting, self._rows = setting, rows

    def settings(self, *, seed: int) -> Any:
        """Layers, and what is said of the corpus."""
        return [self._setting.shared.layers, self._setting.calibration.used(seed)]

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without experts that can be read."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each."""
        shared = self._setting.shared
        parts, first = [], 0
        for name, some in in_parts(self._setting.calibration.sample(seed).documents):
            inputs = OutputTexts(
                documents=tuple(RoutingText(d.id, d.domain, d.text) for d in some),
                first=first,
                max_tokens=shared.tokens,
                rows=self._rows,
                layers=shared.layers,
            )
            parts.append(Part(name=name, inputs=inputs, tokens=len(some) * shared.tokens))
            first += len(some)
        return tuple(parts)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> ReadOutputs:
        """One pass a document."""
        given: OutputTexts = part.inputs
        layers = partners(routing_layers(given.layers, model.info), model.info.moe_layers)
        mine = routed(needs[CALIBRATION])[given.first : given.first + len(given.documents)]
        found: list[OutputSums] = []
        for at, document in enumerate(mine):
            rng = np.random.default_rng([seed, given.first + at])
            found.append(output_sums(model, document, layers, wanted=given.rows, rng=rng))
            step(len(found), len(mine))
        return ReadOutputs(tuple(found))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Similarities with intervals over documents."""
        layers = partners(routing_layers(self._setting.shared.layers, info), info.moe_layers)
        used = self._setting.calibration.used(seed)
        return Outcome(output_similarity(output_documents(partials), layers, used, seed=seed))


class WeightInputs(msgspec.Struct, frozen=True, kw_only=True):
    """The layers as asked for, and how many experts of each are compared."""

    layers: LayersAsked
    experts: int


@dataclass(frozen=True, eq=False)
class ReadWeights:
    """The layers, ascending."""

    layers: tuple[LayerWeights, ...]


class WeightAnalysis:
    """How alike the weights of experts are; no forward pass. threshold: the seed's."""

    name = WEIGHTS
    needs: tuple[str, ...] = ()
    partial_type: Any = ReadWeights

    def __init__(self, layers: LayersAsked, *, experts: int, threshold: float) -> None:
        self._inputs = WeightInputs(layers=layers, experts=experts)
        self._threshold = threshold

    def settings(self, *, seed: int) -> Any:
        """The threshold."""
        return self._threshold

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without experts that can be read."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """All layers in one."""
        return (Part(name="weights", inputs=self._inputs, tokens=0),)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> ReadWeights:
        """Layer by layer, so that the experts of two are in memory at a time."""
        given: WeightInputs = part.inputs
        layers = partners(routing_layers(given.layers, model.info), model.info.moe_layers)
        found: list[LayerWeights] = []
        for layer, partner in layers.items():
            found.append(layer_weights(model, layer, partner, wanted=given.experts, seed=seed))
            step(len(found), len(layers))
        return ReadWeights(tuple(found))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Beside pairs across layers."""
        layers = weight_layers(partials)
        return Outcome(weight_similarity(layers, threshold=self._threshold, seed=seed))


def output_documents(partials: Sequence[ReadOutputs]) -> list[OutputSums]:
    """The documents of all parts."""
    return [one for partial in partials for one in partial.documents]


def weight_layers(partials: Sequence[ReadWeights]) -> list[LayerWeights]:
    """The layers of all parts."""
    return [one for partial in partials for one in partial.layers]
