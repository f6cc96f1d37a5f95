"""Which modules the parts of the residual stream come from, so that their names are true.

What a layer adds before its router is called attention only where it is the output of the
module that mixes positions (attention, or the recurrence or convolution in its place), times one
number; what it adds afterwards is split into routed and shared experts only where it is the
output of the block that routes, and the block shows the routed sum. Where a layer mixes positions
once more after its router, the name says so. A norm on the way multiplies elementwise and is
followed. All this is looked up once, in the probe's pass, on the host; streams in half precision
are compared as closely as they can have kept what was added to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from moetui.model.architecture import Architecture
from moetui.model.records import LayerRecord, PassRecord

EMBEDDING, STATIC, DENSE = "embedding", "static bias", "dense MLP"
ATTENTION, MIXED = "attention", "attention, combined"
ROUTED, SHARED, COMBINED = "routed experts", "shared expert", "experts, combined"
WITH_ATTENTION = "experts and attention, combined"

Floats = NDArray[np.float64]
# Relative to the part: differences of a larger stream lose a few digits.
_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Added:
    """What every layer added to the stream before and after its router: [N, T, H] each, None for
    nothing."""

    before: mx.array | None = None
    after: mx.array | None = None

    def until(self, here: mx.array, rows: slice) -> mx.array:
        """[L, T, H]: what had been added when the stream was at the routers of layers `here`."""
        total: mx.array | float = 0.0
        if self.before is not None:
            total = mx.cumsum(self.before[:, rows], axis=0)[here]
        if self.after is not None:
            total = total + mx.cumsum(self.after[:, rows], axis=0, inclusive=False)[here]
        assert isinstance(total, mx.array)
        return total

    def each_until(self, layer: int, rows: slice) -> mx.array:
        """[N, T, H]: what each layer had added when the stream was at the router of `layer`."""
        total: mx.array | float = 0.0
        for added, reached in ((self.before, layer + 1), (self.after, layer)):
            if added is not None:
                there = mx.arange(added.shape[0])[:, None, None] < reached
                total = total + mx.where(there, added[:, rows], 0)
        assert isinstance(total, mx.array)
        return total


@dataclass(frozen=True)
class LayerSources:
    """What one layer adds to the stream.

    attention: all that it adds before its router is one mixing module's output (or nothing).
    before_unit: what that output is multiplied with.
    experts: what it adds afterwards is the block's output times `unit`, plus, where the two run
    side by side, the mixing module's times `mixed_unit`.
    """

    attention: bool
    experts: bool
    unit: float = 1.0
    mixed_unit: float = 0.0
    before_unit: float = 1.0


class Sources:
    """The named parts of one model's stream. `probe` is a pass with all sources,
    `without_experts` what its blocks put out without their experts, by layer.

    names: the parts besides the embedding, in their order. kept: the sources of later passes that
    `added` needs.
    """

    def __init__(
        self,
        architecture: Architecture,
        probe: PassRecord,
        without_experts: Mapping[int, mx.array],
    ) -> None:
        self._sites = architecture.sites
        self._layers = [_layer_sources(layer) for layer in probe.layers]
        self._parallel = any(layer.mixed_unit for layer in self._layers)
        self._splits = self._can_split(probe, without_experts)
        self.kept = self._needed(probe)
        attention = all(layer.attention for layer in self._layers)
        self._attention = ATTENTION if attention else MIXED
        plain = all(
            self._layers[site.layer].experts and not site.shares_block
            for site in self._sites.values()
        )
        mixed_again = any(layer.mixed_again for layer in probe.layers)
        self._experts = ROUTED if plain else WITH_ATTENTION if mixed_again else COMBINED
        # A layer of nothing but attention leaves as it was at its router.
        dense_before_a_router = any(
            i not in self._sites and layer.leaving is not layer.at_router
            for i, layer in enumerate(probe.layers[: max(self._sites)])
        )
        self.names: tuple[str, ...] = (
            self._attention,
            *((ROUTED, SHARED) if self._splits else (self._experts,)),
            *((DENSE,) if dense_before_a_router else ()),
        )

    def added(
        self, record: PassRecord, entering: mx.array, at_router: mx.array, leaving: mx.array
    ) -> dict[str, Added]:
        """By name, what the layers added; the streams are [N, T, H] in float32."""
        mixed = self._mixed(record, entering) if self._parallel else None
        after = leaving - at_router
        if mixed is not None:
            after = after - mixed
        routes = mx.array([i in self._sites for i in range(len(self._layers))])[:, None, None]
        experts = mx.where(routes, after, 0)
        found = {self._attention: Added(at_router - entering, mixed)}
        if self._splits:
            routed = self._routed(record, entering)
            found |= {ROUTED: Added(after=routed), SHARED: Added(after=experts - routed)}
        else:
            found[self._experts] = Added(after=experts)
        if DENSE in self.names:
            found[DENSE] = Added(after=mx.where(routes, 0, after))
        return found

    def layers_of(self, part: str, layers: Sequence[int]) -> list[int]:
        """Those of `layers` that may add to a part."""
        if part == self._attention:
            return list(layers)
        return [layer for layer in layers if (layer in self._sites) != (part == DENSE)]

    def scale(self, record: PassRecord, layer: int, like: mx.array) -> mx.array:
        """[T, H]: what the output of the block that routes in `layer` was multiplied with before
        it was added to the stream; for passes that kept `moetui.model.records.BLOCK`."""
        return _block_scale(record.layers[layer], self._layers[layer].unit, like)

    def mixing(self, record: PassRecord, layer: int) -> list[int]:
        """The layers whose mixing module had added to the stream at the router of `layer`; for
        passes that kept `moetui.model.records.MIXER`."""
        return [
            i
            for i, (seen, source) in enumerate(zip(record.layers, self._layers, strict=True))
            if seen.mixed is not None and (i < layer or (i == layer and not source.mixed_unit))
        ]

    def mixed_scale(self, record: PassRecord, layer: int, like: mx.array) -> mx.array:
        """[T, H]: what the output of the module of `layer` that mixes positions was multiplied
        with before it was added to the stream; for passes that kept `MIXER`."""
        seen, source = record.layers[layer], self._layers[layer]
        unit = source.mixed_unit or source.before_unit
        return _scale(seen.mixed, seen.mixed_normed, unit, like)

    def _mixed(self, record: PassRecord, like: mx.array) -> mx.array:
        nothing = mx.zeros_like(like[0])
        pairs = zip(record.layers, self._layers, strict=True)
        return mx.stack(
            [
                _float32(layer.mixed, nothing) * source.mixed_unit if source.mixed_unit else nothing
                for layer, source in pairs
            ]
        )

    def _routed(self, record: PassRecord, like: mx.array) -> mx.array:
        nothing = mx.zeros_like(like[0])
        return mx.stack(
            [
                _routed_part(layer, source.unit, nothing) if index in self._sites else nothing
                for index, (layer, source) in enumerate(
                    zip(record.layers, self._layers, strict=True)
                )
            ]
        )

    def _can_split(self, probe: PassRecord, without_experts: Mapping[int, mx.array]) -> bool:
        """Whether every block shows the sum of its routed experts, some block adds more than
        that, and it is by that sum that such a block differs from itself without experts."""
        return any(site.shares_block for site in self._sites.values()) and all(
            self._layers[i].experts
            and probe.layers[i].routed_sum is not None
            and (not site.shares_block or _is_routed_sum(probe.layers[i], without_experts.get(i)))
            for i, site in self._sites.items()
        )

    def _needed(self, probe: PassRecord) -> frozenset[str]:
        needed = {"mixed"} if self._parallel else set()
        if self._splits:
            needed.add("routed_sum")
            if any(probe.layers[i].block_normed is not None for i in self._sites):
                needed |= {"block_output", "block_normed"}
        return frozenset(needed)


def _layer_sources(record: LayerRecord) -> LayerSources:
    """Compare what a layer added with what its modules put out."""
    entering, at_router, leaving = (
        _host(a) for a in (record.entering, record.at_router, record.leaving)
    )
    before, after = at_router - entering, leaving - at_router
    mixed = _host(record.mixed if record.mixed_normed is None else record.mixed_normed)
    block = _host(record.block_output if record.block_normed is None else record.block_normed)
    rounding = _rounding(record.entering)
    first = rounding * (np.abs(at_router) + np.abs(before))
    second = rounding * (np.abs(leaving) + np.abs(after))
    alone = _units(before, first, mixed)
    attention = not before.any() or alone is not None
    before_unit = 1.0 if alone is None else alone[0]
    if (units := _units(after, second, block)) is not None:
        return LayerSources(attention, True, units[0], before_unit=before_unit)
    if not before.any() and (units := _units(after, second, block, mixed)) is not None:
        return LayerSources(True, True, *units)
    return LayerSources(attention, False, before_unit=before_unit)


def _is_routed_sum(record: LayerRecord, without: mx.array | None) -> bool:
    """Whether the block puts out `routed_sum` more than without its experts: not where the sum is
    projected or normed before it is put out."""
    routed, block = _host(record.routed_sum), _host(record.block_output)
    experts = block - _host(without)
    if routed.shape != experts.shape:
        return False
    lost = _rounding(record.block_output) * (np.abs(block) + np.abs(routed))
    return _equal(routed, experts, lost)


def _routed_part(record: LayerRecord, unit: float, like: mx.array) -> mx.array:
    """[T, H]: what the sum of the routed experts became in the stream."""
    return _float32(record.routed_sum, like) * _block_scale(record, unit, like)


def _block_scale(record: LayerRecord, unit: float, like: mx.array) -> mx.array:
    return _scale(record.block_output, record.block_normed, unit, like)


def _scale(
    output: mx.array | None, normed: mx.array | None, unit: float, like: mx.array
) -> mx.array:
    """[T, H]: what a module's output was multiplied with, a norm on the way included."""
    if normed is None:
        return mx.full(like.shape, unit)
    before, after = _float32(output, like), _float32(normed, like)
    zero = before == 0
    return unit * mx.where(zero, 0, after / mx.where(zero, 1, before))


def _float32(array: mx.array | None, like: mx.array) -> mx.array:
    if array is None:
        raise ValueError("a layer added something without being seen")
    return array.astype(mx.float32).reshape(like.shape)


def _host(array: mx.array | None) -> Floats:
    if array is None:
        return np.zeros(0)
    return np.array(array.astype(mx.float32), np.float64).ravel()


def _rounding(array: mx.array | None) -> float:
    """How far a sum of two numbers in the type of `array` may be off, relative to it."""
    return 0.0 if array is None else float(mx.finfo(array.dtype).eps)


def _equal(part: Floats, added: Floats, lost: Floats) -> bool:
    """Whether a part is what was added, up to what a sum may have lost to rounding; a sum that
    lost most of what was added to it shows nothing."""
    missed = np.abs(part - added)
    near = missed <= _TOLERANCE * np.abs(added).max() + lost
    return bool(near.all() and np.linalg.norm(missed) < 0.5 * np.linalg.norm(added))


def _units(added: Floats, lost: Floats, *outputs: Floats) -> tuple[float, ...] | None:
    """The numbers with which the outputs add up to `added`, None where they do not; lost: how far
    rounding may have moved each number of it."""
    if any(output.shape != added.shape or not output.any() for output in outputs):
        return None
    terms = np.stack(outputs, axis=1)
    units = np.linalg.lstsq(terms, added, rcond=None)[0]
    units = np.where(np.abs(units - 1) < _TOLERANCE, 1.0, units)
    lost = lost * 2 if terms.shape[1] > 1 else lost
    return tuple(map(float, units)) if _equal(terms @ units, added, lost) else None
