"""Changing which experts a router chooses, and nothing else: neither scores nor weights.

What top-k ranks is replaced only in the rows whose choice has to change, so that all other rows
keep the very order of experts, and with it every bit. Where top-k runs inside `mx.compile` its
operand cannot be replaced; there the block is rehearsed first, uncompiled, with the edited
operand, and the experts and weights of that rehearsal are used in those rows.
"""

from __future__ import annotations

from collections.abc import Collection

import mlx.core as mx

from moetui.model.edits import Edits

# While a pass is watched, the name in mlx itself is tapped.
_argpartition = mx.argpartition


class Reselection:
    """The experts of one layer that may not be chosen, and those that always are."""

    def __init__(self, experts: int, barred: Collection[int], forced: Collection[int]) -> None:
        self._barred = mx.array([e in barred for e in range(experts)])
        self._forced = mx.array([e in forced for e in range(experts)])
        self._count = len(forced)

    def concerns(self, indices: mx.array) -> mx.array:
        """bool [..., 1]: the rows of chosen experts [..., k] that have to be others."""
        unwanted = self._barred[indices].any(-1, keepdims=True)
        lacking = self._forced[indices].sum(-1, keepdims=True) < self._count
        return unwanted | lacking

    def ranked(self, operand: mx.array, kth: int) -> mx.array:
        """What top-k shall rank instead of `operand` [..., E]; see `Edits.ranked`."""
        best = float("inf") if kth < 0 else -float("inf")
        order = _argpartition(operand, kth=kth, axis=-1)
        chosen = order[..., kth:] if kth < 0 else order[..., : kth + 1]
        # Finite, so that what a group mask made infinitely bad is still better than a barred one.
        limits = mx.finfo(operand.dtype)
        edited = mx.clip(operand, limits.min, limits.max)
        edited = mx.where(self._barred, mx.array(-best, operand.dtype), edited)
        edited = mx.where(self._forced, mx.array(best, operand.dtype), edited)
        return mx.where(self.concerns(chosen), edited, operand)


class Rehearsal(Edits):
    """What a block chooses with another operand of top-k; the router's logits are those of `edits`.

    chosen, given: expert ids and their weights [..., k], once the block has run.
    """

    chosen: mx.array
    given: mx.array

    def __init__(self, edits: Edits, reselection: Reselection) -> None:
        self._edits, self._reselection = edits, reselection

    def logits(self, layer: int, logits: mx.array) -> mx.array:
        """Router logits as the pass itself has them."""
        return self._edits.logits(layer, logits)

    def ranked(self, layer: int, operand: mx.array, kth: int) -> mx.array:
        """What top-k shall rank, edited."""
        return self._reselection.ranked(operand, kth)

    def weights(self, layer: int, weights: mx.array, indices: mx.array) -> mx.array:
        """Note ids and weights."""
        self.chosen, self.given = indices, weights
        return weights
