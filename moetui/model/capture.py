"""Reading one forward pass: references into the model's own lazy graph, nothing evaluated.

Only the model's own forward runs. A capture adds a few Python calls a layer; whoever asked
evaluates what it wants, once a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from moetui.model.architecture import Architecture, Site
from moetui.model.attention import probabilities
from moetui.model.taps import Attached, FunctionTap, ModuleTap, ParameterTap, Tap, TappedArray


@dataclass(frozen=True)
class Want:
    """What to capture besides the routing itself, which always is."""

    residuals: bool = True
    attention: bool = False
    expert_outputs: bool = False


@dataclass(eq=False)
class LayerRecord:
    """What one decoder layer did: lazy arrays as the model made them; None where not seen.

    entering, at_router, leaving: the residual stream before the layer, before the norm of the
    feed-forward part, and after the layer. norm: the module between at_router and the router.
    ranked: what top-k was taken of (or its negative; see `moetui.model.readings`).
    weights: the factors multiplied with expert_outputs [..., k, H].
    """

    entering: mx.array | None = None
    at_router: mx.array | None = None
    leaving: mx.array | None = None
    norm: nn.Module | None = None
    router_input: mx.array | None = None
    logits: mx.array | None = None
    ranked: mx.array | None = None
    indices: mx.array | None = None
    weights: mx.array | None = None
    expert_outputs: mx.array | None = None
    attention: mx.array | None = None
    returns_tuple: bool = False
    normed: list[tuple[mx.array, mx.array, nn.Module]] = field(default_factory=list)


@dataclass(eq=False)
class PassRecord:
    """One forward pass: a record for every decoder layer, and the model's logits [1, T, V]."""

    layers: list[LayerRecord]
    logits: mx.array | None = None


OnPass = Callable[[PassRecord], None]


class Capture:
    """The taps of one model, made once; `with capture.on(want, on_pass): model(...)` reads.

    `edit_logits(layer, logits)` replaces the logits that a router hands on; None reads only.
    """

    def __init__(self, model: nn.Module, architecture: Architecture) -> None:
        self._architecture = architecture
        self._want = Want()
        self._on_pass: OnPass = lambda record: None
        self._edit_logits: Callable[[int, mx.array], mx.array] | None = None
        self._record = PassRecord([])
        self._layer = 0
        # Whether top-k can be watched: not where the gate runs inside mx.compile.
        self.sees_selection = True
        self._routing_taps = self._make_routing_taps(model)
        self._residual_taps = self._make_residual_taps()
        self._selection_tap = FunctionTap(mx, "argpartition", self._around_argpartition)
        self._attention_tap = FunctionTap(
            mx.fast, "scaled_dot_product_attention", self._around_attention
        )

    @contextmanager
    def on(
        self,
        want: Want,
        on_pass: OnPass,
        edit_logits: Callable[[int, mx.array], mx.array] | None = None,
    ) -> Iterator[None]:
        """Observe every forward pass inside the block; everything is undone on the way out."""
        taps = list(self._routing_taps)
        if want.residuals:
            taps += self._residual_taps
        if self.sees_selection and self._architecture.sites:
            taps.append(self._selection_tap)
        if want.attention:
            taps.append(self._attention_tap)
        self._want, self._on_pass, self._edit_logits = want, on_pass, edit_logits
        try:
            with Attached(taps):
                yield
        finally:
            # Unevaluated captures would pin the key-value buffers of their pass.
            self._record = PassRecord([])
            self._on_pass, self._edit_logits = (lambda record: None), None

    def _make_routing_taps(self, model: nn.Module) -> list[Tap]:
        taps: list[Tap] = [ModuleTap(model, self._around_model)]
        for index, layer in enumerate(self._architecture.layers):
            taps.append(ModuleTap(layer, self._around_layer(index)))
        for layer_index, site in self._architecture.sites.items():
            taps += self._site_taps(layer_index, site)
        return taps

    def _site_taps(self, layer: int, site: Site) -> list[Tap]:
        taps: list[Tap] = [ModuleTap(site.bank, self._around_bank(layer))]
        if site.bare:
            taps.append(ParameterTap(site.router, "weight", partial(self._routed, layer)))
        else:
            taps.append(ModuleTap(site.router, self._around_router(layer)))
        if site.gate is not site.router or site.bare:
            taps.append(ModuleTap(site.gate, self._around_gate(layer)))
        return taps

    def _make_residual_taps(self) -> list[Tap]:
        """Norms and feed-forward parts of every layer: they tell where the stream is normed."""
        taps: list[Tap] = []
        for index, layer in enumerate(self._architecture.layers):
            site = self._architecture.sites.get(index)
            tapped = {id(m) for m in (site.router, site.gate, site.bank)} if site else set()
            for child in _child_modules(layer):
                if not child.children() and "Norm" in type(child).__name__:
                    taps.append(ModuleTap(child, self._around_norm(index, child)))
                elif child.children() and id(child) not in tapped:
                    routes = site is not None and _holds(child, site.bank)
                    taps.append(ModuleTap(child, self._around_part(index, routes)))
        return taps

    def _around_model(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._record = PassRecord([LayerRecord() for _ in self._architecture.layers])
        output = call(*args, **kwargs)
        self._record.logits = output
        self._on_pass(self._record)
        return output

    def _around_layer(self, index: int) -> Callable[..., Any]:
        def around(call: Callable[..., Any], h: mx.array, *args: Any, **kwargs: Any) -> Any:
            self._layer, record = index, self._record.layers[index]
            output = call(h, *args, **kwargs)
            record.returns_tuple = isinstance(output, tuple)
            record.entering = h
            record.leaving = output[0] if record.returns_tuple else output
            if record.at_router is None:  # the layer has no feed-forward part of its own
                record.at_router = record.leaving
            record.normed.clear()
            return output

        return around

    def _around_norm(self, index: int, norm: nn.Module) -> Callable[..., Any]:
        def around(call: Callable[..., Any], h: mx.array, *args: Any, **kwargs: Any) -> Any:
            output = call(h, *args, **kwargs)
            self._record.layers[index].normed.append((h, output, norm))
            return output

        return around

    def _around_part(self, index: int, routes: bool) -> Callable[..., Any]:
        def around(call: Callable[..., Any], x: mx.array, *args: Any, **kwargs: Any) -> Any:
            record = self._record.layers[index]
            # A mixer is handed a mask and a cache, a feed-forward part nothing but its input.
            if record.at_router is None and (routes or not (args or kwargs)):
                record.at_router, record.norm = next(
                    ((h, norm) for h, out, norm in record.normed if out is x), (x, None)
                )
            return call(x, *args, **kwargs)

        return around

    def _routed(self, layer: int, x: mx.array, logits: mx.array) -> mx.array:
        if self._edit_logits is not None:
            logits = self._edit_logits(layer, logits)
        record = self._record.layers[layer]
        record.router_input, record.logits, record.ranked = x, logits, None
        return logits

    def _around_router(self, layer: int) -> Callable[..., Any]:
        return lambda call, x, *a, **k: self._routed(layer, x, call(x, *a, **k))

    def _around_gate(self, layer: int) -> Callable[..., Any]:
        def around(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            if isinstance(output, tuple) and len(output) == 2:
                self._record.layers[layer].indices, self._record.layers[layer].weights = output
            return output

        return around

    def _around_bank(self, layer: int) -> Callable[..., Any]:
        def around(call: Callable[..., Any], x: mx.array, indices: mx.array, *a: Any) -> Any:
            record = self._record.layers[layer]
            record.indices = indices
            output = call(x, indices, *a)
            if self._want.expert_outputs:
                record.expert_outputs = output

            def on_weights(factor: mx.array) -> None:
                if factor.ndim == output.ndim and factor.shape[-1] == 1:
                    record.weights = factor.squeeze(-1)

            return TappedArray.wrap(output, on_weights=on_weights)

        return around

    def _around_argpartition(
        self, call: Callable[..., Any], a: mx.array, *args: Any, **kwargs: Any
    ) -> Any:
        """Between a router and its bank, the last full-width top-k is the selection."""
        if self._record.layers and (site := self._architecture.sites.get(self._layer)):
            record = self._record.layers[self._layer]
            between = record.logits is not None and record.indices is None
            if between and a.shape[-1] >= site.num_experts:
                record.ranked = a
        return call(a, *args, **kwargs)

    def _around_attention(
        self, call: Callable[..., Any], q: mx.array, k: mx.array, v: mx.array, **kwargs: Any
    ) -> Any:
        self._record.layers[self._layer].attention = probabilities(
            q, k, scale=kwargs["scale"], mask=kwargs.get("mask"), sinks=kwargs.get("sinks")
        )
        return call(q, k, v, **kwargs)


def _holds(module: nn.Module, part: nn.Module) -> bool:
    return any(m is part for _, m in module.named_modules())


def _child_modules(layer: nn.Module) -> Iterator[nn.Module]:
    """The direct children of `layer`, those inside lists and dicts included."""
    stack = list(layer.children().values())
    while stack:
        child = stack.pop(0)
        if isinstance(child, nn.Module):
            yield child
        elif isinstance(child, dict):
            stack = [*child.values(), *stack]
        elif isinstance(child, list | tuple):
            stack = [*child, *stack]
