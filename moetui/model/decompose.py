"""The router's logits as an exact sum over what was added to the residual stream.

h(L) = e + Σ_{l≤L} a_l + Σ_{l<L} m_l, with e the stream that enters layer 0, a_l what the layer
added before its feed-forward part and m_l what it added after: differences of the stream, so that
residual multipliers, sandwich norms, biases and shared experts are inside without being known
(`moetui.model.sources` splits them further where their names can be told).
An RMS norm multiplies elementwise: u = g·h, with the scale frozen g = u / h, and so
z = W u + bias = W(g·e) + Σ W(g·a_l) + Σ W(g·m_l) + bias. A LayerNorm also centres, which is
linear too; its bias is a part of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from moetui.model.architecture import Architecture, Site
from moetui.model.records import LayerRecord, PassRecord
from moetui.model.sources import EMBEDDING, STATIC, Added, Sources

# Floats of the stacked parts [L, G, T, H] made at once: bounds the memory of a long prompt.
_FLOATS_AT_ONCE = 1 << 26


@dataclass(frozen=True, eq=False)
class LazySources:
    """at_router [T, R, H], parts [T, R, P, H], logits [T, R, S, E]; see `RouterSources`."""

    at_router: mx.array
    parts: mx.array
    logits: mx.array


@dataclass(frozen=True, eq=False)
class LazyParts:
    """parts [T, L, G, E] and seed_parts [T, L, 2, E], in the graph, not evaluated."""

    parts: mx.array
    seed_parts: mx.array


class Decomposition:
    """Splits the router logits of one model; W of all layers is stacked once.

    `probe` is one captured pass with all sources: it shows which norm stands before each router,
    and where the parts come from. `without_experts`: by layer, what the blocks that do more than
    route put out in that pass without their experts. kept: the sources that `read` needs of later
    passes.
    """

    def __init__(
        self,
        architecture: Architecture,
        probe: PassRecord,
        without_experts: Mapping[int, mx.array],
    ) -> None:
        self._sites = list(architecture.sites.values())
        self._norms = [probe.layers[site.layer].norm for site in self._sites]
        self._E = architecture.num_experts
        self._sources = Sources(architecture, probe, without_experts)
        self.kept = self._sources.kept
        self._here = mx.array([site.layer for site in self._sites])
        self._W = mx.stack([self._padded(site.matrix()) for site in self._sites])
        self._static = mx.stack(
            [self._constant(i, site, self._norms[i]) for i, site in enumerate(self._sites)]
        )
        self._absent = self._absent_experts()
        static = (STATIC,) if mx.any(self._static != 0).item() else ()
        self.part_names = (EMBEDDING, *self._sources.names, *static)
        self.source_names = self._source_names()
        mx.eval(self._W, self._static)

    def read(self, record: PassRecord) -> LazyParts:
        """The parts of every row of one pass (batch of one)."""
        H = self._W.shape[-1]
        entering, at_router, added = self._streams(record)
        T, L, G = entering.shape[1], len(self._sites), len(self.part_names)
        step = max(1, _FLOATS_AT_ONCE // max(1, L * G * H))
        chunks = [
            self._chunk(record, entering, at_router, added, slice(start, start + step))
            for start in range(0, T, step)
        ]
        return LazyParts(
            mx.concatenate([chunk.parts for chunk in chunks]),
            mx.concatenate([chunk.seed_parts for chunk in chunks]),
        )

    def read_sources(self, record: PassRecord, layers: Sequence[int]) -> LazySources:
        """The streams at the routers of the decoder layers `layers`, by what added to them."""
        entering, at_router, added = self._streams(record)
        routing = [site.layer for site in self._sites]
        every = slice(None)
        logits, parts = [], []
        for layer in layers:
            index, here = routing.index(layer), mx.array([layer])
            parts.append(
                mx.stack([entering[0], *(part.until(here, every)[0] for part in added)], axis=1)
            )
            step = max(1, _FLOATS_AT_ONCE // (len(self.source_names) * entering.shape[-1]))
            chunks = [
                self._source_logits(record, index, entering, at_router, added, rows)
                for rows in _slices(entering.shape[1], step)
            ]
            logits.append(mx.concatenate(chunks))
        return LazySources(
            mx.stack([at_router[layer] for layer in layers], axis=1),
            mx.stack(parts, axis=1),
            mx.stack(logits, axis=1),
        )

    def _source_logits(
        self,
        record: PassRecord,
        index: int,
        entering: mx.array,
        at_router: mx.array,
        added: Sequence[Added],
        rows: slice,
    ) -> mx.array:
        """[T, S, E] for the router `index`; the order is that of `source_names`."""
        layer = self._sites[index].layer
        streams = [entering[:1, rows]]
        for part, sources in zip(added, self._layers_of_parts(), strict=True):
            streams.append(part.each_until(layer, rows)[mx.array(sources)])
        normed = self._through_norm(
            record.layers[layer], index, mx.concatenate(streams), at_router[layer, rows], rows
        )
        logits = (normed @ self._W[index].T).swapaxes(0, 1)
        if STATIC in self.part_names:
            T, _, E = logits.shape
            static = mx.broadcast_to(self._static[index], (T, 1, E))
            logits = mx.concatenate([logits, static], axis=1)
        return logits if self._absent is None else mx.where(self._absent[index], mx.nan, logits)

    def read_experts(
        self, record: PassRecord, layer: int, earlier: int, outputs: mx.array
    ) -> mx.array:
        """[T, k, E]: what expert outputs [T, k, H] of the layer `earlier`, as its block sums them
        up, put into the logits of the router of `layer`."""
        index, H = [site.layer for site in self._sites].index(layer), self._W.shape[-1]
        h = _rows(record.layers[layer].at_router, H)
        scale = self._sources.scale(record, earlier, h)
        added = (outputs * scale[:, None]).swapaxes(0, 1)
        return self._put_into(record, index, added, h, slice(None))

    def mixing(self, record: PassRecord, layer: int) -> list[int]:
        """The layers whose attention, or what stands in its place, the router of `layer` reads."""
        return self._sources.mixing(record, layer)

    def read_attention(
        self,
        record: PassRecord,
        layer: int,
        earlier: int,
        terms: Callable[[slice], mx.array],
        count: int,
    ) -> mx.array:
        """[T, count, E]: what the terms of which the attention of the layer `earlier` makes up its
        output put into the logits of the router of `layer`; `terms` gives them by rows,
        [count, T', H]."""
        index, H = [site.layer for site in self._sites].index(layer), self._W.shape[-1]
        h = _rows(record.layers[layer].at_router, H)
        scale = self._sources.mixed_scale(record, earlier, h)
        step = max(1, _FLOATS_AT_ONCE // (count * H))
        pieces = []
        for rows in _slices(len(h), step):
            pieces.append(self._put_into(record, index, terms(rows) * scale[rows], h[rows], rows))
            if len(h) > step:
                mx.eval(pieces[-1])
        return mx.concatenate(pieces)

    def _put_into(
        self, record: PassRecord, index: int, added: mx.array, h: mx.array, rows: slice
    ) -> mx.array:
        """[T', G, E]: what parts [G, T', H] of the stream h [T', H] put into the logits of the
        router `index`."""
        layer = record.layers[self._sites[index].layer]
        normed = self._through_norm(layer, index, added, h, rows)
        return (normed @ self._W[index].T).swapaxes(0, 1)

    def slope(self, record: LayerRecord, layer: int, h: mx.array) -> mx.array:
        """[E, H]: how the logits of the router of `layer` follow the stream h [1, H] before its
        norm, whose scale is frozen; `record` holds what the router read of it."""
        index = [site.layer for site in self._sites].index(layer)
        one = mx.eye(h.shape[-1])[:, None]
        normed = self._through_norm(record, index, one, h, slice(0, 1))[:, 0]
        return self._W[index][: self._sites[index].num_experts] @ normed.T

    def _source_names(self) -> tuple[tuple[str, int | None], ...]:
        names: list[tuple[str, int | None]] = [(EMBEDDING, None)]
        for part, layers in zip(self._sources.names, self._layers_of_parts(), strict=True):
            names += [(part, layer) for layer in layers]
        return (*names, *([(STATIC, None)] if STATIC in self.part_names else []))

    def _layers_of_parts(self) -> list[list[int]]:
        """By part (the embedding apart), the layers up to the last router that may add to it."""
        routing = {site.layer for site in self._sites}
        every = range(max(routing) + 1)
        return [self._sources.layers_of(part, every) for part in self._sources.names]

    def _streams(self, record: PassRecord) -> tuple[mx.array, mx.array, list[Added]]:
        """The stream entering layers and at their routers [N, T, H], and what parts added."""
        H = self._W.shape[-1]
        entering, at_router, leaving = (
            mx.stack([_rows(getattr(layer, name), H) for layer in record.layers])
            for name in ("entering", "at_router", "leaving")
        )
        added = list(self._sources.added(record, entering, at_router, leaving).values())
        return entering, at_router, added

    def _chunk(
        self,
        record: PassRecord,
        entering: mx.array,
        at_router: mx.array,
        added: list[Added],
        rows: slice,
    ) -> LazyParts:
        entering, at_router = entering[:, rows], at_router[:, rows]
        e = mx.broadcast_to(entering[:1], (len(self._sites), *entering.shape[1:]))
        streams = mx.stack([e, *(part.until(self._here, rows) for part in added)], axis=1)
        normed = mx.stack(
            [
                self._through_norm(
                    record.layers[site.layer], i, streams[i], at_router[site.layer], rows
                )
                for i, site in enumerate(self._sites)
            ]
        )
        parts = normed @ self._W[:, None].swapaxes(-1, -2)
        if STATIC in self.part_names:
            L, _, T, E = parts.shape
            static = mx.broadcast_to(self._static[:, None, None], (L, 1, T, E))
            parts = mx.concatenate([parts, static], axis=1)
        if self._absent is not None:
            parts = mx.where(self._absent, mx.nan, parts)
        seed = mx.stack([e, entering[self._here] - e], axis=1) @ self._W[:, None].swapaxes(-1, -2)
        return LazyParts(parts.transpose(2, 0, 1, 3), seed.transpose(2, 0, 1, 3))

    def _through_norm(
        self, record: LayerRecord, index: int, parts: mx.array, h: mx.array, rows: slice
    ) -> mx.array:
        """[G', T, H]: the parts of the stream h [T, H] at a router as they stand in the router's
        input, the norm's scale frozen."""
        norm = self._norms[index]
        if isinstance(norm, nn.LayerNorm):
            gain = mx.rsqrt(mx.var(h, axis=-1, keepdims=True) + norm.eps)
            if "weight" in norm:
                gain = gain * norm.weight.astype(mx.float32)
            return (parts - parts.mean(-1, keepdims=True)) * gain
        u = _rows(record.router_input, h.shape[-1])[rows]
        zero = h == 0
        return parts * mx.where(zero, 0, u / mx.where(zero, 1, h))

    def _absent_experts(self) -> mx.array | None:
        """bool [L, 1, 1, E]: experts that a layer lacks; None where all have the same number."""
        counts = mx.array([site.num_experts for site in self._sites])
        absent = mx.arange(self._E) >= counts[:, None]
        return absent[:, None, None] if mx.any(absent).item() else None

    def _padded(self, matrix: mx.array) -> mx.array:
        return mx.pad(matrix, [(0, self._E - matrix.shape[0]), (0, 0)])

    def _constant(self, index: int, site: Site, norm: nn.Module | None) -> mx.array:
        """What the router adds whatever it reads: its bias and its LayerNorm's, [E]."""
        static = mx.zeros(self._E)
        if site.bias is not None:
            bias = site.bias.astype(mx.float32)[: site.num_experts]
            static = static + mx.pad(bias, [(0, self._E - bias.shape[0])])
        if isinstance(norm, nn.LayerNorm) and "bias" in norm:
            static = static + self._W[index] @ norm.bias.astype(mx.float32)
        return static


def _slices(length: int, step: int) -> Iterator[slice]:
    """0 … length in pieces of `step`."""
    return (slice(start, start + step) for start in range(0, length, step))


def _rows(array: mx.array | None, width: int) -> mx.array:
    """[T, width], float32, from a tensor with any leading axes."""
    if array is None:
        raise ValueError("a layer passed by without being seen")
    return array.astype(mx.float32).reshape(-1, width)
