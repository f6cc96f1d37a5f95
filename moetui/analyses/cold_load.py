"""Which experts of a model hardly work, over documents: cold, conditional or dead by intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from moetui.analyses.expert_load import Counts, chosen_counts
from moetui.analyses.routed import RoutedDocument
from moetui.stats import (
    Coldness,
    ColdVerdicts,
    DocumentStrata,
    ExpertLoad,
    Statistic,
    Threshold,
    cold_thresholds,
    document_intervals,
    domain_strata,
    mixed_rates,
)
from moetui.stats.cold import cold_experts as judge
from moetui.trace import ModelInfo

Array = NDArray[np.float64]


class JudgedExpert(msgspec.Struct, frozen=True, kw_only=True):
    """An expert of a decoder layer: its share of tokens f_e with its interval over documents
    (null_mean: the uniform k/E), and what may be said of it at each threshold.

    best_domain: where it is used most, and its share there, with an interval over documents of that
    domain. coldness, dead: as in `moetui.stats.cold_experts`, None where no verdict can be given.
    """

    layer: int
    expert: int
    share: Statistic
    best_domain: str | None
    in_best_domain: Statistic | None
    coldness: tuple[Coldness, ...] | None
    dead: bool | None


class LayerColdness(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the E experts of a layer are called so. cold, conditional, undecided: at each
    threshold; dead: no hit, and enough effective tokens to see one. All None without verdicts, the
    reason says why; caveat: how far to trust them."""

    layer: int
    experts: int
    top_k: int
    cold: tuple[int, ...] | None
    conditional: tuple[int, ...] | None
    undecided: tuple[int, ...] | None
    dead: int | None
    reason: str | None
    caveat: str | None


class ColdLoad(msgspec.Struct, frozen=True, kw_only=True, tag="cold_load"):
    """The load of all routing layers over documents.

    mix_given: limits are of this mix of domains, whose shares of the tokens are taken as given.
    thresholds: share is that of the first layer where they follow k/E. under: at each threshold,
    the share of all experts whose f_e lies under it, as counted, with an interval over documents;
    null_mean: of an even router on as many independent tokens. entropy: H(p)/ln E, mean over
    layers; null_mean 1 is an even load. experts: all of them, coldest of each layer first.
    """

    n_documents: int
    n_tokens: int
    domains: tuple[str, ...]
    mix_given: bool
    thresholds: tuple[Threshold, ...]
    under: tuple[Statistic, ...]
    entropy: Statistic
    layers: tuple[LayerColdness, ...]
    experts: tuple[JudgedExpert, ...]

    def called(self, coldness: Coldness, threshold: int) -> list[JudgedExpert]:
        """The experts that are called so at a threshold."""
        return [e for e in self.experts if e.coldness and e.coldness[threshold] == coldness]

    @property
    def dead(self) -> list[JudgedExpert]:
        """The experts that no token used, of as many as are needed to see one."""
        return [expert for expert in self.experts if expert.dead]


@dataclass(frozen=True, eq=False)
class Loads:
    """Use of experts by document: counts int64 [D, L, E], tokens [D]; experts: [L], how many each
    layer has; top_k: [L]. Columns beyond a layer's experts are 0."""

    counts: NDArray[np.int64]
    tokens: NDArray[np.int64]
    experts: tuple[int, ...]
    top_k: tuple[int, ...]

    def share(self, row: int) -> Array:
        """f_e [E] of the layer in that row."""
        found: Array = self.counts[:, row, : self.experts[row]].sum(axis=0) / self.tokens.sum()
        return found


def loads(documents: Sequence[RoutedDocument], info: ModelInfo) -> Loads:
    """The use of experts in `documents` (at least one)."""
    counts: list[Counts] = [chosen_counts(one.experts, info.num_experts) for one in documents]
    slots = (documents[0].experts[0] >= 0).sum(axis=-1)
    return Loads(
        counts=np.array(counts),
        tokens=np.array([len(one.ids) for one in documents]),
        experts=info.experts_by_layer,
        top_k=tuple(slots.tolist()),
    )


def cold_load(documents: Sequence[RoutedDocument], info: ModelInfo, *, seed: int) -> ColdLoad:
    """Experts of every layer, judged by intervals over `documents` (at least one)."""
    found = loads(documents, info)
    domains = [one.domain for one in documents]
    judged = [
        judge(found.counts[:, row, :E], found.tokens, k, domains=domains, seed=seed)
        for row, (E, k) in enumerate(zip(found.experts, found.top_k, strict=True))
    ]
    under, entropy = _pooled(found, domain_strata(domains), seed)
    return ColdLoad(
        n_documents=len(documents),
        n_tokens=int(found.tokens.sum()),
        domains=judged[0].domains,
        mix_given=judged[0].mix_given,
        thresholds=judged[0].thresholds,
        under=under,
        entropy=entropy,
        layers=tuple(
            _layer(info.moe_layers[row], found.top_k[row], verdicts)
            for row, verdicts in enumerate(judged)
        ),
        experts=tuple(
            _judged(layer, expert, verdicts.domains)
            for layer, verdicts in zip(info.moe_layers, judged, strict=True)
            for expert in sorted(verdicts.experts, key=lambda e: (e.share.value or 0.0, e.expert))
        ),
    )


def _judged(layer: int, load: ExpertLoad, domains: Sequence[str]) -> JudgedExpert:
    known = [at for at, share in enumerate(load.by_domain) if share.value is not None]
    best = max(known, key=lambda at: load.by_domain[at].value or 0.0, default=None)
    return JudgedExpert(
        layer=layer,
        expert=load.expert,
        share=load.share,
        best_domain=None if best is None else domains[best],
        in_best_domain=None if best is None else load.by_domain[best],
        coldness=load.coldness,
        dead=load.dead,
    )


def _layer(layer: int, k: int, verdicts: ColdVerdicts) -> LayerColdness:
    judged, levels = verdicts.reason is None, range(len(verdicts.thresholds))

    def counted(coldness: Coldness) -> tuple[int, ...] | None:
        return tuple(verdicts.count(coldness, at) or 0 for at in levels) if judged else None

    return LayerColdness(
        layer=layer,
        experts=len(verdicts.experts),
        top_k=k,
        cold=counted("cold"),
        conditional=counted("conditional"),
        undecided=counted("undecided"),
        dead=sum(bool(e.dead) for e in verdicts.experts) if judged else None,
        reason=verdicts.reason,
        caveat=verdicts.caveat,
    )


def _pooled(
    found: Loads, strata: DocumentStrata | None, seed: int
) -> tuple[tuple[Statistic, ...], Statistic]:
    """Over all layers: the share of experts under each threshold, and the mean entropy."""
    layers = [
        (mixed_rates(found.counts[:, row, :E], found.tokens, strata), k, E)
        for row, (E, k) in enumerate(zip(found.experts, found.top_k, strict=True))
    ]
    total, size = sum(found.experts), int(found.tokens.sum())

    def estimate(weights: Array) -> Array:
        rows = np.zeros((len(cold_thresholds(1, 2)) + 1, len(weights)))
        for rates, k, E in layers:
            shares = rates(weights).T
            for at, threshold in enumerate(cold_thresholds(k, E)):
                rows[at] += (shares < threshold.share - 1e-12).sum(axis=1) / total
            p = shares / shares.sum(axis=1, keepdims=True)
            logs = np.log(p, out=np.zeros_like(p), where=p > 0)
            rows[-1] -= (p * logs).sum(axis=1) / max(np.log(E), 1e-9) / len(layers)
        return rows

    intervals = document_intervals(estimate, len(found.tokens), seed=seed)
    levels = len(cold_thresholds(1, 2))
    told = [intervals.statistic((at,), n_tokens=size) for at in range(levels + 1)]
    chance = [
        sum(
            E * float(bdtr(np.ceil(cold_thresholds(k, E)[at].share * size - 1e-9) - 1, size, k / E))
            for _, k, E in layers
        )
        / total
        for at in range(levels)
    ]
    under = tuple(
        msgspec.structs.replace(one, null_mean=mean)
        for one, mean in zip(told[:-1], chance, strict=True)
    )
    return under, msgspec.structs.replace(told[-1], null_mean=1.0)
