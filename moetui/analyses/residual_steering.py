"""The smallest change of the residual stream at one position that makes a router choose an expert.

`moetui.analyses.smallest_change` solves it with the norm's scale frozen; the router itself, norm
computed anew, is then asked whether it follows, and where it does not the problem is solved again
around the changed stream. At last a true pass makes the change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moetui.analyses.router_margin import (
    UNDEFINED,
    SelectionRule,
    eligible_experts,
    selection_rule,
)
from moetui.analyses.smallest_change import SmallestChange, pair_change, smallest_change
from moetui.trace import Forward, PatchPart, Trace

Numbers = NDArray[np.float64]

ROUNDS = 16
# From this round on only half of each step is made: where scores bend, whole ones overshoot.
_CAREFUL = 4
# Where the rounds come to nothing the last change is made longer.
_STRETCHES = (1.01, 1.03, 1.1, 1.3, 2.0)
# By how much the expert has to win, first and at most, in standard deviations of the scores.
_MARGIN, _LARGEST = 1e-4, 1e-2


@dataclass(frozen=True, eq=False, kw_only=True)
class Steering:
    """What it takes in one context.

    delta: [H], or None where nothing was found: reason. follows: whether the router, asked with
    the changed stream, chooses the expert. length, pair, pair_bound: norms of the change, of the
    pair formula and of the shortest change that equals any chosen expert, over that of the
    stream. pair_follows: whether the router chooses the expert after the pair formula's change.
    exact: whether no shorter change does it with the norm frozen. rounds: problems solved.
    """

    delta: Numbers | None
    reason: str | None = None
    follows: bool = False
    length: float = float("nan")
    pair: float = float("nan")
    pair_bound: float = float("nan")
    pair_follows: bool = False
    exact: bool = False
    rounds: int = 0


def layer_rule(traces: list[Trace], row: int) -> SelectionRule:
    """How scores follow from logits at row `row` of the L axis, from all tokens of the traces."""
    z = np.concatenate([trace.router_logits[:, row] for trace in traces]).astype(float)
    given = [trace.selection_scores for trace in traces]
    scores = [one[:, row] for one in given if one is not None]
    s = np.concatenate(scores).astype(float) if len(scores) == len(traces) else z
    return selection_rule(z, s)


def steer(
    model: Forward, trace: Trace, position: int, layer: int, expert: int, rule: SelectionRule
) -> Steering:
    """The change for one context, traced with its streams.

    Raises ValueError where the trace has none.
    """
    if trace.streams is None:
        raise ValueError("the trace holds no streams")
    if rule.link == UNDEFINED:
        return Steering(delta=None, reason="how scores follow from logits is not known")
    row = trace.layers.tolist().index(layer)
    h = trace.streams.at_router[position, layer].astype(float)
    chosen = trace.expert_ids[position, row]
    may = _eligible(trace, position, row)
    if not may[expert]:
        return Steering(delta=None, reason="the expert's group is not among those chosen from")
    solved = _solve(model, h, layer, expert, rule, may, chosen[chosen >= 0])
    size = float(np.linalg.norm(h))
    if solved is None:
        return Steering(delta=None, reason="no change of the stream tells the experts apart")
    return Steering(
        delta=solved.change.delta,
        follows=_follows(model, layer, h + solved.change.delta, expert),
        length=solved.change.norm / size,
        pair=float(np.linalg.norm(solved.pair)) / size,
        pair_bound=solved.bound / size,
        pair_follows=_follows(model, layer, h + solved.pair, expert),
        exact=solved.change.exact,
        rounds=solved.rounds,
    )


def patch(trace: Trace, position: int, layer: int, delta: Numbers) -> PatchPart:
    """The change as an intervention: what attention added at the position becomes that + δ."""
    assert trace.streams is not None
    entering, at_router = trace.streams.entering[position], trace.streams.at_router[position]
    values = at_router[layer].astype(float) - entering[layer] + delta
    return PatchPart(
        part="attention", layer=layer, values=values[None].astype(np.float32), rows=(position,)
    )


def random_follows(
    model: Forward,
    trace: Trace,
    position: int,
    layer: int,
    expert: int,
    found: Steering,
    draws: int,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """[draws]: whether random changes of the same length make the router choose the expert."""
    assert trace.streams is not None and found.delta is not None
    h = trace.streams.at_router[position, layer].astype(float)
    ways = rng.standard_normal((draws, len(h)))
    ways *= np.linalg.norm(found.delta) / np.linalg.norm(ways, axis=1, keepdims=True)
    chosen = model.routes(layer, (h + ways).astype(np.float32))
    follows: NDArray[np.bool_] = (chosen == expert).any(axis=1)
    return follows


@dataclass(frozen=True, eq=False)
class _Solved:
    """The change that the router follows, or the last one tried. pair: the pair formula's change,
    around the untouched stream; bound: the shortest pair, around the stream of the last round."""

    change: SmallestChange
    pair: Numbers
    bound: float
    rounds: int


def _solve(
    model: Forward,
    h: Numbers,
    layer: int,
    expert: int,
    rule: SelectionRule,
    may: NDArray[np.bool_],
    chosen: NDArray[np.int16],
) -> _Solved | None:
    delta, margin, k = np.zeros(len(h)), _MARGIN, len(chosen)
    pair, solved = np.zeros(len(h)), None
    for rounds in range(1, ROUNDS + 1):
        scores, slope = _linear(model, layer, h + delta, rule)
        around = scores - slope @ delta
        wins = margin * float(scores[may].std())
        if rounds == 1:
            pair = pair_change(around, slope, expert, chosen.tolist(), margin=wins).last
        step = smallest_change(around, slope, expert, k, margin=wins, eligible=may)
        if step is None:
            return solved
        best = np.argsort(np.where(may, -around, np.inf), kind="stable")[:k]
        bound = pair_change(around, slope, expert, best.tolist()).least
        solved = _Solved(step, pair, bound, rounds)
        if _follows(model, layer, h + step.delta, expert):
            return solved
        if rounds == ROUNDS:
            solved = _stretched(model, h, layer, expert, solved)
        delta = step.delta if rounds < _CAREFUL else (delta + step.delta) / 2
        margin = min(2 * margin, _LARGEST)
    return solved


def _stretched(model: Forward, h: Numbers, layer: int, expert: int, solved: _Solved) -> _Solved:
    """A change in the same direction that the router follows, not known to be the smallest; the
    last one where it follows none."""
    for factor in _STRETCHES:
        delta, norm = factor * solved.change.delta, factor * solved.change.norm
        if _follows(model, layer, h + delta, expert):
            return replace(solved, change=replace(solved.change, delta=delta, norm=norm))
    return solved


def _linear(
    model: Forward, layer: int, stream: Numbers, rule: SelectionRule
) -> tuple[Numbers, Numbers]:
    """Scores [E] at a stream and their slope [E, H] with the norm's scale frozen."""
    z, slope = (one.astype(float) for one in model.router_slope(layer, stream.astype(np.float32)))
    bias = rule.bias[: len(z)]
    return rule.linked(z) + bias, rule.slope(z) @ slope


def _eligible(trace: Trace, position: int, row: int) -> NDArray[np.bool_]:
    z = trace.router_logits[position, row].astype(float)
    scores = trace.selection_scores
    s = z if scores is None else scores[position, row].astype(float)
    may: NDArray[np.bool_] = eligible_experts(s, z)[np.isfinite(z)]
    return may


def _follows(model: Forward, layer: int, stream: Numbers, expert: int) -> bool:
    return bool((model.routes(layer, stream[None].astype(np.float32)) == expert).any())
