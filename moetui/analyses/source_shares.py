"""Which earlier layer a router reads: the across-token share of every source of its logits.

Where `moetui.analyses.attention_router` says how much attention contributes, this says whose: the
shares of the sources of a part sum to that part's share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.router_evidence import covariance_shares
from moetui.stats import Statistic, document_intervals
from moetui.trace import Trace
from moetui.trace.shares import centred

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class SourceSums:
    """Sums over the tokens of one document, for L routers, S sources and E experts.

    tokens: [L], tokens whose logits and sources are all known.
    power: [L, S], Σ_t ⟨z̃_c, z̃⟩; mean: [L, S, E], Σ_t z̃_c.
    """

    tokens: Numbers
    power: Numbers
    mean: Numbers


class SourceShare(msgspec.Struct, frozen=True, kw_only=True):
    """S_c of what decoder layer `layer` added to a part (None: the embedding, a static bias)."""

    part: str
    layer: int | None
    across_tokens: Statistic


class RouterSourceShares(msgspec.Struct, frozen=True, kw_only=True):
    """The sources of the logits of the router in decoder layer `layer`; they sum to 1."""

    layer: int
    sources: tuple[SourceShare, ...]


def source_sums(trace: Trace) -> SourceSums:
    """The sums of one document. Raises ValueError where the trace was made without sources."""
    if trace.sources is None:
        raise ValueError("the trace holds no sources")
    at = [trace.layers.tolist().index(layer) for layer in trace.sources.layers.tolist()]
    logits = trace.router_logits[:, at]
    padding = np.asarray(~np.isfinite(logits).any(axis=0))
    raw = np.where(padding[:, None], np.float32(np.nan), trace.sources.logits)
    whole = np.asarray((np.isfinite(logits) & np.isfinite(raw).all(axis=2)) | padding)
    z = np.nan_to_num(centred(raw, shift_invariant=trace.model.shift_invariant))
    total = z.sum(axis=2)
    keep = whole.all(axis=-1) & total.any(axis=-1)
    z = np.where(keep[..., None, None], z, 0.0)
    return SourceSums(
        tokens=keep.sum(axis=0).astype(float),
        power=np.einsum("tlse,tle->ls", z, z.sum(axis=2)),
        mean=z.sum(axis=0),
    )


def source_shares(
    documents: Sequence[SourceSums],
    layers: Sequence[int],
    names: Sequence[tuple[str, int | None]],
    *,
    seed: int,
) -> tuple[RouterSourceShares, ...]:
    """S of every source at every router, with intervals over documents.

    Sources that come after a router, and those that the architecture has but that add nothing at
    all to it, are left out. No documents: no shares.
    """
    if not documents:
        return ()
    tokens, power, mean = (
        np.stack([getattr(document, name) for document in documents])
        for name in ("tokens", "power", "mean")
    )

    def shares(weights: Numbers) -> Numbers:
        sums = (np.tensordot(weights, one, axes=1) for one in (tokens, power, mean))
        return np.moveaxis(covariance_shares(*sums), 0, -1)

    found = document_intervals(shares, len(documents), seed=seed)
    adds = np.abs(mean).max(axis=(0, 3)) > 0
    return tuple(
        RouterSourceShares(
            layer=layer,
            sources=tuple(
                SourceShare(
                    part=part,
                    layer=source,
                    across_tokens=found.statistic(
                        (row, column), n_tokens=int(tokens[:, row].sum())
                    ),
                )
                for column, (part, source) in enumerate(names)
                if adds[row, column] or source is None
            ),
        )
        for row, layer in enumerate(layers)
    )
