"""Where a token looks, in a form that texts of different length have in common.

The attention of one token covers as many positions as its text has before it. Relative to the
token they fall into bins: the first token (where much attention rests that goes nowhere), each of
the eight before the token, the rest, the token itself, and what a sink takes away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moetui.analyses.context_uses import ContextUse, DroppedContext, use_at, uses_in
from moetui.trace import Forward, Trace
from moetui.trace.types import Floats, Ints

Numbers = NDArray[np.float64]

NEIGHBOURS = 8
BINS = (
    "first token",
    *(f"previous {distance}" for distance in range(1, NEIGHBOURS + 1)),
    "rest",
    "self",
    "sink",
)
# Distances that differ by rounding alone must not be ranked.
_DECIMALS = 6


@dataclass(frozen=True, eq=False, kw_only=True)
class ContextRead:
    """One token in one context, for L layers.

    use: its experts. length: tokens up to and with it. previous: id of the token before it, −1
    for none. profiles: float64 [L, heads, bins], NaN for heads that a layer does not have.
    attention: float64 [L, length], mean over heads, NaN where a layer has none. hidden: float32
    [L, H], the residual stream that enters the layer, before its attention.
    """

    use: ContextUse
    length: int
    previous: int
    profiles: Numbers
    attention: Numbers
    hidden: Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class TargetContexts:
    """A token in its contexts; token_id None where no context holds the word as one token."""

    word: str
    token_id: int | None
    token_text: str | None
    experts: int
    contexts: tuple[ContextRead, ...]
    dropped: tuple[DroppedContext, ...]


def binned(attention: Floats) -> Numbers:
    """[heads, bins] of the attention [heads, length] that a token gives, itself last."""
    rows = np.asarray(attention, float)
    length = rows.shape[-1]
    found = np.zeros((len(rows), len(BINS)))
    for position in range(length):
        distance = length - 1 - position
        if distance == 0:
            place = len(BINS) - 2
        elif position == 0:
            place = 0
        else:
            place = distance if distance <= NEIGHBOURS else NEIGHBOURS + 1
        found[:, place] += rows[:, position]
    found[:, -1] = np.maximum(0.0, 1.0 - rows.sum(axis=-1))
    return found


def seed_target(
    model: Forward,
    word: str,
    texts: Sequence[str],
    layers: Sequence[int],
    *,
    step: Callable[[], None] = lambda: None,
) -> TargetContexts:
    """A word in given texts, at the token id found in most of them; others are dropped."""
    traced = []
    for text in texts:
        traced.append((text, _traced(model, text)))
        step()
    uses = uses_in(word, traced, layers)
    traces = dict(traced)
    read = []
    for use in uses.kept:
        trace = traces[use.context]
        position = int(np.flatnonzero(trace.token_ids == uses.token_id)[-1])
        read.append(_context(trace, use, position, layers))
    return TargetContexts(
        word=word,
        token_id=uses.token_id,
        token_text=uses.token_text,
        experts=uses.experts,
        contexts=tuple(read),
        dropped=uses.dropped,
    )


def mined_target(
    model: Forward,
    token: int,
    documents: Sequence[tuple[str, Ints, int]],
    layers: Sequence[int],
    *,
    step: Callable[[], None] = lambda: None,
) -> TargetContexts:
    """A token at a place of each of `documents` (id, token ids, place), read in all that stands
    before it."""
    read, dropped, experts = [], list[DroppedContext](), 0
    for name, ids, place in documents:
        trace = _traced(model, ids[: place + 1])
        experts = trace.router_logits.shape[-1]
        text = "".join(trace.tokens)
        use = use_at(text, name, trace, place, layers)
        if use is None:
            dropped.append(DroppedContext(context=text, reason="routing data is missing"))
        else:
            read.append(_context(trace, use, place, layers))
        step()
    text = model.token_text(token)
    return TargetContexts(
        word=text.strip() or text,
        token_id=token,
        token_text=text,
        experts=experts,
        contexts=tuple(read),
        dropped=tuple(dropped),
    )


def attention_distances(profiles: Numbers) -> Numbers:
    """[C, C]: total variation of the binned attention, mean over heads; profiles [C, heads, bins],
    NaN for heads that are not there."""
    there = np.isfinite(profiles).all(axis=(0, 2))
    some = profiles[:, there]
    apart = np.abs(some[:, None] - some[None]).sum(axis=-1) / 2
    return np.asarray(apart.mean(axis=-1).round(_DECIMALS), float)


def hidden_distances(hidden: Floats) -> Numbers:
    """[C, C]: 1 − cosine of residual streams [C, H]."""
    rows = np.asarray(hidden, float)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    rows = rows / np.where(lengths > 0, lengths, 1.0)
    return np.asarray((1 - rows @ rows.T).round(_DECIMALS), float)


def length_distances(contexts: Sequence[ContextRead]) -> Numbers:
    """[C, C]: |ln of the lengths' ratio|."""
    logs = np.log([one.length for one in contexts])
    return np.asarray(np.abs(logs[:, None] - logs[None]), float)


def previous_distances(contexts: Sequence[ContextRead]) -> Numbers:
    """[C, C]: 0 where the token before is the same, else 1."""
    ids = np.array([one.previous for one in contexts])
    return np.asarray(ids[:, None] != ids[None], float)


def seed_similarity(contexts: Sequence[ContextRead], layer: int) -> Numbers:
    """[C, C]: cosine of the attention rows, mean over heads, position by position from the start
    of the texts, shorter rows filled up with 0; layer: place on the L axis."""
    rows = np.zeros((len(contexts), max(one.length for one in contexts)))
    for row, one in zip(rows, contexts, strict=True):
        row[: one.length] = one.attention[layer]
    return _cosines(rows)


def seed_routing_similarity(dense: Numbers) -> Numbers:
    """[C, C]: cosine of the experts' weights [C, E]."""
    return _cosines(dense)


def _cosines(rows: Numbers) -> Numbers:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    rows = rows / np.where(lengths > 0, lengths, 1.0)
    return np.asarray(rows @ rows.T, float)


def _traced(model: Forward, text_or_ids: str | Ints) -> Trace:
    return model.trace(text_or_ids, lens=0, streams=True, attention=True)


def _context(trace: Trace, use: ContextUse, position: int, layers: Sequence[int]) -> ContextRead:
    assert trace.streams is not None
    heads = 1 if trace.attention is None else trace.attention.shape[1]
    profiles = np.full((len(layers), heads, len(BINS)), np.nan)
    attention = np.full((len(layers), position + 1), np.nan)
    for row, layer in enumerate(layers):
        if trace.attention is None:
            continue
        given = trace.attention[layer, :, position, : position + 1]
        there = np.isfinite(given).all(axis=-1)
        profiles[row, there] = binned(given[there])
        if there.any():
            attention[row] = given[there].mean(axis=0)
    return ContextRead(
        use=use,
        length=position + 1,
        previous=int(trace.token_ids[position - 1]) if position else -1,
        profiles=profiles,
        attention=attention,
        hidden=trace.streams.entering[position, list(layers)],
    )
