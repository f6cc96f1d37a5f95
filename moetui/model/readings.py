"""From the lazy references of one pass to numpy: what a Trace of its rows is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from moetui.model.architecture import Architecture, Site
from moetui.model.decompose import Decomposition
from moetui.model.records import LayerRecord, PassRecord, Want
from moetui.trace import NO_EXPERT, RouterSources, Streams

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class LazyReadings:
    """Everything wanted of one pass, in the graph, not evaluated; `fields` by their names."""

    fields: dict[str, mx.array]
    rows: int

    def arrays(self) -> list[mx.array]:
        """What has to be evaluated."""
        return list(self.fields.values())

    def fetch(self) -> dict[str, Array]:
        """Evaluate once and bring everything to host memory, experts in order."""
        mx.eval(*self.fields.values())
        host = {name: np.array(array) for name, array in self.fields.items()}
        return _in_order(host)


def read(
    record: PassRecord,
    architecture: Architecture,
    decomposition: Decomposition | None,
    want: Want,
    *,
    signs: Sequence[int] | None = None,
    streams: bool = False,
) -> LazyReadings:
    """The readings of one pass over a batch of one. Layers that differ are padded to the widest.

    signs: what to multiply the operand of top-k with so that larger is better, a layer each
    (see `ranking_signs`); None where top-k is hidden.
    """
    assert record.logits is not None
    sites = list(architecture.sites.values())
    fields = {"logits": record.logits[0, -1].astype(mx.float32)}
    rows = record.logits.shape[1]
    if sites:
        layers = [record.layers[site.layer] for site in sites]
        E = architecture.num_experts
        k = max(layer.indices.shape[-1] for layer in layers if layer.indices is not None)
        fields["router_logits"] = _stack([r.logits for r in layers], E, mx.nan)
        fields["expert_ids"] = _stack([r.indices for r in layers], k, NO_EXPERT, mx.int32)
        fields["expert_weights"] = _stack([effective_weights(r) for r in layers], k, mx.nan)
        if signs is not None:
            scores = [
                None if r.ranked is None else r.ranked * sign
                for r, sign in zip(layers, signs, strict=True)
            ]
            fields["selection_scores"] = _stack(scores, E, mx.nan)
        if want.expert_outputs:
            pairs = zip(sites, layers, strict=True)
            fields["expert_outputs"] = mx.stack([outputs_of(*pair, k) for pair in pairs], axis=1)
        if decomposition is not None and want.residuals:
            parts = decomposition.read(record)
            fields["router_parts"], fields["seed_parts"] = parts.parts, parts.seed_parts
        if decomposition is not None and want.sources:
            found = decomposition.read_sources(record, want.sources)
            fields["sources.layers"] = mx.array(want.sources, mx.int32)
            fields["sources.at_router"], fields["sources.parts"] = found.at_router, found.parts
            fields["sources.logits"] = found.logits
    if want.attention:
        attention = _attention(record.layers, rows)
        if attention is not None:
            fields["attention"] = attention
    if streams:
        fields.update(_streams(record, sites_of=[site.layer for site in sites]))
    return LazyReadings(fields, rows)


def make_streams(host: dict[str, Array]) -> Streams | None:
    """Take the residual streams out of `host`, None when they were not read."""
    names = ("entering", "at_router", "leaving", "router_input")
    if "entering" not in host:
        return None
    return Streams(**{name: host.pop(name) for name in names})


def make_sources(
    host: dict[str, Array], names: tuple[tuple[str, int | None], ...]
) -> RouterSources | None:
    """Take the sources of the streams out of `host`, None when they were not read."""
    if "sources.layers" not in host:
        return None
    fields = ("layers", "at_router", "parts", "logits")
    return RouterSources(names=names, **{name: host.pop(f"sources.{name}") for name in fields})


def _streams(record: PassRecord, sites_of: list[int]) -> dict[str, mx.array]:
    def stacked(name: str, layers: list[int]) -> mx.array:
        return mx.stack([_flat(getattr(record.layers[i], name)) for i in layers], axis=1)

    every = list(range(len(record.layers)))
    streams = {name: stacked(name, every) for name in ("entering", "at_router", "leaving")}
    rows, _, H = streams["entering"].shape
    streams["router_input"] = (
        stacked("router_input", sites_of) if sites_of else mx.zeros((rows, 0, H))
    )
    return streams


def _flat(array: mx.array | None) -> mx.array:
    """[T, width], float32, from a tensor with any leading axes."""
    if array is None:
        raise ValueError("a layer passed by without being seen")
    return array.astype(mx.float32).reshape(-1, array.shape[-1])


def effective_weights(record: LayerRecord) -> mx.array | None:
    """Weights [..., k] with which the experts' outputs add up to the routed output, factors that
    the block applies to their sum included; where the block scales what its one expert reads,
    that scale."""
    if record.weights is None:
        return _input_scale(record)
    if record.factor is None:
        return record.weights
    k, factor = record.weights.shape[-1], mx.array(record.factor)
    return record.weights.reshape(-1, k) * (factor.reshape(-1, 1) if factor.ndim else factor)


def _input_scale(record: LayerRecord) -> mx.array | None:
    """c [..., 1] where the experts read c · router_input."""
    x, scaled = record.router_input, record.bank_input
    if x is None or scaled is None:
        return None
    return (x * scaled).sum(-1, keepdims=True) / (x * x).sum(-1, keepdims=True)


def outputs_of(site: Site, record: LayerRecord, k: int) -> mx.array:
    """[T, k, H]: what each chosen expert put out; those without weights hand their input on."""
    assert record.expert_outputs is not None and record.indices is not None
    H = record.expert_outputs.shape[-1]
    used = record.indices.shape[-1]
    outputs = record.expert_outputs.astype(mx.float32).reshape(-1, used, H)
    if site.num_experts > site.bank_experts:
        x = _flat(record.router_input).reshape(-1, 1, H)
        hands_on = record.indices.reshape(-1, used, 1) >= site.bank_experts
        outputs = mx.where(hands_on, x, outputs)
    missing = k - used
    padding = [(0, 0), (0, missing), (0, 0)]
    return mx.pad(outputs, padding, constant_values=mx.nan) if missing else outputs


def _attention(layers: Sequence[LayerRecord], rows: int) -> mx.array | None:
    """[N, heads, T, T]; NaN where a layer has no attention over tokens, or fewer heads.

    A layer that attends twice has the heads of both. Attention over anything but the tokens
    themselves (compressed keys) has no place here.
    """
    seen = [[a[0] for a in layer.attention if a.shape[-2:] == (rows, rows)] for layer in layers]
    heads = max((sum(a.shape[0] for a in layer) for layer in seen), default=0)
    if heads == 0:
        return None
    nothing = mx.full((0, rows, rows), mx.nan)
    return mx.stack([_with_heads(mx.concatenate([*layer, nothing]), heads) for layer in seen])


def _with_heads(attention: mx.array, heads: int) -> mx.array:
    missing = [(0, heads - attention.shape[0]), (0, 0), (0, 0)]
    return mx.pad(attention, missing, constant_values=mx.nan)


def _stack(
    arrays: list[mx.array | None], width: int, pad: float, dtype: mx.Dtype = mx.float32
) -> mx.array:
    """[T, L, width] from one [..., ≤ width] array a layer."""
    flat = []
    for array in arrays:
        if array is None:
            raise ValueError("a layer routed without being seen")
        rows = array.astype(dtype).reshape(-1, array.shape[-1])[:, :width]
        missing = width - rows.shape[-1]
        flat.append(mx.pad(rows, [(0, 0), (0, missing)], constant_values=pad) if missing else rows)
    return mx.stack(flat, axis=1)


def _in_order(host: dict[str, Array]) -> dict[str, Array]:
    """Experts by selection score, best first; equal scores by id. Weights and outputs follow."""
    if "expert_ids" not in host:
        return host
    ids, scores = host["expert_ids"], host.get("selection_scores")
    # Where top-k is hidden, the mixing weight is the best evidence of the model's preference.
    key = host["expert_weights"] if scores is None else _of_selected(scores, ids)
    key = np.where(ids == NO_EXPERT, -np.inf, key)
    order = np.lexsort((ids, -key), axis=-1)
    host["expert_ids"] = np.take_along_axis(ids, order, -1).astype(np.int16)
    host["expert_weights"] = np.take_along_axis(host["expert_weights"], order, -1)
    if "expert_outputs" in host:
        host["expert_outputs"] = np.take_along_axis(
            host["expert_outputs"], order[..., None], axis=-2
        )
    return host


def _of_selected(scores: Array, ids: Array) -> Array:
    selected: Array = np.take_along_axis(scores, np.maximum(ids, 0).astype(np.int64), -1)
    return selected
