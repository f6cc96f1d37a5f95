"""Every layer's experts at once: mixing weights of a token, load of a session, A against B."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.expert_load import RunLoad, total_load
from moetui.trace import NO_EXPERT, Trace

Array = NDArray[np.float64]

# What full colour may stand for: round numbers, so that the scale rarely changes between tokens.
SCALES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class RoutingMap(msgspec.Struct, frozen=True, kw_only=True):
    """A number for every expert of every routing layer.

    quantity: "weight", the factor that multiplied the expert's output at one token (0 where it
        did not run); "load", the share f_e of the session's tokens that used the expert; or
        "difference", the weight at token B less that at token A, signed.
    num_layers: N decoder layers; layers: the L of them that route; num_experts: E; top_k: k.
    values: [L][E], NaN where a layer has no such expert.
    chosen, weights: [L][≤ k], the experts that ran, best first, and their weights (empty for load);
        of a difference [L][≤ 2k], the experts that ran at A or B, and the signed differences, the
        largest first.
    uniform: [L], what an even router would show: the chosen experts' mean weight, or load k/E
        (empty for a difference).
    full: the value that full colour stands for, either way, one scale for all layers.
    tokens, prompts: how many the map rests on (1 token for weights; A's and B's for a difference).
    """

    quantity: Literal["weight", "load", "difference"]
    num_layers: int
    num_experts: int
    top_k: int
    layers: list[int]
    values: list[list[float]]
    chosen: list[list[int]]
    weights: list[list[float]]
    uniform: list[float]
    full: float
    tokens: int
    prompts: int


def routing_map(trace: Trace, index: int) -> RoutingMap:
    """The mixing weights at row `index` of `trace`."""
    ids, weights = trace.expert_ids[index].astype(np.int64), trace.expert_weights[index]
    values, ran = _weights(trace, index), ids != NO_EXPERT
    kept = [weights[row][ran[row]].astype(float) for row in range(len(ids))]
    return RoutingMap(
        quantity="weight",
        num_layers=trace.model.num_layers,
        num_experts=trace.model.num_experts,
        top_k=trace.model.top_k,
        layers=trace.layers.tolist(),
        values=values.tolist(),
        chosen=[ids[row][ran[row]].tolist() for row in range(len(ids))],
        weights=[w.tolist() for w in kept],
        uniform=[float(w.mean()) if len(w) else float("nan") for w in kept],
        full=_scale(values),
        tokens=1,
        prompts=1,
    )


def difference_map(a: Trace, index_a: int, b: Trace, index_b: int) -> RoutingMap:
    """Weights at row `index_b` of `b` less those at row `index_a` of `a`, two traces of a model."""
    values = _weights(b, index_b) - _weights(a, index_a)
    ran = [
        sorted({int(e) for e in (*one, *two) if e != NO_EXPERT})
        for one, two in zip(a.expert_ids[index_a], b.expert_ids[index_b], strict=True)
    ]
    chosen = [
        sorted(experts, key=lambda e: (-abs(row[e]), e))
        for row, experts in zip(values, ran, strict=True)
    ]
    return RoutingMap(
        quantity="difference",
        num_layers=b.model.num_layers,
        num_experts=b.model.num_experts,
        top_k=b.model.top_k,
        layers=b.layers.tolist(),
        values=values.tolist(),
        chosen=chosen,
        weights=[values[row, experts].tolist() for row, experts in enumerate(chosen)],
        uniform=[],
        full=_scale(abs(values)),
        tokens=2,
        prompts=2,
    )


def session_map(runs: Sequence[RunLoad], num_layers: int) -> RoutingMap:
    """The load f_e of all `runs` together (at least one), of a model of `num_layers` layers."""
    total = total_load(runs)
    L, E = total.counts.shape
    exists = np.arange(E) < np.array(total.experts)[:, None]
    values = np.where(exists, total.counts / max(total.tokens, 1), np.nan)
    return RoutingMap(
        quantity="load",
        num_layers=num_layers,
        num_experts=E,
        top_k=total.top_k,
        layers=list(total.layers),
        values=values.tolist(),
        chosen=[[] for _ in range(L)],
        weights=[[] for _ in range(L)],
        uniform=(np.nansum(values, axis=1) / total.experts).tolist(),
        full=_scale(values),
        tokens=total.tokens,
        prompts=len(runs),
    )


def _weights(trace: Trace, index: int) -> Array:
    """[L, E], the mixing weights at a row, 0 for experts that did not run, NaN for no expert."""
    ids, logits = trace.expert_ids[index].astype(np.int64), trace.router_logits[index]
    values = np.where(np.isnan(logits), np.nan, 0.0)
    ran = ids != NO_EXPERT
    rows = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    values[rows[ran], ids[ran]] = trace.expert_weights[index][ran]
    return values


def _scale(values: Array) -> float:
    """The smallest round number that no value exceeds."""
    most = float(np.nanmax(values, initial=0.0))
    return next((scale for scale in SCALES if most <= scale * (1 + 1e-6)), most)
