"""A router asked anew: which experts a layer chooses for residual streams that it is handed.

The model's own norm and its own block (or gate) run on them, up to the choice; what the experts
would make of it is never evaluated. So softmax, sigmoid, correction bias and groups are the
model's own. It is found out in one pass over a few tokens, layer by layer, whether the choice is
made of the stream alone, and whether it comes out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from numpy.typing import NDArray

from moetui.errors import ModelError
from moetui.model.architecture import Architecture, Site, embedding_rows
from moetui.model.capture import Capture
from moetui.model.edits import Edits
from moetui.model.records import LayerRecord, PassRecord, Want
from moetui.model.selection import ranking_signs
from moetui.model.taps import ModuleTap, Tap

_TOKENS = 8
_ROUTING = Want(residuals=False)
# What mlx and model files raise when a block is called in a way that it was not written for.
_MISFITS = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, AssertionError)


@dataclass(frozen=True, eq=False)
class _Chooser:
    """The module that chooses, what stands before it, and the type of the stream."""

    module: nn.Module
    norm: nn.Module | None
    dtype: mx.Dtype


class Routes:
    """The routers of one model, to be asked about any stream; nothing is done before the first.

    error: why that cannot be done with this architecture, None where it can.
    """

    def __init__(self, network: nn.Module, architecture: Architecture, capture: Capture) -> None:
        self._network, self._architecture, self._capture = network, architecture, capture

    @property
    def error(self) -> str | None:
        """Why the routers of this architecture cannot be asked, None where they can."""
        return self._found[1]

    def experts(self, layer: int, streams: NDArray[np.float32]) -> NDArray[np.int16]:
        """int16 [T, k], the chosen experts in ascending order for streams [T, H] at the router,
        before its norm. Raises ModelError where `error` says why."""
        indices = self.asked(layer, streams).indices
        assert indices is not None
        chosen = np.array(indices.reshape(-1, indices.shape[-1]))
        return np.sort(chosen, axis=-1).astype(np.int16)

    def scores(self, layer: int, streams: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """float32 [T, E], what top-k is taken of for streams [T, H], the larger the better; None
        where that is hidden. Raises ModelError where `error` says why."""
        record = self.asked(layer, streams)
        signs = ranking_signs([record])
        if signs is None:
            return None
        assert record.ranked is not None
        ranked = np.array(record.ranked.astype(mx.float32))
        return ranked.reshape(-1, ranked.shape[-1]) * np.float32(signs[0])

    def asked(self, layer: int, streams: NDArray[np.float32]) -> LayerRecord:
        """What the router of a layer did with streams [T, H], up to its choice, which is evaluated.
        Raises ModelError where `error` says why."""
        choosers, error = self._found
        if error is not None:
            raise ModelError(error, "the readings of whole passes are not affected")
        chooser = choosers[layer]
        return self._ask(layer, chooser, mx.array(streams)[None].astype(chooser.dtype))

    @cached_property
    def _found(self) -> tuple[dict[int, _Chooser], str | None]:
        inputs = _Inputs(self._architecture)
        records: list[PassRecord] = []
        ids = (mx.arange(_TOKENS) % embedding_rows(self._network))[None]
        with self._capture.on(Want(), records.append, inputs):
            self._network(ids, cache=make_prompt_cache(self._network))
        found: dict[int, _Chooser] = {}
        for layer, site in self._architecture.sites.items():
            record = records[0].layers[layer]
            chooser = _chooser(site, record, inputs.given)
            if chooser is None:
                return {}, (
                    "this architecture's routers read more than the residual stream of their "
                    f"layer (layer {layer}): they cannot be asked about another one"
                )
            if not self._chooses_as_before(layer, chooser, record):
                return {}, f"asked alone, the router of layer {layer} chooses other experts"
            found[layer] = chooser
        return found, None

    def _chooses_as_before(self, layer: int, chooser: _Chooser, record: LayerRecord) -> bool:
        assert record.at_router is not None and record.indices is not None
        try:
            chosen = self._ask(layer, chooser, record.at_router).indices
        except _MISFITS:
            return False
        assert chosen is not None
        k = record.indices.shape[-1]
        before, after = (np.array(one.reshape(-1, k)) for one in (record.indices, chosen))
        return np.array_equal(np.sort(before), np.sort(after))

    def _ask(self, layer: int, chooser: _Chooser, h: mx.array) -> LayerRecord:
        """What is seen of the router for streams [1, T, H], the choice evaluated."""
        with self._capture.on(_ROUTING, lambda record: None), self._capture.apart(layer) as seen:
            chooser.module(h if chooser.norm is None else chooser.norm(h))
            if seen.indices is None:
                raise ValueError("the choice of experts was not seen")
            mx.eval(seen.indices)
        return seen


class _Inputs(Edits):
    """Notes what every block and gate is called with."""

    needs_residuals = True

    def __init__(self, architecture: Architecture) -> None:
        self._modules = {
            id(module): module
            for site in architecture.sites.values()
            for module in (site.block, site.gate)
            if module is not architecture.layers[site.layer]
        }
        self.given: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def taps(self) -> Sequence[Tap]:
        return [ModuleTap(module, self._around(module)) for module in self._modules.values()]

    def _around(self, module: nn.Module) -> Callable[..., Any]:
        def around(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            self.given[id(module)] = args, kwargs
            return call(*args, **kwargs)

        return around


def _chooser(
    site: Site, record: LayerRecord, given: dict[int, tuple[tuple[Any, ...], dict[str, Any]]]
) -> _Chooser | None:
    """The module of a site that chooses by the stream at the router, normed, and nothing else."""
    h, streams = record.at_router, (record.entering, record.leaving)
    if h is None or h.ndim != 3 or any(one is None or one.shape != h.shape for one in streams):
        return None
    norms = [record.norm] if record.norm is None else [record.norm, None]
    for module in (site.block, site.gate):
        args, kwargs = given.get(id(module), ((), {}))
        if len(args) != 1 or kwargs or not isinstance(args[0], mx.array):
            continue
        for norm in norms:
            read = h if norm is None else norm(h)
            if read.shape == args[0].shape and mx.array_equal(read, args[0]).item():
                return _Chooser(module, norm, h.dtype)
    return None
