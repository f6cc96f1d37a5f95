"""Experts that hardly work: counts of a session, what chance would give, and what may be claimed.

A count of a few prompts is a description, not a finding: most experts of any model look cold
after ten tokens. So every count stands beside what an even router would show on as many tokens,
and verdicts ("cold", "dead") are given only where an interval over prompts allows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from moetui.analyses.expert_load import Counts, RunLoad, total_load
from moetui.stats import (
    APPROXIMATE,
    MIN_DOCUMENTS,
    binary_design_effect,
    document_intervals,
    joined,
    load_indices,
)
from moetui.stats.rate import RULE_OF_THREE

Array = NDArray[np.float64]

SHARE_OF_LOAD = 0.9
# What a threshold of 1 % needs; below it a verdict is given with a warning.
ENOUGH_TOKENS, ENOUGH_PROMPTS = 3000, 30
SEED = 0


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """Below this share of tokens an expert counts as little used.

    share: in a layer with all E experts; times_uniform: the factor on each layer's own k/E where
    the threshold is one, else None.
    """

    name: str
    share: float
    times_uniform: float | None


class Evenness(msgspec.Struct, frozen=True, kw_only=True):
    """Entropy of the load over ln E (1 = even), and its expectation for an even router on as many
    tokens: few tokens look uneven whatever the router does. None without tokens."""

    entropy: float | None
    chance: float | None
    tokens: int


class LayerLoad(msgspec.Struct, frozen=True, kw_only=True):
    """The load of one layer, or of all together (`layer` None; entropies are means then).

    never_fired: experts with no hit at all. below: [thresholds], experts whose observed share is
    under it. for_90: the fewest experts that carry 90 % of the load. Each has its `_chance`: the
    expectation for an even router whose tokens are independent.
    cold: [thresholds], experts whose upper limit is under the threshold; undecided: those whose
    interval holds it; dead: no hit and enough effective tokens to see one at the lowest
    threshold. All three None where no interval can be given.
    """

    layer: int | None
    experts: int
    never_fired: int
    never_fired_chance: float
    below: list[int]
    below_chance: list[float]
    for_90: int
    for_90_chance: float
    all_tokens: Evenness
    prefill: Evenness
    decode: Evenness
    cold: list[int] | None
    undecided: list[int] | None
    dead: int | None


class ColdExperts(msgspec.Struct, frozen=True, kw_only=True):
    """How a session used the experts.

    prompts: documents, the independent units; top_k: k.
    hits: [L][E] tokens that used the expert, of prefill_tokens + decode_tokens (columns beyond a
    layer's experts are 0). low, high: [L][E], 95 % limits of the share by bootstrap over prompts
    (3/n_effective above no hit); None below 20 prompts, NaN where undefined.
    caveat: why there are no verdicts, or how far to trust them.
    """

    prompts: int
    prefill_tokens: int
    decode_tokens: int
    top_k: int
    thresholds: list[Threshold]
    layers: list[LayerLoad]
    pooled: LayerLoad
    hits: list[list[int]]
    low: list[list[float]] | None
    high: list[list[float]] | None
    seed: int | None
    caveat: str | None


def cold_experts(
    runs: Sequence[RunLoad], *, intervals: bool = True, seed: int = SEED
) -> ColdExperts | None:
    """The load of `runs` of one model; None where they hold no routed token.

    intervals: whether to bootstrap (from 20 prompts on), which takes about a second.
    """
    if not runs or not runs[0].layers or not sum(run.tokens for run in runs):
        return None
    total = total_load(runs)
    thresholds = _thresholds(total)
    limits = None
    if intervals and len(runs) >= MIN_DOCUMENTS:
        limits = _limits(runs, seed)
    layers = [_layer(total, row, thresholds, limits) for row in range(len(total.layers))]
    return ColdExperts(
        prompts=len(runs),
        prefill_tokens=total.prefill_tokens,
        decode_tokens=total.decode_tokens,
        top_k=total.top_k,
        thresholds=thresholds,
        layers=layers,
        pooled=_pooled(layers),
        hits=total.counts.tolist(),
        low=None if limits is None else limits.low.tolist(),
        high=None if limits is None else limits.high.tolist(),
        seed=None if limits is None else seed,
        caveat=_caveat(len(runs), limits),
    )


@dataclass(frozen=True, eq=False)
class _Limits:
    """95 % limits of the shares and the effective number of tokens, each [L, E]."""

    low: Array
    high: Array
    effective: Array


def _thresholds(total: RunLoad) -> list[Threshold]:
    uniform = total.top_k / max(total.experts)
    relative = [
        Threshold(name=f"{factor:g}×", share=factor * uniform, times_uniform=factor)
        for factor in (0.1, 0.25, 0.5)
    ]
    return [*relative, Threshold(name="1%", share=0.01, times_uniform=None)]


def _layer(
    total: RunLoad, row: int, thresholds: Sequence[Threshold], limits: _Limits | None
) -> LayerLoad:
    E, T = total.experts[row], total.tokens
    hits = total.counts[row, :E]
    k = round(hits.sum() / T)
    shares = [t.share if t.times_uniform is None else t.times_uniform * k / E for t in thresholds]
    chance = _chance(T, k, E)
    verdicts = _verdicts(hits, shares, limits, row) if limits is not None else (None, None, None)
    return LayerLoad(
        layer=total.layers[row],
        experts=E,
        never_fired=int((hits == 0).sum()),
        never_fired_chance=chance.never_fired,
        below=[int((hits < share * T).sum()) for share in shares],
        below_chance=[chance.below(share) for share in shares],
        for_90=_carriers(hits),
        for_90_chance=chance.for_90,
        all_tokens=_evenness(hits, T, k),
        prefill=_evenness(total.prefill[row, :E], total.prefill_tokens, k),
        decode=_evenness(total.decode[row, :E], total.decode_tokens, k),
        cold=verdicts[0],
        undecided=verdicts[1],
        dead=verdicts[2],
    )


def _carriers(hits: Counts) -> int:
    """The fewest experts that carry 90 % of the load."""
    carried = np.cumsum(np.sort(hits)[::-1])
    return int(np.searchsorted(carried, SHARE_OF_LOAD * hits.sum() - 1e-9)) + 1


@dataclass(frozen=True, eq=False)
class _Chance:
    """What an even router shows on `tokens` independent tokens.

    Each of its E experts is used by each token with probability k/E, so an expert's count is
    binomial; all that is asked here is a sum over experts, for which the marginals are enough.
    """

    tokens: int
    experts: int
    pmf: Array  # [tokens + 1]
    for_90: float
    entropy: float  # over ln E

    @property
    def never_fired(self) -> float:
        return float(self.experts * self.pmf[0])

    def below(self, share: float) -> float:
        under = np.arange(self.tokens + 1) < share * self.tokens
        return float(self.experts * self.pmf[under].sum())


@lru_cache(maxsize=64)
def _chance(tokens: int, k: int, experts: int) -> _Chance:
    pmf = binom.pmf(np.arange(tokens + 1), tokens, k / experts)
    p = np.arange(1, tokens + 1) / (k * tokens)
    entropy = -experts * float((pmf[1:] * p * np.log(p)).sum())
    scale = float(np.log(experts)) or 1.0
    return _Chance(tokens, experts, pmf, _carriers_by_chance(pmf, experts), entropy / scale)


def _carriers_by_chance(pmf: Array, experts: int) -> float:
    """`_carriers` for expert counts that follow `pmf`: the busiest first, up to 90 %."""
    size = experts * pmf[::-1]
    load = size * np.arange(len(pmf))[::-1]
    carried = np.cumsum(load)
    goal = SHARE_OF_LOAD * carried[-1]
    last = int(np.searchsorted(carried, goal))
    missing = goal - (carried[last] - load[last])
    return float(size[:last].sum() + size[last] * missing / load[last])


def _evenness(hits: Counts, tokens: int, k: int) -> Evenness:
    """Entropy of the load of E experts."""
    E = len(hits)
    if not tokens or E < 2 or not hits.sum():
        return Evenness(entropy=None, chance=None, tokens=tokens)
    indices = load_indices(hits, k)
    return Evenness(
        entropy=indices.entropy_normalized if indices else None,
        chance=_chance(tokens, k, E).entropy,
        tokens=tokens,
    )


def _limits(runs: Sequence[RunLoad], seed: int) -> _Limits:
    """Bootstrap over prompts, all experts at once; the rule of three where there is no hit."""
    hits = np.stack([run.counts for run in runs]).astype(float)
    tokens = np.array([run.tokens for run in runs], float)
    D, L, E = hits.shape
    flat = hits.reshape(D, L * E)

    def shares(weights: Array) -> Array:
        found: Array = ((weights @ flat) / (weights @ tokens)[:, None]).T
        return found

    found = document_intervals(shares, D, seed=seed)
    low, high = found.low.reshape(L, E).copy(), found.high.reshape(L, E).copy()
    effective = tokens.sum() / _design_effects(hits, tokens)
    silent = hits.sum(axis=0) == 0
    low[silent] = 0.0
    high[silent] = np.minimum(1.0, RULE_OF_THREE / effective[silent])
    return _Limits(low, high, effective)


def _design_effects(hits: Array, tokens: Array) -> Array:
    """[L, E] from [D, L, E]; experts without hits get the median of their layer's others."""
    _, L, E = hits.shape
    effects = np.full((L, E), np.nan)
    for row in range(L):
        for expert in range(E):
            if 0 < hits[:, row, expert].sum() < tokens.sum():
                effect = binary_design_effect(hits[:, row, expert], tokens)
                effects[row, expert] = np.nan if effect is None else effect
        known = effects[row][~np.isnan(effects[row])]
        # Nothing to go by: every prompt counts as one token.
        usual = np.median(known) if len(known) else tokens.mean()
        effects[row, np.isnan(effects[row])] = usual
    return effects


def _verdicts(
    hits: Counts, shares: Sequence[float], limits: _Limits, row: int
) -> tuple[list[int], list[int], int]:
    """Cold and undecided at every threshold, and dead."""
    E = len(hits)
    low, high = limits.low[row, :E], limits.high[row, :E]
    cold = [int((high < share).sum()) for share in shares]
    sure = [int(((high < share) | (low >= share)).sum()) for share in shares]
    enough = limits.effective[row, :E] >= RULE_OF_THREE / min(shares)
    return cold, [E - count for count in sure], int(((hits == 0) & enough).sum())


def _pooled(layers: Sequence[LayerLoad]) -> LayerLoad:
    """Sums of counts and means of entropies over the layers."""

    def total(lists: Sequence[Sequence[float]]) -> list[float]:
        return np.sum(lists, axis=0).tolist()  # type: ignore[no-any-return]

    sure = [load for load in layers if load.cold is not None]
    return LayerLoad(
        layer=None,
        experts=sum(load.experts for load in layers),
        never_fired=sum(load.never_fired for load in layers),
        never_fired_chance=sum(load.never_fired_chance for load in layers),
        below=[int(n) for n in total([load.below for load in layers])],
        below_chance=total([load.below_chance for load in layers]),
        for_90=sum(load.for_90 for load in layers),
        for_90_chance=sum(load.for_90_chance for load in layers),
        all_tokens=_mean_evenness([load.all_tokens for load in layers]),
        prefill=_mean_evenness([load.prefill for load in layers]),
        decode=_mean_evenness([load.decode for load in layers]),
        cold=[int(n) for n in total([load.cold or [] for load in layers])] if sure else None,
        undecided=[int(n) for n in total([load.undecided or [] for load in layers])]
        if sure
        else None,
        dead=sum(load.dead or 0 for load in layers) if sure else None,
    )


def _mean_evenness(layers: Sequence[Evenness]) -> Evenness:
    found = [e for e in layers if e.entropy is not None and e.chance is not None]
    if not found:
        return Evenness(entropy=None, chance=None, tokens=layers[0].tokens)
    return Evenness(
        entropy=float(np.mean([e.entropy for e in found])),
        chance=float(np.mean([e.chance for e in found])),
        tokens=found[0].tokens,
    )


def _caveat(prompts: int, limits: _Limits | None) -> str | None:
    if prompts < MIN_DOCUMENTS:
        return f"too few prompts for an interval ({MIN_DOCUMENTS} needed)"
    if limits is None:
        return "no interval yet"
    effective = float(np.median(limits.effective))
    few = prompts < ENOUGH_PROMPTS or effective < ENOUGH_TOKENS
    return joined(
        f"approximate intervals: {prompts} prompts" if prompts < APPROXIMATE else None,
        f"{effective:.0f} effective tokens of {ENOUGH_TOKENS} needed at 1 %" if few else None,
    )
