"""Two tokens side by side, A and B: do they go to other experts, and does the model say otherwise?

Two tokens that have nothing to do with each other share experts too: k²/E of them with an even
router, more with favourites. So every overlap stands beside what two independent choices share.
One pair of tokens is a description: a layer is inside or above the band of chance, and no more is
claimed. Above is no sign of training either: a router with random weights reads the token as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.alignment import Alignment, Context, align, overlaps
from moetui.analyses.expert_load import RunLoad, total_load
from moetui.analyses.logit_lens import Guess, LensView, logit_lens
from moetui.stats import (
    MIN_DOCUMENTS,
    Statistic,
    central_band,
    fit_subsets,
    mean_jaccard,
    overlap_chance,
    variation_chance,
)
from moetui.trace import TokenKind, Trace

Chance = NDArray[np.float64]  # [k + 1], P(i shared experts)
Level = Literal["below", "inside", "above"]

SEED = 0
ONE_PAIR = "one pair of tokens: a description, no test"
UNTRAINED = (
    "routers with random weights send equal tokens to equal experts too, in early layers above "
    "all: above chance is no sign of training"
)
UNEVEN = (
    f"an uneven load alone shares more than this: with {MIN_DOCUMENTS} other prompts the session's "
    "load becomes the chance level"
)
OTHER_TOKENS = "two different tokens: what differs may be the token, not its context"
SAME_CONTEXT = "the same token after the same beginning: equal by construction"
NEIGHBOURS = "tokens of one prompt are not independent: no interval"


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two tokens: row `token` of a run of `rows` rows that began with `prompt`."""

    prompt: str
    token: int
    rows: int
    token_id: int
    text: str
    kind: TokenKind


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """An expert and the weights that its output got at A and at B, None where it did not run."""

    expert: int
    a: float | None
    b: float | None


class LayerPair(msgspec.Struct, frozen=True, kw_only=True):
    """One routing layer with E `experts`.

    both, lost, gained: experts that ran at A and B, at A only, at B only; largest weight first.
    shared: how many ran at both. overlap: |A ∩ B| / |A ∪ B|. variation: total variation
    ½ Σ_e |a_e − b_e| of the mixing weights, each side's scaled to sum 1. Each with the mean and
    the central 95 % of two independent choices; value None where a side has no weights.
    level: where `shared` lies in that band, None where A and B are equal by construction or no
    expert ran; aligned: mean overlap over the aligned tokens.
    """

    layer: int
    experts: int
    both: list[Used]
    lost: list[Used]
    gained: list[Used]
    shared: Statistic
    overlap: Statistic
    variation: Statistic
    level: Level | None
    aligned: Statistic


class LensPair(msgspec.Struct, frozen=True, kw_only=True):
    """One decoder layer: the top next token at A and at B.

    a_in_b: the place (1 = top) of A's answer, its last layer's top token, among the n tokens that
    the lens lists for B at this layer; None beyond them. b_in_a: the other way round. The lens
    keeps n tokens, so a distance of whole distributions cannot be given.
    """

    layer: int
    a: Guess
    b: Guess
    same: bool
    a_in_b: int | None
    b_in_a: int | None


class Null(msgspec.Struct, frozen=True, kw_only=True):
    """What "by chance" means: two independent choices, of even routers ("uniform", any k of E) or
    of routers whose experts are as popular as in `prompts` other prompts ("session load")."""

    name: Literal["uniform", "session load"]
    prompts: int


class ComparedContexts(msgspec.Struct, frozen=True, kw_only=True):
    """A beside B; all differences are B − A.

    same_id: whether the token ids are equal; alike: whether they only read alike ("127" and
    " 127"). same_context: everything up to both tokens is the same, so that all is equal by
    construction. elsewhere: other rows of B with A's token id.
    layers: [L], and lens: [N]; empty where `routing_reason` and `lens_reason` say why.
    listed: n tokens that the lens keeps of every layer.
    above, below: layers whose number of shared experts is outside the band, and above_expected:
    how many two independent choices put above it. Layers are not independent of each other.
    caveats: what a reader must know before quoting a number.
    """

    a: Side
    b: Side
    num_layers: int
    num_experts: int
    top_k: int
    same_id: bool
    alike: bool
    same_context: bool
    elsewhere: list[int]
    alignment: Alignment
    null: Null
    layers: list[LayerPair]
    above: int
    below: int
    above_expected: float
    lens: list[LensPair]
    listed: int
    routing_reason: str | None
    lens_reason: str | None
    caveats: list[str]


def compare_contexts(a: Context, b: Context, runs: Sequence[RunLoad] = ()) -> ComparedContexts:
    """A beside B, two tokens of one model.

    runs: the loads of the session's other prompts; 20 or more of them are the chance level.
    Raises ValueError where A and B are of different models.
    """
    (one, at_a), (two, at_b) = a.located, b.located
    model = two.model
    if one.model.digest != model.digest:
        raise ValueError(f"A is of {one.model.name}, B of {model.name}: other experts altogether")
    alignment = align(a, b)
    chances, null = _chances(one, at_a, two, at_b, tuple(runs))
    same_context = a.token == b.token < alignment.beginning
    layers = _layers(a, b, alignment, chances)
    if same_context:
        layers = [msgspec.structs.replace(pair, level=None) for pair in layers]
    lens_a, lens_b = logit_lens(one, at_a), logit_lens(two, at_b)
    side_a, side_b = _side(a), _side(b)
    same_id = side_a.token_id == side_b.token_id
    elsewhere = np.flatnonzero(b.token_ids == side_a.token_id).tolist()
    return ComparedContexts(
        a=side_a,
        b=side_b,
        num_layers=model.num_layers,
        num_experts=model.num_experts,
        top_k=model.top_k,
        same_id=same_id,
        alike=not same_id and side_a.text.strip() == side_b.text.strip(),
        same_context=same_context,
        elsewhere=[row for row in elsewhere if row != b.token],
        alignment=alignment,
        null=null,
        layers=layers,
        above=sum(pair.level == "above" for pair in layers),
        below=sum(pair.level == "below" for pair in layers),
        above_expected=_above_by_chance(layers, chances),
        lens=_lens(lens_a, lens_b) if lens_a and lens_b else [],
        listed=len(lens_b.top[0]) if lens_b else 0,
        routing_reason=None if model.is_moe else f"{model.name} has no routing to compare",
        lens_reason=_lens_reason(lens_a, lens_b, model.lens_error),
        caveats=_caveats(same_id, same_context, null) if layers else [],
    )


def _side(context: Context) -> Side:
    prompt = context.recording.prompt
    trace, row = context.located
    return Side(
        prompt="".join(prompt.tokens[: prompt.prompt_tokens]),
        token=context.token,
        rows=context.rows,
        token_id=int(trace.token_ids[row]),
        text=trace.tokens[row],
        kind=trace.token_kinds[row],
    )


def _chances(
    a: Trace, at_a: int, b: Trace, at_b: int, runs: tuple[RunLoad, ...]
) -> tuple[list[Chance], Null]:
    """P(i shared experts) for every layer of two independent choices, and what they follow."""
    sizes = list(zip(_sizes(a, at_a), _sizes(b, at_b), strict=True))
    if len(runs) >= MIN_DOCUMENTS:
        found = list(_by_load(runs))
        if [(len(p) - 1, len(p) - 1) for p in found] == sizes:
            return found, Null(name="session load", prompts=len(runs))
    experts = _experts(b)
    found = [_uniform(E, *pair) for E, pair in zip(experts, sizes, strict=True)]
    return found, Null(name="uniform", prompts=0)


def _sizes(trace: Trace, row: int) -> list[int]:
    sizes: list[int] = (trace.expert_ids[row] >= 0).sum(axis=-1).tolist()
    return sizes


def _experts(trace: Trace) -> list[int]:
    """E of every routing layer."""
    counts: list[int] = (~np.isnan(trace.router_logits[0])).sum(axis=-1).tolist()
    return counts


_uniform = lru_cache(maxsize=64)(overlap_chance)


@lru_cache(maxsize=2)
def _by_load(runs: tuple[RunLoad, ...]) -> tuple[Chance, ...]:
    """The law of shared experts for the load of `runs`; kept, since a fit takes up to a second.

    Empty where it has none: no layer routes, or not every token has its k experts on record.
    """
    total = total_load(runs)
    if not total.layers or (total.counts.sum(axis=-1) % total.tokens).any():
        return ()
    return fit_subsets(total.counts / total.tokens).shared()


def _layers(
    a: Context, b: Context, alignment: Alignment, chances: Sequence[Chance]
) -> list[LayerPair]:
    (one, at_a), (two, at_b) = a.located, b.located
    mean = overlaps(a, b, alignment.rows_a, alignment.rows_b)
    experts = _experts(two)
    return [
        _pair(
            layer,
            experts[row],
            _weights(one, at_a, row),
            _weights(two, at_b, row),
            chances[row],
            _aligned(mean[:, row], chances[row]),
        )
        for row, layer in enumerate(two.layers.tolist())
    ]


def _weights(trace: Trace, index: int, row: int) -> dict[int, float]:
    """Expert → mixing weight, the best first."""
    ids, weights = trace.expert_ids[index, row].tolist(), trace.expert_weights[index, row].tolist()
    return {e: w for e, w in zip(ids, weights, strict=True) if e >= 0}


def _pair(
    layer: int,
    experts: int,
    a: dict[int, float],
    b: dict[int, float],
    chance: Chance,
    aligned: Statistic,
) -> LayerPair:
    used = [Used(expert=e, a=a.get(e), b=b.get(e)) for e in {**a, **b}]
    used.sort(key=lambda u: (-max(u.a or 0.0, u.b or 0.0), u.expert))
    both = [u for u in used if u.expert in a and u.expert in b]
    low, high = central_band(chance)
    count = len(both)
    level: Level = "below" if count < low else "above" if count > high else "inside"
    return LayerPair(
        layer=layer,
        experts=experts,
        both=both,
        lost=[u for u in used if u.expert not in b],
        gained=[u for u in used if u.expert not in a],
        shared=_beside(float(count), float(chance @ np.arange(len(chance))), low, high),
        overlap=_overlap(count, len(a), len(b), chance),
        variation=_variation(a, b, chance),
        level=level if a and b else None,
        aligned=aligned,
    )


def _beside(value: float, mean: float, low: float, high: float) -> Statistic:
    return Statistic(
        value=value, null_mean=mean, null_low=low, null_high=high, n_documents=1, caveat=ONE_PAIR
    )


def _overlap(count: int, size_a: int, size_b: int, chance: Chance) -> Statistic:
    """Jaccard's index rises with the number of shared experts, so its band is that one's."""
    if not size_a or not size_b:
        return Statistic(n_documents=1, caveat="no expert ran on one side")
    value, low, high = (n / (size_a + size_b - n) for n in (count, *central_band(chance)))
    return _beside(value, mean_jaccard(chance, size_a, size_b), low, high)


def _variation(a: dict[int, float], b: dict[int, float], chance: Chance) -> Statistic:
    one, two = _scaled(a), _scaled(b)
    if one is None or two is None:
        return Statistic(n_documents=1, caveat="no weights on one side")
    value = sum(abs(one.get(e, 0.0) - two.get(e, 0.0)) for e in {**one, **two}) / 2
    mean, low, high = variation_chance(list(one.values()), list(two.values()), chance, seed=SEED)
    return msgspec.structs.replace(_beside(value, mean, low, high), seed=SEED)


def _scaled(side: dict[int, float]) -> dict[int, float] | None:
    """The weights scaled to sum 1; None where they are missing or all 0."""
    total = sum(side.values())
    if not np.isfinite(total) or total <= 0:
        return None
    return {expert: weight / total for expert, weight in side.items()}


def _aligned(overlap: NDArray[np.float64], chance: Chance) -> Statistic:
    """Mean overlap of n aligned pairs beside its chance level."""
    k, known = len(chance) - 1, overlap[~np.isnan(overlap)]
    return Statistic(
        value=float(known.mean()) if len(known) else None,
        null_mean=mean_jaccard(chance, k, k) if k else None,
        n_tokens=len(known),
        n_documents=1,
        caveat=NEIGHBOURS,
    )


def _above_by_chance(layers: Sequence[LayerPair], chances: Sequence[Chance]) -> float:
    """How many layers two independent choices put above the band, on average."""
    return float(
        sum(
            chance[central_band(chance)[1] + 1 :].sum()
            for pair, chance in zip(layers, chances, strict=True)
            if pair.level is not None
        )
    )


def _lens(a: LensView, b: LensView) -> list[LensPair]:
    return [
        LensPair(
            layer=layer,
            a=top_a[0],
            b=top_b[0],
            same=top_a[0].token_id == top_b[0].token_id,
            a_in_b=_place(top_b, a.answer),
            b_in_a=_place(top_a, b.answer),
        )
        for layer, top_a, top_b in zip(b.layers, a.top, b.top, strict=True)
    ]


def _place(top: Sequence[Guess], answer: Guess) -> int | None:
    """The place of `answer` among the listed tokens, 1 = top."""
    return next((n for n, g in enumerate(top, 1) if g.token_id == answer.token_id), None)


def _lens_reason(a: LensView | None, b: LensView | None, error: str | None) -> str | None:
    missing = [name for name, view in (("A", a), ("B", b)) if view is None]
    if not missing:
        return None
    return error or f"the lens was not read at the token of {' and '.join(missing)}"


def _caveats(same_id: bool, same_context: bool, null: Null) -> list[str]:
    if same_context:
        return [SAME_CONTEXT]
    told = [ONE_PAIR, UNTRAINED if same_id else OTHER_TOKENS]
    return [*told, UNEVEN] if null.name == "uniform" else told
