"""Experts that hardly work: which shares of tokens lie under a threshold for certain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.stats.bootstrap import RESAMPLES, document_intervals
from moetui.stats.minimum import LOAD, enough, warning
from moetui.stats.rate import RULE_OF_THREE, binary_design_effect, most_plausible
from moetui.stats.statistic import APPROXIMATE, MIN_DOCUMENTS, Statistic, finite, joined
from moetui.stats.strata import DocumentStrata, domain_strata, mixed_rates

Numbers = NDArray[np.float64]

TIMES_UNIFORM = (0.1, 0.25, 0.5)
SHARE = 0.01

Coldness = Literal["cold", "conditional", "undecided", "not cold"]


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """Below this share of tokens an expert counts as little used.

    share: in a layer with all E experts; times_uniform: the factor on each layer's own k/E where
    the threshold is one, else None.
    """

    name: str
    share: float
    times_uniform: float | None


class ExpertLoad(msgspec.Struct, frozen=True, kw_only=True):
    """The load of one expert, and what may be said of it.

    share: f_e with its limits over documents; null_mean is the uniform k/E.
    by_domain: f_e in each domain. coldness: at each threshold. dead: no hit, and enough effective
    tokens to see one at the lowest threshold. Both None where no verdict can be given.
    """

    expert: int
    share: Statistic
    by_domain: tuple[Statistic, ...]
    coldness: tuple[Coldness, ...] | None
    dead: bool | None


class ColdVerdicts(msgspec.Struct, frozen=True, kw_only=True):
    """The experts of one layer. mix_given: limits take the domains' shares of the tokens as given.
    reason: why there is no verdict; caveat: how far to trust."""

    thresholds: tuple[Threshold, ...]
    domains: tuple[str, ...]
    mix_given: bool
    experts: tuple[ExpertLoad, ...]
    reason: str | None
    caveat: str | None

    def count(self, coldness: Coldness, threshold: int) -> int | None:
        """How many experts are called so at a threshold; None without verdicts."""
        found = [e.coldness[threshold] for e in self.experts if e.coldness is not None]
        return found.count(coldness) if found else None


def cold_thresholds(k: int, experts: int) -> tuple[Threshold, ...]:
    """0.1, 0.25 and 0.5 times the uniform share k/E, and 1 % of tokens."""
    relative = (
        Threshold(name=f"{factor:g}×", share=factor * k / experts, times_uniform=factor)
        for factor in TIMES_UNIFORM
    )
    return (*relative, Threshold(name="1%", share=SHARE, times_uniform=None))


def cold_experts(
    counts: ArrayLike,
    tokens: ArrayLike,
    k: int,
    thresholds: Sequence[Threshold] | None = None,
    *,
    domains: Sequence[str] | None = None,
    seed: int,
    resamples: int = RESAMPLES,
) -> ColdVerdicts:
    """Which of E experts hardly work, by intervals over documents.

    counts: [D, E], tokens of each document that used each expert; tokens: [D]; k: experts a token
    uses; thresholds: `cold_thresholds(k, E)` unless given; domains: [D], each document's.

    At a threshold an expert is "cold" where its upper limit lies under it, and so does the most
    that its effective hits leave plausible (`most_plausible`, with the expert's design effect or
    the layer's median one, whichever is larger: a few hits in bursts look both rarer and more
    independent than they are); "not cold" where the lower limit does not, else "undecided". At a
    threshold where fewer than three effective hits are expected nothing is cold. A cold one is
    "conditional" where one domain uses it at the uniform share or more, with a lower limit (20
    documents of that domain) that is not under the threshold. No hit: upper limit 3/n_effective,
    with the layer's median design effect; every token: the mirror image. No verdict below 20
    documents, and below a tenth of the minimum size (the median expert's effective tokens count).
    Where every domain has 20 documents, their shares of the tokens are taken as given: limits and
    effective tokens are about documents that vary within their domains.
    Raises ValueError for impossible counts.
    """
    y, n = np.asarray(counts, float), np.asarray(tokens, float)
    _check(y, n, domains)
    E = y.shape[1]
    levels = tuple(cold_thresholds(k, E) if thresholds is None else thresholds)
    names = tuple(dict.fromkeys(domains or ()))
    of = np.array(list(domains or ()))
    strata = domain_strata(domains or ())
    pooled = _limits(y, n, seed, resamples, strata)
    reason = _no_verdict(pooled)
    parts = [_limits(y[of == name], n[of == name], seed, resamples) for name in names]
    return ColdVerdicts(
        thresholds=levels,
        domains=names,
        mix_given=strata is not None,
        experts=tuple(
            ExpertLoad(
                expert=expert,
                share=pooled.statistic(expert, k / E, seed),
                by_domain=tuple(part.statistic(expert, k / E, seed) for part in parts),
                coldness=None
                if reason
                else tuple(_coldness(expert, t.share, k / E, pooled, parts) for t in levels),
                dead=None if reason else _dead(expert, levels, pooled),
            )
            for expert in range(E)
        ),
        reason=reason,
        caveat=reason or _caveat(pooled),
    )


@dataclass(frozen=True, eq=False)
class _Limits:
    """Shares of E experts, their 95 % limits (NaN where unknown) and effective tokens, all [E].

    plausible: the most that the few hits leave plausible, with no more effective tokens than the
    median expert has.
    """

    share: Numbers
    low: Numbers
    high: Numbers
    plausible: Numbers
    effective: Numbers
    caveats: NDArray[np.str_]
    tokens: int
    documents: int

    def statistic(self, expert: int, uniform: float, seed: int) -> Statistic:
        share = finite(float(self.share[expert]))
        return Statistic(
            value=share,
            ci_low=finite(float(self.low[expert])),
            ci_high=finite(float(self.high[expert])),
            null_mean=uniform,
            n_tokens=self.tokens,
            n_documents=self.documents,
            n_effective=finite(float(self.effective[expert])),
            seed=seed,
            caveat=joined(str(self.caveats[expert])),
        )


def _check(counts: Numbers, tokens: Numbers, domains: Sequence[str] | None) -> None:
    shapes = counts.ndim == 2 and counts.size and tokens.shape == counts.shape[:1]
    if not shapes or (counts < 0).any() or (counts > tokens[:, None]).any() or not tokens.sum():
        raise ValueError("counts are [documents, experts], 0 <= counts <= the document's tokens")
    if domains is not None and len(domains) != len(tokens):
        raise ValueError("domains name one domain for each document")


def _limits(
    hits: Numbers,
    tokens: Numbers,
    seed: int,
    resamples: int,
    strata: DocumentStrata | None = None,
) -> _Limits:
    """Bootstrap over documents, all experts at once; the rule of three where there is no hit, and
    its mirror image where every token is one: there no resample shows any variation. strata: see
    `mixed_rates`."""
    D, _ = hits.shape
    shares = mixed_rates(hits, tokens, strata)
    found = document_intervals(shares, D, seed=seed, resamples=resamples)
    low, high, caveats = found.low.copy(), found.high.copy(), found.caveats.astype("<U160")
    effective = tokens.sum() / _design_effects(hits, tokens, strata)
    if D >= MIN_DOCUMENTS:
        silent, always = hits.sum(axis=0) == 0, hits.sum(axis=0) == tokens.sum()
        bound = np.minimum(1.0, RULE_OF_THREE / np.maximum(effective, RULE_OF_THREE))
        low = np.where(silent, 0.0, np.where(always, 1.0 - bound, low))
        high = np.where(silent, bound, np.where(always, 1.0, high))
        caveats[silent] = "no hits: upper limit 3/n_effective"
        caveats[always] = "all hits: lower limit 1 − 3/n_effective"
    plausible = most_plausible(found.value, np.minimum(effective, np.median(effective)))
    return _Limits(found.value, low, high, plausible, effective, caveats, int(tokens.sum()), D)


def _design_effects(hits: Numbers, tokens: Numbers, strata: DocumentStrata | None) -> Numbers:
    """[E] from [D, E]; experts without hits or misses get the median of the others."""
    total = hits.sum(axis=0)
    effects = np.full(hits.shape[1], np.nan)
    for expert in np.flatnonzero((total > 0) & (total < tokens.sum())):
        effect = binary_design_effect(hits[:, expert], tokens, strata)
        effects[expert] = np.nan if effect is None else effect
    known = effects[~np.isnan(effects)]
    # Nothing to go by: every document counts as one token.
    usual = np.median(known) if len(known) else max(1.0, float(tokens.mean()))
    return np.where(np.isnan(effects), usual, effects)


def _coldness(
    expert: int, share: float, uniform: float, pooled: _Limits, parts: Sequence[_Limits]
) -> Coldness:
    if pooled.low[expert] >= share:
        return "not cold"
    if not max(pooled.high[expert], pooled.plausible[expert]) < share:
        return "undecided"
    awake = any(p.share[expert] >= uniform and p.low[expert] >= share for p in parts)
    return "conditional" if awake else "cold"


def _dead(expert: int, levels: Sequence[Threshold], pooled: _Limits) -> bool:
    needed = RULE_OF_THREE / min(level.share for level in levels)
    return bool(pooled.share[expert] == 0 and pooled.effective[expert] >= needed)


def _no_verdict(pooled: _Limits) -> str | None:
    if pooled.documents < MIN_DOCUMENTS:
        return f"no interval: {pooled.documents} documents, {MIN_DOCUMENTS} needed"
    sizes = _sizes(pooled)
    return warning(LOAD, **sizes) if enough(LOAD, **sizes) == "inconclusive" else None


def _caveat(pooled: _Limits) -> str | None:
    approximate = pooled.documents < APPROXIMATE
    return joined(
        f"approximate intervals: {pooled.documents} documents" if approximate else None,
        warning(LOAD, **_sizes(pooled)),
    )


def _sizes(pooled: _Limits) -> dict[str, float]:
    effective = float(np.median(pooled.effective))
    return {"effective_tokens": effective, "documents": pooled.documents}
