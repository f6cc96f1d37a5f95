"""The types that cross every floor: what one forward pass of a model did, in host memory.

Letters used for shapes everywhere: T tokens, N decoder layers, L layers that route, E experts,
k experts a token uses, H hidden size, V vocabulary, G groups of residual parts, P lens positions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.trace.shares import Shares, completeness, router_shares, seed_ratio

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
ExpertIds = NDArray[np.int16]

TokenKind = Literal["text", "special", "bytes"]

# No expert: pads `expert_ids` where layers differ in k.
NO_EXPERT = -1


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is, as far as results must name it.

    `digest` identifies configuration and weights (see `moetui.model.digest`). `quantization` and
    `router_bits` (those of its coarsest router) describe the checkpoint; `dtype` is what the
    weights were computed with.
    `routing_error`, `decomposition_error`, `lens_error` and `attention_error` say in one sentence
    why the self-test made at load does not allow these readings; None where it passed. With a
    `routing_error` the model has experts, and no layer of it is read.
    `initialisation` says how the weights of a null model were drawn, None where they are those of
    the checkpoint; then `digest` identifies what they follow from.
    `layer_experts` is how many experts each of `moe_layers` chooses among; empty where all have
    `num_experts` (see `experts_by_layer`).
    `expert_bytes` is what one routed expert of each of `moe_layers` takes in the checkpoint as it
    is stored there; empty where its files do not tell experts apart.
    """

    name: str
    architecture: str
    digest: str
    num_layers: int
    moe_layers: tuple[int, ...]
    num_experts: int
    top_k: int
    hidden_size: int
    vocab_size: int
    parameters: int
    weight_bytes: int
    dtype: str
    backend: str
    quantization: str | None = None
    router_bits: int | None = None
    # Adding a constant to all router logits changes neither experts nor weights (softmax routers).
    shift_invariant: bool = True
    # The blocks multiply what their expert reads with its weight, not what it puts out (llama4).
    weights_scale_input: bool = False
    part_names: tuple[str, ...] = ()
    routing_error: str | None = None
    decomposition_error: str | None = None
    lens_error: str | None = None
    attention_error: str | None = None
    initialisation: str | None = None
    layer_experts: tuple[int, ...] = ()
    expert_bytes: tuple[int, ...] = ()

    @property
    def is_moe(self) -> bool:
        """Whether any layer routes."""
        return bool(self.moe_layers)

    @property
    def experts_by_layer(self) -> tuple[int, ...]:
        """How many experts each of `moe_layers` chooses among."""
        return self.layer_experts or (self.num_experts,) * len(self.moe_layers)


@dataclass(frozen=True, eq=False, kw_only=True)
class LensReadout:
    """The model's own final norm and head applied to the residual stream after each layer.

    layers: int32 [N], the decoder layers read; the last row is the model's own output.
    positions: int32 [P], rows of the trace that were read.
    token_ids: int32 [P, N, n], the top n next tokens, most probable first (ties: smaller id).
    logprobs: float32 [P, N, n], natural log of their probabilities under softmax.
    answer_ids: int32 [P], the most probable next token of the last layer.
    answer_rank: int32 [P, N], rank of that token at each layer, 0 = top.
    answer_logprob: float32 [P, N].
    text: readable form of every id that occurs.
    """

    layers: Ints
    positions: Ints
    token_ids: Ints
    logprobs: Floats
    answer_ids: Ints
    answer_rank: Ints
    answer_logprob: Floats
    text: Mapping[int, str]

    def at(self, position: int) -> int | None:
        """The index on the P axis at which `position` was read, None where it was not."""
        found = np.flatnonzero(self.positions == position)
        return int(found[0]) if len(found) else None


@dataclass(frozen=True, eq=False, kw_only=True)
class Streams:
    """The residual stream itself, kept only on request (`streams=True`).

    entering, at_router, leaving: float32 [T, N, H]: as a layer receives it, as its feed-forward
    part sees it before the norm, and as the layer hands it on.
    router_input: float32 [T, L, H]: the tensor that the router really received, after the norm.
    """

    entering: Floats
    at_router: Floats
    leaving: Floats
    router_input: Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class RouterSources:
    """What makes up the stream at some routers, kept only on request (`sources=(layer, …)`).

    layers: int32 [R], the decoder layers asked about.
    at_router: float32 [T, R, H], the stream there, before the norm.
    parts: float32 [T, R, P, H], what each part had added to it by then; they sum to it. P of the
        model's `part_names`, in their order: the static bias is no part of the stream.
    names: [S], (part, decoder layer that added it; None where no layer did).
    logits: float32 [T, R, S, E], the router logits split by these, the norm's scale frozen; over
        the sources of a part they sum to its `router_parts`. 0 for what comes after the router.
    """

    layers: Ints
    at_router: Floats
    parts: Floats
    names: tuple[tuple[str, int | None], ...]
    logits: Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace:
    """What a model did with T tokens: one real forward pass, read by taps, in host memory.

    tokens: readable text of every token; token_kinds: "text", "special" (a control token) or
        "bytes" (part of a character: shown as \\xNN escapes).
    token_ids: int32 [T].
    prompt_tokens: how many leading rows are the prompt; the rest was generated.
    layers: int32 [L], the decoder layers that route; L = 0 for a dense model.
    router_logits: float32 [T, L, E], raw, before softmax or sigmoid, router bias included.
    selection_scores: float32 [T, L, E], what top-k ranked; None where the model hides it.
    expert_ids: int16 [T, L, k], the experts that ran, sorted by selection score descending (by
        mixing weight where the scores are hidden), then id ascending; -1 pads layers with fewer.
    expert_weights: float32 [T, L, k], the factors really multiplied with the expert outputs,
        factors applied to their sum folded in (with their input: see `weights_scale_input`).
    logits: float32 [V], next-token logits of the last row.
    router_parts: float32 [T, L, G, E], the router logits split exactly by source
        (`model.part_names`), the norm's scale frozen per token; None where not captured.
    seed_parts: float32 [T, L, 2, E], W·e and W·(h - e) of the `attention_router` seed
        definition, with h the residual that enters the layer; None where not captured.
    lens: the logit lens; None where not captured.
    attention: float32 [N, heads, T, T], the probability that a row gives to each position; NaN
        where a layer has no attention over tokens, or fewer heads than the widest.
    interventions: what the pass was made to do differently, one line each (`describe`), in order.
    sources: the streams at some routers by what added to them; None where not captured.
    expert_outputs: float32 [T, L, k, H'], each selected expert's output before weighting, in the
        width in which the experts work (H, unless the block projects their sum afterwards).
    """

    model: ModelInfo
    tokens: tuple[str, ...]
    token_kinds: tuple[TokenKind, ...]
    token_ids: Ints
    prompt_tokens: int
    layers: Ints
    router_logits: Floats
    selection_scores: Floats | None
    expert_ids: ExpertIds
    expert_weights: Floats
    logits: Floats
    router_parts: Floats | None = None
    seed_parts: Floats | None = None
    lens: LensReadout | None = None
    streams: Streams | None = None
    sources: RouterSources | None = None
    attention: Floats | None = None
    expert_outputs: Floats | None = None
    interventions: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the G groups of `router_parts`."""
        return self.model.part_names

    @property
    def lens_layers(self) -> Ints:
        """int32 [N], the layers that the lens reads (all of them; routing has `layers`)."""
        return self.lens.layers if self.lens is not None else np.empty(0, np.int32)

    @property
    def seed_norms(self) -> Floats | None:
        """float32 [T, L, 2], ‖W e‖ and ‖W (h - e)‖ of the seed definition."""
        if self.seed_parts is None:
            return None
        norms: Floats = np.linalg.norm(self.seed_parts, axis=-1)
        return norms

    @property
    def seed_ratio(self) -> Floats | None:
        """float32 [T, L], ‖W d‖ / (‖W e‖ + ‖W d‖): the seed's "attention ratio", as published."""
        norms = self.seed_norms
        return None if norms is None else seed_ratio(norms)

    @property
    def shares(self) -> Shares | None:
        """Signed shares of the routers' decisions by source; see `moetui.trace.shares`."""
        if self.router_parts is None:
            return None
        return router_shares(self.router_parts, shift_invariant=self.model.shift_invariant)

    @property
    def completeness(self) -> Floats | None:
        """float32 [T, L], max_e |Σ_c z_c - z| / max_e |z|: 0 when the parts explain everything."""
        if self.router_parts is None:
            return None
        return completeness(self.router_parts, self.router_logits)

    def rows(self, start: int, stop: int) -> Trace:
        """The same trace with rows start:stop only; `logits` stay those of the last row kept
        when that is the last row of the trace, and are empty otherwise."""
        length = len(self)
        start, stop, _ = slice(start, stop).indices(length)
        cut = slice(start, stop)
        return replace(
            self,
            tokens=self.tokens[cut],
            token_kinds=self.token_kinds[cut],
            token_ids=self.token_ids[cut],
            prompt_tokens=max(0, min(self.prompt_tokens, stop) - start),
            router_logits=self.router_logits[cut],
            selection_scores=_cut(self.selection_scores, cut),
            expert_ids=self.expert_ids[cut],
            expert_weights=self.expert_weights[cut],
            logits=self.logits if stop == length else np.empty(0, np.float32),
            router_parts=_cut(self.router_parts, cut),
            seed_parts=_cut(self.seed_parts, cut),
            lens=_cut_lens(self.lens, start, stop),
            streams=None,
            sources=None,
            attention=None,
            expert_outputs=_cut(self.expert_outputs, cut),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a `.moetrace` file; see `moetui.trace.file`."""
        from moetui.trace.file import save_trace

        save_trace(self, path)


def _cut(values: Floats | None, rows: slice) -> Floats | None:
    return None if values is None else values[rows]


def _cut_lens(lens: LensReadout | None, start: int, stop: int) -> LensReadout | None:
    if lens is None:
        return None
    keep = (lens.positions >= start) & (lens.positions < stop)
    return replace(
        lens,
        positions=lens.positions[keep] - start,
        token_ids=lens.token_ids[keep],
        logprobs=lens.logprobs[keep],
        answer_ids=lens.answer_ids[keep],
        answer_rank=lens.answer_rank[keep],
        answer_logprob=lens.answer_logprob[keep],
    )
