"""What is wanted of a forward pass, and what was seen of it: references into its lazy graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import mlx.nn as nn


@dataclass(frozen=True)
class Want:
    """What to capture besides the routing itself, which always is.

    sources: decoder layers at whose routers the stream is kept by what added to it. heads: keep
    what the output projections of attention read.
    """

    residuals: bool = True
    attention: bool = False
    expert_outputs: bool = False
    sources: tuple[int, ...] = ()
    heads: bool = False


# What a layer's modules put out on the way: needed to name the parts, and large.
SOURCES = frozenset({"routed_sum", "block_output", "block_normed", "mixed", "mixed_normed"})
# Those that lead from the outputs of experts to the stream.
BLOCK = frozenset({"block_output", "block_normed"})
# Those that lead from the outputs of heads there.
MIXER = frozenset({"mixed", "mixed_normed"})


@dataclass(eq=False)
class LayerRecord:
    """What one decoder layer did: lazy arrays as the model made them; None where not seen.

    entering, at_router, leaving: the residual stream before the layer, before the norm of the
    feed-forward part, and after the layer. norm: the module between at_router and the router.
    ranked: what top-k was taken of (or its negative; see `moetui.model.selection`).
    indices: the experts that ran. weights: the factors multiplied with expert_outputs
    [..., k, H]; factor: what their sum was multiplied with afterwards. bank_input: what the
    experts read, where that is not the router's input.
    routed_sum: Σ weight · output as the block made it, where it is one tensor before anything is
    added. block_output: what the routing block put out; mixed: what the module put out that mixes
    positions; *_normed: the same after a norm that read it.
    mixed_again: whether another such module ran once the stream had been at the router.
    attended: heads of every attention that ran in the module that mixes positions. projected: the
    matrix whose output that module handed on as it was, and its input [..., in].
    attention: probabilities of every attention that the layer ran, in their order.
    """

    entering: mx.array | None = None
    at_router: mx.array | None = None
    leaving: mx.array | None = None
    norm: nn.Module | None = None
    router_input: mx.array | None = None
    logits: mx.array | None = None
    ranked: mx.array | None = None
    indices: mx.array | None = None
    weights: mx.array | None = None
    factor: mx.array | float | None = None
    bank_input: mx.array | None = None
    expert_outputs: mx.array | None = None
    routed_sum: mx.array | None = None
    block_output: mx.array | None = None
    block_normed: mx.array | None = None
    mixed: mx.array | None = None
    mixed_normed: mx.array | None = None
    mixed_again: bool = False
    attended: tuple[int, ...] = ()
    projected: tuple[nn.Module, mx.array] | None = None
    attention: list[mx.array] = field(default_factory=list)
    returns_tuple: bool = False
    normed: list[tuple[mx.array, mx.array, nn.Module]] = field(default_factory=list)

    def forget(self, kept: frozenset[str]) -> None:
        """Drop the sources that nobody will read: references keep the pass's memory."""
        for name in SOURCES - kept:
            setattr(self, name, None)

    @property
    def routed(self) -> bool:
        """Whether logits, chosen experts and their weights were all seen."""
        weighted = self.weights is not None or self.bank_input is not None
        return self.logits is not None and self.indices is not None and weighted


@dataclass(eq=False)
class PassRecord:
    """One forward pass: a record for every decoder layer, and the model's logits [1, T, V]."""

    layers: list[LayerRecord]
    logits: mx.array | None = None


def leaving(layers: Sequence[LayerRecord], rows: slice | mx.array) -> mx.array:
    """[P, N, H]: the residual stream after every layer at `rows`, in the model's own type."""
    streams = [layer.leaving for layer in layers if layer.leaving is not None]
    return mx.stack([stream[0, rows] for stream in streams], axis=1)
