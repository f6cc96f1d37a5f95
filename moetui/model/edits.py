"""Where a forward pass can be changed: the points of its routing, and what stands there."""

from __future__ import annotations

import mlx.core as mx


class Edits:
    """Changes nothing. A subclass replaces what it is handed at the points that it concerns.

    Every method returns what the model goes on with; returning the very array it was given
    leaves the pass bit for bit as it is. `layer` is the decoder layer.
    """

    def logits(self, layer: int, logits: mx.array) -> mx.array:
        """Router logits [..., E] as the router hands them on."""
        return logits

    def ranked(self, layer: int, operand: mx.array) -> mx.array:
        """What top-k is taken of [..., E] (scores or their negative: see the site's sign)."""
        return operand

    def indices(self, layer: int, indices: mx.array) -> mx.array:
        """Expert ids [..., k] that the bank receives; the slots keep their weights."""
        return indices

    def weights(self, layer: int, weights: mx.array, indices: mx.array) -> mx.array:
        """Mixing weights [..., k] of the experts `indices` [..., k]."""
        return weights


NONE = Edits()
