"""What it costs to merge two experts: the most similar pair of a layer beside random pairs.

The merge is made in the model's own weights: both experts become their mean, by load and with
their neurons in one order, and what the model then says of held-out documents is what counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.ablation import MARGIN, few_draws, nll_change
from moetui.stats import (
    MIN_DOCUMENTS,
    EquivalenceTest,
    Statistic,
    equivalent,
    joined,
    permutation_p,
)
from moetui.stats.minimum import ABLATION, enough, warning

Numbers = NDArray[np.float64]

# The pair of the largest output cosine, merged as it should be; that of the largest weight
# cosine, merged as the seed would; random ones, merged as the first and as the second.
Kind = Literal["similar", "seed", "random", "random, as the seed"]
# A pair is compared only with pairs of about its own load that are merged as it is.
CONTROLS: Mapping[Kind, Kind] = {"similar": "random", "seed": "random, as the seed"}
NO_CONTROLS = "no controls merged as it is: no null"

DEFINITION = (
    "ΔNLL, nats a token of evaluation documents, of both experts of a pair becoming one: their "
    "mean by load on calibration documents, neurons aligned; the pair is that of the largest "
    "output cosine on calibration documents. Random pairs of about the same load are merged in "
    "the same way. |Δ| is how far the loss of a token moves, up or down: a merge that changes "
    "nothing has 0 of it, while the ΔNLL of one that harms may be 0 by chance. The seed's pair is "
    "that of the largest weight cosine, its mean unweighted and not aligned; its controls, where "
    "there are any, are random pairs of about its own load merged so too"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Trial:
    """A pair of decoder layer `layer` that was merged."""

    kind: Kind
    layer: int
    experts: tuple[int, int]


class MergedPair(msgspec.Struct, frozen=True, kw_only=True):
    """What merging one pair did. similarity: what it was chosen for (output cosine, or weight
    cosine as they lie). load: tokens of the evaluation documents that chose either of the two.
    equivalence: of `change`. beside: ΔNLL on the documents that random pairs were tried on, with
    those merged in the same way as its null; moved: there, how far the loss of a token moves
    either way, mean of |Δ|. Both without a null where no such pair was merged."""

    layer: int
    kind: Kind
    experts: tuple[int, int]
    similarity: float
    load: Statistic
    change: Statistic
    equivalence: EquivalenceTest
    beside: Statistic
    moved: Statistic


class Foretold(msgspec.Struct, frozen=True, kw_only=True):
    """How well a similarity foretells how far merging moves the loss of a token: Spearman's ρ over
    all pairs tried with aligned merges, ranks within layers; negative where similar pairs move it
    less."""

    similarity: str
    pairs: int
    rho: Statistic


class MergedPairs(msgspec.Struct, frozen=True, kw_only=True, tag="merged_pairs"):
    """The pairs of all layers asked for. control_documents: those that random pairs were tried on.
    mean, seed_mean: ΔNLL of the most similar pair, and of the seed's, mean of layers."""

    definition: str
    margin: float
    documents: int
    control_documents: int
    pairs: tuple[MergedPair, ...]
    foretold: tuple[Foretold, ...]
    mean: Statistic
    seed_mean: Statistic

    def of(self, kind: Kind) -> list[MergedPair]:
        """Those of one kind, layer by layer."""
        return [pair for pair in self.pairs if pair.kind == kind]


@dataclass(frozen=True, eq=False, kw_only=True)
class Measured:
    """Nats of D documents, all tokens of each together. before, tokens [D]; after [V, D], one row
    a change, NaN where it was not tried; moved [V, D], summed |Δ| of the tokens, likewise; used
    [V, D], tokens that chose one of its experts."""

    before: Numbers
    tokens: Numbers
    after: Numbers
    moved: Numbers
    used: Numbers


def merged_pair(
    measured: Measured, trials: Sequence[Trial], index: int, similarity: float, *, seed: int
) -> MergedPair:
    """The trial at `index`, no random one, beside its controls in its layer."""
    trial = trials[index]
    whole = np.arange(len(measured.before))
    change = _change(measured, index, whole, seed)
    users = int((measured.used[index] > 0).sum())
    return MergedPair(
        layer=trial.layer,
        kind=trial.kind,
        experts=trial.experts,
        similarity=similarity,
        load=_load(measured, index, seed),
        change=change,
        equivalence=judged(measured.after[index] - measured.before, change, users),
        beside=_beside(measured, trials, index, seed, moved=False),
        moved=_beside(measured, trials, index, seed, moved=True),
    )


def judged(deltas: Numbers, change: Statistic, users: int) -> EquivalenceTest:
    """Whether a merge costs nothing that counts. deltas: [D] nats of every document; users:
    documents with a token that chose one of the experts.

    Documents that never use them say nothing; where it changed no document at all, it is the
    same model to them, and no interval is needed to say so.
    """
    if enough(ABLATION, documents=len(deltas)) == "inconclusive" or users < MIN_DOCUMENTS:
        reason = joined(
            warning(ABLATION, documents=len(deltas)),
            f"{users} documents use the experts, {MIN_DOCUMENTS} needed"
            if users < MIN_DOCUMENTS
            else None,
        )
        return EquivalenceTest(
            outcome="inconclusive", margin=MARGIN, statistic=change, reason=reason
        )
    if not deltas.any():
        return EquivalenceTest(outcome="equivalent", margin=MARGIN, statistic=change, reason=None)
    return equivalent(change, MARGIN)


def mean_change(measured: Measured, indices: Sequence[int], *, seed: int) -> Statistic:
    """ΔNLL of several changes, each made alone, their mean."""
    if not indices:
        return Statistic(caveat="no pair was merged")
    after = measured.after[list(indices)].mean(axis=0)
    return nll_change(measured.before, after, measured.tokens, seed=seed)


def costs(measured: Measured, trials: Sequence[Trial], *, moved: bool) -> Numbers:
    """[V], ΔNLL of every trial on the documents that all of its layer's were tried on; moved:
    mean |Δ| of their tokens instead."""
    found = np.full(len(trials), np.nan)
    for index in range(len(trials)):
        rows = _common(measured, trials, index)
        if len(rows) and (size := measured.tokens[rows].sum()):
            found[index] = _deltas(measured, index, rows, moved=moved).sum() / size
    return found


def foretold(
    name: str, layers: Sequence[int], values: Numbers, cost: Numbers, *, seed: int
) -> Foretold:
    """ρ of a similarity [V] and cost [V] of the trials in `layers`, ranked within their layer,
    against exchanging the costs within layers."""
    known = np.isfinite(values) & np.isfinite(cost)
    where = np.asarray(layers)[known]
    x, y = _ranked(values[known], where), _ranked(cost[known], where)
    caveat = "pairs that share an expert are not independent: p is too small for that"
    if len(x) < 5 or not x.any() or not y.any():
        few = "too few pairs, or all alike"
        return Foretold(similarity=name, pairs=len(x), rho=Statistic(caveat=few))
    rng = np.random.default_rng(seed)
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    draws = np.array([x @ _exchanged(y, where, rng) / scale for _ in range(999)])
    rho = float(x @ y / scale)
    low, high = np.quantile(draws, [0.025, 0.975])
    tails = [permutation_p(rho, draws, tail="less"), permutation_p(rho, draws)]
    return Foretold(
        similarity=name,
        pairs=len(x),
        rho=Statistic(
            value=rho,
            null_mean=float(draws.mean()),
            null_low=float(low),
            null_high=float(high),
            p=min(1.0, 2 * min(tails)),
            seed=seed,
            caveat=caveat,
        ),
    )


def _deltas(measured: Measured, index: int, rows: NDArray[np.intp], *, moved: bool) -> Numbers:
    """Nats of every document."""
    found: Numbers = measured.moved[index, rows]
    if not moved:
        found = measured.after[index, rows] - measured.before[rows]
    return found


def _change(
    measured: Measured, index: int, rows: NDArray[np.intp], seed: int, *, moved: bool = False
) -> Statistic:
    deltas = _deltas(measured, index, rows, moved=moved)
    return nll_change(np.zeros(len(rows)), deltas, measured.tokens[rows], seed=seed)


def _load(measured: Measured, index: int, seed: int) -> Statistic:
    from moetui.stats import document_intervals, ratio_of_sums

    # Every document has one token more than were predicted.
    tokens = measured.tokens + 1
    D = len(tokens)
    found = document_intervals(ratio_of_sums(measured.used[index], tokens), D, seed=seed)
    return found.statistic(n_tokens=int(tokens.sum()))


def _common(measured: Measured, trials: Sequence[Trial], index: int) -> NDArray[np.intp]:
    """Documents on which every pair of the trial's layer was tried."""
    layer = trials[index].layer
    rows = [at for at, one in enumerate(trials) if one.layer == layer]
    return np.flatnonzero(np.isfinite(measured.after[rows]).all(axis=0))


def _beside(
    measured: Measured, trials: Sequence[Trial], index: int, seed: int, *, moved: bool
) -> Statistic:
    trial = trials[index]
    controls = [
        at
        for at, one in enumerate(trials)
        if one.kind == CONTROLS[trial.kind] and one.layer == trial.layer
    ]
    rows = _common(measured, trials, index)
    if not len(rows):
        return Statistic(caveat="no document on which every pair of the layer was tried")
    own = _change(measured, index, rows, seed, moved=moved)
    if own.value is None:
        return own
    if not controls:
        return msgspec.structs.replace(own, caveat=joined(NO_CONTROLS, own.caveat))
    drawn = costs(measured, trials, moved=moved)[controls]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return msgspec.structs.replace(
        own,
        null_mean=float(drawn.mean()),
        null_low=float(low),
        null_high=float(high),
        p=permutation_p(own.value, drawn, tail="less"),
        caveat=joined(
            f"null: {len(drawn)} random pairs of about the same load, merged as it is",
            few_draws(len(drawn)),
            own.caveat,
        ),
    )


def _ranked(values: Numbers, layers: NDArray[np.intp]) -> Numbers:
    """Ranks within layers, centred there."""
    from scipy.stats import rankdata

    found = np.zeros(len(values))
    for layer in np.unique(layers):
        mine = layers == layer
        ranks = rankdata(values[mine])
        found[mine] = ranks - ranks.mean()
    return found


def _exchanged(values: Numbers, layers: NDArray[np.intp], rng: np.random.Generator) -> Numbers:
    found = values.copy()
    for layer in np.unique(layers):
        mine = layers == layer
        found[mine] = rng.permutation(values[mine])
    return found
