"""Adversarial misrouting: one other word, little other meaning, and how much other routing.

One token before the position is swapped, for a token that a gradient proposes or one at random;
of all swaps that leave what the model expects next within a bound (KL) the one counts that changes
the chosen sets most. It is an attack on the very context that it is tried on, so the largest of
many; the same context's swaps on average within the same bound stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.corpus_used import CorpusUsed
from moetui.analyses.manipulation import MINIMUM
from moetui.analyses.manipulation_targets import boundary_experts, generator
from moetui.stats import Statistic, document_bootstrap, joined, kl_divergences, ratio_of_sums
from moetui.stats.minimum import warned
from moetui.trace import Forward
from moetui.trace.types import ExpertIds, Ints

Numbers = NDArray[np.float64]

DEFINITION = (
    "one token before the position is swapped; change: 1 − Jaccard of the sets chosen at the "
    "position, mean over all routing layers; attack: the largest change of a context among swaps "
    "with KL(P ‖ P') of the next token within the bound; typical: the mean of those swaps. "
    "The largest of some is above their mean by construction: attack less typical is a size, and "
    "no test"
)
CONSTRUCTED = "never below 0, by construction: the largest of some less their mean"
_SWAPS_DRAWN = 21


@dataclass(frozen=True, eq=False, kw_only=True)
class Swaps:
    """n contexts, S swaps each: change and kl, float64 [n, S]; guided: bool [S], proposed by a
    gradient; rows, tokens: int32 [n, S], where and what."""

    change: Numbers
    kl: Numbers
    guided: NDArray[np.bool_]
    rows: Ints
    tokens: Ints


class Misrouting(msgspec.Struct, frozen=True, kw_only=True, tag="misrouting"):
    """Over `contexts` contexts; bound: nats.

    attack, typical: change of the sets; beyond: attack less typical, paired by context. any_swap:
    mean change of all swaps, whatever their KL. within: share of swaps within the bound. attack_kl:
    KL of the attacks. guided: of the attacks, how many a gradient proposed, beside their share of
    the swaps (null_mean). none: contexts without a swap within the bound; they count 0.
    """

    definition: str
    corpus: CorpusUsed | None
    contexts: int
    bound: float
    swaps: int
    attack: Statistic
    typical: Statistic
    beyond: Statistic
    any_swap: Statistic
    within: Statistic
    attack_kl: Statistic
    guided: Statistic | None
    none: int


def try_swaps(
    model: Forward, contexts: Ints, position: int, layer: int, swaps: int, *, seed: int
) -> Swaps:
    """`swaps` swaps in every context [n, T]; half of them are proposed by the gradient of the gap
    at the boundary of the router of `layer`, where the model gives one."""
    base = model.read_contexts(contexts[:, : position + 1], position, output=True)
    assert base.logprobs is not None
    guided = swaps // 2 if model.router_gradient_error is None else 0
    row = model.info.moe_layers.index(layer)
    found = []
    for at, ids in enumerate(contexts[:, : position + 1]):
        rng = generator(seed, _SWAPS_DRAWN, ids)
        rows = rng.integers(position, size=swaps)
        tokens = rng.integers(model.info.vocab_size, size=swaps)
        if guided:
            z, chosen = base.logits[at : at + 1, row].astype(float), base.experts[at : at + 1, row]
            rows[:guided], tokens[:guided] = _proposed(
                model, ids, position, layer, z, chosen, guided
            )
        tried = np.repeat(ids[None], swaps, axis=0)
        tried[np.arange(swaps), rows] = tokens
        read = model.read_contexts(tried, position, output=True)
        assert read.logprobs is not None
        change = set_change(base.experts[at], read.experts).mean(axis=1)
        found.append((change, kl_divergences(base.logprobs[at], read.logprobs), rows, tokens))
    change, kl, where, what = (np.stack(values) for values in zip(*found, strict=True))
    return Swaps(
        change=change,
        kl=kl,
        guided=np.arange(swaps) < guided,
        rows=where.astype(np.int32),
        tokens=what.astype(np.int32),
    )


def set_change(before: ExpertIds, after: ExpertIds) -> Numbers:
    """[...]: 1 − Jaccard of chosen sets [..., k], padded with −1."""
    shared = ((before[..., :, None] == after[..., None, :]) & (before[..., :, None] >= 0)).sum(
        axis=(-2, -1)
    )
    union = (before >= 0).sum(axis=-1) + (after >= 0).sum(axis=-1) - shared
    changed: Numbers = 1 - shared / np.maximum(union, 1)
    return changed


def misrouting(
    parts: Sequence[Swaps], bound: float, *, corpus: CorpusUsed | None, seed: int
) -> Misrouting:
    """What the swaps of all contexts say. Raises ValueError for no context."""
    change, kl = (
        np.concatenate([getattr(one, name) for one in parts]) for name in ("change", "kl")
    )
    if not len(change):
        raise ValueError("misrouting is judged by contexts")
    within = kl <= bound
    some = within.any(axis=1)
    best = np.where(within, change, -1.0).argmax(axis=1)
    row = np.arange(len(change))
    attack = np.where(some, change[row, best], 0.0)
    counts = np.maximum(within.sum(axis=1), 1)
    typical = np.where(within, change, 0.0).sum(axis=1) / counts
    guided = parts[0].guided

    def mean(y: Numbers, counted: Numbers | None = None) -> Statistic:
        n = np.ones(len(y)) if counted is None else counted
        found = document_bootstrap(ratio_of_sums(y * n, n), len(y), seed=seed)
        return warned(found, MINIMUM, contexts=len(y))

    beyond = mean(attack - typical)
    share = mean(guided[best].astype(float), some.astype(float)) if guided.any() else None
    return Misrouting(
        definition=DEFINITION,
        corpus=corpus,
        contexts=len(change),
        bound=bound,
        swaps=change.shape[1],
        attack=mean(attack),
        typical=mean(typical),
        beyond=msgspec.structs.replace(beyond, caveat=joined(CONSTRUCTED, beyond.caveat)),
        any_swap=mean(change.mean(axis=1)),
        within=mean(within.mean(axis=1)),
        attack_kl=mean(np.where(some, kl[row, best], 0.0), some.astype(float)),
        guided=None
        if share is None
        else msgspec.structs.replace(share, null_mean=float(guided.mean())),
        none=int((~some).sum()),
    )


def _proposed(
    model: Forward,
    ids: Ints,
    position: int,
    layer: int,
    z: Numbers,
    chosen: ExpertIds,
    wanted: int,
) -> tuple[Ints, Ints]:
    """Rows and tokens of the swaps that promise most for the best expert that was not chosen."""
    inside = chosen[0][chosen[0] >= 0]
    rest = z[0].copy()
    rest[inside] = -np.inf
    expert = int(np.where(np.isfinite(rest), rest, -np.inf).argmax())
    rival = int(boundary_experts(z, chosen, expert)[0])
    gradient = model.router_gradient(ids, layer, expert, position, against=rival)
    scores = model.token_scores(gradient[:position])
    gains = scores - scores[np.arange(position), ids[:position]][:, None]
    best = np.argsort(-gains, axis=None, kind="stable")[:wanted]
    rows, tokens = np.unravel_index(best, gains.shape)
    return rows.astype(np.int32), tokens.astype(np.int32)
