"""The analyses of `interference` that change nothing: the seed's prompts, lengths and angles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from moetui.analyses.expert_interference import (
    OutputSums,
    expert_interference,
    layer_targets,
    output_sums,
)
from moetui.analyses.routed import RoutedDocument
from moetui.analyses.seed_interference import SeedPrompts, seed_interference, seed_prompt
from moetui.errors import ModelError, UsageError
from moetui.suites.documents import Documents, in_parts
from moetui.suites.layers import LayersAsked, routing_layers
from moetui.suites.moe_dynamics.interference_parts import (
    GEOMETRY,
    SEED,
    Asked,
    named,
    unfit,
)
from moetui.suites.moe_dynamics.routing import ROUTING
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.trace import Forward, ModelInfo
from moetui.trace.types import Floats

# A prompt's length as a plan takes it.
_PROMPT = 12


class Prompts(msgspec.Struct, frozen=True, kw_only=True):
    """The seed's prompts, and how many tokens to write after each."""

    prompts: tuple[str, ...]
    written: int


class SeedAnalysis:
    """The seed's prompts."""

    name = SEED
    needs: tuple[str, ...] = ()
    partial_type: Any = SeedPrompts

    def __init__(self, prompts: Sequence[str], written: int) -> None:
        self._inputs = Prompts(prompts=tuple(prompts), written=written)

    def settings(self, *, seed: int) -> Any:
        """How many tokens are written."""
        return self._inputs.written

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers, or with one expert a token."""
        return unfit(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """All prompts in one."""
        written = self._inputs.written
        tokens = 2 * _PROMPT + 2 * written * (_PROMPT + written // 2)
        return (
            Part(
                name="the seed's prompts",
                inputs=self._inputs,
                tokens=len(self._inputs.prompts) * tokens,
            ),
        )

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> SeedPrompts:
        """A few passes a prompt; none is left where the model takes no other number of experts."""
        given: Prompts = part.inputs
        found = []
        for done, prompt in enumerate(given.prompts, 1):
            try:
                found.append(seed_prompt(model, prompt, given.written))
            except UsageError:
                break
            step(done, len(given.prompts))
        return SeedPrompts(tuple(found))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Means over prompts."""
        prompts = [one for partial in partials for one in partial.prompts]
        if not prompts:
            return Outcome(None, "this architecture does not run with one expert a token")
        return Outcome(seed_interference(prompts, written=self._inputs.written))


@dataclass(frozen=True, eq=False)
class Geometry:
    """Sums of the documents of a part, and why experts could not be dealt out anew."""

    sums: tuple[OutputSums, ...]
    reason: str | None


def _every_expert(
    model: Forward, document: RoutedDocument, layers: Sequence[int]
) -> tuple[list[Floats], str | None]:
    """[T, E, H] of each layer, or why there is none."""
    try:
        found = dict(model.every_expert(document.ids, layers))
    except ModelError as error:
        return [], str(error)
    if any(one.shape[1] != model.info.num_experts for one in found.values()):
        return [], "not all experts of this architecture are in one bank"
    return [found[layer] for layer in layers], None


class GeometryAnalysis:
    """Lengths and angles of what a token's experts put out, beside other experts."""

    name = GEOMETRY
    needs: tuple[str, ...] = (ROUTING,)
    partial_type: Any = Geometry

    def __init__(
        self, documents: Documents, layers: LayersAsked, *, draws: int, max_tokens: int
    ) -> None:
        self._documents, self._layers = documents, layers
        self._draws, self._max_tokens = draws, max_tokens

    def settings(self, *, seed: int) -> Any:
        """The layers."""
        return self._layers

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers, or with one expert a token."""
        return unfit(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each."""
        return tuple(
            Part(
                name=name,
                inputs=Asked(
                    half="evaluation",
                    documents=tuple(one.id for one in some),
                    layers=self._layers,
                    draws=self._draws,
                ),
                tokens=len(some) * self._max_tokens,
            )
            for name, some in in_parts(self._documents.sample(seed).documents)
        )

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> Geometry:
        """A pass for each document, and every expert of the layers asked about."""
        given: Asked = part.inputs
        assert given.layers is not None
        documents = named(needs, ROUTING, given.documents)
        if any(one.output_norms is None for one in documents):
            return Geometry((), "the model does not show what its experts put out")
        layers = routing_layers(given.layers, model.info) if given.draws else ()
        at = [model.info.moe_layers.index(layer) for layer in layers]
        reason = None if layers else "no draws were asked for"
        found: list[OutputSums] = []
        for document in documents:
            every: list[Floats] = []
            if reason is None:
                every, reason = _every_expert(model, document, layers)
            targets = [
                layer_targets(layer, outputs.shape[1], given.draws, seed=seed)
                for layer, outputs in zip(layers, every, strict=False)
            ]
            found.append(output_sums(document, every, at if every else [], targets))
            step(len(found), len(documents))
        if reason is not None:  # of all documents or of none
            found = [output_sums(document, [], [], []) for document in documents]
        return Geometry(tuple(found), reason)

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """By layer."""
        sums = [one for partial in partials for one in partial.sums]
        reasons = [partial.reason for partial in partials if partial.reason]
        if not sums:
            return Outcome(None, reasons[0] if reasons else "no documents")
        layers = () if reasons else routing_layers(self._layers, info)
        found = expert_interference(
            sums, info.moe_layers, layers, not_substituted=next(iter(reasons), None), seed=seed
        )
        return Outcome(found)
