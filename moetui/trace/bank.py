"""What a layer's experts are made of, and where a model has its parameters."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from moetui.trace.types import Floats, Ints


@dataclass(frozen=True, eq=False, kw_only=True)
class ExpertMatrices:
    """The matrices of some experts of one layer, packed ones unpacked. F neurons read W numbers
    and write W' numbers (both the hidden size, but where a layer projects before and after).

    layer: decoder layer. experts: int32 [N]. into: by name, float32 [N, F, W]: gate and up, or
    the one matrix of experts without a gate. out_of: by name, float32 [N, W', F].
    bytes_each: what one expert takes in memory, in the precision that is computed with.
    """

    layer: int
    experts: Ints
    into: dict[str, Floats]
    out_of: dict[str, Floats]
    bytes_each: int

    @property
    def neurons(self) -> Floats:
        """float32 [N, F, D]: every neuron's reading and writing weights, one after the other."""
        written = [matrix.transpose(0, 2, 1) for matrix in self.out_of.values()]
        return np.concatenate([*self.into.values(), *written], axis=-1)


class ParameterCount(msgspec.Struct, frozen=True, kw_only=True):
    """Learnt numbers of one part of a model; packed ones count as what they stand for."""

    parameters: int
    bytes: int


class ParameterCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Where the learnt numbers of a model are; the parts add up to the whole.

    routers: of all routing layers, with their correction biases. routed: the expert banks.
    shared: what else is in a routing block (shared experts, their gates, latent projections);
    0 where a whole decoder layer is the block, which `caveat` says. embeddings: matrices with a
    row for every token. rest: attention, dense feed-forward parts, norms.
    active_routed: of `routed`, what one token uses.
    """

    routers: ParameterCount
    routed: ParameterCount
    shared: ParameterCount
    embeddings: ParameterCount
    rest: ParameterCount
    active_routed: int
    caveat: str | None

    @property
    def total(self) -> int:
        """All of them."""
        parts = (self.routers, self.routed, self.shared, self.embeddings, self.rest)
        return sum(part.parameters for part in parts)
