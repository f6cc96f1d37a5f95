"""The experts of one token in several contexts, and in the same contexts with their words shuffled.

Only the same token can be compared: "127" and " 127" are two ids with two embeddings, and a word
found as a substring may be either. So a word is read at the token id found in most of its
contexts; the others are dropped and named.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.trace import Forward, Trace
from moetui.trace.types import Ints

Numbers = NDArray[np.float64]
Ids = NDArray[np.int16]

# Tokens of a context from the corpus, the token itself last, and the fewest before it.
WINDOW, LEAST_BEFORE = 16, 8
# A shuffle that leaves the order as it was is drawn again so often.
_TRIES = 20


class DroppedContext(msgspec.Struct, frozen=True, kw_only=True):
    """A context that could not be compared, and why."""

    context: str
    reason: str


@dataclass(frozen=True, eq=False, kw_only=True)
class ContextUse:
    """One token in one context, for L layers.

    document: what the context was taken from, its own text for the seed's. ids: int16 [L, k],
    best first, −1 pads; weights: float64 [L, k], Σ 1. shuffled_ids, shuffled_weights: [m, L, k],
    in m shuffled orders of the other tokens; m = 0 where there is no other order.
    """

    context: str
    document: str
    ids: Ids
    weights: Numbers
    shuffled_ids: Ids
    shuffled_weights: Numbers


@dataclass(frozen=True, eq=False, kw_only=True)
class WordUses:
    """One word at the token id found in most of its contexts (None: in none)."""

    word: str
    token_id: int | None
    token_text: str | None
    experts: int
    kept: tuple[ContextUse, ...]
    dropped: tuple[DroppedContext, ...]


def word_uses(
    model: Forward,
    word: str,
    contexts: Sequence[str],
    layers: Sequence[int],
    *,
    shuffles: int,
    seed: int,
    step: Callable[[], None] = lambda: None,
) -> WordUses:
    """A word in its contexts (texts), with `shuffles` shuffled orders of each.

    step: called after every context.
    """
    traced = [(text, model.trace(text, lens=0, residuals=False)) for text in contexts]
    found = uses_in(word, traced, layers)
    kept = []
    for use in found.kept:
        trace = next(trace for text, trace in traced if text == use.context)
        position = _positions(word, trace)[_known(found.token_id)]
        kept.append(
            _with_shuffles(model, use, trace, position, layers, shuffles=shuffles, seed=seed)
        )
        step()
    return WordUses(
        word=word,
        token_id=found.token_id,
        token_text=found.token_text,
        experts=found.experts,
        kept=tuple(kept),
        dropped=found.dropped,
    )


def uses_in(word: str, contexts: Sequence[tuple[str, Trace]], layers: Sequence[int]) -> WordUses:
    """A word in contexts that were traced already, (text, trace) pairs; nothing is shuffled."""
    positions = [_positions(word, trace) for _, trace in contexts]
    token_id = _most_common(positions)
    kept: list[ContextUse] = []
    dropped: list[DroppedContext] = []
    text: str | None = None
    for (context, trace), found in zip(contexts, positions, strict=True):
        if token_id is None or token_id not in found:
            dropped.append(DroppedContext(context=context, reason=_why(word, token_id, found)))
            continue
        text = trace.tokens[found[token_id]]
        use = use_at(context, context, trace, found[token_id], layers)
        if use is None:
            dropped.append(DroppedContext(context=context, reason="routing data is missing"))
        else:
            kept.append(use)
    return WordUses(
        word=word,
        token_id=token_id,
        token_text=text,
        experts=_experts(contexts),
        kept=tuple(kept),
        dropped=tuple(dropped),
    )


def frequent_tokens(documents: Sequence[Ints], *, contexts: int) -> list[tuple[int, list[int]]]:
    """Token ids that stand far enough from the beginning in at least `contexts` documents, those
    of most documents first (ties: smaller id), each with these documents."""
    holding: dict[int, list[int]] = {}
    for index, ids in enumerate(documents):
        for token in np.unique(ids[LEAST_BEFORE:]).tolist():
            holding.setdefault(token, []).append(index)
    found = [(token, where) for token, where in holding.items() if len(where) >= contexts]
    return sorted(found, key=lambda one: (-len(one[1]), one[0]))


def mined_uses(
    model: Forward,
    token: int,
    documents: Sequence[tuple[str, Ints]],
    layers: Sequence[int],
    *,
    shuffles: int,
    seed: int,
    step: Callable[[], None] = lambda: None,
) -> WordUses:
    """A token at its first place in each of `documents` (id, token ids), read in the window of
    tokens that ends with it."""
    start = model.tokenize("").tolist()  # what the model expects before any text
    kept, dropped, experts, text = [], list[DroppedContext](), 0, model.token_text(token)
    for name, ids in documents:
        place = int(np.flatnonzero(ids[LEAST_BEFORE:] == token)[0]) + LEAST_BEFORE
        window = ids[max(0, place - WINDOW + 1) : place + 1].tolist()
        if window[: len(start)] != start:
            window = start + window
        trace = model.trace(np.array(window, np.int32), lens=0, residuals=False)
        experts = trace.router_logits.shape[-1]
        use = use_at("".join(trace.tokens), name, trace, len(trace) - 1, layers)
        if use is None:
            dropped.append(
                DroppedContext(context="".join(trace.tokens), reason="routing data is missing")
            )
        else:
            last = len(trace) - 1
            kept.append(
                _with_shuffles(model, use, trace, last, layers, shuffles=shuffles, seed=seed)
            )
        step()
    return WordUses(
        word=text.strip() or text,
        token_id=token,
        token_text=text,
        experts=experts,
        kept=tuple(kept),
        dropped=tuple(dropped),
    )


def _with_shuffles(
    model: Forward,
    use: ContextUse,
    trace: Trace,
    position: int,
    layers: Sequence[int],
    *,
    shuffles: int,
    seed: int,
) -> ContextUse:
    """`use` with the same token in shuffled orders of the other tokens of its context."""
    rng = np.random.default_rng([seed, zlib.crc32(use.context.encode())])
    orders = _orders(trace, position, shuffles, rng)
    found = [
        use_at(
            use.context, use.document, model.trace(ids, lens=0, residuals=False), position, layers
        )
        for ids in orders
    ]
    known = [one for one in found if one is not None]
    if not known:
        return use
    return ContextUse(
        context=use.context,
        document=use.document,
        ids=use.ids,
        weights=use.weights,
        shuffled_ids=np.stack([one.ids for one in known]),
        shuffled_weights=np.stack([one.weights for one in known]),
    )


def _orders(trace: Trace, position: int, shuffles: int, rng: np.random.Generator) -> list[Ints]:
    """Other orders of a context's tokens; control tokens and the token itself stay in place."""
    ids = trace.token_ids
    kinds = trace.token_kinds
    free = np.array([i for i in range(len(ids)) if i != position and kinds[i] != "special"], int)
    if len(set(ids[free].tolist())) < 2:
        return []
    found: list[Ints] = []
    for _ in range(shuffles):
        for _ in range(_TRIES):
            other = ids.copy()
            other[free] = ids[rng.permutation(free)]
            if not np.array_equal(other, ids):
                found.append(other)
                break
    return found


def _known(token_id: int | None) -> int:
    assert token_id is not None, "a kept context has a token id"
    return token_id


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


def use_at(
    context: str, document: str, trace: Trace, position: int, layers: Sequence[int]
) -> ContextUse | None:
    """The experts of the token at `position`; None where the trace lacks some of its routing."""
    at = [trace.layers.tolist().index(layer) for layer in layers]
    ids = trace.expert_ids[position, at]
    weights = np.where(ids >= 0, trace.expert_weights[position, at].astype(float), 0.0)
    total = weights.sum(axis=-1, keepdims=True)
    if not np.isfinite(weights).all() or (total <= 0).any() or (ids < 0).all(axis=-1).any():
        return None
    return ContextUse(
        context=context,
        document=document,
        ids=ids,
        weights=weights / total,
        shuffled_ids=np.empty((0, *ids.shape), np.int16),
        shuffled_weights=np.empty((0, *ids.shape)),
    )


def _experts(contexts: Sequence[tuple[str, Trace]]) -> int:
    return max((trace.router_logits.shape[-1] for _, trace in contexts), default=0)
