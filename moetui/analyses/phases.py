"""Whether generated texts have phases: steps where routing changes more than their tokens do.

The steps of a text are judged together by the largest standardised distance of each
token-stratified shuffle, the texts by the false discovery rate over their p-values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.decoded import Sequences
from moetui.analyses.phase_changes import LEVEL, distances_at, peaks
from moetui.analyses.routing_sets import members
from moetui.stats import (
    MIN_DOCUMENTS,
    Statistic,
    benjamini_hochberg,
    document_intervals,
    movable_share,
    ratio_of_sums,
    token_stratified_shuffle,
    wilson,
)

Numbers = NDArray[np.float64]

DEFINITION = (
    "Hellinger distance between the experts of the `window` tokens before a step and those from it "
    "on, mean over the layers read; a text has phases where its largest distance is beyond the "
    "token-stratified shuffle (rows change places with rows of the same token id of any text) at a "
    f"false discovery rate of {LEVEL} over texts; they begin at its steps that are highest within "
    f"a window's reach and beyond that shuffle at a family-wise p of {LEVEL} over its steps"
)


class PhaseChange(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a text where a phase begins: token `step` is the first of the later window.

    score: the distance; expected: the shuffle's mean there. p: family-wise over the steps of the
    text; q: of the text, false discovery rate over texts.
    """

    text: str
    step: int
    generated: bool
    score: float
    expected: float
    p: float
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
    at_layers: Sequence[int],
    *,
    window: int,
    permutations: int,
    seed: int,
    step: Callable[[], None] = lambda: None,
) -> Phases:
    """Of sequences called `names` whose generated rows begin at `starts`; at_layers: where
    `layers` stand on the L axis."""
    chosen = members(found.experts[:, list(at_layers)], found.num_experts)
    sizes = np.bincount(found.sequence, minlength=found.count)
    begin = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    long = [d for d in range(found.count) if sizes[d] >= 2 * window]
    if not long:
        return _none(layers, window, found, f"no text has two windows of {window} tokens")
    counts = [sizes[d] - 2 * window + 1 for d in long]
    owner = np.repeat(np.arange(len(long)), counts)
    at = np.concatenate([np.arange(n) for n in counts]) + window
    rows = begin[long][owner] + at

    def distances(moved: NDArray[np.int8]) -> Numbers:
        return np.asarray(distances_at(moved, rows, window).mean(axis=1), float)

    observed = distances(chosen)
    # As many draws as the false discovery rate over so many texts needs.
    draws = np.empty((max(permutations, drawn_for(len(long))), len(observed)), np.float32)
    rng = np.random.default_rng(seed)
    for index in range(len(draws)):
        draws[index] = distances(chosen[token_stratified_shuffle(found.token, rng)])
        step()
    mean, p, q = _judged(observed, draws, owner)
    changes = []
    for index, d in enumerate(long):
        own = np.flatnonzero(owner == index)
        if q[index] > LEVEL:
            continue
        for peak in peaks(np.maximum(observed - mean, 0)[own], window):
            cell = own[peak]
            if p[cell] <= LEVEL:
                changes.append(
                    PhaseChange(
                        text=names[d],
                        step=int(at[cell]),
                        generated=bool(at[cell] >= starts[d]),
                        score=float(observed[cell]),
                        expected=float(mean[cell]),
                        p=float(p[cell]),
                        q=float(q[index]),
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
        changes=tuple(sorted(changes, key=lambda one: (one.p, -one.score))),
        reason=None
        if len(long) >= MIN_DOCUMENTS
        else f"{len(long)} texts of two windows, {MIN_DOCUMENTS} needed",
    )


def drawn_for(texts: int) -> int:
    """The shuffles that a false discovery rate over so many texts takes."""
    return int(np.ceil(texts / LEVEL))


def _judged(
    observed: Numbers, draws: NDArray[np.float32], owner: NDArray[np.int64]
) -> tuple[Numbers, Numbers, Numbers]:
    """The shuffles' mean of every step, its p over the steps of its text, and q of every text."""
    mean, spread = draws.mean(axis=0, dtype=float), draws.std(axis=0, dtype=float)
    # Where no shuffle moves anything there is nothing to be beyond.
    scale = np.where(spread > 1e-6, spread, np.inf)
    z, p, best = (observed - mean) / scale, np.ones(len(observed)), []
    for text in range(int(owner[-1]) + 1):
        own = owner == text
        maxima = np.sort(((draws[:, own] - mean[own]) / scale[own]).max(axis=1))
        above = len(draws) - np.searchsorted(maxima, z[own] - 1e-6)
        p[own] = (1 + above) / (1 + len(draws))
        best.append(float(p[own].min()))
    return mean, p, benjamini_hochberg(best, permutations=len(draws), level=LEVEL)


def _share(hits: int, n: int) -> Statistic:
    if n < MIN_DOCUMENTS:
        return Statistic(value=hits / n, n_documents=n, caveat=f"{hits} of {n}: too few texts")
    low, high = wilson(hits, n)
    return Statistic(
        value=hits / n,
        ci_low=low if hits else 0.0,
        ci_high=high,
        n_documents=n,
        caveat=f"{hits} of {n}, Wilson interval; about {LEVEL:.0%} of those found are by chance",
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
