"""What single attention heads added to the logits of a router that comes after them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moetui.trace.expert_sources import missed
from moetui.trace.types import ExpertIds, Floats, Ints

Flags = NDArray[np.bool_]

# No source: pads `ids`.
_NONE = -1


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadSources:
    """The logits of one router over T tokens, and what the heads of the M layers whose attention
    it reads added to them, the norms' scales frozen per token; that router has E experts.

    layer: the router's decoder layer. layers: int32 [M], ascending; the router's own is the last
    where its attention comes before the router.
    heads: int32 [M], the heads of each layer; 0 where what stands in attention's place is no
    projection of heads (a recurrence, a convolution) and stays one source.
    router_logits: float32 [T, E].
    logits: float32 [T, M, 1 + most heads, E]. [..., 0, :] is what is no head: the bias of the
    output projection, or the whole of a layer without heads; [..., 1 + h, :] is head h; 0 where
    there is none.
    attention: float32 [T, M, E], all that a layer's attention added, read from the stream.
    """

    layer: int
    layers: Ints
    heads: Ints
    router_logits: Floats
    logits: Floats
    attention: Floats

    @property
    def ids(self) -> ExpertIds:
        """int16 [T, M, 1 + most heads]: 0 … of the second axis of `logits`, -1 where a layer has
        no such head, or nothing that is no head."""
        rest: Flags = np.any(self.logits[:, :, 0], axis=(0, 2))
        slots = np.arange(self.logits.shape[2])
        used = ((slots == 0) & rest[:, None]) | ((slots > 0) & (slots <= self.heads[:, None]))
        ids: ExpertIds = np.where(used, slots, _NONE).astype(np.int16)
        return np.broadcast_to(ids, self.logits.shape[:3])

    @property
    def completeness(self) -> Floats:
        """float32 [T, M], max_e |Σ_heads z_c + rest - z_layer| / max_e |z|."""
        return missed(self.logits, self.attention, self.router_logits)
