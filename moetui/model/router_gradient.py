"""The part of a model that says what would move a router: the input's tokens, or its stream.

The gradient of a router's logits with respect to what the embedding table put out is taken
through the model's own forward (HotFlip, arXiv 1712.06751; GCG, arXiv 2307.15043). The experts
that ran stay those that ran: a choice has no derivative. The slope of the logits with respect to
the stream at the router has the norm's scale frozen, as everywhere in moetui.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from numpy.typing import NDArray

from moetui.errors import ModelError, UsageError
from moetui.model.architecture import Architecture, embedding_rows
from moetui.model.capture import Capture
from moetui.model.decompose import Decomposition
from moetui.model.edits import Edits
from moetui.model.records import PassRecord, Want
from moetui.model.routes import Routes
from moetui.model.taps import Attached, ModuleTap, Tap
from moetui.trace import ModelInfo

Ids = NDArray[np.int32]
Floats = NDArray[np.float32]

_ROUTING = Want(residuals=False)
_TOKENS = 4
# What mlx raises where an operation of a pass has no derivative, and what model files do.
_MISFITS = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, NotImplementedError)
_INSTEAD = "scanning tokens needs no gradient"


class RouterGradient(ABC):
    """What `moetui.model.Model` says of its routers' slopes; how it runs is its own affair."""

    info: ModelInfo
    architecture: Architecture
    network: nn.Module
    capture: Capture
    before_pass: Callable[[], None]
    _routes: Routes
    _decomposition: Decomposition | None

    @abstractmethod
    def ids(self, text_or_ids: str | Sequence[int] | Ids) -> Ids:
        """Token ids of a prompt, checked."""

    @cached_property
    def router_gradient_error(self) -> str | None:
        """Why `router_gradient` cannot be asked of this model, None where it can."""
        if not self.info.moe_layers:
            return self.info.routing_error or "the model has no router"
        if self._table is None:
            return (
                "token ids reach this architecture by more, or by less, than one embedding table: "
                "no gradient says what another token would do"
            )
        ids = np.arange(_TOKENS, dtype=np.int32) % self.info.vocab_size
        try:
            slope = self._gradient(ids, self.info.moe_layers[-1], 0, None, _TOKENS - 1)
        except _MISFITS as error:
            return f"this architecture's pass has no gradient: {str(error).splitlines()[0]}"
        return None if np.isfinite(slope).all() else "the gradient of a router is not finite"

    def router_gradient(
        self,
        text_or_ids: str | Sequence[int] | Ids,
        layer: int,
        expert: int,
        position: int,
        *,
        against: int | None = None,
    ) -> Floats:
        """float32 [T, H]: the gradient of the router logit of `expert` (less that of `against`)
        at one position of decoder layer `layer`, with respect to what the embedding table puts
        out at each position; 0 after it.

        Raises UsageError for a prompt, layer, expert or position that is not there; ModelError
        where `router_gradient_error` says why.
        """
        ids = self.ids(text_or_ids)
        self._check(ids, layer, (expert,) if against is None else (expert, against), position)
        if self.router_gradient_error is not None:
            raise ModelError(self.router_gradient_error, _INSTEAD)
        return self._gradient(ids, layer, expert, against, position)

    def token_scores(self, gradient: Floats) -> Floats:
        """float32 [T, V]: the inner product of gradients [T, H] with every token's embedding; the
        difference of two tokens' scores is what swapping them does, to first order.

        Raises ModelError where `router_gradient_error` says why.
        """
        table = self._table
        if table is None or self.router_gradient_error is not None:
            raise ModelError(self.router_gradient_error or "no embedding table", _INSTEAD)
        return np.array(table.as_linear(mx.array(gradient)).astype(mx.float32))

    @property
    def router_slope_error(self) -> str | None:
        """Why `router_slope` cannot be asked of this model, None where it can."""
        if self._decomposition is None:
            why = self.info.routing_error or self.info.decomposition_error
            return why or "the model has no router"
        return self._routes.error

    def router_slope(self, layer: int, stream: Floats) -> tuple[Floats, Floats]:
        """Router logits float32 [E] of decoder layer `layer` for a residual stream [H] as it
        stands before its norm, and their slope [E, H] with the norm's scale frozen there: logits
        of stream + δ are logits + slope · δ, but for what δ does to the scale.

        Raises UsageError for a layer that does not route; ModelError where `router_slope_error`
        says why.
        """
        self._check_layer(layer)
        if self.router_slope_error is not None:
            raise ModelError(self.router_slope_error, "the readings of passes are not affected")
        assert self._decomposition is not None
        h = mx.array(np.asarray(stream, np.float32))[None]
        seen = self._routes.asked(layer, np.asarray(stream, np.float32)[None])
        slope = self._decomposition.slope(seen, layer, h)
        E = self.architecture.sites[layer].num_experts
        assert seen.logits is not None
        logits = seen.logits.astype(mx.float32).reshape(-1)[:E]
        mx.eval(slope, logits)
        return np.array(logits), np.array(slope)

    @cached_property
    def _table(self) -> nn.Embedding | nn.QuantizedEmbedding | None:
        """The one table through which ids enter; None where there is none, or several."""
        kinds = (nn.Embedding, nn.QuantizedEmbedding)
        rows = embedding_rows(self.network)
        tables = [m for m in self.network.modules() if isinstance(m, kinds)]
        asked: list[Any] = []

        def around(table: nn.Module) -> Callable[..., Any]:
            def noted(call: Callable[..., Any], x: mx.array) -> Any:
                asked.append(table)
                return call(x)

            return noted

        with Attached([ModuleTap(m, around(m)) for m in tables if m["weight"].shape[0] == rows]):
            self.network(mx.arange(_TOKENS)[None], cache=make_prompt_cache(self.network))
        return asked[0] if len(asked) == 1 else None

    def _gradient(
        self, ids: Ids, layer: int, expert: int, against: int | None, position: int
    ) -> Floats:
        # Nothing after the position has a say.
        read = mx.array(ids[: position + 1])[None]

        def logit(added: mx.array) -> mx.array:
            self.before_pass()
            records: list[PassRecord] = []
            with self.capture.on(_ROUTING, records.append, _Added(self._table, added)):
                self.network(read, cache=make_prompt_cache(self.network))
            logits = records[0].layers[layer].logits
            assert logits is not None
            row = logits.reshape(position + 1, -1)[position].astype(mx.float32)
            return row[expert] if against is None else row[expert] - row[against]

        found = mx.grad(logit)(mx.zeros((position + 1, self.info.hidden_size)))
        mx.eval(found)
        whole = np.zeros((len(ids), self.info.hidden_size), np.float32)
        whole[: position + 1] = np.array(found)
        return whole

    def _check_layer(self, layer: int) -> None:
        if layer not in self.info.moe_layers:
            raise UsageError(
                f"layer {layer} does not route",
                f"the routing layers are {', '.join(map(str, self.info.moe_layers)) or 'none'}",
            )

    def _check(self, ids: Ids, layer: int, experts: Sequence[int], position: int) -> None:
        self._check_layer(layer)
        E = self.architecture.sites[layer].num_experts
        for expert in experts:
            if not 0 <= expert < E:
                raise UsageError(
                    f"there is no expert {expert} in layer {layer}", f"experts are 0 to {E - 1}"
                )
        if not 0 <= position < len(ids):
            raise UsageError(
                f"there is no position {position}", f"the prompt has {len(ids)} tokens"
            )


class _Added(Edits):
    """A number is added to whatever the embedding table puts out."""

    def __init__(self, table: nn.Module | None, added: mx.array) -> None:
        self._table, self._added = table, added

    def taps(self) -> Sequence[Tap]:
        def around(call: Callable[..., Any], x: mx.array) -> mx.array:
            found: mx.array = call(x)
            return found + self._added.astype(found.dtype)

        return [ModuleTap(self._table, around)] if self._table is not None else []
