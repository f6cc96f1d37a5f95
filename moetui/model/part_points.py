"""Where the residual parts of a model can be changed: found in one pass, tried out in a second.

A part is changed at the last module whose output, times one number, is what the stream gained,
before the router (attention or what stands in its place) or after it. That number is a residual
multiplier, 1 in most models; a norm after the attention is itself that last module. What is added
after the router may also be a sum of several outputs; then it is changed as a difference of the
stream, where the layer hands it on. No architecture is known by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from moetui.model.architecture import Architecture
from moetui.model.capture import Capture
from moetui.model.edits import Edits
from moetui.model.records import LayerRecord, PassRecord, Want
from moetui.model.taps import ModuleTap, Tap
from moetui.trace.interventions import Part

Floats = NDArray[np.float64]
RunProbe = Callable[[Want, Edits], PassRecord]


@dataclass(frozen=True, eq=False)
class PartPoint:
    """The module whose output, times `unit`, is a part of the stream."""

    module: nn.Module
    unit: float


Points = dict[int, PartPoint | None]


@dataclass(frozen=True)
class PartPoints:
    """By decoder layer, where its parts can be changed: at a module, or None where the experts'
    part is changed as a difference of the stream. Layers that are missing cannot be changed, or
    lack the part altogether.

    one_stream: a layer receives one vector per token, to which parts are added.
    """

    one_stream: bool
    attention: Points
    experts: Points
    no_attention: frozenset[int] = frozenset()
    no_experts: frozenset[int] = frozenset()

    def of(self, part: Part) -> Points:
        """The points of a part."""
        if part == "embedding":
            return {0: None}
        return self.attention if part == "attention" else self.experts


@dataclass(frozen=True, eq=False)
class _Call:
    """A module's call inside a layer: what it put out, and whether the router was still ahead."""

    module: nn.Module
    output: mx.array
    before_router: bool


def find_part_points(architecture: Architecture, capture: Capture, run: RunProbe) -> PartPoints:
    """Look at one pass over the probe's tokens, and verify what was found in another."""
    listening = _Listening(architecture, capture)
    record = run(Want(), listening)
    if not all(_is_one_stream(layer) for layer in record.layers):
        return PartPoints(False, {}, {})
    attention, experts = dict[int, PartPoint](), dict[int, PartPoint]()
    summed, no_attention, no_experts = set[int](), set[int](), set[int]()
    for index, layer in enumerate(record.layers):
        seen, shape = _Stream.of(layer), _shape(layer)
        calls = [call for call in listening.calls[index] if call.output.shape == shape]
        ahead = [call for call in calls if call.before_router]
        behind = [call for call in calls if not call.before_router]
        if layer.at_router is layer.entering:
            no_attention.add(index)
        elif point := _find_point(seen.entering, seen.at_router, seen.rounding, ahead):
            attention[index] = point
        if layer.leaving is layer.at_router:
            no_experts.add(index)
        elif point := _find_point(seen.at_router, seen.leaving, seen.rounding, behind):
            experts[index] = point
        elif _adds_to_the_stream(seen, behind):
            summed.add(index)
    attention, experts = _verified(attention, experts, run)
    return PartPoints(
        True,
        {**attention},
        {**experts, **dict.fromkeys(summed)},
        frozenset(no_attention),
        frozenset(no_experts),
    )


class _Listening(Edits):
    """Notes what every module inside a layer puts out, in the order in which they end."""

    needs_residuals = True

    def __init__(self, architecture: Architecture, capture: Capture) -> None:
        self._architecture, self._capture = architecture, capture
        self.calls: list[list[_Call]] = [[] for _ in architecture.layers]

    def taps(self) -> Sequence[Tap]:
        return [
            ModuleTap(module, self._around(index, module))
            for index, layer in enumerate(self._architecture.layers)
            for _, module in layer.named_modules()
            if module is not layer
        ]

    def _around(self, index: int, module: nn.Module) -> Callable[..., Any]:
        def around(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            array = output[0] if isinstance(output, tuple) and output else output
            if isinstance(array, mx.array):
                before = self._capture.record.layers[index].at_router is None
                self.calls[index].append(_Call(module, array, before))
            return output

        return around


class _Doubling(Edits):
    """Doubles the outputs of modules, and keeps them as they were, by layer."""

    needs_residuals = True

    def __init__(self, *points: Mapping[int, PartPoint]) -> None:
        self._points = points
        self.plain: list[dict[int, mx.array]] = [{} for _ in points]

    def taps(self) -> Sequence[Tap]:
        return [
            change_output(point.module, partial(self._doubled, plain, layer))
            for points, plain in zip(self._points, self.plain, strict=True)
            for layer, point in points.items()
        ]

    def _doubled(self, plain: dict[int, mx.array], layer: int, output: mx.array) -> mx.array:
        plain[layer] = output
        return output * 2


def change_output(module: nn.Module, change: Callable[[mx.array], mx.array]) -> Tap:
    """A tap that passes what `module` puts out (first, if that is a tuple) through `change`."""

    def around(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        if isinstance(output, tuple):
            return change(output[0]), *output[1:]
        return change(output)

    return ModuleTap(module, around)


@dataclass(frozen=True, eq=False)
class _Stream:
    """The residual stream of one layer on the host, [T·H] each, and how far it was rounded."""

    entering: Floats
    at_router: Floats
    leaving: Floats
    rounding: float

    @classmethod
    def of(cls, layer: LayerRecord) -> _Stream:
        """The stream of a layer whose record has all three."""
        assert layer.entering is not None
        rounding = 2 * float(mx.finfo(layer.entering.dtype).eps)
        return cls(_flat(layer.entering), _flat(layer.at_router), _flat(layer.leaving), rounding)


def _flat(array: mx.array | None) -> Floats:
    assert array is not None
    return np.array(array.astype(mx.float32), np.float64).ravel()


def _shape(layer: LayerRecord) -> tuple[int, ...]:
    assert layer.entering is not None
    return layer.entering.shape


def _is_one_stream(layer: LayerRecord) -> bool:
    streams = (layer.entering, layer.at_router, layer.leaving)
    shapes = {None if stream is None else stream.shape for stream in streams}
    return len(shapes) == 1 and layer.entering is not None and layer.entering.ndim == 3


def _find_point(
    before: Floats, after: Floats, rounding: float, calls: Sequence[_Call]
) -> PartPoint | None:
    """The last module whose output, times one number, the stream gained."""
    gained = after - before
    for call in reversed(calls):
        output = _flat(call.output)
        power = float(output @ output)
        if power == 0:
            continue
        unit = float(gained @ output) / power
        unit = 1.0 if abs(unit - 1) < 1e-3 else unit
        # A part below the stream's own rounding would fit any module.
        large = abs(unit) * np.sqrt(power) > 0.5 * float(np.linalg.norm(gained))
        if large and _is_sum(before, unit * output, after, rounding):
            return PartPoint(call.module, unit)
    return None


def _is_sum(before: Floats, part: Floats, after: Floats, rounding: float) -> bool:
    error = np.abs(after - before - part)
    return bool((error <= rounding * (np.abs(before) + np.abs(part))).all())


def _verified(
    attention: dict[int, PartPoint], experts: dict[int, PartPoint], run: RunProbe
) -> tuple[dict[int, PartPoint], dict[int, PartPoint]]:
    """The points at which a doubled output was seen to double what the stream gained."""
    doubling = _Doubling(attention, experts)
    record = run(Want(), doubling)
    streams = [_Stream.of(layer) for layer in record.layers]

    def gains(names: tuple[str, str], plain: mx.array, point: PartPoint, layer: int) -> bool:
        before, after = (getattr(streams[layer], name) for name in names)
        return _is_sum(before, 2 * point.unit * _flat(plain), after, streams[layer].rounding)

    sums = (("entering", "at_router"), ("at_router", "leaving"))
    first, second = (
        {layer: at for layer, at in points.items() if gains(names, plain[layer], at, layer)}
        for names, points, plain in zip(sums, (attention, experts), doubling.plain, strict=True)
    )
    return first, second


def _adds_to_the_stream(seen: _Stream, calls: Sequence[_Call]) -> bool:
    """Whether what leaves is the stream at the router, perhaps scaled, plus module outputs."""
    # Modules before the router are not among them: beside it they would be another part.
    terms = np.stack([seen.at_router, *(_flat(call.output) for call in calls)], axis=1)
    coefficients = np.linalg.lstsq(terms, seen.leaving, rcond=None)[0]
    scale = np.abs(terms * coefficients).sum(axis=1) + np.abs(seen.leaving)
    error = np.abs(seen.leaving - terms @ coefficients)
    return bool(abs(coefficients[0]) > 1e-2 and (error <= seen.rounding * scale).all())
