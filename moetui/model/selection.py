"""What a router's top-k ranks: found by watching it, and verified by the experts it chose.

Model files call `mx.argpartition` on the scores or on their negative, in plain code or inside
`mx.compile`, where nothing can be watched after the first call; then the block is run a second
time up to its bank, uncompiled. Some pick one expert after the other from the logits themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from moetui.model.records import LayerRecord


class Ranking(Enum):
    """Where the operand of top-k is found."""

    SEEN = "seen"  # mx.argpartition is called by the model's own pass
    REPLAYED = "replayed"  # it is called inside mx.compile: see it in a second, uncompiled call
    LOGITS = "logits"  # no top-k is called; the chosen experts are those with the highest logits
    HIDDEN = "hidden"  # none of these explains the chosen experts

    @property
    def watches_argpartition(self) -> bool:
        """Whether `mx.argpartition` has to be watched."""
        return self in {Ranking.SEEN, Ranking.REPLAYED}


class BankReachedError(Exception):
    """Ends a replay: the block has chosen its experts."""


@contextmanager
def uncompiled() -> Iterator[None]:
    """`mx.compile`d functions run as they are written inside the block."""
    mx.disable_compile()
    try:
        yield
    finally:
        mx.enable_compile()


def ranking_signs(layers: Sequence[LayerRecord]) -> list[int] | None:
    """1 where a layer's top-k is taken of the scores, -1 where of their negative.

    `argpartition` is called either way; the selected experts of a pass tell which. None when
    some layer's selection is not the best by either reading, or was not seen.
    """
    signs = []
    for layer in layers:
        if layer.ranked is None or layer.indices is None:
            return None
        ids = np.array(layer.indices).reshape(-1, layer.indices.shape[-1]).astype(np.int64)
        scores = np.array(layer.ranked.astype(mx.float32)).reshape(len(ids), -1)
        fitting = [sign for sign in (1, -1) if _selects(sign * scores, ids)]
        if not fitting:
            return None
        signs.append(fitting[0])
    return signs


def _selects(scores: NDArray[np.float32], ids: NDArray[np.int64]) -> bool:
    """Whether in every row the `ids` are the best of `scores`."""
    selected = np.take_along_axis(scores, ids, -1).min(-1)
    others = scores.copy()
    np.put_along_axis(others, ids, -np.inf, -1)
    return bool((others.max(-1) <= selected).all())
