"""Contexts in which a token looks to the same places: does it get the same experts there?

A token in n contexts gives n × n tables of how far apart its attention, its experts and its hidden
state are. Whether two tables go together is told by Mantel's test, and whether they do beyond
length, the token before, and the hidden state that attention and routing both follow from, by a
partial one. What holds of tokens is told by a mean over many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.attention_profiles import (
    TargetContexts,
    seed_routing_similarity,
    seed_similarity,
)
from moetui.analyses.context_relations import (
    LEAST_CONTEXTS,
    Relation,
    relation_over_targets,
    relations,
    relations_without,
    routing_distances,
)
from moetui.analyses.context_uses import DroppedContext
from moetui.stats import Statistic, document_groups, joined
from moetui.stats.mantel import PERMUTATIONS
from moetui.stats.minimum import SIMILARITY, enough, warning

Numbers = NDArray[np.float64]

# Contexts and targets that a claim needs; below a tenth of them there is none.
MIN_TARGETS = 20
DEFINITION = (
    "Spearman correlation of two tables of distances between the contexts of one token id: total "
    "variation of its attention (first token, each of the eight before, rest, itself; mean over "
    "heads) and of its experts' weights, as shares of their sum; partial: without what length, the "
    "token before and the residual stream that enters the layer explain of both, as far as ranks "
    "follow ranks: what they bring about in another form is not taken out"
)
SEED_DEFINITION = (
    "Pearson correlation over pairs of contexts of two cosines: of attention rows (mean over "
    "heads, position by position from the start) and of experts' weights; equal token ids only. "
    "The seed's text gives no formulas"
)
NO_INTERVAL = "seed: no interval, no null; pairs of contexts are not independent"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One token: id, text, and how many contexts."""

    token_id: int
    token_text: str
    contexts: int
    layers: tuple[Relation, ...]


class SeedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """The seed's correlation at one layer."""

    layer: int
    correlation: Statistic


class SeedContexts(msgspec.Struct, frozen=True, kw_only=True):
    """The seed's target word in its contexts, compared at the token id found in most of them.

    layers: the seed's number; corrected: the Mantel tests of the same contexts. reason: why there
    are none, None where there are.
    """

    word: str
    token_text: str | None
    kept: tuple[str, ...]
    dropped: tuple[DroppedContext, ...]
    layers: tuple[SeedLayer, ...]
    corrected: tuple[Relation, ...]
    reason: str | None


class ContextAttentionRouting(
    msgspec.Struct, frozen=True, kw_only=True, tag="context_attention_routing"
):
    """The seed's target beside frequent tokens of the corpus.

    layers: over targets, by layer; mean: of every target's mean over `mean_layers`, those above 0
    where there are any. In layer 0 a token's experts can differ between contexts by attention
    alone, so that the two go together there in any model. without_attention:
    layers that were asked for and have no attention over tokens. fewest: contexts of the target
    that has the fewest. reason: why the corrected numbers carry no verdict, None where they do.
    """

    definition: str
    seed_definition: str
    seed: SeedContexts
    targets: tuple[Target, ...]
    layers: tuple[Relation, ...]
    mean: Relation
    mean_layers: tuple[int, ...]
    without_attention: tuple[int, ...]
    fewest: int
    permutations: int
    reason: str | None


def context_attention_routing(
    seed_target: TargetContexts,
    mined: Sequence[TargetContexts],
    layers: Sequence[int],
    *,
    permutations: int = PERMUTATIONS,
    attention_error: str | None = None,
    seed: int,
) -> ContextAttentionRouting:
    """What the seed's target and the `mined` ones say at the decoder layers `layers`.

    attention_error: why the model's attention cannot be read at all.
    """
    places = [i for i in range(len(layers)) if _has_attention((seed_target, *mined), i)]
    usable = [one for one in mined if len(one.contexts) >= LEAST_CONTEXTS and places]
    targets = tuple(
        Target(
            token_id=_known(one.token_id),
            token_text=one.token_text or "",
            contexts=len(one.contexts),
            layers=relations(one, layers, places, permutations=permutations, seed=seed),
        )
        for one in usable
    )
    read = tuple(layers[place] for place in places)
    mean_over = tuple(layer for layer in read if layer > 0) or read
    over = _over_targets(usable, targets, places, seed)
    fewest = min((target.contexts for target in targets), default=0)
    return ContextAttentionRouting(
        definition=DEFINITION,
        seed_definition=SEED_DEFINITION,
        seed=_seed_contexts(seed_target, layers, places, permutations, seed),
        targets=targets,
        layers=tuple(over(layer, [row]) for row, layer in enumerate(read)),
        mean=over(None, [row for row, layer in enumerate(read) if layer in mean_over]),
        mean_layers=mean_over,
        without_attention=tuple(layers[i] for i in range(len(layers)) if i not in places),
        fewest=fewest,
        permutations=permutations,
        reason=_reason(targets, mined, places, fewest, attention_error),
    )


def _over_targets(
    usable: Sequence[TargetContexts], targets: Sequence[Target], places: Sequence[int], seed: int
) -> Callable[[int | None, Sequence[int]], Relation]:
    """What the targets say together of some of their rows, under the name of a layer."""
    documents = [one.use.document for target in usable for one in target.contexts]
    groups = document_groups(documents, seed=seed)
    without = np.empty((len(usable), 3, len(places), groups.size))
    for at, target in enumerate(usable):
        without[at] = relations_without(target, places, groups)

    def over(layer: int | None, rows: Sequence[int]) -> Relation:
        return relation_over_targets(
            [[target.layers[row] for row in rows] for target in targets],
            without[:, :, list(rows)],
            layer=layer,
            documents=len(groups.of),
            seed=seed,
        )

    return over


def _reason(
    targets: Sequence[Target],
    mined: Sequence[TargetContexts],
    places: Sequence[int],
    fewest: int,
    attention_error: str | None,
) -> str | None:
    """Why the corrected numbers carry no verdict, None where they do."""
    if not places:
        return attention_error or "no layer that was asked for has attention over tokens"
    if not targets:
        most = max((len(one.contexts) for one in mined), default=0)
        if mined:
            return warning(SIMILARITY, contexts=most)
        return "the corpus has no token in so many documents"
    if len(targets) < MIN_TARGETS / 10:
        return f"{len(targets)} targets; a tenth of {MIN_TARGETS} is the least"
    if enough(SIMILARITY, contexts=fewest) == "inconclusive":
        return warning(SIMILARITY, contexts=fewest)
    return None


def _seed_contexts(
    target: TargetContexts,
    layers: Sequence[int],
    places: Sequence[int],
    permutations: int,
    seed: int,
) -> SeedContexts:
    contexts, reason = target.contexts, None
    if len(contexts) < LEAST_CONTEXTS:
        reason = f"{len(contexts)} contexts with one token id, {LEAST_CONTEXTS} needed"
    elif not places:
        reason = "no layer that was asked for has attention over tokens"
    found = () if reason else tuple(_seed_layer(target, layers[place], place) for place in places)
    return SeedContexts(
        word=target.word,
        token_text=target.token_text,
        kept=tuple(one.use.context for one in contexts),
        dropped=target.dropped,
        layers=found,
        corrected=()
        if reason
        else relations(target, layers, places, permutations=permutations, seed=seed),
        reason=reason,
    )


def _seed_layer(target: TargetContexts, layer: int, place: int) -> SeedLayer:
    above = np.triu_indices(len(target.contexts), 1)
    attention = seed_similarity(target.contexts, place)[above]
    routing = seed_routing_similarity(routing_distances(target, place).dense)[above]
    value, caveat = None, "all similarities of one table are equal"
    if attention.std() > 0 and routing.std() > 0:
        value, caveat = float(np.corrcoef(attention, routing)[0, 1]), NO_INTERVAL
    return SeedLayer(
        layer=layer,
        correlation=Statistic(
            value=value,
            n_documents=len(target.contexts),
            caveat=joined(caveat, warning(SIMILARITY, contexts=len(target.contexts))),
        ),
    )


def _has_attention(targets: Sequence[TargetContexts], place: int) -> bool:
    read = [one for target in targets for one in target.contexts]
    return bool(read) and all(np.isfinite(one.attention[place]).all() for one in read)


def _known(token_id: int | None) -> int:
    assert token_id is not None, "a mined target is a token"
    return token_id
