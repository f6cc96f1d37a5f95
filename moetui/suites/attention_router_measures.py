"""The headline numbers of `attention_router`: what two models, or two runs, are compared by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from moetui.analyses.attention_router import (
    ATTENTION,
    CorpusDecomposition,
    CorrectedDecomposition,
    PromptDecomposition,
    SeedDecomposition,
)
from moetui.analyses.causal_check import CausalCheck
from moetui.analyses.context_sensitivity import ContextSensitivity
from moetui.analyses.source_experts import ExpertShares, SourceExperts
from moetui.analyses.source_heads import HeadShares, SourceHeads
from moetui.analyses.token_identity import TokenIdentity
from moetui.stats import Statistic
from moetui.suites.results import CellResult, Measure

SEED_RATIO = "seed ratio, mean over layers with ratio > 0"
SENSITIVE = "context sensitivity, rate of sensitive cells"
AS_PUBLISHED = "as published: no interval, no null"


def share_name(part: str) -> str:
    """What a part's share of the variance across tokens is called."""
    return f"{part}: share of the logits' variance, mean of layers > 0"


def measures(model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
    """Of one model, from all its results; a number that is missing is left out."""
    results = [cell.result for cell in cells]
    found: list[Measure] = []
    for one in results:
        if isinstance(one, PromptDecomposition):
            found += seed_measures(model, one.seed)
        elif isinstance(one, CorpusDecomposition):
            found += share_measures(model, one.corrected)
        elif isinstance(one, SourceExperts):
            found.append(_together(model, "all experts", one.shares))
        elif isinstance(one, SourceHeads):
            found.append(_together(model, "all attention heads", one.shares))
        elif isinstance(one, CausalCheck):
            found += causal_measures(model, one)
        elif isinstance(one, TokenIdentity):
            found += identity_measures(model, one)
        elif isinstance(one, ContextSensitivity):
            found += _contexts(model, one)
    return tuple(found)


def seed_measures(model: str, seed: SeedDecomposition) -> Iterator[Measure]:
    """The seed's mean ratio with the prompts' own means over the same layers, then by layer."""
    counted = [layer for layer in seed.layers if layer.ratio]
    if seed.mean_ratio is not None:
        yield Measure(
            model=model,
            label="seed",
            name=SEED_RATIO,
            statistic=Statistic(
                value=seed.mean_ratio,
                n_documents=min(layer.n_prompts for layer in seed.layers),
                caveat=AS_PUBLISHED,
            ),
            units=_units([[p.ratio for p in layer.prompts] for layer in counted]),
        )
    for layer in seed.layers:
        if layer.ratio is not None:
            yield Measure(
                model=model,
                label="seed",
                name=f"seed ratio, layer {layer.layer}",
                statistic=Statistic(
                    value=layer.ratio, n_documents=layer.n_prompts, caveat=AS_PUBLISHED
                ),
                units=_units([[p.ratio for p in layer.prompts]]),
            )


def share_measures(model: str, found: CorrectedDecomposition | None) -> Iterator[Measure]:
    """Every part's share, attention first, so that nobody takes the rest for the embedding."""
    if found is None:
        return
    parts = sorted(found.mean.parts, key=lambda part: part.part != ATTENTION)
    for part in parts:
        if part.across_tokens is not None:
            yield _corrected(model, share_name(part.part), part.across_tokens)


def _together(model: str, sources: str, shares: ExpertShares | HeadShares) -> Measure:
    """The share of all single sources before one router; that of each is in the result."""
    name = f"{sources} before the router of layer {shares.layer}: share of its logits' variance"
    return _corrected(model, name, shares.together)


def causal_measures(model: str, found: CausalCheck) -> Iterator[Measure]:
    """What putting another document's in a part's place changes in the chosen sets (1 − Jaccard,
    mean of layers > 0) beyond random directions of that length; and attention's lead."""
    for part in found.mean.parts:
        name = f"{part.part} resampled: change of the sets beyond random directions"
        yield _corrected(model, name, part.resample.excess)
    if found.mean.lead is not None:
        name = "attention resampled: change of the sets beyond any other part's"
        yield _corrected(model, name, found.mean.lead)


def identity_measures(model: str, found: TokenIdentity) -> Iterator[Measure]:
    """η²."""
    if found.mean is not None:
        name = "η² of the token's identity, mean of layers > 0"
        yield _corrected(model, name, found.mean.eta2)


def _contexts(model: str, found: ContextSensitivity) -> Iterator[Measure]:
    flags = [[cell.sensitive for cell in word.layers] for word in found.words if word.layers]
    yield Measure(
        model=model,
        label="seed",
        name=SENSITIVE,
        statistic=found.seed_rate,
        units=tuple(float(sum(word)) / len(word) for word in flags) or None,
    )
    if found.mined is not None:
        sets = found.mined.sets
        yield _corrected(model, "1 − Jaccard between contexts of a token (corpus)", sets.between)
        yield _corrected(
            model, "1 − Jaccard beyond that of a shuffled context (corpus)", sets.excess
        )


def _corrected(model: str, name: str, statistic: Statistic) -> Measure:
    label: Literal["corrected"] = "corrected"
    return Measure(model=model, label=label, name=name, statistic=statistic)


def _units(layers: Sequence[Sequence[float | None]]) -> tuple[float, ...] | None:
    """Means over layers, prompt by prompt; None where any is missing."""
    means = []
    for values in zip(*layers, strict=True):
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        means.append(sum(known) / len(known))
    return tuple(means) or None
