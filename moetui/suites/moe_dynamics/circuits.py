"""The study `circuits`: do experts of different layers form functional units?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.causal_edges import (
    EdgeKey,
    SilencedSums,
    causal_edges,
    controls_of,
    silenced_sums,
)
from moetui.analyses.edge_tests import blocks
from moetui.analyses.expert_edges import ExpertEdges, expert_edges, layer_pairs
from moetui.analyses.routed import RoutedDocument
from moetui.analyses.seed_circuits import PROMPTS, seed_circuits, weight_profiles
from moetui.suites.documents import some_of
from moetui.suites.layers import LayersAsked, routing_layers
from moetui.suites.moe_dynamics.circuits_verdict import SEED_CONSISTENCY, SEED_PIPELINES
from moetui.suites.moe_dynamics.circuits_verdict import conclude as judge
from moetui.suites.moe_dynamics.circuits_verdict import measures as measured
from moetui.suites.moe_dynamics.routing import CALIBRATION, ROUTING, routed
from moetui.suites.moe_dynamics.study import Count, Positive, Setting, Study, Text
from moetui.suites.plan import Analysis, Needs, Outcome, Part, Step
from moetui.suites.results import CellResult, Measure, Published, Verdicts
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo

NAME = "circuits"
SEED, EDGES, CAUSES = "circuits_seed", "circuits_edges", "circuits_causes"
# About how long the seed's prompts are, and documents of a part of the interventions.
TOKENS, IN_A_PART = 6, 10

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Level = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Permutations = Annotated[int, msgspec.Meta(ge=999)]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `circuits` may be asked."""

    circuit_prompts: Annotated[
        tuple[Text, ...], msgspec.Meta(min_length=1, description="prompts of the seed's circuits")
    ] = PROMPTS
    correlation: Annotated[
        Share,
        msgspec.Meta(description="seed: correlation from which experts of two layers are matched"),
    ] = 0.3
    distance: Annotated[
        Positive,
        msgspec.Meta(description="routing layers that an edge may span: 1 for neighbours only"),
    ] = 1
    lift: Annotated[
        float,
        msgspec.Meta(
            ge=1,
            description="how many times more often than independent layers would two experts of an "
            "edge meet, in both halves of the documents",
        ),
    ] = 2.0
    edge_level: Annotated[
        Level,
        msgspec.Meta(description="family-wise p of an edge over all pairs of experts and layers"),
    ] = 0.01
    edge_permutations: Annotated[
        Permutations, msgspec.Meta(description="shuffles behind that p, 999 or more")
    ] = 999
    causal_edges: Annotated[
        Count,
        msgspec.Meta(
            description="edges whose source is silenced, of those that begin in `layers`: the ones "
            "that beat both shuffles with most evidence (G²); 0 for none"
        ),
    ] = 12
    causal_controls: Annotated[
        Positive,
        msgspec.Meta(description="random experts of a layer that are silenced instead"),
    ] = 20
    causal_documents: Annotated[
        Positive,
        msgspec.Meta(description="evaluation documents on which it is done; 20 are needed"),
    ] = 60


QUICK: Mapping[str, Any] = {"causal_edges": 4, "causal_controls": 6, "causal_documents": 30}
FULL: Mapping[str, Any] = {"causal_edges": 60, "causal_documents": 200, "distance": 2}


class SeedInputs(msgspec.Struct, frozen=True):
    """The prompts of the seed."""

    prompts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SeedProfiles:
    """profiles: [L, T, E], mixing weights over all positions of the prompts."""

    profiles: NDArray[np.float64]


class SeedAnalysis:
    """`circuits_seed`: see `moetui.analyses.seed_circuits`."""

    name = SEED
    needs: tuple[str, ...] = ()
    partial_type: Any = SeedProfiles

    def __init__(self, prompts: tuple[str, ...], correlation: float) -> None:
        self._prompts, self._correlation = prompts, correlation

    def settings(self, *, seed: int) -> Any:
        """The threshold and what the prompts are called."""
        return [self._correlation, self._prompts]

    def unfit(self, info: ModelInfo) -> str | None:
        """A model with fewer than two routers."""
        return one_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One."""
        inputs = SeedInputs(self._prompts)
        return (Part(name="prompts", inputs=inputs, tokens=TOKENS * len(self._prompts)),)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> SeedProfiles:
        """One pass a prompt."""
        traces = []
        for done, prompt in enumerate(part.inputs.prompts, 1):
            traces.append(model.trace(prompt, lens=0, residuals=False))
            step(done, len(part.inputs.prompts))
        return SeedProfiles(weight_profiles(traces, model.info.num_experts))

    def reduce(self, info: ModelInfo, partials: Sequence[SeedProfiles], *, seed: int) -> Outcome:
        """The seed's numbers and their null."""
        (left,) = partials
        return Outcome(
            seed_circuits(
                left.profiles,
                info.moe_layers,
                self._prompts,
                correlation=self._correlation,
                seed=seed,
            )
        )


class EdgeInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What the edges depend on besides the documents."""

    distance: int
    lift: float
    level: float
    permutations: int


class EdgeAnalysis:
    """`circuits_edges`: see `moetui.analyses.expert_edges`. It takes no pass of its own."""

    name = EDGES
    needs: tuple[str, ...] = (CALIBRATION, ROUTING)
    partial_type: Any = ExpertEdges

    def __init__(self, inputs: EdgeInputs) -> None:
        self._inputs = inputs

    def settings(self, *, seed: int) -> Any:
        """Nothing: all is in the part."""
        return None

    def unfit(self, info: ModelInfo) -> str | None:
        """A model with fewer than two routers."""
        return one_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One: every shuffle judges all layers together."""
        return (Part(name="shuffles", inputs=self._inputs, tokens=0),)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> ExpertEdges:
        """Counts and shuffles."""
        asked: EdgeInputs = part.inputs
        info, done = model.info, 0
        pairs = layer_pairs(len(info.moe_layers), asked.distance)
        # Two halves, two shuffles.
        wanted = 4 * asked.permutations * len(list(blocks(pairs, info.num_experts)))

        def shuffled() -> None:
            nonlocal done
            done += 1
            step(done, wanted)

        return expert_edges(
            routed(needs[CALIBRATION]),
            routed(needs[ROUTING]),
            info.moe_layers,
            info.num_experts,
            lift=asked.lift,
            level=asked.level,
            distance=asked.distance,
            permutations=asked.permutations,
            seed=seed,
            step=shuffled,
        )

    def reduce(self, info: ModelInfo, partials: Sequence[ExpertEdges], *, seed: int) -> Outcome:
        """As found."""
        (found,) = partials
        return Outcome(found, found.reason)


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
    """How many of the listed edges begin in `layers`, and `limit` of them: those that beat both
    shuffles before the others, of these the ones with most evidence (G²), since an edge of rare
    experts has too few tokens to be put to the test."""
    own = [edge for edge in found.edges if edge.source_layer in layers]
    ordered = sorted(own, key=lambda edge: (edge.beaten != "both", -edge.evaluation.g2))
    return len(own), tuple(
        (edge.source_layer, edge.source, edge.target_layer, edge.target) for edge in ordered[:limit]
    )


def one_router(info: ModelInfo) -> str | None:
    """Why no two layers can be compared, None where they can."""
    if (reason := no_router(info)) is not None:
        return reason
    if len(info.moe_layers) < 2:
        return f"only layer {info.moe_layers[0]} routes: there is no second layer"
    return None


def _tokens(documents: Sequence[RoutedDocument]) -> int:
    return sum(len(one.ids) for one in documents)


class Circuits:
    """The study; see `moetui.suites.moe_dynamics.study.Study`."""

    name = NAME
    question = (
        "Do experts of different layers form functional units, and does one bring about another?"
    )
    published = (
        Published(model="openai/gpt-oss-20b", measure=SEED_CONSISTENCY, value=0.875),
        Published(model="openai/gpt-oss-20b", measure=SEED_PIPELINES, value=15.0),
    )

    def __init__(self, own: Parameters, setting: Setting) -> None:
        self._own, self._setting = own, setting
        self.analyses: tuple[Analysis, ...] = (
            SeedAnalysis(own.circuit_prompts, own.correlation),
            EdgeAnalysis(
                EdgeInputs(
                    distance=own.distance,
                    lift=own.lift,
                    level=own.edge_level,
                    permutations=own.edge_permutations,
                )
            ),
            CauseAnalysis(own, setting),
        )

    @property
    def cost(self) -> str:
        """Passes of its own beside the shared ones."""
        own = self._own
        return (
            f"shuffles of all layers, 4 × {own.edge_permutations:,}; then passes over "
            f"{own.causal_documents} documents, one for each of up to {own.causal_edges} sources "
            f"and {own.causal_controls} control experts a layer"
        )

    def texts(self) -> Any:
        """The seed's prompts."""
        return list(self._own.circuit_prompts)

    def measures(self, model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
        """The headline numbers."""
        return measured(model, cells)

    def conclude(self, cells: Sequence[CellResult]) -> Verdicts:
        """Both verdicts."""
        return judge(cells)

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """Sizes below the minimum."""
        return tuple(
            f"{cell.model}, circuits: {told}"
            for cell in cells
            if isinstance(cell.result, ExpertEdges)
            for told in cell.result.warnings
        )


def study(own: Parameters, setting: Setting) -> Study:
    """The study with its parameters set."""
    return Circuits(own, setting)
