"""Why the router decided as it did: shares of its logits by source, derived here and only here.

The router logits of a token are a sum z = Σ_c z_c over sources c (embedding, attention, experts,
…), exact once the norm's scale is frozen. A source matters to the *decision* only where it
separates experts, so for routers that ignore a common shift both sides are centred over experts:
z̃ = z - mean_e z. The share of a source is s_c = ⟨z̃_c, z̃⟩ / ‖z̃‖²: signed, and Σ_c s_c = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shares:
    """Shares of every router decision.

    values: float32 [T, L, G], signed, summing to 1 over G; NaN where the router has no
        preference at all (‖z̃‖ = 0).
    cancellation: float32 [T, L], Σ_c ‖z̃_c‖ / ‖z̃‖: 1 when all parts agree, large when the
        decision is a small difference of large opposing parts.
    """

    values: Floats
    cancellation: Floats


def centred(logits: Floats, *, shift_invariant: bool) -> Doubles:
    """z̃: logits [..., E] less their mean over experts where the router ignores a common shift."""
    z = logits.astype(np.float64)
    if shift_invariant:
        known = np.isfinite(z).sum(axis=-1, keepdims=True)
        z -= np.nansum(z, axis=-1, keepdims=True) / np.maximum(known, 1)
    return z


def router_shares(parts: Floats, *, shift_invariant: bool) -> Shares:
    """Shares and cancellation index from `router_parts` [T, L, G, E] (padded experts are NaN)."""
    part = np.nan_to_num(centred(parts, shift_invariant=shift_invariant))
    total = part.sum(axis=-2, keepdims=True)
    power = (total**2).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = (part * total).sum(axis=-1) / power
        cancellation = np.linalg.norm(part, axis=-1).sum(-1) / np.sqrt(power[..., 0])
    values[~np.isfinite(values)] = np.nan
    cancellation[~np.isfinite(cancellation)] = np.nan
    return Shares(values.astype(np.float32), cancellation.astype(np.float32))


def completeness(parts: Floats, logits: Floats) -> Floats:
    """float32 [T, L]: max_e |Σ_c z_c - z| / max_e |z| from [T, L, G, E] and [T, L, E]."""
    error = np.abs(parts.astype(np.float64).sum(axis=-2) - logits)
    scale = np.nanmax(np.abs(logits.astype(np.float64)), axis=-1, initial=0.0, keepdims=False)
    worst = np.nanmax(error, axis=-1, initial=0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(scale > 0, worst / scale, worst)
    return np.asarray(ratio, np.float32)


def seed_ratio(norms: Floats) -> Floats:
    """‖W d‖ / (‖W e‖ + ‖W d‖) from norms [..., 2]: the seed's ratio; 0 where d = 0, NaN for 0/0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = norms[..., 1] / norms.sum(axis=-1)
    return ratio
