"""The study `circuits`: do experts of different layers form functional units?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.edge_halves import SHUFFLES
from moetui.analyses.edge_tests import blocks
from moetui.analyses.expert_edges import ExpertEdges, expert_edges, layer_pairs
from moetui.analyses.seed_circuits import seed_circuits, weight_profiles
from moetui.suites.moe_dynamics.circuits_causes import CauseAnalysis
from moetui.suites.moe_dynamics.circuits_parameters import (
    EDGES,
    FULL,
    QUICK,
    Parameters,
    one_router,
)
from moetui.suites.moe_dynamics.circuits_verdict import SEED_CONSISTENCY, SEED_PIPELINES
from moetui.suites.moe_dynamics.circuits_verdict import conclude as judge
from moetui.suites.moe_dynamics.circuits_verdict import measures as measured
from moetui.suites.moe_dynamics.routing import CALIBRATION, ROUTING, routed
from moetui.suites.moe_dynamics.study import Setting, Study
from moetui.suites.plan import Analysis, Needs, Outcome, Part, Step
from moetui.suites.results import CellResult, Measure, Published, Verdicts
from moetui.trace import Forward, ModelInfo

__all__ = ["FULL", "QUICK", "Parameters", "study"]

NAME = "circuits"
SEED = "circuits_seed"
# About how long the seed's prompts are.
TOKENS = 6


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
        wanted = 2 * SHUFFLES * asked.permutations * len(list(blocks(pairs, info.num_experts)))

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
            f"shuffles of all layers, {2 * SHUFFLES} × {own.edge_permutations:,}; then passes over "
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
