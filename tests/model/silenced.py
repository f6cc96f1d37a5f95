"""What attention puts out while one head is silent, and what that is to a router; in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from numpy.typing import NDArray

from moetui.trace import Streams

Array = NDArray[Any]

OUTPUT_PROJECTION = ("o_proj", "out_proj", "dense")


@contextmanager
def forward(module: nn.Module, around: Callable[..., Any]) -> Iterator[None]:
    """Calls of this one module are around(its own forward, *args) inside the block."""
    own = type(module)

    def spy(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return around(partial(own.__call__, self), *args, **kwargs)

    spied = type(own.__name__, (own,), {"__call__": spy})
    object.__setattr__(module, "__class__", spied)
    try:
        yield
    finally:
        object.__setattr__(module, "__class__", own)


@contextmanager
def kernel(around: Callable[..., mx.array]) -> Iterator[None]:
    """The fused attention is around(the kernel, *args) inside the block."""
    own = mx.fast.scaled_dot_product_attention
    mx.fast.scaled_dot_product_attention = lambda *a, **k: around(own, *a, **k)
    try:
        yield
    finally:
        mx.fast.scaled_dot_product_attention = own


def output_projection(layer: nn.Module) -> nn.Module:
    """The first output projection of a layer, by its name."""
    inside = dict(layer.named_modules())
    return next(inside[n] for n in sorted(inside) if n.rpartition(".")[2] in OUTPUT_PROJECTION)


def attention_output(
    network: nn.Module, ids: list[int], layer: int, without: int | None = None
) -> Array:
    """[T, H]: what the first output projection of a layer puts out; without: a head for which the
    kernel puts out zeros there."""
    of_layer, found = [False], []

    def enter(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        of_layer[0] = True
        output = call(*args, **kwargs)
        of_layer[0] = False
        return output

    def silent(call: Callable[..., mx.array], *args: Any, **kwargs: Any) -> mx.array:
        heads = call(*args, **kwargs)
        here, of_layer[0] = of_layer[0], False  # a second attention of the layer is another's
        if not here or without is None:
            return heads
        return heads * (mx.arange(heads.shape[1]) != without)[:, None, None]

    def keep(call: Callable[..., mx.array], x: mx.array) -> mx.array:
        found.append(call(x))
        return found[-1]

    module = network.layers[layer]
    with kernel(silent), forward(output_projection(module), keep), forward(module, enter):
        mx.eval(network(mx.array(ids)[None], cache=make_prompt_cache(network)))
    return np.array(found[0].astype(mx.float32), np.float64).reshape(len(ids), -1)


class RouterReader:
    """The norm and the router of one layer, as far as they are linear."""

    def __init__(self, layer: nn.Module, router: nn.Module) -> None:
        self._W = np.array(router["weight"]).astype(np.float64)
        children = reversed(list(layer.children().values()))
        self._layer_norm = next((m for m in children if isinstance(m, nn.LayerNorm)), None)

    def logits(
        self, streams: Streams | None, layer: int, router: int, whole: Array, part: Array
    ) -> Array:
        """[T, E]: what a part of `whole`, the attention of `layer` as its projection puts it out,
        put into the logits of the last router, that of layer `router`."""
        assert streams is not None
        scale = _scale((streams.at_router - streams.entering)[:, layer].astype(float), whole)
        h, u = streams.at_router[:, router].astype(float), streams.router_input[:, -1]
        x = scale * part
        if self._layer_norm is None:
            return ((x * (u / h)) @ self._W.T).astype(np.float32)
        gain = np.array(self._layer_norm.weight) / np.sqrt(
            h.var(axis=-1, keepdims=True) + self._layer_norm.eps
        )
        return (((x - x.mean(axis=-1, keepdims=True)) * gain) @ self._W.T).astype(np.float32)


def _scale(added: Array, whole: Array) -> Array:
    """By what `whole` was multiplied on its way to the stream, where it is `added`."""
    if not added.any():  # it stands beside the experts
        return np.ones_like(whole)
    scale = np.full_like(whole, (added * whole).sum() / (whole * whole).sum())
    same = np.abs(scale * whole - added).max() < 1e-3 * np.abs(added).max()
    return scale if same else added / whole  # a norm on the way multiplies elementwise
