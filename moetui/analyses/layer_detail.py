"""One router decision in full: who was chosen, by how much, and how sure the router was."""

from __future__ import annotations

import math
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.router_margin import eligible_experts
from moetui.trace import NO_EXPERT, Trace

Array = NDArray[np.float64]


class ChosenExpert(msgspec.Struct, frozen=True, kw_only=True):
    """One expert: its router logit, the score that top-k ranked (None where the model hides it)
    and the weight that its output was multiplied with (None if it did not run)."""

    expert: int
    logit: float
    score: float | None
    weight: float | None


class LayerDetail(msgspec.Struct, frozen=True, kw_only=True):
    """The decision of one layer's router at one token.

    chosen: the experts that ran, best first. passed_over: the eligible ones that did not, best
        first; empty where all ran (k = E) or the rest was not eligible.
    margin: z of the last chosen minus z of the first passed over; score_margin: the same of the
        selection score. Both None where none was passed over. Near 0 the choice hangs on rounding.
    margin_chance: the margin expected of E independent normal logits with this layer's standard
        deviation, which is what a router with random weights shows; None where the choice is not
        that of the highest logits (a correction bias or a group decided too).
    entropy: H of the router's distribution over its E experts in nats; entropy_normalized: over
        ln E, 1 = no preference. distribution: how logits became probabilities.
    weight_sum: Σ of the weights; 1 where the model normalises them.
    completeness: max_e |Σ parts − z| / max_e |z|; None without a decomposition.
    """

    layer: int
    num_experts: int
    chosen: list[ChosenExpert]
    passed_over: list[ChosenExpert]
    margin: float | None
    score_margin: float | None
    margin_chance: float | None
    logit_deviation: float
    entropy: float
    entropy_normalized: float
    distribution: str
    weight_sum: float
    completeness: float | None


def layer_detail(trace: Trace, index: int, layer: int) -> LayerDetail | None:
    """The decision at row `index` in decoder layer `layer`; None where it does not route."""
    if layer not in trace.layers:
        return None
    row = int(np.flatnonzero(trace.layers == layer)[0])
    z = trace.router_logits[index, row].astype(float)
    score = None
    if trace.selection_scores is not None:
        score = trace.selection_scores[index, row].astype(float)
    ids = trace.expert_ids[index, row]
    ids = ids[ids != NO_EXPERT].astype(int)
    weights = trace.expert_weights[index, row, : len(ids)].astype(float)
    chosen = [_expert(e, z, score, w) for e, w in zip(ids.tolist(), weights.tolist(), strict=True)]
    passed_over = [_expert(e, z, score, None) for e in _passed_over(ids, z, score)]
    real = z[~np.isnan(z)]
    entropy, distribution = _entropy(real, softmax=trace.model.shift_invariant)
    parts = trace.rows(index, index + 1).completeness
    return LayerDetail(
        layer=layer,
        num_experts=len(real),
        chosen=chosen,
        passed_over=passed_over,
        margin=chosen[-1].logit - passed_over[0].logit if passed_over else None,
        score_margin=_score_margin(chosen[-1], passed_over),
        margin_chance=_margin_chance(real, len(ids)) if _by_logit(z, ids, passed_over) else None,
        logit_deviation=float(real.std()),
        entropy=entropy,
        entropy_normalized=entropy / float(np.log(len(real))) if len(real) > 1 else 0.0,
        distribution=distribution,
        weight_sum=float(weights.sum()),
        completeness=None if parts is None else float(parts[0, row]),
    )


def _expert(expert: int, z: Array, score: Array | None, weight: float | None) -> ChosenExpert:
    return ChosenExpert(
        expert=expert,
        logit=float(z[expert]),
        score=None if score is None else float(score[expert]),
        weight=weight,
    )


def _passed_over(ids: NDArray[np.int64], z: Array, score: Array | None) -> list[int]:
    """The eligible experts that did not run, by selection score."""
    ranked = z if score is None else score
    ranked = np.where(eligible_experts(ranked, z), ranked, -np.inf)
    ranked[ids] = -np.inf
    order = np.argsort(-ranked, kind="stable")
    return [int(e) for e in order if np.isfinite(ranked[e])]


def _by_logit(z: Array, ids: NDArray[np.int64], passed_over: list[ChosenExpert]) -> bool:
    """Whether the experts with the highest logits ran, and the next one is first in line."""
    rest = np.delete(z, ids)
    highest = np.nanmax(rest, initial=-np.inf)
    return bool(passed_over and z[ids].min() >= highest == passed_over[0].logit)


def _score_margin(last: ChosenExpert, passed_over: list[ChosenExpert]) -> float | None:
    if not passed_over or passed_over[0].score is None or last.score is None:
        return None
    return last.score - passed_over[0].score


def _entropy(z: Array, *, softmax: bool) -> tuple[float, str]:
    """H in nats of the distribution over experts, and how it was made."""
    if softmax:
        p, name = np.exp(z - z.max()), "softmax"
    else:
        p, name = 1 / (1 + np.exp(-z)), "sigmoid, normalised"
    p = p / p.sum()
    used = p[p > 0]
    return float(-(used * np.log(used)).sum()), name


def _margin_chance(z: Array, k: int) -> float | None:
    """Expected gap between the k-th and the next of E normal values that deviate as these do.

    Blom's approximation of the gap at unit variance. The deviation of E values about their own
    mean is less than that of their source, by a tenth for 8 experts; the ratio of gap to deviation
    does not depend on the deviation (Basu), so the gap is over the expected deviation.
    """
    E = len(z)
    if not 0 < k < E:
        return None
    deviation = math.sqrt(2 / E) * math.exp(math.lgamma(E / 2) - math.lgamma((E - 1) / 2))
    quantile = NormalDist().inv_cdf
    gap = quantile((E - k + 0.625) / (E + 0.25)) - quantile((E - k - 0.375) / (E + 0.25))
    return float(z.std()) * gap / deviation
