"""Experts that hardly work: counts of a session, what chance would give, and what may be claimed.

A count of a few prompts is a description, not a finding: most experts of any model look cold
after ten tokens. So every count stands beside what an even router would show on as many tokens,
and verdicts ("cold", "dead") are given only where an interval over prompts allows them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlog1py, xlogy

from moetui.analyses.expert_load import Counts, RunLoad, total_load
from moetui.stats import (
    APPROXIMATE,
    MIN_DOCUMENTS,
    Coldness,
    ColdVerdicts,
    Statistic,
    Threshold,
    cold_thresholds,
    joined,
    load_indices,
)
from moetui.stats.cold import cold_experts as judge
from moetui.stats.minimum import LOAD, enough

Array = NDArray[np.float64]

SHARE_OF_LOAD = 0.9
SEED = 0
# Routers drawn for the chance level of "experts that carry 90 %": an error of about 0.05.
CARRIER_DRAWS = 300


class LayerLoad(msgspec.Struct, frozen=True, kw_only=True):
    """The load of one layer, or of all together (`layer` None; entropies are means then).

    never_fired: experts with no hit at all. below: [thresholds], experts whose observed share is
    under it. for_90: the fewest experts that carry 90 % of the load. entropy: of the load over
    ln E, 1 = even; entropy_prefill and entropy_decode of the prompts' and the generated tokens.
    All have as `null_mean` what an even router shows on as many independent tokens.
    cold: [thresholds], experts whose upper limit is under the threshold, with effective hits
    enough to tell; undecided: neither these nor those whose lower limit is not under it; dead: no
    hit and enough effective tokens to see one at the lowest threshold. All three None where there
    are too few prompts or effective tokens.
    """

    layer: int | None
    experts: int
    never_fired: Statistic
    below: list[Statistic]
    for_90: Statistic
    entropy: Statistic
    entropy_prefill: Statistic
    entropy_decode: Statistic
    cold: list[int] | None
    undecided: list[int] | None
    dead: int | None


class ColdExperts(msgspec.Struct, frozen=True, kw_only=True):
    """How a session used the experts.

    prompts: documents, the independent units; top_k: k.
    hits: [L][E] tokens that used the expert, of prefill_tokens + decode_tokens (columns beyond a
    layer's experts are 0). low, high: [L][E], 95 % limits of the share by bootstrap over prompts
    (3/n_effective above no hit and below all hits), and n_effective: [L][E], how many independent
    tokens the tokens are worth; None below 20 prompts, NaN where undefined.
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
    n_effective: list[list[float]] | None
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
    judged = _judged(runs, total, seed) if intervals and len(runs) >= MIN_DOCUMENTS else ()
    layers = [
        _layer(total, row, judged[row] if judged else None) for row in range(len(total.layers))
    ]
    return ColdExperts(
        prompts=len(runs),
        prefill_tokens=total.prefill_tokens,
        decode_tokens=total.decode_tokens,
        top_k=total.top_k,
        thresholds=list(cold_thresholds(total.top_k, max(total.experts))),
        layers=layers,
        pooled=_pooled(layers),
        hits=total.counts.tolist(),
        low=_limits(judged, total, lambda share: share.ci_low) if judged else None,
        high=_limits(judged, total, lambda share: share.ci_high) if judged else None,
        n_effective=_limits(judged, total, lambda share: share.n_effective) if judged else None,
        seed=seed if judged else None,
        caveat=_caveat(len(runs), judged),
    )


def _layer(total: RunLoad, row: int, judged: ColdVerdicts | None) -> LayerLoad:
    E, T = total.experts[row], total.tokens
    hits, k = total.counts[row, :E], _top_k(total, row)
    shares = [threshold.share for threshold in cold_thresholds(k, E)]
    chance = _chance(T, k, E)
    verdicts = judged if judged is not None and judged.reason is None else None
    return LayerLoad(
        layer=total.layers[row],
        experts=E,
        never_fired=_beside(int((hits == 0).sum()), chance.never_fired, T),
        below=[_beside(int(_under(hits, s, T).sum()), chance.below(s), T) for s in shares],
        for_90=_beside(int(_carriers(hits)), chance.for_90, T),
        entropy=_entropy(hits, T, k),
        entropy_prefill=_entropy(total.prefill[row, :E], total.prefill_tokens, k),
        entropy_decode=_entropy(total.decode[row, :E], total.decode_tokens, k),
        cold=_counted(verdicts, "cold"),
        undecided=_counted(verdicts, "undecided"),
        dead=None if verdicts is None else sum(bool(e.dead) for e in verdicts.experts),
    )


def _counted(verdicts: ColdVerdicts | None, coldness: Coldness) -> list[int] | None:
    """How many experts are called so at every threshold."""
    if verdicts is None:
        return None
    levels = range(len(verdicts.thresholds))
    return [verdicts.count(coldness, level) or 0 for level in levels]


def _beside(value: float | None, chance: float | None, tokens: int) -> Statistic:
    """A description of `tokens` tokens beside its chance level; no claim, so no interval."""
    return Statistic(value=value, null_mean=chance, n_tokens=tokens)


def _under(counts: NDArray[np.int64], share: float, tokens: int) -> NDArray[np.bool_]:
    """Where counts / tokens < share, whatever the rounding of their product."""
    return counts < share * tokens - 1e-9


def _carriers(hits: Counts) -> NDArray[np.int64]:
    """The fewest of E experts that carry 90 % of the load, from hits [..., E]."""
    carried = np.cumsum(np.sort(hits, axis=-1)[..., ::-1], axis=-1)
    goal = SHARE_OF_LOAD * carried[..., -1:] - 1e-9
    return np.asarray((carried < goal).sum(axis=-1) + 1)


@dataclass(frozen=True, eq=False)
class _Chance:
    """What an even router shows on `tokens` independent tokens.

    Each of its E experts is used by each token with probability k/E, so an expert's count is
    binomial. All but `for_90` is a sum over experts, for which the marginals are enough.
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
        under = _under(np.arange(self.tokens + 1), share, self.tokens)
        return float(self.experts * self.pmf[under].sum())


def _binomial(n: int, p: float) -> Array:
    """P(i of n) for i = 0 … n. As scipy.stats.binom.pmf, whose import takes most of a second:
    the explorer needs this one for its first picture, and must not wait for the other."""
    i = np.arange(n + 1)
    ways = gammaln(n + 1) - gammaln(i + 1) - gammaln(n - i + 1)
    return np.asarray(np.exp(ways + xlogy(i, p) + xlog1py(n - i, -p)))


@lru_cache(maxsize=64)
def _chance(tokens: int, k: int, experts: int) -> _Chance:
    pmf = _binomial(tokens, k / experts)
    p = np.arange(1, tokens + 1) / (k * tokens)
    entropy = -experts * float((pmf[1:] * p * np.log(p)).sum())
    scale = float(np.log(experts)) or 1.0
    return _Chance(tokens, experts, pmf, _carriers_by_chance(tokens, k, experts), entropy / scale)


def _carriers_by_chance(tokens: int, k: int, experts: int) -> float:
    """Mean of `_carriers`, a whole number of experts: drawn, since no sum over experts gives it."""
    drawn = np.random.default_rng(SEED).binomial(tokens, k / experts, (CARRIER_DRAWS, experts))
    return float(np.mean(_carriers(drawn)))


def _entropy(hits: Counts, tokens: int, k: int) -> Statistic:
    """Entropy of the load of E experts over ln E."""
    if not tokens or len(hits) < 2 or (indices := load_indices(hits, k)) is None:
        return _beside(None, None, tokens)
    return _beside(indices.entropy_normalized, _chance(tokens, k, len(hits)).entropy, tokens)


def _judged(runs: Sequence[RunLoad], total: RunLoad, seed: int) -> tuple[ColdVerdicts, ...]:
    """What may be said of the experts of every layer, a prompt being a document."""
    hits = np.stack([run.counts for run in runs])
    tokens = np.array([run.tokens for run in runs])
    return tuple(
        judge(hits[:, row, :E], tokens, _top_k(total, row), seed=seed)
        for row, E in enumerate(total.experts)
    )


def _top_k(total: RunLoad, row: int) -> int:
    """Experts that a token uses in this layer, which may be fewer than in others."""
    return round(float(total.counts[row].sum()) / total.tokens)


def _limits(
    judged: Sequence[ColdVerdicts], total: RunLoad, of: Callable[[Statistic], float | None]
) -> list[list[float]]:
    """[L][E] of what `of` reads from an expert's share; NaN where it is not known."""
    found = np.full(total.counts.shape, np.nan)
    for row, verdicts in enumerate(judged):
        values = [of(expert.share) for expert in verdicts.experts]
        found[row, : len(values)] = [np.nan if v is None else v for v in values]
    return [list(map(float, row)) for row in found]


def _pooled(layers: Sequence[LayerLoad]) -> LayerLoad:
    """Sums of counts and means of entropies over the layers."""
    judged = [load for load in layers if load.cold is not None]

    def added(lists: Sequence[Sequence[int] | None]) -> list[int] | None:
        return [sum(column) for column in zip(*filter(None, lists), strict=True)] or None

    return LayerLoad(
        layer=None,
        experts=sum(load.experts for load in layers),
        never_fired=_over_layers([load.never_fired for load in layers], np.sum),
        below=[
            _over_layers(column, np.sum)
            for column in zip(*(load.below for load in layers), strict=True)
        ],
        for_90=_over_layers([load.for_90 for load in layers], np.sum),
        entropy=_over_layers([load.entropy for load in layers], np.mean),
        entropy_prefill=_over_layers([load.entropy_prefill for load in layers], np.mean),
        entropy_decode=_over_layers([load.entropy_decode for load in layers], np.mean),
        cold=added([load.cold for load in layers]),
        undecided=added([load.undecided for load in layers]),
        dead=sum(load.dead or 0 for load in layers) if judged else None,
    )


def _over_layers(
    layers: Sequence[Statistic], combine: Callable[[Sequence[float]], float]
) -> Statistic:
    """The statistics of all layers as one, those without a value left out."""
    values = [s.value for s in layers if s.value is not None]
    chances = [s.null_mean for s in layers if s.null_mean is not None]
    tokens = layers[0].n_tokens or 0
    if not values or not chances:
        return _beside(None, None, tokens)
    return _beside(float(combine(values)), float(combine(chances)), tokens)


def _caveat(prompts: int, judged: Sequence[ColdVerdicts]) -> str | None:
    if prompts < MIN_DOCUMENTS:
        return f"too few prompts for an interval ({MIN_DOCUMENTS} needed)"
    if not judged:
        return "no interval yet"
    experts = [expert.share.n_effective for layer in judged for expert in layer.experts]
    effective = float(np.median([n for n in experts if n is not None]))
    sizes = {"effective_tokens": effective, "documents": prompts}
    few, without = enough(LOAD, **sizes) != "ok", sum(j.reason is not None for j in judged)
    return joined(
        f"too few tokens for a verdict in {without} of {len(judged)} layers" if without else None,
        f"approximate intervals: {prompts} prompts" if prompts < APPROXIMATE else None,
        f"{effective:.0f} of {LOAD.needs['effective tokens']} effective tokens" if few else None,
    )
