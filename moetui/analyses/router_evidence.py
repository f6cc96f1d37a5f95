"""Per-document sums from which every share of the routers' decisions is estimated.

Shares over a corpus are ratios of sums over tokens, so a document enters a bootstrap through its
sums alone: no token is read twice, and a resample is one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moetui.analyses.router_margin import UNDEFINED, layer_margin
from moetui.stats import Intervals, design_effect, document_intervals
from moetui.trace import Trace
from moetui.trace.shares import centred, completeness, router_shares

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, kw_only=True)
class DocumentSums:
    """Sums over the tokens of one document, for L layers, G parts and E experts.

    tokens: [L], tokens that count; missing: [L], tokens dropped because a logit or a part is NaN
        or the router had no preference at all.
    share, share_squares: [L, G], Σ_t s_c and Σ_t s_c².
    cancellation: [L], Σ_t Σ_c ‖z̃_c‖ / ‖z̃‖.
    power: [L, G], Σ_t ⟨z̃_c, z̃⟩; mean: [L, G, E], Σ_t z̃_c.
    margin: [L, G + 1], Σ_t of the gap at the k-boundary by part, the correction bias last.
    margin_link: [L] names of how scores follow from logits; see `moetui.analyses.router_margin`.
    completeness: [L], the worst token's max_e |Σ_c z_c − z| / max_e |z|.
    """

    tokens: Numbers
    missing: Numbers
    share: Numbers
    share_squares: Numbers
    cancellation: Numbers
    power: Numbers
    mean: Numbers
    margin: Numbers
    margin_link: tuple[str, ...]
    completeness: Numbers


def document_sums(trace: Trace, layers: Sequence[int], *, last_only: bool = False) -> DocumentSums:
    """The sums of one document over its tokens (or its last one), at the decoder layers `layers`.

    Raises ValueError where the trace holds no parts.
    """
    if trace.router_parts is None:
        raise ValueError("the trace holds no router parts")
    rows = slice(-1 if last_only else 0, None)
    at = [trace.layers.tolist().index(layer) for layer in layers]
    logits, raw = trace.router_logits[:, at], trace.router_parts[:, at]
    known: Flags = np.isfinite(logits)
    padding: Flags = np.logical_not(known.any(axis=0))  # experts that no token has a logit for
    parts = np.where(padding[:, None], np.float32(np.nan), raw)
    shift_invariant = trace.model.shift_invariant
    shares = router_shares(parts, shift_invariant=shift_invariant)
    whole: Flags = (known & np.isfinite(parts).all(axis=2)) | padding
    usable: Flags = np.logical_and(whole.all(axis=-1), np.isfinite(shares.cancellation))
    keep = usable[rows]
    preferences = np.nan_to_num(centred(parts, shift_invariant=shift_invariant))
    z = np.where(keep[..., None, None], preferences[rows], 0.0)
    s = np.where(keep[..., None], shares.values[rows].astype(float), 0.0)
    error = completeness(parts, logits)
    margins = [layer_margin(trace, index) for index in at]
    gaps = np.nan_to_num(np.stack([margin.parts for margin in margins], axis=1))[rows]
    return DocumentSums(
        tokens=keep.sum(axis=0).astype(float),
        missing=(~keep).sum(axis=0).astype(float),
        share=s.sum(axis=0),
        share_squares=(s**2).sum(axis=0),
        cancellation=np.where(keep, shares.cancellation[rows], 0.0).sum(axis=0),
        power=np.einsum("tlge,tle->lg", z, z.sum(axis=2)),
        mean=z.sum(axis=0),
        margin=np.where(keep[..., None], gaps, 0.0).sum(axis=0),
        margin_link=tuple(margin.link for margin in margins),
        completeness=np.where(keep, error[rows], 0.0).max(axis=0, initial=0.0),
    )


_SUMS = ("tokens", "share", "share_squares", "cancellation", "power", "mean", "margin")


@dataclass(frozen=True, eq=False)
class ShareEstimates:
    """Estimates with intervals for L layers and, last, their mean: rows 0 … L of every axis.

    per_token, across_tokens: [L + 1, G]; margin: [L + 1, G + 1]; cancellation: [L + 1, 1].
    effective: [L, G], independent tokens that the per-token shares rest on (NaN if unknown).
    """

    per_token: Intervals
    across_tokens: Intervals
    margin: Intervals
    cancellation: Intervals
    effective: Numbers


class Evidence:
    """The sums of D documents, ready to be estimated from.

    tokens: float64 [L], tokens that count, over all documents.
    completeness: float64 [L], the worst token's.
    margin_links: [L], how selection scores follow from logits; "undefined" where documents differ.
    """

    def __init__(self, documents: Sequence[DocumentSums]) -> None:
        self._size = len(documents)
        self._by_document: dict[str, Numbers] = {
            name: np.stack([getattr(document, name) for document in documents]) for name in _SUMS
        }
        self.tokens: Numbers = self._by_document["tokens"].sum(axis=0)
        self.completeness: Numbers = np.max([d.completeness for d in documents], axis=0)
        seen = [set(links) for links in zip(*(d.margin_link for d in documents), strict=True)]
        self.margin_links = tuple(links.pop() if len(links) == 1 else UNDEFINED for links in seen)

    def estimate(self, *, mean_over: Sequence[int], seed: int) -> ShareEstimates:
        """All shares, with one set of resampled documents for all of them.

        mean_over: the rows of the L axis that the last row of the estimates is the mean of.
        """
        parts, rows = self._by_document["share"].shape[-1], list(mean_over)

        def shares(weights: Numbers) -> Numbers:
            found = np.concatenate(
                [
                    self._per_token(weights),
                    self._across_tokens(weights),
                    self._margin(weights),
                    self._ratio(weights, "cancellation")[:, :, None],
                ],
                axis=-1,
            )
            whole = np.concatenate([found, found[:, rows].mean(axis=1, keepdims=True)], axis=1)
            return np.moveaxis(whole, 0, -1)

        found = document_intervals(shares, self._size, seed=seed)
        return ShareEstimates(
            per_token=_columns(found, slice(0, parts)),
            across_tokens=_columns(found, slice(parts, 2 * parts)),
            margin=_columns(found, slice(2 * parts, 3 * parts + 1)),
            cancellation=_columns(found, slice(3 * parts + 1, None)),
            effective=self._effective(),
        )

    def _sums(self, weights: Numbers, name: str) -> Numbers:
        sums: Numbers = np.tensordot(weights, self._by_document[name], axes=1)
        return sums

    def _ratio(self, weights: Numbers, name: str) -> Numbers:
        """[R, L]: Σ of a per-token quantity over Σ tokens."""
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio: Numbers = self._sums(weights, name) / self._sums(weights, "tokens")
        return ratio

    def _per_token(self, weights: Numbers) -> Numbers:
        """[R, L, G]: the mean over tokens of s_c."""
        with np.errstate(invalid="ignore", divide="ignore"):
            tokens = self._sums(weights, "tokens")[..., None]
            mean: Numbers = self._sums(weights, "share") / tokens
        return mean

    def _across_tokens(self, weights: Numbers) -> Numbers:
        """[R, L, G]: S_c = Σ_e Cov_t(z̃_c,e, z̃_e) / Σ_e Var_t(z̃_e)."""
        names = ("tokens", "power", "mean")
        return covariance_shares(*(self._sums(weights, name) for name in names))

    def _margin(self, weights: Numbers) -> Numbers:
        """[R, L, G + 1]: Σ_t of each part of the gap over Σ_t of the gap."""
        sums = self._sums(weights, "margin")
        with np.errstate(invalid="ignore", divide="ignore"):
            share: Numbers = sums / sums.sum(axis=-1, keepdims=True)
        undefined = [link == UNDEFINED for link in self.margin_links]
        share[:, undefined] = np.nan
        return share

    def _effective(self) -> Numbers:
        """[L, G]: tokens over the design effect of the mean share."""
        tokens, share = self._by_document["tokens"], self._by_document["share"]
        squares_of = self._by_document["share_squares"].sum(axis=0)
        n = tokens.sum(axis=0)
        effective = np.full(share.shape[1:], np.nan)
        for layer, part in np.ndindex(effective.shape):
            if not n[layer]:
                continue
            y = share[:, layer, part]
            mean = y.sum() / n[layer]
            squares = squares_of[layer, part] - n[layer] * mean**2
            effect = design_effect(y - mean * tokens[:, layer], n[layer], squares)
            if effect is not None:
                effective[layer, part] = n[layer] / effect
        return effective


def covariance_shares(tokens: Numbers, power: Numbers, mean: Numbers) -> Numbers:
    """[R, L, G]: S_c = Σ_e Cov_t(z̃_c,e, z̃_e) / Σ_e Var_t(z̃_e), NaN where nothing varies, from
    sums over tokens: tokens [R, L], power [R, L, G] of ⟨z̃_c, z̃⟩, mean [R, L, G, E] of z̃_c."""
    n = tokens[..., None]
    # Σ_t z̃_c · z̃ − sum · sum / n, n times the covariance; its sum over parts is the variance.
    product = np.einsum("rlge,rle->rlg", mean, mean.sum(axis=2))
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = power - product / n
        variance = covariance.sum(axis=-1, keepdims=True)
        # One token, or tokens that are all alike, vary by rounding only.
        varies = variance > 1e-9 * power.sum(axis=-1, keepdims=True)
        share: Numbers = np.where(varies, covariance / variance, np.nan)
    return share


def _columns(found: Intervals, columns: slice) -> Intervals:
    return Intervals(
        found.value[:, columns],
        found.low[:, columns],
        found.high[:, columns],
        found.caveats[:, columns],
        found.n_documents,
        found.seed,
    )
