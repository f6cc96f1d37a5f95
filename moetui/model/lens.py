"""The logit lens: any hidden state through the model's own final norm, head and scaling.

The model itself is called on one-token sequences with its layers bypassed; the last layer hands
on the hidden states in question. So logit scale, soft-cap, tied or untied head and whatever else
the architecture does after its layers are the model's own, and the lens of the last layer equals
the model's logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from moetui.model.taps import Attached, ModuleTap, Tap
from moetui.trace import LensReadout

# Rows of logits made at once: bounds the memory of a long prompt's lens.
_LOGITS_AT_ONCE = 1 << 25


@dataclass(frozen=True, eq=False)
class LazyLens:
    """The readings of R hidden states in the graph, not evaluated: ids and logprobs of the top
    n [R, n] in no order, and of each position's answer: id [P], rank and logprob [P, N]."""

    ids: mx.array
    logprobs: mx.array
    answer_ids: mx.array
    answer_rank: mx.array
    answer_logprob: mx.array

    def arrays(self) -> list[mx.array]:
        """What has to be evaluated."""
        return [self.ids, self.logprobs, self.answer_ids, self.answer_rank, self.answer_logprob]


class Lens:
    """Reads hidden states of one model. `returns_tuple[i]`: layer i hands on more than the
    stream."""

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module]) -> None:
        self._model = model
        # The class as it is without taps: a capture under way must not see the lens's own call.
        self._forward: Callable[..., mx.array] = type(model).__call__
        self._hidden: mx.array | None = None
        self._returns_tuple = [False] * len(layers)
        self._taps: list[Tap] = [
            ModuleTap(layer, self._bypass(index, last=index == len(layers) - 1), alone=True)
            for index, layer in enumerate(layers)
        ]

    def set_tuples(self, returns_tuple: Sequence[bool]) -> None:
        """Which layers hand on a tuple, as the first captured pass showed."""
        self._returns_tuple = list(returns_tuple)

    def logits(self, hidden: mx.array) -> mx.array:
        """Logits [R, V], float32, of hidden states [R, H] as the last layer would hand on."""
        self._hidden = hidden
        try:
            with Attached(self._taps):
                output = self._forward(self._model, mx.zeros((hidden.shape[0], 1), mx.int32))
        finally:
            self._hidden = None
        return output[:, -1].astype(mx.float32)

    def read(self, hidden: mx.array, n: int) -> LazyLens:
        """Readings of hidden [P, N, H]: P positions after each of N layers."""
        P, N, H = hidden.shape
        logits = self.logits(hidden.reshape(P * N, H))
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        n = min(n, logits.shape[-1])
        top = mx.argpartition(-logprobs, kth=n - 1, axis=-1)[:, :n]
        by_layer = logprobs.reshape(P, N, -1)
        answer = mx.argmax(by_layer[:, -1], axis=-1)
        of_answer = mx.take_along_axis(by_layer, answer[:, None, None], axis=-1)
        return LazyLens(
            ids=top.astype(mx.int32),
            logprobs=mx.take_along_axis(logprobs, top, axis=-1),
            answer_ids=answer.astype(mx.int32),
            answer_rank=(by_layer > of_answer).sum(-1).astype(mx.int32),
            answer_logprob=of_answer.squeeze(-1),
        )

    def chunk(self, positions: int, layers: int, vocabulary: int) -> int:
        """How many positions to read at once."""
        return max(1, min(positions, _LOGITS_AT_ONCE // max(1, layers * vocabulary)))

    def _bypass(self, index: int, *, last: bool) -> Callable[..., Any]:
        def around(call: Callable[..., Any], h: mx.array, *args: Any, **kwargs: Any) -> Any:
            state = self._hidden[:, None] if last and self._hidden is not None else h
            if not self._returns_tuple[index]:
                return state
            return (state, *call(h, *args, **kwargs)[1:])  # a graph that nobody evaluates

        return around


def readout(
    lazy: Sequence[LazyLens],
    *,
    layers: int,
    positions: NDArray[np.int32],
    token_text: Callable[[int], str],
) -> LensReadout:
    """Evaluated readings (chunks of positions, in order) as a LensReadout."""
    ids = np.concatenate([np.array(part.ids) for part in lazy])
    logprobs = np.concatenate([np.array(part.logprobs) for part in lazy])
    order = np.lexsort((ids, -logprobs), axis=-1)
    shape = (len(positions), layers, -1)
    answer_ids = np.concatenate([np.array(part.answer_ids) for part in lazy])
    top = np.take_along_axis(ids, order, -1)
    known = np.unique(np.concatenate([top.ravel(), answer_ids]))
    return LensReadout(
        layers=np.arange(layers, dtype=np.int32),
        positions=positions.astype(np.int32),
        token_ids=top.reshape(shape),
        logprobs=np.take_along_axis(logprobs, order, -1).reshape(shape),
        answer_ids=answer_ids,
        answer_rank=np.concatenate([np.array(part.answer_rank) for part in lazy]),
        answer_logprob=np.concatenate([np.array(part.answer_logprob) for part in lazy]),
        text={int(i): token_text(int(i)) for i in known},
    )
