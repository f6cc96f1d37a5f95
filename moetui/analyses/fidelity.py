"""Does a checkpoint route as its reference does? A quantised model against the same one in full.

Both read the same tokens. A set of experts counts as changed when one expert of it differs; how
far that is from 0 (the same checkpoint) and from what two unrelated routers of the same loads
would show stands beside it, and so does how many of the changes were close calls to begin with.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.routing_pairs import (
    Edge,
    Pairs,
    RoutingPair,
    chance_equal,
    chance_jaccard,
)
from moetui.stats import Statistic, design_effect, document_bootstrap, joined, rate, ratio_of_sums
from moetui.trace import ModelInfo

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

SCHEMA_VERSION = 1
DEFINITION = (
    "a token's experts differ at a layer when the set of its k experts is not the same in both "
    "checkpoints, whatever their weights; both read the same tokens, each through its own layers"
)
NULL = (
    "null_mean: unrelated routing with the same loads, that is each token's experts in one "
    "checkpoint against those of every other token in the other; a checkpoint against itself "
    "gives 0 (Jaccard 1)"
)
NEAR_TIES = (
    "a near tie is a token whose gap between the k-th and the next expert, in the reference, is "
    "smaller than the typical change of that gap (its median over tokens); near_ties is their "
    "share of the changes, its null_mean their share of all tokens"
)
SAME_TEXTS = "the shares hold for texts like the sampled ones, read from their start"
HIDDEN = "near ties are unknown where a model hides what its top-k ranks"
ONE_PROMPT = "one prompt: a description, no interval"


class LayerFidelity(msgspec.Struct, frozen=True, kw_only=True):
    """One routing layer; or (layer None) all: means over layers, near ties pooled over them.

    differs: share of tokens whose expert set differs. top_differs: share whose first expert does.
    jaccard: mean |A ∩ B| / |A ∪ B| of the two sets. near_ties: share of near ties among the
    changes; its n_tokens counts changes. typical_change: median change of the gap at the
    k-boundary, in gap_unit; both None for all layers, and where the model hides its scores.
    """

    layer: int | None
    differs: Statistic
    top_differs: Statistic
    jaccard: Statistic
    near_ties: Statistic
    typical_change: Statistic | None
    gap_unit: str | None


class PromptFidelity(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt, described: differs [T][L] (tokens, routing layers), hits of n = T·L cells."""

    tokens: list[str]
    differs: list[list[bool]]
    hits: int
    n: int
    caveat: str


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The documents: `sampled` of `available` ones, each cut to max_tokens tokens.

    documents_digest: SHA-256 over their ids and texts. seed: of the draw and of all intervals.
    """

    corpus: str
    sampled: int
    available: int
    max_tokens: int
    documents_digest: str
    seed: int


class Fidelity(msgspec.Struct, frozen=True, kw_only=True):
    """How far `model` routes as `reference` does; their router_bits are those of the routers.

    tokens: of all documents. any_layer: share of tokens whose experts differ in some layer.
    """

    schema_version: int
    model: ModelInfo
    reference: ModelInfo
    definition: str
    null: str
    near_ties: str
    sample: Sample
    tokens: int
    overall: LayerFidelity
    any_layer: Statistic
    layers: list[LayerFidelity]
    prompt: PromptFidelity
    caveats: list[str]


class RoutingFidelity(msgspec.Struct, frozen=True, kw_only=True):
    """The same tokens routed twice; tokens: of all documents. overall, any_layer, layers: as in
    `Fidelity`."""

    tokens: int
    overall: LayerFidelity
    any_layer: Statistic
    layers: tuple[LayerFidelity, ...]


def incomparable(model: ModelInfo, reference: ModelInfo) -> str | None:
    """Why these are not two checkpoints of one model, in one sentence; None when they may be."""
    for name in (
        "architecture",
        "num_layers",
        "moe_layers",
        "num_experts",
        "top_k",
        "hidden_size",
        "vocab_size",
    ):
        one, other = getattr(model, name), getattr(reference, name)
        if one != other:
            return f"{name} is {one} in {model.name} and {other} in {reference.name}"
    return unrouted(model)


def unrouted(model: ModelInfo) -> str | None:
    """Why `model` has no routing to compare, in one sentence; None when it has."""
    if model.routing_error is not None:
        return f"the routing of {model.name} cannot be read: {model.routing_error}"
    return None if model.is_moe else f"{model.name} is a dense model: it has no routers to compare"


def prompt_fidelity(tokens: Sequence[str], routing: RoutingPair) -> PromptFidelity:
    """Where one prompt's experts differ. Raises ValueError where the two read other tokens."""
    changed = Pairs.of([routing]).changed
    return PromptFidelity(
        tokens=list(tokens),
        differs=changed.tolist(),
        hits=int(changed.sum()),
        n=int(changed.size),
        caveat=ONE_PROMPT,
    )


def fidelity(
    model: ModelInfo,
    reference: ModelInfo,
    documents: Sequence[RoutingPair],
    prompt: PromptFidelity,
    sample: Sample,
) -> Fidelity:
    """`model` against `reference` over documents.

    Raises ValueError where the two are not comparable, or read other tokens.
    """
    if why := incomparable(model, reference):
        raise ValueError(why)
    found = routing_fidelity(documents, model.moe_layers, seed=sample.seed)
    hidden = any(layer.gap_unit is None for layer in found.layers)
    return Fidelity(
        schema_version=SCHEMA_VERSION,
        model=model,
        reference=reference,
        definition=DEFINITION,
        null=NULL,
        near_ties=NEAR_TIES,
        sample=sample,
        tokens=found.tokens,
        overall=found.overall,
        any_layer=found.any_layer,
        layers=list(found.layers),
        prompt=prompt,
        caveats=[SAME_TEXTS, *([HIDDEN] if hidden else [])],
    )


def routing_fidelity(
    documents: Sequence[RoutingPair], moe_layers: Sequence[int], *, seed: int
) -> RoutingFidelity:
    """The first routing of every pair against the second, the reference.

    Raises ValueError where a pair read other tokens.
    """
    pairs = Pairs.of(documents)
    edges = [pairs.edge(index) for index in range(len(moe_layers))]
    layers = [
        _layer(pairs, index, layer, edges[index], seed) for index, layer in enumerate(moe_layers)
    ]
    chance = chance_equal(pairs.ours, pairs.theirs)
    return RoutingFidelity(
        tokens=len(pairs),
        overall=_overall(pairs, layers, edges, seed),
        any_layer=_share(pairs, np.asarray(pairs.changed.any(axis=1)), _other(chance), seed),
        layers=tuple(layers),
    )


def _layer(pairs: Pairs, index: int, layer: int, edge: Edge, seed: int) -> LayerFidelity:
    ours, theirs = pairs.ours[:, index], pairs.theirs[:, index]
    first, second = pairs.top[:, index].T
    changed, typical = pairs.changed[:, index], edge.typical_change
    return LayerFidelity(
        layer=layer,
        differs=_share(pairs, changed, _other(chance_equal(ours, theirs)), seed),
        top_differs=_share(pairs, first != second, _other(chance_equal(first, second)), seed),
        jaccard=_mean(pairs, pairs.jaccard[:, index], chance_jaccard(ours, theirs), seed),
        near_ties=_near_ties(pairs, changed[:, None], [edge], seed),
        typical_change=None
        if typical is None
        else Statistic(
            value=typical,
            n_tokens=int(edge.known.sum()),
            n_documents=_documents(pairs),
            caveat="a median, given without an interval",
        ),
        gap_unit=edge.unit,
    )


def _overall(
    pairs: Pairs, layers: Sequence[LayerFidelity], edges: Sequence[Edge], seed: int
) -> LayerFidelity:
    def chance(name: str) -> float | None:
        levels = [getattr(layer, name).null_mean for layer in layers]
        return None if None in levels else float(np.mean(levels))

    top = (pairs.top[..., 0] != pairs.top[..., 1]).mean(axis=1)
    return LayerFidelity(
        layer=None,
        differs=_share(pairs, pairs.changed.mean(axis=1), chance("differs"), seed),
        top_differs=_share(pairs, top, chance("top_differs"), seed),
        jaccard=_mean(pairs, pairs.jaccard.mean(axis=1), chance("jaccard"), seed),
        near_ties=_near_ties(pairs, pairs.changed, edges, seed),
        typical_change=None,
        gap_unit=None,
    )


def _share(pairs: Pairs, values: Numbers | Flags, null: float | None, seed: int) -> Statistic:
    """Mean over tokens of values [N] in 0 … 1 that count hits, with its chance level."""
    sums, sizes = _per_document(pairs, values), _per_document(pairs, np.ones(len(pairs)))
    found = rate(
        np.minimum(sums, sizes), sizes, seed=seed, design_effect=_design_effect(pairs, values)
    )
    return msgspec.structs.replace(found, null_mean=null)


def _mean(pairs: Pairs, values: Numbers, null: float | None, seed: int) -> Statistic:
    """Mean over tokens of values [N], with its chance level."""
    sums, sizes = _per_document(pairs, values), _per_document(pairs, np.ones(len(pairs)))
    effect = _design_effect(pairs, values)
    found = document_bootstrap(
        ratio_of_sums(sums, sizes),
        _documents(pairs),
        seed=seed,
        n_tokens=len(pairs),
        n_effective=None if effect is None else len(pairs) / effect,
    )
    return msgspec.structs.replace(found, null_mean=null)


def _near_ties(pairs: Pairs, changed: Flags, edges: Sequence[Edge], seed: int) -> Statistic:
    """Share of near ties among the changes [N, L] whose boundary is known."""
    known = np.stack([edge.known for edge in edges], axis=1)
    near = np.stack([edge.near for edge in edges], axis=1)
    changes = _per_document(pairs, (changed & known).sum(axis=1))
    found = rate(_per_document(pairs, (changed & near).sum(axis=1)), changes, seed=seed)
    if not known.any():
        return msgspec.structs.replace(found, caveat=HIDDEN)
    if not changes.any():
        return msgspec.structs.replace(found, caveat="nothing differs")
    return msgspec.structs.replace(
        found,
        null_mean=float(near.sum() / known.sum()),
        caveat=joined("the interval takes the typical change as given", found.caveat),
    )


def _per_document(pairs: Pairs, values: NDArray[np.generic]) -> Numbers:
    """Sums of values [N] over each document's tokens."""
    sums = np.bincount(pairs.document, values.astype(float), minlength=_documents(pairs))
    return sums.astype(float)


def _documents(pairs: Pairs) -> int:
    return int(pairs.document[-1]) + 1


def _design_effect(pairs: Pairs, values: Numbers | Flags) -> float | None:
    deviations = values - values.mean()
    return design_effect(_per_document(pairs, deviations), len(pairs), float((deviations**2).sum()))


def _other(chance: float | None) -> float | None:
    return None if chance is None else 1 - chance
