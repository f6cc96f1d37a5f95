"""What a model made of many contexts of one length, at one position of each."""

from __future__ import annotations

from dataclasses import dataclass

from moetui.trace.types import ExpertIds, Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class ContextReadings:
    """B contexts of T tokens each, read at one position. L: the layers that route, in order.

    experts: int16 [B, L, k], those that the position chose, ascending; −1 (first) pads layers
    with fewer. logits: float32 [B, L, E], router logits at the position, NaN where a layer has
    no such expert. logprobs: float32 [B, V], ln P of the token that follows the position; None
    where it was not asked for. nll: float32 [B], nats of all tokens after the position together;
    None where logprobs is, 0 where the position is the last.
    """

    experts: ExpertIds
    logits: Floats
    logprobs: Floats | None
    nll: Floats | None
