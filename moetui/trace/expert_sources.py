"""What single experts added to the logits of a router that comes after them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moetui.trace.types import ExpertIds, Floats, Ints


@dataclass(frozen=True, eq=False, kw_only=True)
class ExpertSources:
    """The logits of one router over T tokens, and what the chosen experts of the M earlier layers
    that route added to them, the norm's scale frozen per token; that router has E experts.

    layer: the router's decoder layer. layers: int32 [M], ascending.
    router_logits: float32 [T, E].
    expert_ids: int16 [T, M, k], in no particular order; -1 pads layers with fewer.
    logits: float32 [T, M, k, E], of each of these experts; 0 where padded.
    routed: float32 [T, M, E], of all routed experts of a layer together, read from the stream.
    """

    layer: int
    layers: Ints
    router_logits: Floats
    expert_ids: ExpertIds
    logits: Floats
    routed: Floats

    @property
    def ids(self) -> ExpertIds:
        """int16 [T, M, k]: which source of its layer each of `logits` is of."""
        return self.expert_ids

    @property
    def completeness(self) -> Floats:
        """float32 [T, M], max_e |Σ_experts z_c - z_layer| / max_e |z|."""
        return missed(self.logits, self.routed, self.router_logits)


def missed(logits: Floats, together: Floats, router_logits: Floats) -> Floats:
    """float32 [T, M]: what single sources [T, M, k, E] miss of the layers that they are of
    [T, M, E], over the largest of the router's logits [T, E]."""
    off = np.abs(logits.astype(np.float64).sum(axis=2) - together).max(axis=-1)
    whole = np.abs(router_logits).max(axis=-1, keepdims=True)
    error: Floats = (off / np.where(whole > 0, whole, 1)).astype(np.float32)
    return error
