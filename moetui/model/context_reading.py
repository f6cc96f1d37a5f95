"""The part of a model that reads many contexts of one length in one pass each few.

Trying out tokens takes thousands of short passes; in a batch they cost a third. It is the model's
own forward with more than one sequence; where an architecture's routing does not come out as a
row for every sequence and token, contexts are read one by one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from numpy.typing import NDArray

from moetui.errors import UsageError
from moetui.model.architecture import Architecture
from moetui.model.capture import Capture
from moetui.model.edits import Edits
from moetui.model.records import PassRecord, Want
from moetui.trace import NO_EXPERT, ContextReadings, Intervention, ModelInfo

Ids = NDArray[np.int32]

_ROUTING = Want(residuals=False)
# Tokens of one pass, and floats of its logits where these are wanted.
_TOKENS_AT_ONCE, _LOGITS_AT_ONCE = 1024, 1 << 25
_TRIED = 6


class ContextReading(ABC):
    """What `moetui.model.Model` says of contexts; how it runs is the model's own affair."""

    info: ModelInfo
    architecture: Architecture
    network: nn.Module
    capture: Capture
    before_pass: Callable[[], None]

    @abstractmethod
    def ids(self, text_or_ids: str | Sequence[int] | Ids) -> Ids:
        """Token ids of a prompt, checked."""

    @abstractmethod
    def edits(self, prompt_tokens: int, interventions: Sequence[Intervention] = ()) -> Edits:
        """What the interventions in force make of a pass."""

    def read_contexts(
        self,
        contexts: Ids,
        position: int,
        *,
        output: bool = False,
        interventions: Sequence[Intervention] = (),
    ) -> ContextReadings:
        """Contexts int32 [B, T] as the model routes them at `position` (0 … T − 1), and with
        `output` what it expects after it.

        Raises UsageError for no context, ids outside the vocabulary, a position that is not
        there, a model without routers, or interventions that do not fit the model.
        """
        given = np.asarray(contexts, np.int32)
        if given.ndim != 2 or not given.size or not 0 <= position < given.shape[1]:
            raise UsageError(
                "there is no context at that position", "give ids [B, T], T > position"
            )
        if not self.info.moe_layers:
            raise UsageError(
                self.info.routing_error or "the model has no experts", "choose one that routes"
            )
        self.ids(given.ravel())
        # Later tokens change nothing at the position.
        read = given if output else given[:, : position + 1]
        step = self._at_once(read.shape[1], output)
        parts = [
            self._read(read[start : start + step], position, output, interventions)
            for start in range(0, len(read), step)
        ]
        return _joined(parts)

    def _at_once(self, tokens: int, output: bool) -> int:
        if not self._batches:
            return 1
        fit = _TOKENS_AT_ONCE // tokens
        if output:
            fit = min(fit, _LOGITS_AT_ONCE // (tokens * self.info.vocab_size))
        return max(1, fit)

    @cached_property
    def _batches(self) -> bool:
        """Whether two sequences in one pass are routed as each is alone."""
        ids = (np.arange(2 * _TRIED, dtype=np.int32) % self.info.vocab_size).reshape(2, _TRIED)
        try:
            both = self._read(ids, _TRIED - 1, False, ())
        except (RuntimeError, ValueError, TypeError, IndexError):
            return False
        alone = _joined([self._read(one[None], _TRIED - 1, False, ()) for one in ids])
        return np.array_equal(both.experts, alone.experts) and np.allclose(
            both.logits, alone.logits, rtol=1e-3, atol=1e-3, equal_nan=True
        )

    def _read(
        self, ids: Ids, position: int, output: bool, interventions: Sequence[Intervention]
    ) -> ContextReadings:
        record = self._pass_of(ids, self.edits(ids.shape[1], interventions))
        routed = [record.layers[layer] for layer in self.architecture.sites]
        experts = [_at(layer.indices, ids.shape, position) for layer in routed]
        logits = [_at(layer.logits, ids.shape, position).astype(mx.float32) for layer in routed]
        found = [*experts, *logits]
        if output:
            assert record.logits is not None
            found += _expected(record.logits, ids, position)
        mx.eval(found)
        host = [np.array(one) for one in found]
        n = len(experts)
        return ContextReadings(
            experts=_padded(
                [np.sort(one, axis=-1) for one in host[:n]], NO_EXPERT, left=True
            ).astype(np.int16),
            logits=_padded(host[n : 2 * n], np.nan, left=False).astype(np.float32),
            logprobs=host[2 * n] if output else None,
            nll=host[2 * n + 1] if output else None,
        )

    def _pass_of(self, ids: Ids, edits: Edits) -> PassRecord:
        self.before_pass()
        records: list[PassRecord] = []
        with self.capture.on(_ROUTING, records.append, edits):
            self.network(mx.array(ids), cache=make_prompt_cache(self.network))
        return records[0]


def _at(array: mx.array | None, shape: tuple[int, ...], position: int) -> mx.array:
    """[B, width] at one position, of a tensor [B, T, width] or [B·T, width]."""
    if array is None:
        raise ValueError("a layer's routing was not seen")
    return array.reshape(*shape, array.shape[-1])[:, position]


def _expected(logits: mx.array, ids: Ids, position: int) -> list[mx.array]:
    """[B, V] and [B]: ln P after the position, and the nats of the tokens from there on."""
    z = logits[:, position:].astype(mx.float32)
    logprobs = z - mx.logsumexp(z, axis=-1, keepdims=True)
    later = mx.array(ids[:, position + 1 :])[..., None]
    own = mx.take_along_axis(logprobs[:, :-1], later, axis=-1) if later.shape[1] else None
    nats = mx.zeros(len(ids)) if own is None else -own.sum(axis=(1, 2))
    return [logprobs[:, 0], nats]


def _padded(layers: list[NDArray[np.generic]], value: float, *, left: bool) -> NDArray[np.generic]:
    """[B, L, widest] of arrays [B, width]."""
    widest = max(one.shape[-1] for one in layers)
    found = []
    for one in layers:
        missing = widest - one.shape[-1]
        pad = (missing, 0) if left else (0, missing)
        found.append(np.pad(one, [(0, 0), pad], constant_values=value))
    return np.stack(found, axis=1)


def _joined(parts: Sequence[ContextReadings]) -> ContextReadings:
    def whole(name: str) -> NDArray[np.float32] | None:
        arrays = [getattr(part, name) for part in parts]
        return None if arrays[0] is None else np.concatenate(arrays)

    return ContextReadings(
        experts=np.concatenate([part.experts for part in parts]),
        logits=np.concatenate([part.logits for part in parts]),
        logprobs=whole("logprobs"),
        nll=whole("nll"),
    )
