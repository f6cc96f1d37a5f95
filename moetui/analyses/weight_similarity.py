"""How alike the weights of a layer's experts are: as they lie, with neurons in one order, and the
rows by which the router asks for them.

Nothing here runs the model. An expert is the vector of all its matrices [gate, up, down]; in the
order of neurons in which two experts lie closest (Hungarian method), exchanged copies are equal.
That order is chosen for every pair, across layers too, so the null is as flattered as the pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.pair_similarity import NULL, PairSimilarity, pair_similarity
from moetui.stats import Statistic, joined
from moetui.stats.neurons import align_neurons
from moetui.trace import Forward
from moetui.trace.types import Floats, Ints

RAW, ALIGNED, ROUTER = "weight cosine, as they lie", "weight cosine, aligned", "router cosine"
DEFINITION = (
    "cosine of two experts' weights [gate, up, down] as vectors (where experts have no gate, of "
    "both their matrices), as they lie in the checkpoint and with the neurons of one put into the "
    "order in which they lie closest to the other's; router: cosine of the rows by which the "
    "router reads its input, less their mean where a constant changes nothing"
)
STATIC = "no interval: the weights are all there is"
# What the null of a mean over layers is.
ALIGNED_NULL = "null: pairs of experts of two layers, aligned as well, mean of layers"

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerWeights:
    """Cosines of the experts `experts` [n] of a layer, drawn where it has more (`bank`): [n, n],
    and with the m experts of `partner` [n, m]; NaN where the two layers have experts of other
    shapes. bytes_each: what one expert takes. partner: None where no other layer routes.
    centred: the router's rows are less their mean, as a constant changes nothing.
    """

    layer: int
    partner: int | None
    bank: int
    bytes_each: int
    centred: bool
    experts: Ints
    raw: Floats
    aligned: Floats
    router: Floats
    across_raw: Floats
    across_aligned: Floats
    across_router: Floats


class LayerWeightSimilarity(msgspec.Struct, frozen=True, kw_only=True):
    """One layer. compared: how many of its `experts` experts; similarities: raw, aligned, router;
    mergeable: pairs at or above the seed's threshold as they lie, of `pairs`."""

    layer: int
    partner: int | None
    experts: int
    compared: int
    pairs: int
    mergeable: int
    similarities: tuple[PairSimilarity, ...]


class WeightSimilarity(msgspec.Struct, frozen=True, kw_only=True, tag="weight_similarity"):
    """What the weights alone say. threshold: the seed's, of the weight cosine as they lie."""

    definition: str
    null: str
    threshold: float
    layers: tuple[LayerWeightSimilarity, ...]

    def of(self, what: str) -> list[PairSimilarity]:
        """One measure, layer by layer."""
        return [s for layer in self.layers for s in layer.similarities if s.what == what]


def layer_weights(
    model: Forward, layer: int, partner: int | None, *, wanted: int, seed: int
) -> LayerWeights:
    """The cosines of at most `wanted` experts of a layer, and with as many of its partner."""
    experts = drawn_experts(model.bank_size(layer), wanted, seed)
    own = model.expert_matrices(layer, experts)
    neurons, rows = own.neurons, _router_rows(model, layer, experts)
    empty = np.full((len(experts), 0), np.nan, np.float32)
    across = (empty, empty, empty)
    if partner is not None:
        others = drawn_experts(model.bank_size(partner), wanted, seed)
        other = model.expert_matrices(partner, others).neurons
        across = (
            *_cosines(neurons, other),
            _cosine(rows, _router_rows(model, partner, others)).astype(np.float32),
        )
    raw, aligned = _cosines(neurons, None)
    return LayerWeights(
        layer=layer,
        partner=partner,
        bank=model.bank_size(layer),
        bytes_each=own.bytes_each,
        centred=model.info.shift_invariant,
        experts=np.array(experts, np.int32),
        raw=raw,
        aligned=aligned,
        router=_cosine(rows, rows).astype(np.float32),
        across_raw=across[0],
        across_aligned=across[1],
        across_router=across[2],
    )


def weight_similarity(
    layers: Sequence[LayerWeights], *, threshold: float, seed: int
) -> WeightSimilarity:
    """What was compared, layer by layer, beside pairs across layers."""
    return WeightSimilarity(
        definition=DEFINITION,
        null=NULL,
        threshold=threshold,
        layers=tuple(_layer(one, threshold, seed) for one in layers),
    )


def mean_of_layers(layers: Sequence[Statistic], null: str) -> Statistic | None:
    """The mean of what weights alone give, a number a layer, beside the mean of the layers' nulls
    where all have one (no p: layers share them). None without a layer or where one has no number.
    null: what it is, for the caveat."""
    values = [one.value for one in layers if one.value is not None]
    nulls = [one.null_mean for one in layers if one.null_mean is not None]
    if not values or len(values) < len(layers):
        return None
    beside = len(nulls) == len(layers)
    return Statistic(
        value=float(np.mean(values)),
        null_mean=float(np.mean(nulls)) if beside else None,
        caveat=joined(STATIC, null if beside else None),
    )


def _layer(found: LayerWeights, threshold: float, seed: int) -> LayerWeightSimilarity:
    # Rows less their mean sum to 0: whatever they are, the mean of their cosines is about this.
    fixed = -1 / (found.bank - 1) if found.centred and found.bank > 1 else None
    measures = (
        (RAW, found.raw, found.across_raw, None),
        (ALIGNED, found.aligned, found.across_aligned, None),
        (ROUTER, found.router, found.across_router, fixed),
    )
    n = len(found.experts)
    drawn = f"{n} of {found.bank} experts, drawn at random" if n < found.bank else None
    caveat = "; ".join(filter(None, (STATIC, drawn)))
    made = (
        pair_similarity(
            what,
            within.astype(float),
            across.astype(float),
            experts=found.experts.tolist(),
            fixed=fixed_mean,
            seed=seed,
            caveat=caveat,
        )
        for what, within, across, fixed_mean in measures
    )
    above = found.raw[np.triu_indices(n, 1)] >= threshold
    return LayerWeightSimilarity(
        layer=found.layer,
        partner=found.partner,
        experts=found.bank,
        compared=n,
        pairs=len(above),
        mergeable=int(above.sum()),
        similarities=tuple(one for one in made if one is not None),
    )


def drawn_experts(experts: int, wanted: int, seed: int) -> list[int]:
    """Which experts of so many are compared: all, or `wanted` at random, ascending."""
    if experts <= wanted:
        return list(range(experts))
    drawn = np.random.default_rng(seed).choice(experts, wanted, replace=False)
    return [int(e) for e in np.sort(drawn)]


def _router_rows(model: Forward, layer: int, experts: Sequence[int]) -> Numbers:
    rows: Numbers = model.router_matrix(layer).astype(float)
    if model.info.shift_invariant:
        rows = rows - rows.mean(axis=0)
    chosen: Numbers = rows[list(experts)]
    return chosen


def _cosine(a: Numbers, b: Numbers) -> Numbers:
    """[n, m] of the rows; NaN for a row of zeros."""
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Numbers = np.where(lengths > 0, a @ b.T / lengths, np.nan)
    return found


def _cosines(a: Floats, other: Floats | None) -> tuple[Floats, Floats]:
    """Cosines [n, m] of experts given by their neurons [n, F, D], as they lie and aligned; of the
    experts among themselves where `other` is None."""
    b = a if other is None else other
    if a.shape[1:] != b.shape[1:]:
        nothing = np.full((len(a), len(b)), np.nan, np.float32)
        return nothing, nothing.copy()
    lengths = _lengths(a)[:, None] * _lengths(b)
    raw, aligned = np.empty((2, len(a), len(b)))
    for i, one in enumerate(a):
        for j, two in enumerate(b):
            if other is None and j < i:
                raw[i, j], aligned[i, j] = raw[j, i], aligned[j, i]
                continue
            raw[i, j] = np.vdot(one, two)
            aligned[i, j] = np.vdot(one, two[align_neurons(one, two)])
    with np.errstate(invalid="ignore", divide="ignore"):
        return (raw / lengths).astype(np.float32), (aligned / lengths).astype(np.float32)


def _lengths(neurons: Floats) -> Numbers:
    squares: Numbers = np.einsum("nfd,nfd->n", neurons, neurons, dtype=float)
    return np.sqrt(squares)
