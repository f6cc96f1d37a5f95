"""Cold experts as the seed finds them: a count over twenty prompts, without interval or null."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from scipy.special import bdtr

from moetui.analyses.expert_load import Counts, chosen_counts
from moetui.stats import Statistic
from moetui.trace import Drop, Forward
from moetui.trace.types import ExpertIds, Floats, Ints

DEFINITION = (
    "an expert is cold where f_e, the share of the prompts' tokens that use it, is under the "
    "threshold; triggers are the tokens that used it; the impact of an ablation is the change of "
    "the perplexity of the prompts with the expert dropped; safe to prune is what no token used"
)
AS_PUBLISHED = "as published: a count over the prompts, no interval and no null"


class SeedColdExpert(msgspec.Struct, frozen=True, kw_only=True):
    """A cold expert of a decoder layer. tokens: how many used it; triggers: the first of them, as
    they stand in the prompts; perplexity_change: with the expert dropped, None where it was not
    measured."""

    layer: int
    expert: int
    share: float
    tokens: int
    triggers: tuple[str, ...]
    perplexity_change: float | None


class ColdPrompts(msgspec.Struct, frozen=True, kw_only=True, tag="cold_prompts"):
    """The seed's numbers. cold: the share of all experts that are cold; unused: how many no token
    used ("safe to prune"); null_mean of both: of an even router on as many independent tokens,
    which is not the seed's; perplexity: of the prompts, untouched, None where no token follows
    another. experts: the cold ones, by layer. layers: [L], how many are cold in each of them."""

    definition: str
    threshold: float
    prompts: int
    tokens: int
    of_experts: int
    cold: Statistic
    unused: Statistic
    perplexity: float | None
    layers: tuple[tuple[int, int], ...]
    experts: tuple[SeedColdExpert, ...]


def cold_prompts(
    model: Forward,
    prompts: Sequence[str],
    *,
    threshold: float,
    triggers: int,
    ablated_layers: int,
    ablated_experts: int,
    step: Callable[[], None] = lambda: None,
) -> ColdPrompts:
    """The seed's study of `prompts` (at least one).

    triggers: how many tokens are listed for an expert. ablated_experts: how many cold experts of
    each of the first `ablated_layers` layers that have any are dropped, one after the other.
    """
    info = model.info
    ids, experts = [], []
    for prompt in prompts:
        trace = model.trace(prompt, lens=0, residuals=False)
        ids.append(trace.token_ids)
        experts.append(trace.expert_ids)
        step()
    tokens = sum(map(len, ids))
    counts = np.sum([chosen_counts(one, info.num_experts) for one in experts], axis=0)
    cold = _cold(counts, tokens, threshold, info.experts_by_layer)
    tried = _tried(cold, ablated_layers, ablated_experts)
    before = _nll(model, ids, ())
    perplexity = float(np.exp(before.mean())) if before.size else None
    found: list[SeedColdExpert] = []
    for row, expert in cold:
        layer, change = info.moe_layers[row], None
        if (row, expert) in tried and perplexity is not None:
            dropped = (Drop(experts=(expert,), layers=(layer,)),)
            change = float(np.exp(_nll(model, ids, dropped).mean())) - perplexity
            step()
        used = int(counts[row, expert])
        found.append(
            SeedColdExpert(
                layer=layer,
                expert=expert,
                share=used / tokens,
                tokens=used,
                triggers=_triggers(model, ids, experts, row, expert, triggers),
                perplexity_change=change,
            )
        )
    total = sum(info.experts_by_layer)
    unused = sum(not one.tokens for one in found)
    even = _even(tokens, experts[0], info.experts_by_layer)
    return ColdPrompts(
        definition=DEFINITION,
        threshold=threshold,
        prompts=len(prompts),
        tokens=tokens,
        of_experts=total,
        cold=_counted(len(cold) / total, even(threshold * tokens) / total, tokens, len(prompts)),
        unused=_counted(float(unused), even(1), tokens, len(prompts)),
        perplexity=perplexity,
        layers=tuple(
            (layer, sum(at == row for at, _ in cold)) for row, layer in enumerate(info.moe_layers)
        ),
        experts=tuple(found),
    )


def _counted(value: float, chance: float, tokens: int, prompts: int) -> Statistic:
    return Statistic(
        value=value, null_mean=chance, n_tokens=tokens, n_documents=prompts, caveat=AS_PUBLISHED
    )


def _even(tokens: int, chosen: ExpertIds, experts: Sequence[int]) -> Callable[[float], float]:
    """How many experts fewer than so many of `tokens` tokens would use, were every layer even."""
    slots = (chosen[0] >= 0).sum(axis=-1).tolist()

    def expected(hits: float) -> float:
        below = float(np.ceil(hits - 1e-9) - 1)
        layers = zip(slots, experts, strict=True)
        return sum(E * float(bdtr(below, tokens, k / E)) for k, E in layers)

    return expected


def _cold(
    counts: Counts, tokens: int, threshold: float, experts: Sequence[int]
) -> list[tuple[int, int]]:
    """(row, expert) of every cold one, by layer, coldest first."""
    found = []
    for row, E in enumerate(experts):
        order = np.argsort(counts[row, :E], kind="stable").tolist()
        found += [(row, e) for e in order if counts[row, e] < threshold * tokens]
    return found


def _tried(cold: Sequence[tuple[int, int]], layers: int, experts: int) -> set[tuple[int, int]]:
    rows = list(dict.fromkeys(row for row, _ in cold))[:layers]
    return {one for row in rows for one in [c for c in cold if c[0] == row][:experts]}


def _nll(model: Forward, ids: Sequence[Ints], changes: Sequence[Drop]) -> Floats:
    """Of all predicted tokens of the prompts, in nats."""
    found = [model.nll(one, changes) for one in ids if len(one) > 1]
    return np.concatenate(found) if found else np.empty(0, np.float32)


def _triggers(
    model: Forward,
    ids: Sequence[Ints],
    experts: Sequence[ExpertIds],
    row: int,
    expert: int,
    limit: int,
) -> tuple[str, ...]:
    used = [
        int(token)
        for one, chosen in zip(ids, experts, strict=True)
        for token in one[(chosen[:, row] == expert).any(axis=-1)]
    ]
    return tuple(model.token_text(token) for token in used[:limit])
