"""Is there an input that an expert answers to? Tokens put behind a text, one after the other.

Exact: every token that is tried goes through the model's own forward. What is found in a few
contexts is then tried in others: that, and not the search, is the success rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.stats import MIN_DOCUMENTS, Statistic, wilson
from moetui.trace import Forward
from moetui.trace.types import Ints

Expert = tuple[int, int]
FEW = f"no interval: fewer than {MIN_DOCUMENTS} contexts"
NEVER = "no token that was tried wakes it"


class WakingToken(msgspec.Struct, frozen=True, kw_only=True):
    """What wakes one expert of a decoder layer.

    load: f_e on calibration documents. woken_by: how many of the tokens tried sent the last
    position to it in any of the contexts of the search. token_id, token: the best of them, None
    where there is none. success: its rate in other contexts, one a document, with a Wilson
    interval; null_mean: how often any token that was tried does so.
    dead: no token of any document uses it, and none that was tried wakes it.
    """

    layer: int
    expert: int
    load: float
    woken_by: int
    token_id: int | None
    token: str | None
    success: Statistic
    dead: bool


class WakingTokens(msgspec.Struct, frozen=True, kw_only=True, tag="waking_tokens"):
    """A search over one position. tried: tokens of a vocabulary; contexts: texts they were put
    behind, each of context_tokens tokens; checked: other texts the best were put behind."""

    tried: int
    vocabulary: int
    contexts: int
    context_tokens: int
    checked: int
    experts: tuple[WakingToken, ...]


def tokens_to_try(
    vocabulary: int, known: Sequence[int], limit: int, *, seed: int
) -> NDArray[np.int64]:
    """At most `limit` token ids, ascending: all where that is enough, else `known` ones (those at
    which an expert was seen, best first) for up to half of it, and others at random."""
    if vocabulary <= limit:
        return np.arange(vocabulary)
    first = list(dict.fromkeys(known))[: limit // 2]
    rng = np.random.default_rng(seed)
    others = np.setdiff1d(np.arange(vocabulary), first)
    drawn = rng.choice(others, limit - len(first), replace=False)
    return np.sort(np.concatenate([np.array(first, np.int64), drawn]))


def waking_tokens(
    model: Forward,
    targets: Sequence[tuple[Expert, float, bool]],
    contexts: Sequence[Ints],
    checks: Sequence[Ints],
    tokens: Sequence[int] | NDArray[np.int64],
    *,
    step: Callable[[], None] = lambda: None,
) -> WakingTokens:
    """Search `contexts` (at least one) for tokens that wake the targets, try the best on `checks`.

    targets: (decoder layer, expert), its load on calibration documents, whether any document at
    all uses it. contexts, checks: token ids; a token is put behind each.
    """
    rows = [(model.info.moe_layers.index(layer), expert) for (layer, expert), _, _ in targets]
    ids = [int(token) for token in tokens]
    woken = np.zeros((len(ids), len(rows)))
    weights = np.zeros((len(ids), len(rows)))
    for x, token in enumerate(ids):
        for context in contexts:
            for at, weight in enumerate(_weights(model, context, token, rows)):
                woken[x, at] += weight is not None
                weights[x, at] += weight or 0.0
        step()
    found = []
    for at, ((layer, expert), load, used) in enumerate(targets):
        best = max(range(len(ids)), key=lambda x: (woken[x, at], weights[x, at]))
        by = int((woken[:, at] > 0).sum())
        chance = float(woken[:, at].sum()) / (len(ids) * len(contexts))
        found.append(
            WakingToken(
                layer=layer,
                expert=expert,
                load=load,
                woken_by=by,
                token_id=ids[best] if by else None,
                token=model.token_text(ids[best]) if by else None,
                success=_success(model, checks, ids[best], rows[at], chance)
                if by
                else Statistic(null_mean=chance, caveat=NEVER),
                dead=not used and not by,
            )
        )
    return WakingTokens(
        tried=len(ids),
        vocabulary=model.info.vocab_size,
        contexts=len(contexts),
        context_tokens=max(len(context) for context in contexts),
        checked=len(checks),
        experts=tuple(found),
    )


def _weights(
    model: Forward, context: Ints, token: int, rows: Sequence[tuple[int, int]]
) -> list[float | None]:
    """The weight of each expert at `token` behind `context`; None where it is not chosen."""
    trace = model.trace([*context.tolist(), token], lens=0, residuals=False)
    experts, weights = trace.expert_ids[-1], trace.expert_weights[-1]
    found: list[float | None] = []
    for row, expert in rows:
        slots = np.flatnonzero(experts[row] == expert)
        found.append(float(weights[row, slots[0]]) if len(slots) else None)
    return found


def _success(
    model: Forward, checks: Sequence[Ints], token: int, row: tuple[int, int], chance: float
) -> Statistic:
    """How often the token wakes the expert in contexts that it was not chosen on."""
    if not checks:
        return Statistic(null_mean=chance, caveat="no other context to try it in")
    hits = sum(_weights(model, context, token, [row])[0] is not None for context in checks)
    n = len(checks)
    low, high = wilson(hits, n) if n >= MIN_DOCUMENTS else (None, None)
    return Statistic(
        value=hits / n,
        ci_low=low,
        ci_high=high,
        null_mean=chance,
        n_documents=n,
        caveat=None if low is not None else FEW,
    )
