"""Parameters of `manipulation`, and what all its analyses take from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from moetui.analyses.manipulation_targets import (
    SEQUENCE,
    Cell,
    Target,
    choose_targets,
    cut,
    expert_loads,
)
from moetui.analyses.routed import RoutedDocument
from moetui.analyses.token_search import Search
from moetui.errors import UsageError
from moetui.suites.layers import MEANING, LayersAsked, routing_layers
from moetui.suites.moe_dynamics.study import Count, Positive, Setting, Text
from moetui.trace import Forward, ModelInfo
from moetui.trace.types import Ints

Size = Annotated[float, msgspec.Meta(gt=0)]
Bits = Annotated[int, msgspec.Meta(ge=2, le=8)]
SHORTEST = 2

QUICK: Mapping[str, Any] = {
    "targets": 2,
    "contexts": 40,
    "scan_tokens": 96,
    "fit_contexts": 4,
    "search_steps": 2,
    "search_candidates": 9,
    "misrouting_contexts": 20,
    "misrouting_swaps": 16,
    "robustness_documents": 20,
    "problems": 20,
    "noise": (0.05,),
    "bits": (4,),
}
FULL: Mapping[str, Any] = {
    "targets": 8,
    "contexts": 400,
    "scan_tokens": None,
    "fit_contexts": 16,
    "search_steps": 16,
    "search_candidates": 48,
    "gradient_contexts": 8,
    "misrouting_contexts": 400,
    "misrouting_swaps": 128,
    "robustness_documents": 400,
}


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The seed's prompt and sequence of experts, then what the corrected numbers rest on."""

    prompt: Annotated[
        Text, msgspec.Meta(description="the seed's prompt, whose tokens are optimised (-p)")
    ] = "def fibonacci(n):"
    sequence_prompt: Annotated[
        Text,
        msgspec.Meta(
            description="the expert chosen first in every one of `sequence_layers` at the last "
            "token of this prompt is the sequence that is to be forced"
        ),
    ] = "127 * 89 = "
    sequence_layers: Annotated[
        LayersAsked, msgspec.Meta(description=f"where the sequence lies: {MEANING}")
    ] = ("first", "mid", "last")
    sequence: Annotated[
        tuple[tuple[int, int], ...],
        msgspec.Meta(
            description="(decoder layer, expert) of the sequence instead, as the seed's "
            "L4-E17 → L8-E35 → L12-E3"
        ),
    ] = ()
    targets: Annotated[
        Positive,
        msgspec.Meta(
            description="experts of each layer that are to be forced: the rarest on calibration "
            "documents, the others at random"
        ),
    ] = 4
    contexts: Annotated[
        Positive, msgspec.Meta(description="evaluation contexts, one a document; 30 are needed")
    ] = 64
    context_tokens: Annotated[
        int, msgspec.Meta(ge=SHORTEST, description="tokens of a context up to the position")
    ] = 16
    after: Annotated[
        Count, msgspec.Meta(description="tokens after it, by whose likelihood harm is judged")
    ] = 8
    fit_contexts: Annotated[
        Positive, msgspec.Meta(description="calibration contexts to which tokens are fitted")
    ] = 8
    scan_tokens: Annotated[
        Positive | None,
        msgspec.Meta(description="tokens of the vocabulary that a scan tries; null: all"),
    ] = 256
    swap_tokens: Annotated[
        Positive, msgspec.Meta(description="tokens before the position that gradients choose")
    ] = 3
    search_steps: Annotated[Count, msgspec.Meta(description="rounds of that search")] = 3
    search_candidates: Annotated[
        Positive, msgspec.Meta(description="swaps that are tried in a round")
    ] = 15
    gradient_contexts: Annotated[
        Positive, msgspec.Meta(description="fitted contexts that give gradients in a round")
    ] = 4
    prompt_steps: Annotated[
        Count, msgspec.Meta(description="rounds of optimising the seed's prompt")
    ] = 12
    prompt_variants: Annotated[
        Count, msgspec.Meta(description="typing errors put into the seed's prompt, one at a time")
    ] = 5
    misrouting_contexts: Annotated[
        Positive, msgspec.Meta(description="evaluation contexts that are attacked")
    ] = 40
    misrouting_swaps: Annotated[
        int, msgspec.Meta(ge=2, description="swaps of a token tried in each")
    ] = 32
    kl_bound: Annotated[
        Size, msgspec.Meta(description="nats by which an attack may change what is expected next")
    ] = 0.1
    robustness_documents: Annotated[
        Positive, msgspec.Meta(description="evaluation documents that are perturbed")
    ] = 40
    problems: Annotated[
        int,
        msgspec.Meta(ge=1, le=30, description="problems of arithmetic asked in every wording"),
    ] = 30
    noise: Annotated[
        tuple[Size, ...],
        msgspec.Meta(description="lengths of Gaussian noise, relative to each token's vector"),
    ] = (0.01, 0.05, 0.2)
    bits: Annotated[
        tuple[Bits, ...], msgspec.Meta(description="bits to which weights are rounded")
    ] = (8, 4)


class Fitting(msgspec.Struct, frozen=True, kw_only=True):
    """What the choice of targets and of fitted contexts depends on, besides the documents."""

    layers: LayersAsked
    targets: int
    sequence: tuple[tuple[int, int], ...]
    sequence_prompt: str
    sequence_layers: LayersAsked
    fit_contexts: int
    context_tokens: int
    after: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Parameters and documents of a run."""

    own: Parameters
    setting: Setting

    @property
    def position(self) -> int:
        """Where the routing is looked at."""
        return self.own.context_tokens - 1

    @property
    def length(self) -> int:
        """Tokens of a context with those after it."""
        return self.own.context_tokens + self.own.after

    @property
    def swapped(self) -> int:
        """Tokens that gradients choose: as many as there are before the position, at most."""
        return min(self.own.swap_tokens, self.position)

    @property
    def fitting(self) -> Fitting:
        """For the inputs of parts."""
        own = self.own
        return Fitting(
            layers=self.setting.shared.layers,
            targets=own.targets,
            sequence=own.sequence,
            sequence_prompt=own.sequence_prompt,
            sequence_layers=own.sequence_layers,
            fit_contexts=own.fit_contexts,
            context_tokens=own.context_tokens,
            after=own.after,
        )

    @property
    def search(self) -> Search:
        """How tokens before the position are searched."""
        return Search(
            rows=tuple(range(-self.swapped, 0)),
            steps=self.own.search_steps,
            candidates=self.own.search_candidates,
            contexts=self.own.gradient_contexts,
        )


def targets_of(
    model: Forward, given: Fitting, calibration: Sequence[RoutedDocument], *, seed: int
) -> tuple[Target, ...]:
    """One-expert targets of every layer, then the sequence.

    Raises UsageError for a layer that does not route, or an expert that is not there.
    """
    info = model.info
    layers = routing_layers(given.layers, info)
    rows = [info.moe_layers.index(layer) for layer in layers]
    loads = expert_loads(calibration, info.num_experts)
    # A layer with fewer experts than the widest has no logits for the rest.
    logits = model.trace(given.sequence_prompt, lens=0, residuals=False).router_logits
    there = ~np.isnan(logits[0])
    single = choose_targets(loads, there, layers, rows, given.targets, seed=seed)
    return (*single, sequence_of(model, given))


def sequence_of(model: Forward, given: Fitting) -> Target:
    """The seed's sequence of experts: as asked for, or as a prompt takes it by itself."""
    if given.sequence:
        cells = tuple(Cell(*one) for one in given.sequence)
        _check(cells, model.info)
        return Target(role=SEQUENCE, cells=cells)
    layers = routing_layers(given.sequence_layers, model.info)
    trace = model.trace(given.sequence_prompt, lens=0, residuals=False)
    rows = [trace.layers.tolist().index(layer) for layer in layers]
    first = trace.expert_ids[-1, rows, 0].tolist()
    return Target(
        role=SEQUENCE, cells=tuple(Cell(*pair) for pair in zip(layers, first, strict=True))
    )


def contexts_for_fit(
    given: Fitting, calibration: Sequence[RoutedDocument], *, seed: int
) -> tuple[Ints, Ints]:
    """Contexts to fit to, drawn at random, and all the others (or the same, where there are no
    others), int32 [·, T]."""
    whole = cut((one.ids for one in calibration), given.context_tokens + given.after)
    order = np.random.default_rng(seed).permutation(len(whole))
    fit, rest = order[: given.fit_contexts], order[given.fit_contexts :]
    return whole[np.sort(fit)], whole[np.sort(rest if len(rest) else fit)]


def check_lengths(own: Parameters, setting: Setting) -> None:
    """Raises UsageError where contexts are longer than documents are read."""
    length, read = own.context_tokens + own.after, setting.shared.tokens
    if length > read:
        raise UsageError(
            f"contexts of {length} tokens are longer than documents, which are cut to {read}",
            "lower context_tokens and after, or raise tokens",
        )


def _check(cells: Sequence[Cell], info: ModelInfo) -> None:
    for cell in cells:
        routing_layers((cell.layer,), info)
        if not 0 <= cell.expert < info.num_experts:
            raise UsageError(
                f"there is no expert {cell.expert} in layer {cell.layer}",
                f"experts are 0 to {info.num_experts - 1}",
            )
