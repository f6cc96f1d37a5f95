"""The gap at the k-boundary: lowest selected against highest eligible unselected expert, by part.

A router selects by score. Where the score rises with the logit (softmax or sigmoid alone), the
gap of two experts is that of their logits, an exact sum over parts. Where a correction bias is
added to the score (aux-loss-free balancing, arXiv 2408.15664), the gap is taken in score: what
the link function makes of the logits is split in proportion to the logits' parts, the bias is a
part of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from moetui.trace import Trace

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

UNDEFINED = "undefined"
MONOTONE = "monotone"
_LINKS: dict[str, Callable[[Numbers], Numbers]] = {
    "sigmoid + bias": expit,
    "softmax + bias": lambda z: softmax(z, axis=-1),
}

# Largest spread over tokens at which score − link(logit) counts as a constant of the expert.
_CONSTANT = 1e-4


@dataclass(frozen=True, eq=False)
class LayerMargin:
    """The gap of every token at one layer.

    parts: float64 [T, G + 1], the gap by part, the correction bias last; NaN where no expert was
        eligible and unselected, or one at the boundary has its score from a group's mask.
    link: how scores follow from logits: "monotone" (the gap is in logits), "sigmoid + bias",
        "softmax + bias" (the gap is in score), or "undefined" (then all NaN).
    """

    parts: Numbers
    link: str


@dataclass(frozen=True, eq=False)
class SelectionRule:
    """How a router's scores follow from its logits: link(z) + bias [E], or for "monotone" in
    whatever way that keeps their order (then the logits stand for them)."""

    link: str
    bias: Numbers

    def linked(self, z: Numbers) -> Numbers:
        """Scores without the bias, for logits [..., E]; absent experts have none (NaN)."""
        if self.link == MONOTONE:
            return z
        return _LINKS[self.link](np.where(np.isfinite(z), z, -np.inf))

    def slope(self, z: Numbers) -> Numbers:
        """[E, E]: ∂ score / ∂ logit at logits [E]."""
        if self.link == MONOTONE:
            return np.eye(len(z))
        p = self.linked(z)
        if self.link.startswith("sigmoid"):
            return np.diag(p * (1 - p))
        return np.diag(p) - np.outer(p, p)


def selection_rule(z: Numbers, s: Numbers) -> SelectionRule:
    """The rule by which scores s [T, E] follow from logits z [T, E]; "undefined" where none of
    those that are known fits."""
    eligible = np.asarray(np.isfinite(s) & np.isfinite(z) & ~masked_experts(s, z))
    if _monotone(z, s, eligible):
        return SelectionRule(MONOTONE, np.zeros(z.shape[1]))
    for link, function in _LINKS.items():
        bias = _constant_bias(s - function(np.where(np.isfinite(z), z, -np.inf)), eligible)
        if bias is not None:
            return SelectionRule(link, bias)
    return SelectionRule(UNDEFINED, np.zeros(z.shape[1]))


def layer_margin(trace: Trace, index: int) -> LayerMargin:
    """The margin of layer `index` (on the trace's L axis).

    Raises ValueError where the trace holds no parts.
    """
    if trace.router_parts is None:
        raise ValueError("the trace holds no router parts")
    parts = trace.router_parts[:, index].astype(float)
    z = trace.router_logits[:, index].astype(float)
    scores = trace.selection_scores
    s = z if scores is None else scores[:, index].astype(float)
    nothing = LayerMargin(np.full((len(z), parts.shape[1] + 1), np.nan), UNDEFINED)
    masked = masked_experts(s, z)
    edge = boundary(trace.expert_ids[:, index], s, eligible_experts(s, z))
    if edge is None:
        return nothing
    inside, outside, defined = edge
    row = np.arange(len(z))
    gap = parts[row, :, inside] - parts[row, :, outside]
    # The score that a mask gave does not follow from logits: no part of it is theirs.
    gap[~defined | masked[row, inside] | masked[row, outside]] = np.nan
    rule = selection_rule(z, s)
    if rule.link == UNDEFINED:
        return nothing
    if rule.link == MONOTONE:
        return LayerMargin(np.column_stack([gap, 0.0 * gap[:, :1]]), MONOTONE)
    score = rule.linked(z)
    slope = _slope(score[row, inside] - score[row, outside], gap.sum(axis=-1))
    correction = np.where(np.isnan(gap[:, 0]), np.nan, rule.bias[inside] - rule.bias[outside])
    return LayerMargin(np.column_stack([gap * slope[:, None], correction]), rule.link)


def masked_experts(s: Numbers, z: Numbers) -> Flags:
    """bool [..., E]: the experts of groups that were left out, where these are scored exactly 0.

    A logit of exactly 0 may rank as 0 without any mask.
    """
    return np.asarray(np.isfinite(z) & (s == 0) & (z != 0))


def eligible_experts(s: Numbers, z: Numbers) -> Flags:
    """bool [..., E]: the experts that top-k could choose, by what it ranked and their logits.

    A mask of −inf always keeps a group out. A mask of 0 does so as long as scores are positive:
    where a correction bias makes some negative, top-k ranks the masked experts above these.
    """
    known = np.isfinite(s) & np.isfinite(z)
    outranks = (known & (s < 0)).any(axis=-1, keepdims=True)
    return np.asarray(known & (~masked_experts(s, z) | outranks))


def boundary(
    ids: NDArray[np.int16], s: Numbers, eligible: Flags
) -> tuple[NDArray[np.intp], NDArray[np.intp], Flags] | None:
    """Lowest selected and highest eligible unselected expert of every token, and where both
    exist; None where they exist nowhere. ids [T, k], padded with −1; s, eligible [T, E]."""
    row = np.arange(len(s))
    chosen = np.zeros(s.shape, bool)
    for column in ids.T:
        chosen[row[column >= 0], column[column >= 0]] = True
    candidates = eligible & ~chosen
    defined = np.asarray(candidates.any(axis=1)) & np.asarray((chosen & eligible).any(axis=1))
    if not defined.any():
        return None
    inside = np.where(chosen & eligible, s, np.inf).argmin(axis=1)
    outside = np.where(candidates, s, -np.inf).argmax(axis=1)
    return inside, outside, defined


def _monotone(z: Numbers, s: Numbers, eligible: Flags) -> bool:
    """Whether in every row a higher logit never means a lower score."""
    order = np.argsort(np.where(eligible, z, np.inf), axis=1, kind="stable")
    known = np.where(eligible, s, np.nan)
    step = np.diff(np.take_along_axis(known, order, axis=1), axis=1)
    tolerance = 1e-6 * np.nanmax(np.abs(known), axis=1, keepdims=True, initial=0.0)
    return not bool((step < -tolerance).any())


def _constant_bias(difference: Numbers, eligible: Flags) -> Numbers | None:
    """[E]: score − link(logit) where that is a constant of every expert, else None."""
    if len(difference) < 2:
        return None
    known = np.where(eligible, difference, np.nan)
    seen = eligible.any(axis=0)
    low = np.nanmin(known[:, seen], axis=0)
    high = np.nanmax(known[:, seen], axis=0)
    if (high - low).max(initial=0.0) > _CONSTANT:
        return None
    bias = np.zeros(difference.shape[1])
    bias[seen] = (low + high) / 2
    return bias


def _slope(score_gap: Numbers, logit_gap: Numbers) -> Numbers:
    """Score gap per logit gap; 0 where the logits do not differ (the bias decides alone)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(logit_gap == 0, 0.0, score_gap / logit_gap)
