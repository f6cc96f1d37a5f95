"""Whether generated texts have phases: steps where routing changes more than their tokens do.

Every step of every text is one test; all are judged together by the largest standardised distance
of each token-stratified shuffle over all texts, so that one false phase among hundreds of texts
has the stated chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.decoded import Sequences
from moetui.analyses.phase_changes import LEVEL, peaks, window_distances
from moetui.analyses.routing_sets import members
from moetui.stats import (
    MIN_DOCUMENTS,
    Statistic,
    document_intervals,
    movable_share,
    ratio_of_sums,
    token_stratified_shuffle,
    wilson,
)

Numbers = NDArray[np.float64]

DEFINITION = (
    "Hellinger distance between the experts of the `window` tokens before a step and those from it "
    "on, mean over the layers read; a phase begins at a step that is highest within a window's "
    "reach and beyond the token-stratified shuffle (rows change places with rows of the same token "
    f"id of any text) at a family-wise p of {LEVEL} over all steps of all texts"
)


class PhaseChange(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a text where a phase begins: token `step` is the first of the later window.

    score: the distance; expected: the shuffle's mean there; q: family-wise.
    """

    text: str
    step: int
    generated: bool
    score: float
    expected: float
    q: float


class Phases(msgspec.Struct, frozen=True, kw_only=True):
    """Phases of many texts.

    layers: decoder layers read. texts: long enough for two windows. with_phase: share of them
    with a phase, Wilson interval; null: about none. over_tokens: distance less the shuffle's
    mean, over all steps; boundary: the same at the first generated token. changes: all of them.
    reason: why there is no verdict.
    """

    definition: str
    window: int
    layers: tuple[int, ...]
    texts: int
    steps: int
    movable: float
    with_phase: Statistic
    over_tokens: Statistic
    boundary: Statistic
    changes: tuple[PhaseChange, ...]
    reason: str | None


def phases(
    found: Sequences,
    names: Sequence[str],
    starts: Sequence[int],
    layers: Sequence[int],
    rows: Sequence[int],
    *,
    window: int,
    permutations: int,
    seed: int,
    step: Callable[[], None] = lambda: None,
) -> Phases:
    """Of sequences called `names` whose generated rows begin at `starts`; rows: where `layers`
    stand on the L axis."""
    chosen = members(found.experts[:, list(rows)], found.num_experts)
    sizes = np.bincount(found.sequence, minlength=found.count)
    begin = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    long = [d for d in range(found.count) if sizes[d] >= 2 * window]
    if not long:
        return _none(layers, window, found, f"no text has two windows of {window} tokens")
    spans = [slice(int(begin[d]), int(begin[d] + sizes[d])) for d in long]
    observed = _distances(chosen, spans, window)
    rng = np.random.default_rng(seed)
    draws = np.empty((permutations, len(observed)), np.float32)
    for index in range(permutations):
        draws[index] = _distances(chosen[token_stratified_shuffle(found.token, rng)], spans, window)
        step()
    mean, spread = draws.mean(axis=0, dtype=float), draws.std(axis=0, dtype=float)
    # Where no shuffle moves anything there is nothing to be beyond.
    scale = np.where(spread > 1e-6, spread, np.inf)
    maxima = np.sort(((draws - mean) / scale).max(axis=1))
    z = (observed - mean) / scale
    q = (1 + permutations - np.searchsorted(maxima, z - 1e-6)) / (1 + permutations)
    counts = [sizes[d] - 2 * window + 1 for d in long]
    owner = np.repeat(np.arange(len(long)), counts)
    at = np.concatenate([np.arange(n) for n in counts]) + window
    changes = []
    for index, d in enumerate(long):
        own = np.flatnonzero(owner == index)
        for peak in peaks(z[own], window):
            cell = own[peak]
            if q[cell] <= LEVEL:
                changes.append(
                    PhaseChange(
                        text=names[d],
                        step=int(at[cell]),
                        generated=bool(at[cell] >= starts[d]),
                        score=float(observed[cell]),
                        expected=float(mean[cell]),
                        q=float(q[cell]),
                    )
                )
    boundary = at == np.array([starts[d] for d in long])[owner]
    return Phases(
        definition=DEFINITION,
        window=window,
        layers=tuple(layers),
        texts=len(long),
        steps=len(observed),
        movable=movable_share(found.token),
        with_phase=_share(len({change.text for change in changes}), len(long)),
        over_tokens=_mean(observed - mean, owner, np.ones(len(owner), bool), seed),
        boundary=_mean(observed - mean, owner, boundary, seed),
        changes=tuple(sorted(changes, key=lambda one: (one.q, -one.score))),
        reason=None
        if len(long) >= MIN_DOCUMENTS
        else f"{len(long)} texts of two windows, {MIN_DOCUMENTS} needed",
    )


def _distances(chosen: NDArray[np.int8], spans: Sequence[slice], window: int) -> Numbers:
    """The scores of all steps of all texts, one text after another."""
    return np.concatenate([window_distances(chosen[s], window).mean(axis=1) for s in spans])


def _share(hits: int, n: int) -> Statistic:
    if n < MIN_DOCUMENTS:
        return Statistic(value=hits / n, n_documents=n, caveat=f"{hits} of {n}: too few texts")
    low, high = wilson(hits, n)
    return Statistic(
        value=hits / n,
        ci_low=low if hits else 0.0,
        ci_high=high,
        n_documents=n,
        caveat=f"{hits} of {n}, Wilson interval; by chance one or more in all texts together "
        f"with a probability of {LEVEL}",
    )


def _mean(
    values: Numbers, owner: NDArray[np.int64], kept: NDArray[np.bool_], seed: int
) -> Statistic:
    """Mean over kept steps, with an interval over the texts that have some."""
    if not kept.any():
        return Statistic(n_documents=0, caveat="no such step")
    texts, of = np.unique(owner[kept], return_inverse=True)
    sums, n = np.bincount(of, values[kept]), np.bincount(of).astype(float)
    intervals = document_intervals(ratio_of_sums(sums, n), len(texts), seed=seed)
    return msgspec.structs.replace(intervals.statistic(n_tokens=int(n.sum())), null_mean=0.0)


def _none(layers: Sequence[int], window: int, found: Sequences, reason: str) -> Phases:
    nothing = Statistic(n_documents=0, caveat=reason)
    return Phases(
        definition=DEFINITION, window=window, layers=tuple(layers), texts=0, steps=0,
        movable=movable_share(found.token), with_phase=nothing, over_tokens=nothing,
        boundary=nothing, changes=(), reason=reason,
    )  # fmt: skip
