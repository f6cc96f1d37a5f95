"""Where a forward pass can be changed: the points of its routing and of its residual stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

from moetui.model.taps import Tap


class Edits:
    """Changes nothing. A subclass replaces what it is handed at the points that it concerns.

    Every method returns what the model goes on with; returning the very array it was given
    leaves the pass bit for bit as it is. `layer` is the decoder layer.

    described: the interventions that it carries out, in words. needs_residuals: `leaving` has to
    be told the stream at the router.
    """

    described: tuple[str, ...] = ()
    needs_residuals = False

    def taps(self) -> Sequence[Tap]:
        """Further taps, inside of those of the capture: it sees what they changed."""
        return ()

    def entering(self, layer: int, h: mx.array) -> mx.array:
        """The residual stream [..., T, H] that a decoder layer receives."""
        return h

    def leaving(self, layer: int, at_router: mx.array | None, h: mx.array) -> mx.array:
        """The residual stream [..., T, H] that a decoder layer hands on; at_router: as its
        feed-forward part saw it before the norm, None where that was not looked at."""
        return h

    def before_block(self, layer: int, block: Callable[[], object]) -> None:
        """The block that routes is about to run on its input, as `block` does."""

    def logits(self, layer: int, logits: mx.array) -> mx.array:
        """Router logits [..., E] as the router hands them on."""
        return logits

    def ranked(self, layer: int, operand: mx.array, kth: int) -> mx.array:
        """What top-k is taken of [..., E]: scores where `kth` is negative (the last -kth entries
        of the partition are chosen), else their negative (the first kth + 1 are)."""
        return operand

    def indices(self, layer: int, indices: mx.array) -> mx.array:
        """Expert ids [..., k] that the bank receives; the slots keep their weights."""
        return indices

    def weights(self, layer: int, weights: mx.array, indices: mx.array) -> mx.array:
        """Mixing weights [..., k] of the experts `indices` [..., k]."""
        return weights

    def mixing(self, layer: int, weights: mx.array, outputs: mx.array) -> mx.array:
        """Mixing weights [..., k] as they are multiplied with what the bank put out [..., k, H]."""
        return weights

    def outputs(self, layer: int, outputs: mx.array, indices: mx.array) -> mx.array:
        """What the bank puts out [..., k, H] for the experts `indices` [..., k]."""
        return outputs


NONE = Edits()
