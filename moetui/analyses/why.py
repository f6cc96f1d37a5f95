"""Why the routers chose as they did: signed shares of every layer's decision by source."""

from __future__ import annotations

import msgspec
import numpy as np

from moetui.trace import Trace
from moetui.trace.shares import centred


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of the router decisions at one token.

    num_layers: N decoder layers; layers: the L of them that route.
    parts: the G sources; shares: [L][G], signed, each row sums to 1, NaN where the router has no
        preference at all.
    sizes: [L][G], ‖z̃_c‖² / Σ‖z̃_c‖²: the shares that parts of these sizes would have if they
        neither helped nor opposed each other. A share above its size was helped by the others.
    cancellation: [L], Σ‖z̃_c‖ / ‖z̃‖; 1 when all parts agree.
    cancellation_unrelated: [L], the same if the parts were at right angles; the median of parts in
        random directions. With few experts those scatter: three equal parts over 16 experts lie
        between 0.8 and 1.4 times this in 95 % of cases, so only more than that is a finding.
    completeness: [L], max_e |Σ_c z_c − z| / max_e |z|; 0 when the parts explain everything.
    seed_ratio: [L], ‖W d‖ / (‖W e‖ + ‖W d‖), the ratio of norms that is published as "attention
        ratio"; no share of a sum. None where not captured.
    centred: whether a shift common to all experts was taken out, because the router ignores it.
    """

    num_layers: int
    layers: list[int]
    parts: list[str]
    shares: list[list[float]]
    sizes: list[list[float]]
    cancellation: list[float]
    cancellation_unrelated: list[float]
    completeness: list[float]
    seed_ratio: list[float] | None
    centred: bool


def why(trace: Trace, index: int) -> Why | None:
    """The shares at row `index` of `trace`; None where the trace has no decomposition."""
    row = trace.rows(index, index + 1)
    shares, complete, ratio = row.shares, row.completeness, row.seed_ratio
    if shares is None or complete is None or row.router_parts is None:
        return None
    parts = centred(row.router_parts[0], shift_invariant=row.model.shift_invariant)
    norm = np.sqrt(np.nansum(parts**2, axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        sizes = norm**2 / (norm**2).sum(-1, keepdims=True)
        unrelated = norm.sum(-1) / np.sqrt((norm**2).sum(-1))
    return Why(
        num_layers=row.model.num_layers,
        layers=row.layers.tolist(),
        parts=list(row.part_names),
        shares=shares.values[0].tolist(),
        sizes=sizes.tolist(),
        cancellation=shares.cancellation[0].tolist(),
        cancellation_unrelated=unrelated.tolist(),
        completeness=complete[0].tolist(),
        seed_ratio=None if ratio is None else ratio[0].tolist(),
        centred=row.model.shift_invariant,
    )
