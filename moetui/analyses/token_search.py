"""Tokens that make a router choose: by scanning a vocabulary, and by gradients.

Both are fitted to some contexts and mean nothing until others confirm them. The scan tries every
token at one row. The search by gradients (greedy coordinate gradient, arXiv 2307.15043, after
HotFlip, arXiv 1712.06751) tries at each step those swaps that the slope of the wanted experts'
logits, less that of the experts they have to beat, promises most of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moetui.analyses.manipulation_targets import (
    Target,
    TokenChange,
    boundary_experts,
    cells_reached,
    logit_margins,
    reached,
)
from moetui.trace import AddLogits, ContextReadings, Force, Forward, Intervention
from moetui.trace.types import Ints

Numbers = NDArray[np.float64]

# Random beginnings of a search; the best of them is improved.
STARTS = 8
# What is added to a logit, in standard deviations of the layer's logits.
DOSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
# Weight of the logits' margins beside the cells reached: they tell apart what reaches equally many.
_MARGIN = 1e-3


@dataclass(frozen=True, kw_only=True)
class Search:
    """How tokens are searched by gradients. rows: where they stand, before the position.
    steps: rounds; candidates: swaps tried in a round; contexts: how many give gradients."""

    rows: tuple[int, ...]
    steps: int
    candidates: int
    contexts: int


def candidate_tokens(vocabulary: int, wanted: int | None, *, seed: int) -> Ints:
    """The ids that a scan tries: all (None, or where there are no more), or some at random."""
    if wanted is None or wanted >= vocabulary:
        return np.arange(vocabulary, dtype=np.int32)
    drawn = np.random.default_rng([seed, vocabulary]).choice(vocabulary, wanted, replace=False)
    return np.sort(drawn).astype(np.int32)


def scan_counts(
    model: Forward,
    contexts: Ints,
    position: int,
    row: int,
    candidates: Ints,
    targets: Sequence[Target],
) -> NDArray[np.int32]:
    """[targets, candidates]: in how many contexts [B, T] each token, put at `row`, reaches."""
    counts = np.zeros((len(targets), len(candidates)), np.int32)
    for context in contexts:
        tried = np.repeat(context[None], len(candidates), axis=0)
        tried[:, position + row] = candidates
        found = model.read_contexts(tried, position)
        for at, target in enumerate(targets):
            counts[at] += reached(found.experts, model.info.moe_layers, target)
    return counts


def best_token(counts: NDArray[np.int32], candidates: Ints, row: int) -> TokenChange:
    """The token that reaches in most contexts; of equals the first. counts: [candidates]."""
    return TokenChange(rows=(row,), tokens=(int(candidates[int(counts.argmax())]),))


def search_tokens(
    model: Forward,
    contexts: Ints,
    position: int,
    target: Target,
    search: Search,
    *,
    start: Sequence[TokenChange] = (),
    seed: int,
) -> TokenChange:
    """Tokens at `search.rows`, the same in all contexts [B, T], that reach the target.

    start: what is begun with besides random tokens. Where the model gives no gradient, as many
    swaps are drawn at random.
    """
    rng = np.random.default_rng([seed, *(x for c in target.cells for x in (c.layer, c.expert))])
    V = model.info.vocab_size
    starts = [*start] + [
        TokenChange(rows=search.rows, tokens=tuple(rng.integers(V, size=len(search.rows)).tolist()))
        for _ in range(STARTS)
    ]
    best, score = _best(model, contexts, position, target, starts)
    for _ in range(search.steps):
        some = rng.choice(len(contexts), min(search.contexts, len(contexts)), replace=False)
        swaps = _swaps(model, best, contexts[some], position, target, search, rng)
        found, reached_score = _best(model, contexts, position, target, swaps)
        if reached_score > score:
            best, score = found, reached_score
    return best


def fitted_dose(model: Forward, contexts: Ints, position: int, target: Target) -> float:
    """The smallest of DOSES that, added to the logits of the target's experts, reaches it in all
    contexts; the largest where none does."""
    for dose in DOSES[:-1]:
        change = raised(model, contexts, position, target, dose)
        found = model.read_contexts(contexts, position, interventions=change)
        if reached(found.experts, model.info.moe_layers, target).all():
            return dose
    return DOSES[-1]


def raised(
    model: Forward, contexts: Ints, position: int, target: Target, dose: float
) -> list[Intervention]:
    """The target's logits + dose · standard deviation of its layer's logits over the contexts."""
    found = model.read_contexts(contexts, position)
    return raised_by(found, model.info.moe_layers, target, dose)


def raised_by(
    read: ContextReadings, routing: Sequence[int], target: Target, dose: float
) -> list[Intervention]:
    """The same, from what was read of the contexts."""
    changes: list[Intervention] = []
    for cell in target.cells:
        z = read.logits[:, list(routing).index(cell.layer)]
        experts = int(np.isfinite(z[0]).sum())
        delta = np.zeros(experts)
        delta[cell.expert] = dose * float(np.nanstd(z))
        changes.append(AddLogits(delta=tuple(delta.tolist()), layers=(cell.layer,)))
    return changes


def forced(target: Target) -> list[Intervention]:
    """The target's experts are chosen whatever their scores."""
    return [Force(experts=(cell.expert,), layers=(cell.layer,)) for cell in target.cells]


def _best(
    model: Forward, contexts: Ints, position: int, target: Target, changes: Sequence[TokenChange]
) -> tuple[TokenChange, float]:
    """Which of the changes reaches most cells in all contexts, then by most of a margin."""
    tried = np.concatenate([change.applied(contexts, position) for change in changes])
    read = model.read_contexts(tried, position)
    routing = model.info.moe_layers
    hits = cells_reached(read.experts, routing, target).mean(axis=1)
    margins = logit_margins(read.logits, read.experts, routing, target)
    # Bounded, so that no margin outweighs a context; tokens that win by more fail elsewhere less.
    margins /= float(np.nanstd(read.logits)) or 1.0
    scores = hits + _MARGIN * np.tanh(margins).mean(axis=1)
    means = scores.reshape(len(changes), len(contexts)).mean(axis=1)
    best = int(means.argmax())
    return changes[best], float(means[best])


def _swaps(
    model: Forward,
    change: TokenChange,
    contexts: Ints,
    position: int,
    target: Target,
    search: Search,
    rng: np.random.Generator,
) -> list[TokenChange]:
    """Single swaps of the change's tokens, the most promising of every row."""
    each = max(1, search.candidates // len(search.rows))
    if model.router_gradient_error is not None:
        tokens = rng.integers(model.info.vocab_size, size=(len(search.rows), each))
    else:
        gradient = _mean_gradient(model, change.applied(contexts, position), position, target)
        rows = [position + row for row in search.rows]
        scores = model.token_scores(gradient[rows].astype(np.float32))
        scores[np.arange(len(rows)), change.tokens] = -np.inf
        tokens = np.argsort(-scores, axis=1, kind="stable")[:, :each]
    return [
        TokenChange(
            rows=change.rows, tokens=(*change.tokens[:at], int(token), *change.tokens[at + 1 :])
        )
        for at in range(len(search.rows))
        for token in tokens[at]
    ]


def _mean_gradient(model: Forward, contexts: Ints, position: int, target: Target) -> Numbers:
    """[T, H]: the slope of the cells' logits over those that they have to beat, mean."""
    read = model.read_contexts(contexts, position)
    routing = list(model.info.moe_layers)
    total = np.zeros((contexts.shape[1], model.info.hidden_size))
    for cell in target.cells:
        row = routing.index(cell.layer)
        rivals = boundary_experts(
            read.logits[:, row].astype(float), read.experts[:, row], cell.expert
        )
        for ids, rival in zip(contexts, rivals.tolist(), strict=True):
            total += model.router_gradient(ids, cell.layer, cell.expert, position, against=rival)
    mean: Numbers = total / len(contexts)
    return mean
