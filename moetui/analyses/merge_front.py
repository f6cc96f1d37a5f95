"""Fewer experts at what price: merging against pruning, at equal memory of expert weights.

A group that was merged is one expert in memory, so removing m experts of a layer leaves the same
size whichever way it is done. The routers keep their rows; they are a small part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.ablation import MARGIN, few_draws, nll_change
from moetui.analyses.merged_pairs import Measured, Numbers
from moetui.stats import EquivalenceTest, Statistic, equivalent, joined, permutation_p

Rows = NDArray[np.intp]

Method = Literal[
    "merge, similar outputs",
    "merge, similar weights (seed)",
    "prune, REAP",
    "prune, frequency",
    "merge, random",
]
METHODS: tuple[Method, ...] = get_args(Method)
OUTPUTS, SEED, REAP, FREQUENCY, RANDOM = METHODS

DEFINITION = (
    "ΔNLL, nats a token of evaluation documents, of removing so many experts of each of the "
    "layers. merge, similar outputs: groups by average linkage on output cosine, mean by load, "
    "neurons aligned; merge, similar weights (seed): the same linkage on weight cosine as they "
    "lie, plain mean; prune: the experts of least REAP score (mean g‖f‖ where chosen) or least "
    "frequency cannot be chosen; merge, random: groups of the same sizes of random experts, mean "
    "by load, aligned. Scores and groups are of calibration documents"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Removal:
    """One way to remove experts: `removed` of each layer, on average where they differ in size.
    share: of their experts; draw: which of the random ones."""

    method: Method
    share: float
    removed: float
    bytes: int
    draw: int | None = None


class FrontPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One way at one size. removed: experts of each layer (mean over layers), share: of them;
    bytes: what is saved. change: ΔNLL. against_reap: ΔNLL less that of REAP pruning at the same
    size, paired by document, None for itself or without it. beside: ΔNLL on the documents that
    random merges were tried on, with those as its null. on_front: no other way, random ones
    aside, costs less and saves as much."""

    method: Method
    share: float
    removed: float
    bytes: int
    change: Statistic
    equivalence: EquivalenceTest
    against_reap: Statistic | None
    beside: Statistic | None
    on_front: bool


class MergeFront(msgspec.Struct, frozen=True, kw_only=True, tag="merge_front"):
    """All points, by share and method. layers: decoder layers in which experts were removed.
    random: by share, ΔNLL of random merges: their mean and band, on control documents. refused:
    what was not tried, and why."""

    definition: str
    margin: float
    documents: int
    control_documents: int
    layers: tuple[int, ...]
    points: tuple[FrontPoint, ...]
    random: tuple[Statistic, ...]
    refused: tuple[str, ...]

    def at(self, method: Method, share: float) -> FrontPoint | None:
        """The point of a method at a size."""
        same = (p for p in self.points if p.method == method and abs(p.share - share) < 1e-9)
        return next(same, None)


def merge_front(
    measured: Measured,
    removals: Sequence[Removal],
    layers: Sequence[int],
    refused: Sequence[str],
    *,
    seed: int,
) -> MergeFront:
    """Every removal as a point, random ones as the band beside them."""
    whole = [at for at, one in enumerate(removals) if one.draw is None]
    random = [at for at, one in enumerate(removals) if one.draw is not None]
    tried = np.isfinite(measured.after[random]).all(axis=0) if random else np.zeros(0, bool)
    control: Rows = np.flatnonzero(tried)
    points = [_point(measured, removals, at, control, seed) for at in whole]
    shares = dict.fromkeys(one.share for one in removals)
    return MergeFront(
        definition=DEFINITION,
        margin=MARGIN,
        documents=len(measured.before),
        control_documents=len(control),
        layers=tuple(layers),
        points=tuple(msgspec.structs.replace(p, on_front=_best(p, points)) for p in points),
        random=tuple(_band(_random_costs(measured, removals, share, control)) for share in shares),
        refused=tuple(refused),
    )


def _point(
    measured: Measured,
    removals: Sequence[Removal],
    at: int,
    control: Rows,
    seed: int,
) -> FrontPoint:
    one = removals[at]
    change = nll_change(measured.before, measured.after[at], measured.tokens, seed=seed)
    reap = next(
        (
            row
            for row, other in enumerate(removals)
            if other.method == REAP and other.share == one.share and row != at
        ),
        None,
    )
    return FrontPoint(
        method=one.method,
        share=one.share,
        removed=one.removed,
        bytes=one.bytes,
        change=change,
        equivalence=equivalent(change, MARGIN),
        against_reap=None
        if reap is None
        else nll_change(measured.after[reap], measured.after[at], measured.tokens, seed=seed),
        beside=_beside(measured, removals, at, control, seed),
        on_front=False,
    )


def _beside(
    measured: Measured,
    removals: Sequence[Removal],
    at: int,
    control: Rows,
    seed: int,
) -> Statistic | None:
    drawn = _random_costs(measured, removals, removals[at].share, control)
    if not len(drawn):
        return None
    own = nll_change(
        measured.before[control], measured.after[at, control], measured.tokens[control], seed=seed
    )
    if own.value is None:
        return None
    band = _band(drawn)
    return msgspec.structs.replace(
        own,
        null_mean=band.null_mean,
        null_low=band.null_low,
        null_high=band.null_high,
        p=permutation_p(own.value, drawn, tail="less"),
        caveat=joined(f"null: {len(drawn)} random merges", few_draws(len(drawn)), own.caveat),
    )


def _random_costs(
    measured: Measured,
    removals: Sequence[Removal],
    share: float,
    control: Rows,
) -> Numbers:
    """[draws], ΔNLL of the random merges of one size."""
    rows = [i for i, one in enumerate(removals) if one.draw is not None and one.share == share]
    size = measured.tokens[control].sum() if len(control) else 0
    if not rows or not size:
        return np.empty(0)
    delta = measured.after[rows][:, control] - measured.before[control]
    found: Numbers = delta.sum(axis=1) / size
    return found


def _band(drawn: Numbers) -> Statistic:
    if not len(drawn):
        return Statistic(caveat="no random merge was tried")
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Statistic(
        value=float(drawn.mean()),
        null_mean=float(drawn.mean()),
        null_low=float(low),
        null_high=float(high),
        caveat=f"{len(drawn)} draws, each on the control documents",
    )


def _best(point: FrontPoint, points: Sequence[FrontPoint]) -> bool:
    own = point.change.value
    return own is not None and not any(
        other.bytes >= point.bytes and other.change.value is not None and other.change.value < own
        for other in points
    )
