"""Where the routing of a sequence changes: distances between windows of tokens side by side.

Any two windows of a few tokens differ, and most of what differs is the tokens themselves. So a
distance is a finding only beside its null: the same rows of routing dealt out anew among the rows
of the same token id, which keeps everything that token identity explains.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.analyses.routing_sets import Array, members
from moetui.stats import (
    MIN_DOCUMENTS,
    family_test,
    hellinger,
    movable_share,
    token_stratified_shuffle,
)
from moetui.trace.types import ExpertIds

# Tokens of a window, on either side of a step.
WINDOW = 8
# The family-wise error at which a step of one sequence counts as a change.
LEVEL = 0.05
# The least share of rows that have another row of their token to change with.
MOVABLE = 0.5


class ChangeScores(msgspec.Struct, frozen=True, kw_only=True):
    """How far the experts of the `window` tokens before a step are from those of as many from it
    on.

    steps: the rows t that have both windows, t − window … t − 1 and t … t + window − 1.
    score: [steps], Hellinger distance of the two distributions over experts, mean over layers,
        0 the same to 1 nothing in common; by_layer: [steps][L].
    peaks: the steps that are highest within a window's reach, the highest first: places to look
        at, not findings.
    changes: those of them that the token-stratified shuffle of this sequence does not explain
        (family-wise over the steps); None where it can decide nothing, with the reason.
    null_mean, critical: [steps] and the score that a step must exceed, under that shuffle.
    q: [steps], family-wise. movable: share of rows that have another row of their token.
    """

    window: int
    steps: list[int]
    score: list[float]
    by_layer: list[list[float]]
    peaks: list[int]
    changes: list[int] | None
    null_mean: list[float] | None
    critical: float | None
    q: list[float] | None
    movable: float
    reason: str | None


def window_distances(chosen: NDArray[np.int8], window: int) -> Array:
    """[T − 2·window + 1, L]: the distance at each step t = window … T − window.

    chosen: int8 [T, L, E] of `routing_sets.members`.
    """
    return distances_at(chosen, np.arange(window, len(chosen) - window + 1), window)


def distances_at(chosen: NDArray[np.int8], steps: NDArray[np.intp], window: int) -> Array:
    """[steps, L]: the distance of the `window` rows before each of `steps` and those from it on."""
    T, L, E = chosen.shape
    if not len(steps):
        return np.zeros((0, L))
    sums = np.zeros((T + 1, L, E), np.int32)
    np.cumsum(chosen, axis=0, dtype=np.int32, out=sums[1:])
    here = sums[steps]
    return hellinger(here - sums[steps - window], sums[steps + window] - here)


def peaks(score: ArrayLike, window: int) -> list[int]:
    """Indices of the values that are highest within `window` places, the highest value first."""
    values = np.asarray(score, float)
    found = [
        index
        for index, value in enumerate(values)
        if value > 0
        and value >= values[max(0, index - window) : index + window + 1].max()
        and not (values[max(0, index - window) : index] == value).any()
    ]
    return sorted(found, key=lambda index: (-values[index], index))


def change_scores(
    experts: ExpertIds,
    token_ids: ArrayLike,
    num_experts: int,
    *,
    window: int = WINDOW,
    permutations: int = 0,
    seed: int = 0,
) -> ChangeScores | None:
    """The scores of one sequence, experts [T, L, k] of tokens [T]; None where it is too short.

    permutations: of the token-stratified shuffle within the sequence, 999 or more, or 0 for a
    description without a test. A sequence where fewer than half of the rows have another row of
    their token, or fewer than 20 of them, is described only. What beats this shuffle is routing
    that does not follow from the tokens alone: a change, or a slow drift, or mere persistence.
    """
    chosen, ids = members(experts, num_experts), np.asarray(token_ids)
    by_layer = window_distances(chosen, window)
    if not by_layer.size:
        return None
    score, steps = by_layer.mean(axis=-1), np.arange(len(by_layer)) + window
    highest, movable = peaks(score, window), movable_share(ids)
    reason = _no_test(movable, len(ids), permutations)
    null = critical = q = changes = None
    if reason is None:
        family = family_test(
            score,
            lambda rng: window_distances(chosen[token_stratified_shuffle(ids, rng)], window).mean(
                axis=-1
            ),
            permutations=permutations,
            seed=seed,
        )
        null, critical, q = family.null_mean.tolist(), family.critical(LEVEL), family.q.tolist()
        changes = [int(steps[index]) for index in highest if family.q[index] <= LEVEL]
    return ChangeScores(
        window=window,
        steps=steps.tolist(),
        score=score.tolist(),
        by_layer=by_layer.tolist(),
        peaks=[int(steps[index]) for index in highest],
        changes=changes,
        null_mean=null,
        critical=critical,
        q=q,
        movable=movable,
        reason=reason,
    )


def _no_test(movable: float, tokens: int, permutations: int) -> str | None:
    """Why the shuffle within a sequence decides nothing, None where it can."""
    if movable < MOVABLE or movable * tokens < MIN_DOCUMENTS:
        return (
            f"{round(movable * tokens)} of {tokens} tokens occur again in this sequence: too few "
            "for a token-stratified shuffle, so distances are described, not tested"
        )
    return None if permutations else "described, not tested"
