"""How alike the experts of a layer are in what they put out, and in when they are chosen.

Every expert of the bank is applied to the same inputs, those that the layer's experts really
received, whether or not it was chosen; so two experts are compared on the same tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.corpus_used import CorpusUsed
from moetui.analyses.pair_similarity import NULL, PairSimilarity, most_similar, pair_similarity
from moetui.analyses.routed import RoutedDocument
from moetui.stats import Statistic, document_intervals
from moetui.trace import Forward
from moetui.trace.types import ExpertIds, Floats, Ints

OUTPUT, ACTIVATION = "output cosine", "activation correlation"
DEFINITION = (
    "output cosine: Σ f_i · f_j / √(Σ ‖f_i‖² Σ ‖f_j‖²) over tokens of calibration documents, f_e "
    "what expert e puts out for what the layer's experts received, chosen or not; activation "
    "correlation: Pearson correlation over tokens of being chosen (top-k alone makes its mean "
    "about −1/(E − 1); it has no null across layers, where nothing makes a token choose one expert "
    "less for choosing another)"
)

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerSums:
    """Of one document and layer with E experts, B in its partner; B is 0 without one.

    gram: Σ f_i · f_j [E, E]; across: the same with the partner's [E, B], norms: Σ ‖f_j‖² of the
    partner's [B]. both: tokens that chose i and j [E, E].
    """

    gram: Floats
    across: Floats
    norms: Floats
    both: Ints


@dataclass(frozen=True, eq=False, kw_only=True)
class OutputSums:
    """One document: tokens read, tokens whose experts' outputs were compared, sums by layer."""

    tokens: int
    rows: int
    layers: tuple[LayerSums, ...]


class LayerOutputSimilarity(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: output cosine and activation correlation of its experts, as far as known."""

    layer: int
    partner: int | None
    experts: int
    similarities: tuple[PairSimilarity, ...]


class OutputSimilarity(msgspec.Struct, frozen=True, kw_only=True, tag="output_similarity"):
    """What experts put out. mean: output cosine over all pairs and layers. rows: tokens compared,
    tokens: those read for the activation correlation."""

    definition: str
    null: str
    corpus: CorpusUsed | None
    documents: int
    tokens: int
    rows: int
    mean: Statistic
    layers: tuple[LayerOutputSimilarity, ...]


def output_sums(
    model: Forward,
    document: RoutedDocument,
    partners: Mapping[int, int | None],
    *,
    wanted: int,
    rng: np.random.Generator,
) -> OutputSums:
    """One pass over a document; at `wanted` of its tokens, drawn, every expert is applied.

    partners: the layers to compare, ascending, each with the one that its null is taken from.
    """
    T = len(document.ids)
    rows = np.sort(rng.choice(T, min(wanted, T), replace=False)).tolist()
    found: dict[int, LayerSums] = {}
    held: dict[int, Floats] = {}
    chosen = {layer: document.experts[:, row] for row, layer in enumerate(model.info.moe_layers)}
    for layer, outputs in model.every_expert(document.ids, _needed(partners), rows):
        held[layer] = outputs
        for one, other in partners.items():
            if one not in found and one in held and (other is None or other in held):
                found[one] = _layer_sums(one, other, held, chosen)
        open_layers = {x for one, b in partners.items() if one not in found for x in (one, b)}
        held = {key: array for key, array in held.items() if key in open_layers}
    layers = tuple(found[layer] for layer in partners)
    return OutputSums(tokens=T, rows=len(rows), layers=layers)


def cosines(sums: Sequence[OutputSums], layer: int) -> Numbers:
    """[E, E], output cosine of the experts of the layer at index `layer`, NaN for a dead one."""
    gram = np.sum([one.layers[layer].gram for one in sums], axis=0, dtype=float)
    return _cosine(gram, np.diagonal(gram), np.diagonal(gram))


def correlations(sums: Sequence[OutputSums], layer: int) -> Numbers:
    """[E, E], activation correlation; NaN for experts that no token or every token chose."""
    both = np.sum([one.layers[layer].both for one in sums], axis=0, dtype=float)
    return _phi(both, sum(one.tokens for one in sums))


def output_similarity(
    sums: Sequence[OutputSums],
    partners: Mapping[int, int | None],
    used: CorpusUsed | None,
    *,
    seed: int,
) -> OutputSimilarity:
    """The documents together, beside pairs across layers; intervals over documents."""
    return OutputSimilarity(
        definition=DEFINITION,
        null=NULL,
        corpus=used,
        documents=len(sums),
        tokens=sum(one.tokens for one in sums),
        rows=sum(one.rows for one in sums),
        mean=_mean_of_layers(sums, len(partners), seed),
        layers=tuple(
            _layer(sums, index, layer, partner, seed)
            for index, (layer, partner) in enumerate(partners.items())
        ),
    )


def _needed(partners: Mapping[int, int | None]) -> list[int]:
    others = {layer for layer in partners.values() if layer is not None}
    return sorted(others | set(partners))


def _layer_sums(
    layer: int, partner: int | None, held: Mapping[int, Floats], chosen: Mapping[int, ExpertIds]
) -> LayerSums:
    mine = held[layer]
    E = mine.shape[1]
    active = _indicator(chosen[layer], E)
    theirs = np.empty((len(mine), 0, mine.shape[2]), np.float32)
    if partner is not None:
        theirs = held[partner]
    return LayerSums(
        gram=np.einsum("teh,tfh->ef", mine, mine, optimize=True),
        across=np.einsum("teh,tfh->ef", mine, theirs, optimize=True),
        norms=np.einsum("teh,teh->e", theirs, theirs),
        both=(active.T @ active).astype(np.int32),
    )


def _indicator(experts: ExpertIds, E: int) -> Floats:
    """float32 [T, E], 1 where a token chose an expert of the bank."""
    found = np.zeros((len(experts), E + 1), np.float32)
    ids = np.where((experts < 0) | (experts >= E), E, experts).astype(np.int64)
    np.put_along_axis(found, ids, 1.0, axis=1)
    return found[:, :E]


def _layer(
    sums: Sequence[OutputSums], index: int, layer: int, partner: int | None, seed: int
) -> LayerOutputSimilarity:
    grams = np.stack([one.layers[index].gram for one in sums]).astype(float)
    whole = grams.sum(axis=0)
    across = _summed(sums, index, "across")
    norms = _summed(sums, index, "norms")
    within = cosines(sums, index)
    both = correlations(sums, index)
    known = int(np.isfinite(both).any(axis=1).sum())
    found = (
        pair_similarity(
            OUTPUT,
            within,
            _cosine(across, np.diagonal(whole), norms),
            intervals=_intervals(grams, within, sum(one.rows for one in sums), seed),
            seed=seed,
        ),
        pair_similarity(
            ACTIVATION,
            both,
            None,
            fixed=-1 / (known - 1) if known > 1 else None,
            seed=seed,
            caveat="no interval was made: it describes the calibration documents",
        ),
    )
    return LayerOutputSimilarity(
        layer=layer,
        partner=partner,
        experts=len(whole),
        similarities=tuple(one for one in found if one is not None),
    )


def _summed(sums: Sequence[OutputSums], index: int, name: str) -> Numbers:
    found: Numbers = np.sum([getattr(one.layers[index], name) for one in sums], axis=0, dtype=float)
    return found


def _intervals(grams: Numbers, within: Numbers, rows: int, seed: int) -> dict[str, Statistic]:
    """Of the mean over pairs and of the pair that is the most similar here, over documents."""
    best = most_similar(within)
    if best is None:
        return {}
    D, E, _ = grams.shape
    flat = grams.reshape(D, -1)
    upper = np.triu_indices(E, 1)

    def estimate(weights: Numbers) -> Numbers:
        gram = (weights @ flat).reshape(-1, E, E)
        norms = np.einsum("ree->re", gram)
        cosine = _cosine(gram, norms, norms)
        return np.stack([np.nanmean(cosine[:, *upper], axis=1), cosine[:, *best]])

    found = document_intervals(estimate, D, seed=seed)
    return {
        name: found.statistic((row,), n_tokens=rows) for row, name in enumerate(("mean", "largest"))
    }


def _mean_of_layers(sums: Sequence[OutputSums], layers: int, seed: int) -> Statistic:
    D = len(sums)
    grams = [
        np.stack([one.layers[index].gram for one in sums]).astype(float) for index in range(layers)
    ]

    def estimate(weights: Numbers) -> Numbers:
        means = []
        for gram in grams:
            E = gram.shape[1]
            whole = (weights @ gram.reshape(D, -1)).reshape(-1, E, E)
            norms = np.einsum("ree->re", whole)
            means.append(np.nanmean(_cosine(whole, norms, norms)[:, *np.triu_indices(E, 1)], 1))
        mean: Numbers = np.mean(means, axis=0)
        return mean

    found = document_intervals(estimate, D, seed=seed)
    return found.statistic(n_tokens=sum(one.rows for one in sums))


def _cosine(gram: Numbers, norms: Numbers, others: Numbers) -> Numbers:
    """gram [..., E, B] by the squared lengths norms [..., E] and others [..., B]."""
    lengths = np.sqrt(norms[..., :, None] * others[..., None, :])
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Numbers = np.where(lengths > 0, gram / lengths, np.nan)
    return found


def _phi(both: Numbers, tokens: int) -> Numbers:
    """Correlations of indicators from their joint counts [E, E]; NaN where one is constant."""
    f = np.diagonal(both) / tokens
    deviations = np.sqrt(f * (1 - f))
    spread = np.outer(deviations, deviations)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Numbers = np.where(spread > 0, (both / tokens - np.outer(f, f)) / spread, np.nan)
    return found
