"""Reading one forward pass: references into the model's own lazy graph, nothing evaluated.

Only the model's own forward runs. A capture adds a few Python calls a layer; whoever asked
evaluates what it wants, once a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from moetui.model.architecture import Architecture, Site
from moetui.model.attention import probabilities
from moetui.model.edits import NONE, Edits
from moetui.model.mixture import Mixture
from moetui.model.records import BLOCK, MIXER, SOURCES, LayerRecord, PassRecord, Want
from moetui.model.selection import BankReachedError, Ranking, uncompiled
from moetui.model.taps import Attached, FunctionTap, ModuleTap, ParameterTap, Tap

OnPass = Callable[[PassRecord], None]


class Capture:
    """The taps of one model, made once; `with capture.on(want, on_pass): model(...)` reads.

    ranking: how the operand of top-k is found; kept: the sources that passes keep; both as the
    probe found out.
    """

    def __init__(self, model: nn.Module, architecture: Architecture) -> None:
        self._architecture = architecture
        self._want = Want()
        self._on_pass: OnPass = lambda record: None
        self._edits = NONE
        self._record = PassRecord([])
        self._layer = 0
        self._mixture: Mixture | None = None
        self._replaying = self._aside = False
        self.ranking = Ranking.SEEN
        self.kept: frozenset[str] = SOURCES
        self._routing_taps = self._make_routing_taps(model)
        self._residual_taps = self._make_residual_taps()
        # In the module under way that mixes positions: heads, and the last matrix that was read.
        self._attended: list[int] = []
        self._multiplied: tuple[nn.Module, mx.array, mx.array] | None = None
        self._selection_tap = FunctionTap(mx, "argpartition", self._around_argpartition)
        self._attention_tap = FunctionTap(
            mx.fast, "scaled_dot_product_attention", self._around_attention
        )

    @contextmanager
    def on(self, want: Want, on_pass: OnPass, edits: Edits = NONE) -> Iterator[None]:
        """Observe every forward pass inside the block; everything is undone on the way out."""
        taps: list[Tap] = [*edits.taps(), *self._routing_taps]
        if want.residuals or edits.needs_residuals:
            taps += self._residual_taps
        if self._architecture.sites and self.ranking.watches_argpartition:
            taps.append(self._selection_tap)
        if want.attention or want.heads:
            taps.append(self._attention_tap)
        if want.heads:
            taps += self._matrix_taps
        self._want, self._on_pass, self._edits = want, on_pass, edits
        try:
            with Attached(taps):
                yield
        finally:
            # Unevaluated captures would pin the key-value buffers of their pass.
            self._record, self._mixture, self._multiplied = PassRecord([]), None, None
            self._on_pass, self._edits = (lambda record: None), NONE

    @property
    def record(self) -> PassRecord:
        """What was seen so far of the pass under way."""
        return self._record

    @contextmanager
    def aside(self, edits: Edits) -> Iterator[None]:
        """A part of the pass under way is run inside the block once more, uncompiled, changed by
        `edits` and recorded apart, as if nothing else had happened."""
        before = self._record, self._edits, self._mixture
        self._record = PassRecord([LayerRecord() for _ in self._architecture.layers])
        self._edits, self._aside = edits, True
        try:
            with uncompiled():
                yield
        finally:
            self._record, self._edits, self._mixture = before
            self._aside = False

    @contextmanager
    def apart(self, layer: int) -> Iterator[LayerRecord]:
        """The router of one layer is called inside, with no pass around it; what it did."""
        self._record = PassRecord([LayerRecord() for _ in self._architecture.layers])
        self._layer = layer
        yield self._record.layers[layer]

    def _make_routing_taps(self, model: nn.Module) -> list[Tap]:
        layers = self._architecture.layers
        taps: list[Tap] = [ModuleTap(model, self._around_model)]
        taps += [ModuleTap(layer, self._around_layer(i)) for i, layer in enumerate(layers)]
        for layer_index, site in self._architecture.sites.items():
            taps += self._site_taps(layer_index, site)
        return taps

    def _site_taps(self, layer: int, site: Site) -> list[Tap]:
        taps: list[Tap] = [ModuleTap(site.bank, self._around_bank(layer, site))]
        if site.bare:
            taps.append(ParameterTap(site.router, "weight", partial(self._routed, layer)))
        else:
            taps.append(ModuleTap(site.router, self._around_router(layer)))
        if site.gate is not site.router or site.bare:
            taps.append(ModuleTap(site.gate, self._around_gate(layer)))
        if site.block is not self._architecture.layers[layer]:
            taps.append(ModuleTap(site.block, self._around_block(layer)))
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

    @cached_property
    def _matrix_taps(self) -> list[Tap]:
        """All matrices that are called inside the layers' parts, those that route apart."""
        taps: list[Tap] = []
        for index, layer in enumerate(self._architecture.layers):
            site = self._architecture.sites.get(index)
            for child in _child_modules(layer):
                if child.children() and not (site is not None and _holds(child, site.bank)):
                    inside = (m for _, m in child.named_modules())
                    matrices = (m for m in inside if isinstance(m, nn.Linear | nn.QuantizedLinear))
                    taps += [ModuleTap(m, self._around_matrix(m)) for m in matrices]
        return taps

    def _around_matrix(self, matrix: nn.Module) -> Callable[..., Any]:
        def around(call: Callable[..., Any], x: mx.array, *args: Any, **kwargs: Any) -> Any:
            output = call(x, *args, **kwargs)
            self._multiplied = matrix, x, output
            return output

        return around

    def _around_model(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._record = PassRecord([LayerRecord() for _ in self._architecture.layers])
        output = call(*args, **kwargs)
        self._record.logits = output
        self._on_pass(self._record)
        return output

    def _around_layer(self, index: int) -> Callable[..., Any]:
        def around(call: Callable[..., Any], h: mx.array, *args: Any, **kwargs: Any) -> Any:
            self._layer, record = index, self._record.layers[index]
            record.entering = h = self._edits.entering(index, h)
            output = call(h, *args, **kwargs)
            record.returns_tuple = isinstance(output, tuple)
            left = output[0] if record.returns_tuple else output
            record.leaving = left = self._edits.leaving(index, record.at_router, left)
            if record.at_router is None:  # the layer has no feed-forward part of its own
                record.at_router = record.leaving
            record.normed.clear()
            wanted = BLOCK if self._want.expert_outputs else frozenset()
            record.forget(self.kept | wanted | (MIXER if self._want.heads else frozenset()))
            return (left, *output[1:]) if record.returns_tuple else left

        return around

    def _around_norm(self, index: int, norm: nn.Module) -> Callable[..., Any]:
        def around(call: Callable[..., Any], h: mx.array, *args: Any, **kwargs: Any) -> Any:
            output = call(h, *args, **kwargs)
            record = self._record.layers[index]
            record.normed.append((h, output, norm))
            if h is record.mixed:
                record.mixed_normed = output
            elif h is record.block_output:
                record.block_normed = output
            return output

        return around

    def _around_part(self, index: int, routes: bool) -> Callable[..., Any]:
        def around(call: Callable[..., Any], x: mx.array, *args: Any, **kwargs: Any) -> Any:
            record = self._record.layers[index]
            # A mixer is handed a mask and a cache, a feed-forward part nothing but its input.
            mixes = bool(args or kwargs) and not routes
            record.mixed_again |= (
                mixes and record.mixed is not None and record.at_router is not None
            )
            if record.at_router is None and not mixes:
                record.at_router, record.norm = next(
                    ((h, norm) for h, out, norm in record.normed if out is x), (x, None)
                )
            self._attended, self._multiplied = [], None
            output = call(x, *args, **kwargs)
            if mixes and record.mixed is None:
                record.mixed = output[0] if isinstance(output, tuple) else output
                self._note_heads(record)
            return output

        return around

    def _note_heads(self, record: LayerRecord) -> None:
        record.attended = tuple(self._attended)
        if self._multiplied is not None and self._multiplied[2] is record.mixed:
            record.projected = self._multiplied[:2]

    def _routed(self, layer: int, x: mx.array, logits: mx.array) -> mx.array:
        record = self._record.layers[layer]
        if self._replaying and record.logits is not None:
            return record.logits
        logits = self._edits.logits(layer, logits)
        record.router_input, record.logits = x, logits
        record.ranked = logits if self.ranking is Ranking.LOGITS else None
        return logits

    def _around_router(self, layer: int) -> Callable[..., Any]:
        return lambda call, x, *a, **k: self._routed(layer, x, call(x, *a, **k))

    def _around_gate(self, layer: int) -> Callable[..., Any]:
        def around(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            if self._replaying or not _is_choice(output):
                return output
            record = self._record.layers[layer]
            record.indices = self._edits.indices(layer, output[0])
            record.weights = self._edits.weights(layer, output[1], record.indices)
            return record.indices, record.weights

        return around

    def _around_block(self, layer: int) -> Callable[..., Any]:
        def around(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            block = partial(call, *args, **kwargs)
            self._edits.before_block(layer, block)
            output = block()
            if self._mixture is not None:
                self._mixture.close()
            self._record.layers[layer].block_output = output
            if self.ranking is Ranking.REPLAYED:
                self._replay(block)
            return output

        return around

    def _replay(self, block: Callable[[], Any]) -> None:
        """Run a block up to its bank once more, uncompiled, to see what its top-k ranks."""
        self._replaying = True
        try:
            with uncompiled():
                block()
        except BankReachedError:
            pass
        finally:
            self._replaying = False

    def _around_bank(self, layer: int, site: Site) -> Callable[..., Any]:
        def around(call: Callable[..., Any], x: mx.array, indices: mx.array, *a: Any) -> Any:
            if self._replaying:
                raise BankReachedError
            record = self._record.layers[layer]
            gated = record.weights is not None  # the gate gave ids and weights, edited there
            if not gated:
                indices = self._edits.indices(layer, indices)
            if not gated or site.num_experts == site.bank_experts:
                record.indices = indices
            output = self._edits.outputs(layer, call(x, indices, *a), indices)
            if self._want.expert_outputs:
                record.expert_outputs = output
            read = record.router_input
            if read is not None and x is not read and x.shape == read.shape:
                record.bank_input, record.routed_sum = x, output.sum(-2)
            self._mixture = Mixture(record, partial(self._weigh, layer, site, output))
            return self._mixture.follow(output)

        return around

    def _weigh(self, layer: int, site: Site, outputs: mx.array, weights: mx.array) -> mx.array:
        """Note the weights that are multiplied with the outputs; what shall be instead."""
        record = self._record.layers[layer]
        by_gate = record.weights is not None
        if not by_gate:
            assert record.indices is not None
            weights = self._edits.weights(layer, weights, record.indices)
        weights = self._edits.mixing(layer, weights, outputs)
        if not by_gate or site.num_experts == site.bank_experts:
            record.weights = weights
        return weights

    def _around_argpartition(
        self, call: Callable[..., Any], a: mx.array, *args: Any, **kwargs: Any
    ) -> Any:
        """Between a router and its bank, the last full-width top-k is the selection."""
        site = self._architecture.sites.get(self._layer) if self._record.layers else None
        if site is None or a.shape[-1] < site.num_experts:
            return call(a, *args, **kwargs)
        record = self._record.layers[self._layer]
        watched = self._aside or self._replaying == (self.ranking is Ranking.REPLAYED)
        between = record.logits is not None and (record.indices is None or self._replaying)
        if watched and between:
            record.ranked = a
            if not self._replaying:
                kth = args[0] if args else kwargs["kth"]
                a = self._edits.ranked(self._layer, a, kth)
        return call(a, *args, **kwargs)

    def _around_attention(
        self, call: Callable[..., Any], q: mx.array, k: mx.array, v: mx.array, **kwargs: Any
    ) -> Any:
        self._attended.append(q.shape[1])
        if self._want.attention:
            self._record.layers[self._layer].attention.append(
                probabilities(
                    q, k, scale=kwargs["scale"], mask=kwargs.get("mask"), sinks=kwargs.get("sinks")
                )
            )
        return call(q, k, v, **kwargs)


def _is_choice(output: Any) -> bool:
    """Whether a gate answered with (expert ids, weights) rather than with logits."""
    pair = isinstance(output, tuple) and len(output) == 2
    return pair and bool(mx.issubdtype(output[0].dtype, mx.integer))


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
