"""Does one token go to other experts in other contexts?

Only the same token can be compared: "127" and " 127" are two ids with two embeddings, and a word
found as a substring may be either. So contexts are compared at one token id, and the others are
dropped and named. The seed asks whether the top expert ever changes; how far the chosen sets and
the mixing weights differ, and how far random sets would, stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.stats import (
    Statistic,
    document_bootstrap,
    expected_jaccard,
    finite,
    jaccard,
    joined,
    permutation_p,
    ratio_of_sums,
)
from moetui.trace import Trace

Numbers = NDArray[np.float64]

PERMUTATIONS = 999
CHANCE = (
    "chance = experts relabelled at random in every context, the weakest null: any router that "
    "reads the token beats it, trained or not"
)


class DroppedContext(msgspec.Struct, frozen=True, kw_only=True):
    """A context that could not be compared, and why."""

    context: str
    reason: str


class ContextLayer(msgspec.Struct, frozen=True, kw_only=True):
    """One cell (word, layer).

    top_experts: the top-1 expert in each kept context; the seed calls the cell sensitive when
    they are more than one. set_distance: mean pairwise 1 − Jaccard of the chosen sets.
    weight_distance: mean pairwise total variation ½ Σ_e |w_e − w'_e| of the mixing weights,
    each set's scaled to sum 1. p tests "closer than chance".
    """

    layer: int
    top_experts: tuple[int, ...]
    distinct_top_experts: int
    sensitive: bool
    set_distance: Statistic
    weight_distance: Statistic


class WordContexts(msgspec.Struct, frozen=True, kw_only=True):
    """One word in its contexts, compared at the token id found in most of them.

    verdict: "measured", or "inconclusive" with the reason; then there are no layers.
    """

    word: str
    token_id: int | None
    token_text: str | None
    kept: tuple[str, ...]
    dropped: tuple[DroppedContext, ...]
    verdict: str
    reason: str | None
    layers: tuple[ContextLayer, ...]


class ContextSensitivity(msgspec.Struct, frozen=True, kw_only=True, tag="context_sensitivity"):
    """All words. seed_rate: sensitive cells over cells (word × layer), a Statistic without an
    interval below 20 words; set_distance and weight_distance: means over all cells."""

    words: tuple[WordContexts, ...]
    seed_definition: str
    seed_sensitive: int
    seed_cells: int
    seed_rate: Statistic
    set_distance: Statistic
    weight_distance: Statistic
    verdict: str
    reason: str | None


@dataclass(frozen=True, eq=False)
class _Usage:
    """The experts of one token in one context: ids [L, k] and dense weights [L, E], Σ = 1."""

    context: str
    ids: NDArray[np.int16]
    weights: Numbers


SEED_DEFINITION = (
    "distinct top-1 experts of the token per (token, layer) over its contexts, sensitive if more "
    "than one, rate over cells; equal token ids only"
)


def context_sensitivity(
    words: Sequence[tuple[str, Sequence[tuple[str, Trace]]]], layers: Sequence[int], *, seed: int
) -> ContextSensitivity:
    """Context sensitivity of every word over its (text, trace) contexts, at `layers`."""
    found = tuple(
        word_contexts(word, contexts, layers, seed=seed + index)
        for index, (word, contexts) in enumerate(words)
    )
    cells = [cell for word in found for cell in word.layers]
    measured = [word for word in found if word.layers]
    by_word = [[cell.sensitive for cell in word.layers] for word in measured]
    hits = [float(sum(flags)) for flags in by_word]
    sizes = [float(len(flags)) for flags in by_word]
    reason = None if cells else "no word has two contexts with one token id"
    return ContextSensitivity(
        words=found,
        seed_definition=SEED_DEFINITION,
        seed_sensitive=int(sum(hits)),
        seed_cells=len(cells),
        seed_rate=_over_words(hits, sizes, seed),
        set_distance=_mean_of([[c.set_distance for c in w.layers] for w in measured], seed),
        weight_distance=_mean_of([[c.weight_distance for c in w.layers] for w in measured], seed),
        verdict="measured" if cells else "inconclusive",
        reason=reason,
    )


def word_contexts(
    word: str, contexts: Sequence[tuple[str, Trace]], layers: Sequence[int], *, seed: int
) -> WordContexts:
    """One word: choose the token id, drop what does not hold it, compare the rest."""
    positions = [_positions(word, trace) for _, trace in contexts]
    token_id = _most_common(positions)
    kept: list[_Usage] = []
    dropped: list[DroppedContext] = []
    text: str | None = None
    for (context, trace), found in zip(contexts, positions, strict=True):
        if token_id is None or token_id not in found:
            dropped.append(DroppedContext(context=context, reason=_why(word, token_id, found)))
            continue
        text = trace.tokens[found[token_id]]
        usage = _usage(context, trace, found[token_id], layers)
        if usage is None:
            dropped.append(DroppedContext(context=context, reason="routing data is missing"))
        else:
            kept.append(usage)
    short = len(kept) < 2
    return WordContexts(
        word=word,
        token_id=token_id,
        token_text=text,
        kept=tuple(usage.context for usage in kept),
        dropped=tuple(dropped),
        verdict="inconclusive" if short else "measured",
        reason=f"{len(kept)} usable contexts, 2 needed" if short else None,
        layers=()
        if short
        else tuple(_compare(kept, index, layer, seed) for index, layer in enumerate(layers)),
    )


def _positions(word: str, trace: Trace) -> dict[int, int]:
    """Token id → last position, for the ids that spell `word`, with or without spaces around."""
    spelled = zip(trace.token_ids.tolist(), trace.tokens, trace.token_kinds, strict=True)
    return {
        token: position
        for position, (token, text, kind) in enumerate(spelled)
        if kind == "text" and text.strip() == word
    }


def _most_common(positions: Sequence[dict[int, int]]) -> int | None:
    """The id found in most contexts; among equals the one seen first."""
    counts: dict[int, int] = {}
    for found in positions:
        for token in found:
            counts[token] = counts.get(token, 0) + 1
    return max(counts, key=lambda token: counts[token]) if counts else None


def _why(word: str, token_id: int | None, found: dict[int, int]) -> str:
    if not found:
        return f"no single token spells {word!r} here"
    others = ", ".join(str(token) for token in sorted(found))
    return f"{word!r} is token id {others} here, compared is {token_id}"


def _usage(context: str, trace: Trace, position: int, layers: Sequence[int]) -> _Usage | None:
    at = [trace.layers.tolist().index(layer) for layer in layers]
    ids = trace.expert_ids[position, at]
    weights = np.where(ids >= 0, trace.expert_weights[position, at].astype(float), 0.0)
    total = weights.sum(axis=-1, keepdims=True)
    if not np.isfinite(weights).all() or (total <= 0).any() or (ids < 0).all(axis=-1).any():
        return None
    dense = np.zeros((len(at), trace.router_logits.shape[-1]))
    for index in range(len(at)):
        real = ids[index] >= 0
        dense[index, ids[index, real]] = (weights / total)[index, real]
    return _Usage(context, ids, dense)


def _compare(kept: Sequence[_Usage], index: int, layer: int, seed: int) -> ContextLayer:
    sets = [usage.ids[index] for usage in kept]
    weights = np.stack([usage.weights[index] for usage in kept])
    pairs = list(combinations(range(len(kept)), 2))
    by_set = np.array([1 - jaccard(sets[a], sets[b]) for a, b in pairs])
    by_weight = np.array([np.abs(weights[a] - weights[b]).sum() / 2 for a, b in pairs])
    chosen = np.zeros(weights.shape, bool)
    for row, ids in enumerate(sets):
        chosen[row, ids[ids >= 0]] = True
    set_null, weight_null = _chance(chosen, weights, pairs, np.random.default_rng(seed + layer))
    sizes = chosen.sum(axis=1).tolist()
    experts = weights.shape[1]
    expected = np.mean([1 - expected_jaccard(experts, sizes[a], sizes[b]) for a, b in pairs])
    top = tuple(int(ids[0]) for ids in sets)
    return ContextLayer(
        layer=layer,
        top_experts=top,
        distinct_top_experts=len(set(top)),
        sensitive=len(set(top)) > 1,
        set_distance=_distance(by_set, pairs, len(kept), set_null, float(expected), seed),
        weight_distance=_distance(by_weight, pairs, len(kept), weight_null, None, seed),
    )


def _chance(
    chosen: NDArray[np.bool_],
    weights: Numbers,
    pairs: list[tuple[int, int]],
    rng: np.random.Generator,
) -> tuple[Numbers, Numbers]:
    """Both mean pairwise distances [m] with the experts of every context relabelled at random."""
    C, E = weights.shape
    labels = rng.permuted(np.broadcast_to(np.arange(E), (PERMUTATIONS, C, E)), axis=-1)
    rows = np.arange(C)[:, None]
    sets, mixed = chosen[rows, labels], weights[rows, labels]
    first, second = (list(side) for side in zip(*pairs, strict=True))
    shared = (sets[:, first] & sets[:, second]).sum(axis=-1)
    union = (sets[:, first] | sets[:, second]).sum(axis=-1)
    variation = np.abs(mixed[:, first] - mixed[:, second]).sum(axis=-1) / 2
    return (1 - shared / union).mean(axis=-1), variation.mean(axis=-1)


def _distance(
    distances: Numbers,
    pairs: list[tuple[int, int]],
    contexts: int,
    null: Numbers,
    expected: float | None,
    seed: int,
) -> Statistic:
    """Mean pairwise distance with an interval over contexts (20 or more) and its chance level.

    expected: the exact chance level where there is one, else the mean of the permutations.
    """

    def mean(weights: Numbers) -> Numbers:
        # A context drawn twice is no pair with itself: that distance would be 0 by construction.
        first, second = (list(side) for side in zip(*pairs, strict=True))
        each = weights[:, first] * weights[:, second]
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Numbers = (each @ distances) / each.sum(axis=-1)
        return found

    low, high = np.quantile(null, [0.025, 0.975])
    return msgspec.structs.replace(
        document_bootstrap(mean, contexts, seed=seed, caveat=CHANCE),
        null_mean=float(null.mean()) if expected is None else expected,
        null_low=float(low),
        null_high=float(high),
        p=permutation_p(float(distances.mean()), null, tail="less"),
    )


def _mean_of(cells: Sequence[Sequence[Statistic]], seed: int) -> Statistic:
    """The mean over cells, a word being one document; its chance level is the cells' mean."""
    sums = [sum(c.value for c in word if c.value is not None) for word in cells]
    found = _over_words(sums, [float(len(word)) for word in cells], seed)
    nulls = [c.null_mean for word in cells for c in word if c.null_mean is not None]
    return msgspec.structs.replace(
        found, null_mean=finite(float(np.mean(nulls))) if nulls else None
    )


def _over_words(sums: Sequence[float], sizes: Sequence[float], seed: int) -> Statistic:
    if not sizes:
        return Statistic(n_documents=0, seed=seed, caveat="no word could be compared")
    found = document_bootstrap(ratio_of_sums(sums, sizes), len(sizes), seed=seed)
    return msgspec.structs.replace(found, caveat=joined("a word is one document", found.caveat))
