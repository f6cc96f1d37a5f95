"""Causes among the edges of `circuits`: what silencing an expert does to later ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from moetui.analyses.causal_edges import (
    EdgeKey,
    SilencedSums,
    causal_edges,
    controls_of,
    silenced_sums,
)
from moetui.analyses.expert_edges import ExpertEdges
from moetui.analyses.routed import RoutedDocument
from moetui.suites.documents import some_of
from moetui.suites.layers import LayersAsked, routing_layers
from moetui.suites.moe_dynamics.circuits_parameters import EDGES, Parameters, one_router
from moetui.suites.moe_dynamics.routing import ROUTING, routed
from moetui.suites.moe_dynamics.study import Setting
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.trace import Forward, ModelInfo

CAUSES = "circuits_causes"
# Documents of a part of the interventions.
IN_A_PART = 10


class CauseInputs(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the interventions: which of the chosen documents, counted from 0."""

    documents: int
    start: int
    stop: int
    layers: LayersAsked
    edges: int
    controls: int


class CauseSums(msgspec.Struct, frozen=True, kw_only=True):
    """What a part leaves: the edges that all parts test, and the sums of its documents."""

    edges: tuple[EdgeKey, ...]
    eligible: int
    layers: tuple[int, ...]
    sums: tuple[SilencedSums, ...]
    documents: int
    tokens: int


class CauseAnalysis:
    """`circuits_causes`: see `moetui.analyses.causal_edges`."""

    name = CAUSES
    needs: tuple[str, ...] = (EDGES, ROUTING)
    partial_type: Any = CauseSums

    def __init__(self, own: Parameters, setting: Setting) -> None:
        self._own, self._shared = own, setting.shared
        self._documents = min(own.causal_documents, setting.shared.documents)

    def settings(self, *, seed: int) -> Any:
        """Nothing: all is in the parts."""
        return None

    def unfit(self, info: ModelInfo) -> str | None:
        """A model with fewer than two routers, or nothing asked for."""
        if not self._own.causal_edges:
            return "no edge was to be tested (causal_edges=0)"
        return one_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Ten documents each; a pass for every source and every control of its layer."""
        own, asked = self._own, self._shared.layers
        # Sources in the last layer have no edge; of "all" no more than edges have any.
        layers = 1 if isinstance(asked, str) else max(1, len(asked) - 1)
        layers = own.causal_edges if asked == "all" else min(layers, own.causal_edges)
        passes = own.causal_edges + own.causal_controls * layers
        return tuple(
            Part(
                name=f"documents {start + 1}-{stop}",
                inputs=CauseInputs(
                    documents=self._documents,
                    start=start,
                    stop=stop,
                    layers=asked,
                    edges=own.causal_edges,
                    controls=own.causal_controls,
                ),
                tokens=(stop - start) * self._shared.tokens * passes,
            )
            for start in range(0, self._documents, IN_A_PART)
            for stop in [min(start + IN_A_PART, self._documents)]
        )

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> CauseSums:
        """One pass a document and silenced expert that it uses."""
        asked: CauseInputs = part.inputs
        layers = routing_layers(asked.layers, model.info)
        (found,) = needs[EDGES]
        eligible, edges = edges_from(found, layers, asked.edges)
        controls = controls_of(edges, model.info.num_experts, asked.controls, seed=seed)
        chosen = some_of(routed(needs[ROUTING]), asked.documents, seed)
        here = list(enumerate(chosen))[asked.start : asked.stop]
        experts = {(edge[0], edge[1]) for edge in edges}
        experts |= {(layer, e) for layer, some in controls.items() for e in some}
        wanted, done = len(here) * len(experts), 0

        def silenced() -> None:
            nonlocal done
            done += 1
            step(done, wanted)

        sums: list[SilencedSums] = []
        for index, document in here:
            sums += silenced_sums(model, document, index, edges, controls, silenced)
        return CauseSums(
            edges=edges,
            eligible=eligible,
            layers=layers,
            sums=tuple(sums),
            documents=len(here),
            tokens=_tokens([document for _, document in here]),
        )

    def reduce(self, info: ModelInfo, partials: Sequence[CauseSums], *, seed: int) -> Outcome:
        """Effects, intervals, verdicts."""
        found = causal_edges(
            partials[0].edges,
            [one for partial in partials for one in partial.sums],
            layers=partials[0].layers,
            eligible=partials[0].eligible,
            n_documents=sum(partial.documents for partial in partials),
            n_tokens=sum(partial.tokens for partial in partials),
            seed=seed,
        )
        return Outcome(found, found.reason)


def edges_from(
    found: ExpertEdges, layers: Sequence[int], limit: int
) -> tuple[int, tuple[EdgeKey, ...]]:
    """How many of the listed edges begin in `layers`, and `limit` of them: those that beat all
    three shuffles first, then those that beat two, of these the ones with most evidence (G²),
    since an edge of rare experts has too few tokens to be put to the test."""
    own = [edge for edge in found.edges if edge.source_layer in layers]
    beaten = {"all three": 0, "both": 1}
    ordered = sorted(own, key=lambda edge: (beaten.get(edge.beaten, 2), -edge.evaluation.g2))
    return len(own), tuple(
        (edge.source_layer, edge.source, edge.target_layer, edge.target) for edge in ordered[:limit]
    )


def _tokens(documents: Sequence[RoutedDocument]) -> int:
    return sum(len(one.ids) for one in documents)
