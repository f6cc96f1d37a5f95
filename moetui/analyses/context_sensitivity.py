"""Does one token go to other experts in other contexts?

The seed asks whether the top expert ever changes. How far the chosen sets and the mixing weights
differ between contexts stands beside it, against two nulls. The weakest is experts relabelled at
random: any router that reads the token beats it. The other is the same token in the same context
with its other tokens shuffled: what changes without any change of what the context holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.context_distances import Distances, distances_of
from moetui.analyses.context_uses import DroppedContext, WordUses
from moetui.stats import (
    Statistic,
    document_bootstrap,
    expected_jaccard,
    finite,
    joined,
    permutation_p,
    ratio_of_sums,
)

Numbers = NDArray[np.float64]

PERMUTATIONS = 999
# Bounds the memory of permutations that are evaluated together.
_NUMBERS_AT_ONCE = 1 << 22
# Contexts that a claim about a token needs (as for any representational comparison).
MIN_CONTEXTS = 30
RELABELLED = "experts relabelled at random"
SHUFFLED = "the same token, its context shuffled"
CHANCE = (
    "chance = experts relabelled at random in every context, the weakest null: any router that "
    "reads the token beats it, trained or not"
)


class ContextExperts(msgspec.Struct, frozen=True, kw_only=True):
    """The experts of the token in one context, best first, and their weights (Σ 1)."""

    context: str
    experts: tuple[int, ...]
    weights: tuple[float, ...]


class Distance(msgspec.Struct, frozen=True, kw_only=True):
    """How far apart two uses of one token are.

    between: mean over pairs of contexts. shuffled: mean of a context and its own shuffled orders
    (the stronger null). excess: between less shuffled, over contexts that can be shuffled.
    """

    between: Statistic
    shuffled: Statistic
    excess: Statistic


class ContextLayer(msgspec.Struct, frozen=True, kw_only=True):
    """One cell (word, layer).

    contexts: the experts in each kept context; the seed calls the cell sensitive when their top
    experts are more than one. sets: 1 − Jaccard of the chosen sets; weights: total variation
    ½ Σ_e |w_e − w'_e| of the mixing weights. p of `between` tests "closer than relabelled".
    """

    layer: int
    contexts: tuple[ContextExperts, ...]
    distinct_top_experts: int
    sensitive: bool
    sets: Distance
    weights: Distance

    @property
    def top_experts(self) -> tuple[int, ...]:
        """The top-1 expert in each kept context."""
        return tuple(context.experts[0] for context in self.contexts)

    @property
    def set_distance(self) -> Statistic:
        """Mean 1 − Jaccard over pairs of contexts."""
        return self.sets.between

    @property
    def weight_distance(self) -> Statistic:
        """Mean total variation over pairs of contexts."""
        return self.weights.between


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


class MinedContexts(msgspec.Struct, frozen=True, kw_only=True):
    """Frequent tokens of the corpus in contexts from it, one a document.

    sets, weights: means over tokens and layers, intervals over documents. beaten: in words, which
    of the two nulls the sets beat.
    """

    words: tuple[WordContexts, ...]
    sets: Distance
    weights: Distance
    beaten: str
    verdict: str
    reason: str | None


class ContextSensitivity(msgspec.Struct, frozen=True, kw_only=True, tag="context_sensitivity"):
    """The seed's words, and what the corpus says of frequent tokens.

    seed_rate: sensitive cells over cells (word × layer), a Statistic without an interval below 20
    words. set_distance, weight_distance: means over the seed's cells. mined: None without corpus.
    """

    words: tuple[WordContexts, ...]
    seed_definition: str
    seed_sensitive: int
    seed_cells: int
    seed_rate: Statistic
    set_distance: Statistic
    weight_distance: Statistic
    mined: MinedContexts | None
    verdict: str
    reason: str | None


SEED_DEFINITION = (
    "distinct top-1 experts of the token per (token, layer) over its contexts, sensitive if more "
    "than one, rate over cells; equal token ids only"
)


def context_sensitivity(
    words: Sequence[WordUses],
    mined: Sequence[WordUses],
    layers: Sequence[int],
    *,
    seed: int,
) -> ContextSensitivity:
    """Context sensitivity of the seed's words, and of `mined` tokens, at `layers`."""
    found = tuple(
        word_contexts(word, layers, seed=seed + index) for index, word in enumerate(words)
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
        set_distance=_mean_of([[c.sets.between for c in w.layers] for w in measured], seed),
        weight_distance=_mean_of([[c.weights.between for c in w.layers] for w in measured], seed),
        mined=_mined(mined, layers, seed) if mined else None,
        verdict="measured" if cells else "inconclusive",
        reason=reason,
    )


def word_contexts(uses: WordUses, layers: Sequence[int], *, seed: int) -> WordContexts:
    """One word: compare the contexts that hold its token."""
    short = len(uses.kept) < 2
    return WordContexts(
        word=uses.word,
        token_id=uses.token_id,
        token_text=uses.token_text,
        kept=tuple(use.context for use in uses.kept),
        dropped=uses.dropped,
        verdict="inconclusive" if short else "measured",
        reason=f"{len(uses.kept)} usable contexts, 2 needed" if short else None,
        layers=()
        if short
        else tuple(_compare(uses, index, layer, seed) for index, layer in enumerate(layers)),
    )


def _compare(uses: WordUses, index: int, layer: int, seed: int) -> ContextLayer:
    contexts = tuple(
        _experts_in(use.context, use.ids[index], use.weights[index]) for use in uses.kept
    )
    sets, weights = distances_of(uses, index)
    set_null, weight_null = _chance(sets, weights, np.random.default_rng(seed + layer))
    sizes = sets.dense.sum(axis=1).astype(int).tolist()
    pairs = combinations(range(len(sizes)), 2)
    expected = np.mean([1 - expected_jaccard(uses.experts, sizes[a], sizes[b]) for a, b in pairs])
    top = {context.experts[0] for context in contexts}
    return ContextLayer(
        layer=layer,
        contexts=contexts,
        distinct_top_experts=len(top),
        sensitive=len(top) > 1,
        sets=_distance(sets, set_null, float(expected), seed),
        weights=_distance(weights, weight_null, None, seed),
    )


def _experts_in(context: str, ids: NDArray[np.int16], weights: Numbers) -> ContextExperts:
    used = ids >= 0
    return ContextExperts(
        context=context,
        experts=tuple(ids[used].tolist()),
        weights=tuple(np.round(weights[used], 6).tolist()),
    )


def _chance(
    sets: Distances, weights: Distances, rng: np.random.Generator
) -> tuple[Numbers, Numbers]:
    """Both mean pairwise distances [m] with the experts of every context relabelled at random."""
    C, E = weights.dense.shape
    batch = max(1, _NUMBERS_AT_ONCE // (C * C * E))
    found = []
    for start in range(0, PERMUTATIONS, batch):
        size = min(batch, PERMUTATIONS - start)
        labels = rng.permuted(np.broadcast_to(np.arange(E), (size, C, E)), axis=-1)
        found.append(np.stack([one.relabelled(labels) for one in (sets, weights)]))
    null = np.concatenate(found, axis=1)
    return null[0], null[1]


def _distance(found: Distances, null: Numbers, expected: float | None, seed: int) -> Distance:
    """With intervals over contexts (20 or more), and the chance level of `between`.

    expected: the exact chance level where there is one, else the mean of the permutations.
    """
    low, high = np.quantile(null, [0.025, 0.975])
    observed = float(found.between(np.ones((1, found.contexts)))[0])
    between = msgspec.structs.replace(
        document_bootstrap(found.between, found.contexts, seed=seed, caveat=CHANCE),
        null_mean=float(null.mean()) if expected is None else expected,
        null_low=float(low),
        null_high=float(high),
        p=permutation_p(observed, null, tail="less"),
    )
    shuffled, excess = (
        document_bootstrap(estimator, found.contexts, seed=seed, caveat=found.caveat)
        for estimator in (found.shuffled, found.excess)
    )
    return Distance(between=between, shuffled=shuffled, excess=excess)


def _mined(words: Sequence[WordUses], layers: Sequence[int], seed: int) -> MinedContexts:
    found = tuple(
        word_contexts(word, layers, seed=seed + 1000 + index) for index, word in enumerate(words)
    )
    measured = [
        (word, used) for word, used in zip(found, words, strict=True) if len(used.kept) >= 2
    ]
    documents = sorted({use.document for _, used in measured for use in used.kept})
    cells = [distances_of(used, index) for _, used in measured for index in range(len(layers))]
    kept = [used for _, used in measured for _ in layers]
    sets, weights = (
        _pooled([cell[kind] for cell in cells], kept, documents, seed) for kind in (0, 1)
    )
    compared = [cell for word, _ in measured for cell in word.layers]
    fewest = min((len(used.kept) for _, used in measured), default=0)
    reason = None if measured else "no token has two contexts in the corpus"
    if measured and fewest < MIN_CONTEXTS / 10:
        reason = f"{fewest} contexts of a token; a tenth of {MIN_CONTEXTS} is the least"
    return MinedContexts(
        words=found,
        sets=sets,
        weights=weights,
        beaten=_beaten(compared, sets),
        verdict="inconclusive" if reason else "measured",
        reason=reason,
    )


def _pooled(
    cells: Sequence[Distances], kept: Sequence[WordUses], documents: Sequence[str], seed: int
) -> Distance:
    """Means over cells, a document being drawn with all the contexts that it holds."""
    if not cells:
        nothing = Statistic(n_documents=0, seed=seed, caveat="no token could be compared")
        return Distance(between=nothing, shuffled=nothing, excess=nothing)
    place = {name: index for index, name in enumerate(documents)}
    rows = [np.array([place[use.document] for use in word.kept]) for word in kept]

    def mean_of(measure: str) -> Statistic:
        def estimate(weights: Numbers) -> Numbers:
            values = [
                getattr(cell, measure)(weights[:, row])
                for cell, row in zip(cells, rows, strict=True)
            ]
            return np.asarray(np.mean(values, axis=0))

        return document_bootstrap(estimate, len(documents), seed=seed)

    return Distance(
        between=mean_of("between"), shuffled=mean_of("shuffled"), excess=mean_of("excess")
    )


def _beaten(cells: Sequence[ContextLayer], sets: Distance) -> str:
    """Which nulls the mined sets beat, in words."""
    if not cells:
        return "no null was tested"
    closer = sum(cell.sets.between.p is not None and cell.sets.between.p <= 0.05 for cell in cells)
    weakest = f"{RELABELLED}: closer than that in {closer} of {len(cells)} cells (p ≤ .05)"
    low, high = sets.excess.ci_low, sets.excess.ci_high
    if low is None or high is None:
        return f"{weakest}; {SHUFFLED}: not tested ({sets.excess.caveat})"
    if low > 0:
        told = "beaten, other contexts change more than another order of the same one"
    elif high < 0:
        told = "not beaten, another order of a context changes more than another context"
    else:
        told = "not beaten, other contexts change no more than another order of the same one"
    return f"{weakest}; {SHUFFLED}: {told}"


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
