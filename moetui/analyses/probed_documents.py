"""Documents read for a probe: what leaves its layer, and what later routers would make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moetui.analyses.expert_ranks import first
from moetui.trace import NO_EXPERT, Forward
from moetui.trace.types import ExpertIds, Floats, Ints, Streams


@dataclass(frozen=True, eq=False, kw_only=True)
class ProbedDocument:
    """One document, T tokens, or those of them that are kept.

    ids: int32 [T]; experts: int16 [T, L, k], all layers that route. stream: float32 [T, H], as it
    leaves the probe's layer. at_probe, before: int16 [T, R, m], what the routers of the R later
    layers rank first for that stream, and for the one that the router before theirs reads, best
    first: m = 2k, or k in any order where their scores are hidden; None where they were not asked.
    """

    id: str
    ids: Ints
    experts: ExpertIds
    stream: Floats
    at_probe: ExpertIds | None = None
    before: ExpertIds | None = None


def later_layers(probe_layer: int, moe_layers: Sequence[int]) -> tuple[int, ...]:
    """The layers that route after the probe's."""
    return tuple(layer for layer in moe_layers if layer > probe_layer)


def read_probed(
    model: Forward, name: str, ids: Ints, probe_layer: int, *, gates: bool
) -> ProbedDocument:
    """One pass over `ids`; gates: the routers of later layers are asked about earlier streams."""
    trace = model.trace(ids, lens=0, streams=True)
    streams = trace.streams
    assert streams is not None
    left = streams.leaving[:, probe_layer]
    targets = later_layers(probe_layer, model.info.moe_layers)
    asked = gates and model.routes_error is None
    width = 2 * trace.expert_ids.shape[2]
    at_probe = [_wide(_ranked(model, layer, left, width), width) for layer in targets if asked]
    before = [
        _wide(_ranked(model, layer, earlier, width), width)
        for layer in targets
        if asked
        for earlier in [_earlier(streams, layer, model.info.moe_layers, left)]
    ]
    return ProbedDocument(
        id=name,
        ids=trace.token_ids,
        experts=trace.expert_ids,
        stream=left,
        at_probe=np.stack(at_probe, axis=1) if asked else None,
        before=np.stack(before, axis=1) if asked else None,
    )


def _earlier(streams: Streams, layer: int, moe_layers: Sequence[int], left: Floats) -> Floats:
    """[T, H], what the router before that of `layer` reads, before its norm; where there is none,
    the probe's own stream. Not simply that of the decoder layer before: where mixers and experts
    are layers of their own, that is the router's own stream already."""
    routers = [one for one in moe_layers if one < layer]
    return streams.at_router[:, routers[-1]] if routers else left


def some_tokens(document: ProbedDocument, rows: NDArray[np.intp]) -> ProbedDocument:
    """`rows` of a document whose routers were not asked."""
    return ProbedDocument(
        id=document.id,
        ids=document.ids[rows],
        experts=document.experts[rows],
        stream=document.stream[rows],
    )


def _ranked(model: Forward, layer: int, stream: Floats, most: int) -> ExpertIds:
    """[T, m], whom the router of `layer` ranks first for streams [T, H]."""
    scores = model.router_scores(layer, stream)
    return model.routes(layer, stream) if scores is None else first(scores.astype(float), most)


def _wide(chosen: ExpertIds, width: int) -> ExpertIds:
    """[T, width], padded where a layer uses fewer experts."""
    padding = [(0, 0), (0, width - chosen.shape[1])]
    return np.pad(chosen, padding, constant_values=NO_EXPERT).astype(np.int16)
