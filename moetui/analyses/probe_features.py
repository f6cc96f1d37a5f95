"""What a probe may read of a prompt's last token: the residual stream, and the routing there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from moetui.errors import ModelError
from moetui.trace import NO_EXPERT, Forward, ModelInfo, Streams, Trace
from moetui.trace.types import ExpertIds, Floats, Ints

# The seed's depths: layers 4 and 8 of 16.
DEPTHS = (0.25, 0.5)
NO_TOKEN = -1


@dataclass(frozen=True, eq=False, kw_only=True)
class ProbeFeatures:
    """n prompts, P layers read, T tokens of the longest prompt.

    layers: int32 [P], decoder layers whose leaving residual stream was read; routing_layers:
    int32 [P], the layers whose router was read beside each ([0] for a dense model).
    token_ids: int32 [n, T], padded with -1. embedding: float32 [n, H], the last token as it enters
    the first layer. residual: float32 [n, P, H]. router_logits: float32 [n, P, E]; expert_ids:
    int16 [n, P, k]; both padded as in a trace.
    """

    layers: Ints
    routing_layers: Ints
    token_ids: Ints
    embedding: Floats
    residual: Floats
    router_logits: Floats
    expert_ids: ExpertIds


def layer_at(depth: float, num_layers: int) -> int:
    """The decoder layer at a depth from 0 to 1: layer 4 of 16 at 0.25."""
    return min(int(num_layers * depth), num_layers - 1)


def probe_layers(num_layers: int, depths: Sequence[float] = DEPTHS) -> tuple[int, ...]:
    """The decoder layers at `depths`, each once, in order."""
    return tuple(sorted({layer_at(depth, num_layers) for depth in depths}))


def nearest_routing(layer: int, moe_layers: Sequence[int]) -> int:
    """The first layer from `layer` on that routes, else the last one before it."""
    after = [other for other in moe_layers if other >= layer]
    return after[0] if after else moe_layers[-1]


def read_features(
    model: Forward,
    prompts: Sequence[str],
    *,
    depths: Sequence[float] = DEPTHS,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> ProbeFeatures:
    """One forward pass a prompt; `step` is told how many of how many are done.

    Raises ModelError where the residual stream is not one vector a token.
    """
    layers = probe_layers(model.info.num_layers, depths)
    rows = []
    for done, prompt in enumerate(prompts, 1):
        trace = model.trace(prompt, lens=0, residuals=False, streams=True)
        rows.append(_row(trace, layers))
        step(done, len(prompts))
    return joined_features(rows)


def last_hidden(model: Forward, prompt: str, layer: int) -> Floats:
    """float32 [H], the residual stream of the last token as `layer` hands it on.

    Raises ModelError where the residual stream is not one vector a token.
    """
    trace = model.trace(prompt, lens=0, residuals=False, streams=True)
    hidden: Floats = _streams(trace).leaving[-1, layer]
    return hidden


def joined_features(parts: Sequence[ProbeFeatures]) -> ProbeFeatures:
    """The prompts of all `parts` of one model, in order."""
    width = max(part.token_ids.shape[1] for part in parts)
    return ProbeFeatures(
        layers=parts[0].layers,
        routing_layers=parts[0].routing_layers,
        token_ids=np.concatenate([_padded(part.token_ids, width) for part in parts]),
        embedding=np.concatenate([part.embedding for part in parts]),
        residual=np.concatenate([part.residual for part in parts]),
        router_logits=np.concatenate([part.router_logits for part in parts]),
        expert_ids=np.concatenate([part.expert_ids for part in parts]),
    )


def token_counts(features: ProbeFeatures) -> Floats:
    """float32 [n, ids that occur]: how often each token id is in each prompt."""
    ids, column = np.unique(features.token_ids, return_inverse=True)
    counts = np.zeros((len(features.token_ids), len(ids)), np.float32)
    rows = np.arange(len(counts))[:, None]
    np.add.at(counts, (rows, column.reshape(features.token_ids.shape)), 1)
    return counts[:, ids != NO_TOKEN]


def chosen_experts(features: ProbeFeatures, index: int) -> Floats:
    """float32 [n, E], 1 for the experts that the `index`-th layer chose."""
    ids = features.expert_ids[:, index]
    chosen = np.zeros((len(ids), features.router_logits.shape[-1]), np.float32)
    rows, slots = np.nonzero(ids != NO_EXPERT)
    chosen[rows, ids[rows, slots]] = 1
    return chosen


def router_logits(features: ProbeFeatures, index: int) -> Floats:
    """float32 [n, E' ≤ E], the `index`-th layer's logits without the padding."""
    z = features.router_logits[:, index]
    return z[:, ~np.isnan(z).all(axis=0)]


def _row(trace: Trace, layers: Sequence[int]) -> ProbeFeatures:
    streams = _streams(trace)
    routing, at = _routing(trace.model, layers)
    return ProbeFeatures(
        layers=np.array(layers, np.int32),
        routing_layers=np.array(routing, np.int32),
        token_ids=trace.token_ids[None].astype(np.int32),
        embedding=streams.entering[-1:, 0],
        residual=streams.leaving[-1:, list(layers)],
        router_logits=trace.router_logits[-1:, at],
        expert_ids=trace.expert_ids[-1:, at],
    )


def _streams(trace: Trace) -> Streams:
    streams = trace.streams
    if streams is None or len(streams.leaving) != len(trace):
        raise ModelError(
            f"the residual stream of {trace.model.name} is not one vector a token",
            "its router and its answers can be read all the same",
        )
    return streams


def _routing(info: ModelInfo, layers: Sequence[int]) -> tuple[list[int], list[int]]:
    """The routing layers beside `layers`, and their rows in a trace."""
    if not info.is_moe:
        return [], []
    routing = [nearest_routing(layer, info.moe_layers) for layer in layers]
    return routing, [info.moe_layers.index(layer) for layer in routing]


def _padded(ids: Ints, width: int) -> Ints:
    missing = width - ids.shape[1]
    return np.pad(ids, ((0, 0), (0, missing)), constant_values=NO_TOKEN)
