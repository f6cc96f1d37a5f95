"""Who decides which experts run: the token's embedding, or what attention and experts added?

Two answers side by side. The *seed* definition, as published: norms of two parts of the stream
that enters the layer, through the router's weight. The *corrected* one: signed shares of the
router's own logits, by everything that was added to the stream up to the router's input, where
they tell experts apart. See `moetui.trace.shares` for s_c; S_c and margins are in
`moetui.analyses.router_evidence`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.router_evidence import DocumentSums, Evidence, ShareEstimates, document_sums
from moetui.analyses.router_margin import MONOTONE, UNDEFINED
from moetui.analyses.source_shares import RouterSourceShares
from moetui.stats import Intervals, Statistic, finite
from moetui.trace import ModelInfo, Trace

EMBEDDING, ATTENTION = "embedding", "attention"
CORRECTION_BIAS = "correction bias"

SEED_DEFINITION = (
    "h = residual stream entering layer L, e = embedding, d = h − e, W = router weight, last "
    "token: ratio = ‖Wd‖ / (‖We‖ + ‖Wd‖)"
)
READ_WITH = (
    "shares say what the logits consist of; what would happen without a part is the causal check's "
    "answer, what the token alone foretells is η²'s (attention can carry the token's identity), "
    "and whether training made it so is the null model's"
)


class SeedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """The seed metric for one prompt's last token; None where it is undefined or missing.

    embed_norm, attention_norm: ‖We‖ and ‖Wd‖; cosine between We and Wd; the expert with the
    largest entry of each (None for a part that is zero); agree: the two are the same expert.
    """

    prompt: str
    ratio: float | None
    embed_norm: float | None
    attention_norm: float | None
    cosine: float | None
    embed_expert: int | None
    attention_expert: int | None
    agree: bool | None


class SeedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """The seed metric at one layer: mean and population standard deviation over prompts."""

    layer: int
    n_prompts: int
    ratio: float | None
    ratio_std: float | None
    embed_norm: float | None
    embed_norm_std: float | None
    attention_norm: float | None
    attention_norm_std: float | None
    cosine: float | None
    cosine_std: float | None
    agreement: float | None
    prompts: tuple[SeedPrompt, ...]


class SeedDecomposition(msgspec.Struct, frozen=True, kw_only=True):
    """What the seed reports: per layer, and the mean over the layers whose ratio is above 0."""

    label: str
    definition: str
    layers: tuple[SeedLayer, ...]
    mean_ratio: float | None


class PartShare(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the decision one part explains; over all parts each measure sums to 1.

    per_token: mean of s_c = ⟨z̃_c, z̃⟩/‖z̃‖². across_tokens: S_c = Σ_e Cov_t(z̃_c,e, z̃_e) /
    Σ_e Var_t(z̃_e), without what is the same for every token. margin: share of the gap between
    lowest selected and highest eligible unselected expert, ratio of sums over tokens.
    per_token and across_tokens are None for the correction bias, which is no part of the logits.
    """

    part: str
    per_token: Statistic | None
    across_tokens: Statistic | None
    margin: Statistic


class LayerShares(msgspec.Struct, frozen=True, kw_only=True):
    """The corrected decomposition at one layer, or (layer None) its mean over the layers.

    cancellation: mean of Σ_c ‖z̃_c‖ / ‖z̃‖, 1 where all parts agree. completeness: the worst
    token's max_e |Σ_c z_c − z| / max_e |z|. margin_unit: what the margin is measured in.
    missing_tokens: left out for want of data, those of dropped documents included.
    """

    layer: int | None
    parts: tuple[PartShare, ...]
    cancellation: Statistic
    completeness: float | None
    margin_unit: str | None
    missing_tokens: int


class CorrectedDecomposition(msgspec.Struct, frozen=True, kw_only=True):
    """The corrected decomposition over `documents` texts.

    positions: which tokens were read. tokens: the fewest that counted at any layer. mean: over
    mean_layers, those above decoder layer 0, where the seed's ratio is 0 by construction and its
    mean leaves it out (all layers where there is no other).
    """

    label: str
    positions: str
    documents: int
    tokens: int
    layers: tuple[LayerShares, ...]
    mean_layers: tuple[int, ...]
    mean: LayerShares
    caveats: tuple[str, ...]


def seed_decomposition(
    prompts: Sequence[tuple[str, Trace]], layers: Sequence[int]
) -> SeedDecomposition:
    """The seed metric of (text, trace) pairs at the decoder layers `layers`."""
    return seed_summary([seed_prompt(text, trace, layers) for text, trace in prompts], layers)


def seed_prompt(text: str, trace: Trace, layers: Sequence[int]) -> tuple[SeedPrompt, ...]:
    """The seed metric of one prompt at each of `layers`."""
    return tuple(_seed_prompt(text, trace, layer) for layer in layers)


def seed_summary(
    prompts: Sequence[tuple[SeedPrompt, ...]], layers: Sequence[int]
) -> SeedDecomposition:
    """The seed metric of prompts that `seed_prompt` has read."""
    found = tuple(
        _seed_layer(layer, [prompt[index] for prompt in prompts])
        for index, layer in enumerate(layers)
    )
    above = [layer.ratio for layer in found if layer.ratio is not None and layer.ratio > 0]
    return SeedDecomposition(
        label="seed",
        definition=SEED_DEFINITION,
        layers=found,
        mean_ratio=float(np.mean(above)) if above else None,
    )


def _seed_prompt(text: str, trace: Trace, layer: int) -> SeedPrompt:
    index = trace.layers.tolist().index(layer)
    parts, norms, ratio = trace.seed_parts, trace.seed_norms, trace.seed_ratio
    if parts is None or norms is None or ratio is None:
        return SeedPrompt(
            prompt=text, ratio=None, embed_norm=None, attention_norm=None, cosine=None,
            embed_expert=None, attention_expert=None, agree=None,
        )  # fmt: skip
    known = np.isfinite(trace.router_logits[:, index]).any(axis=0)
    embed, attention = parts[-1, index, :, known].astype(float).T
    sizes = norms[-1, index].astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = float(embed @ attention / (sizes[0] * sizes[1]))
    experts = np.flatnonzero(known)
    first, second = (_top(experts, part) for part in (embed, attention))
    complete = bool(np.isfinite(embed).all() and np.isfinite(attention).all())
    return SeedPrompt(
        prompt=text,
        ratio=finite(float(ratio[-1, index])),
        embed_norm=finite(float(sizes[0])),
        attention_norm=finite(float(sizes[1])),
        cosine=finite(cosine),
        embed_expert=first,
        attention_expert=second,
        # A part that is zero prefers no expert, so it agrees with none (the seed's 0 % at layer 0).
        agree=first is not None and first == second if complete else None,
    )


def _top(experts: NDArray[np.intp], part: NDArray[np.float64]) -> int | None:
    if not len(part) or not np.isfinite(part).all() or not part.any():
        return None
    return int(experts[part.argmax()])


def _seed_layer(layer: int, prompts: list[SeedPrompt]) -> SeedLayer:
    def summary(name: str) -> tuple[float | None, float | None]:
        known = [value for p in prompts if (value := getattr(p, name)) is not None]
        return (float(np.mean(known)), float(np.std(known))) if known else (None, None)

    ratio, embed, attention, cosine = map(
        summary, ("ratio", "embed_norm", "attention_norm", "cosine")
    )
    return SeedLayer(
        layer=layer,
        n_prompts=sum(p.ratio is not None for p in prompts),
        ratio=ratio[0],
        ratio_std=ratio[1],
        embed_norm=embed[0],
        embed_norm_std=embed[1],
        attention_norm=attention[0],
        attention_norm_std=attention[1],
        cosine=cosine[0],
        cosine_std=cosine[1],
        agreement=summary("agree")[0],
        prompts=tuple(prompts),
    )


def prompt_sums(trace: Trace, layers: Sequence[int]) -> DocumentSums:
    """What the corrected decomposition keeps of a prompt: its last token, as the seed does."""
    return document_sums(trace, layers, last_only=True)


def corrected_decomposition(
    model: ModelInfo,
    documents: Iterable[DocumentSums],
    layers: Sequence[int],
    *,
    positions: str,
    seed: int,
) -> CorrectedDecomposition | None:
    """The corrected decomposition over documents; None where no token of any has all its data.

    Documents without a single usable token at one of the layers are left out and reported.
    """
    given = list(documents)
    usable = tuple(document for document in given if document.tokens.all())
    if not usable:
        return None
    evidence = Evidence(usable)
    above = [index for index, layer in enumerate(layers) if layer > 0] or list(range(len(layers)))
    estimates = evidence.estimate(mean_over=above, seed=seed)
    missing = np.sum([document.missing for document in given], axis=0).astype(int)
    shares = tuple(
        _layer_shares(model, evidence, estimates, index, layer, int(lost))
        for index, (layer, lost) in enumerate(
            zip((*layers, None), (*missing, missing.max()), strict=True)
        )
    )
    dropped = len(given) - len(usable)
    return CorrectedDecomposition(
        label="corrected",
        positions=positions,
        documents=len(usable),
        tokens=int(evidence.tokens.min()),
        layers=shares[:-1],
        mean_layers=tuple(layers[index] for index in above),
        mean=shares[-1],
        caveats=(
            *([f"{dropped} documents dropped: no usable token"] if dropped else []),
            *([f"up to {missing.max()} tokens a layer missing"] if missing.any() else []),
            *_completeness_caveat(model, evidence),
            READ_WITH,
        ),
    )


def _completeness_caveat(model: ModelInfo, evidence: Evidence) -> list[str]:
    bound = 1e-5 if model.dtype.endswith("float32") else 1e-3
    worst = float(evidence.completeness.max())
    if worst <= bound:
        return []
    return [f"the parts miss up to {worst:.1e} of the logits (at most {bound:.0e} expected)"]


def _layer_shares(
    model: ModelInfo,
    evidence: Evidence,
    estimates: ShareEstimates,
    index: int,
    layer: int | None,
    missing: int,
) -> LayerShares:
    """Row `index` of the estimates; the row after the last layer is the mean (layer None)."""
    counted = evidence.tokens
    tokens = int(counted.min()) if layer is None else int(counted[index])
    links = evidence.margin_links

    def read(found: Intervals, column: int, effective: float | None = None) -> Statistic:
        return found.statistic((index, column), n_tokens=tokens, n_effective=effective)

    parts = [
        PartShare(
            part=name,
            per_token=read(
                estimates.per_token,
                column,
                None if layer is None else float(estimates.effective[index, column]),
            ),
            across_tokens=read(estimates.across_tokens, column),
            margin=read(estimates.margin, column),
        )
        for column, name in enumerate(model.part_names)
    ]
    if any(link not in (MONOTONE, UNDEFINED) for link in links):
        bias = read(estimates.margin, len(model.part_names))
        parts.append(
            PartShare(part=CORRECTION_BIAS, per_token=None, across_tokens=None, margin=bias)
        )
    worst = evidence.completeness.max() if layer is None else evidence.completeness[index]
    return LayerShares(
        layer=layer,
        parts=tuple(parts),
        cancellation=read(estimates.cancellation, 0),
        completeness=finite(float(worst)),
        margin_unit=None if layer is None else _unit(links[index]),
        missing_tokens=missing,
    )


def _unit(link: str) -> str:
    return {MONOTONE: "router logit", UNDEFINED: "undefined"}.get(link, f"score, {link}")


class PromptDecomposition(msgspec.Struct, frozen=True, kw_only=True, tag="prompt_decomposition"):
    """The seed's prompts, seed beside corrected; both read the last token of each prompt.

    corrected is None where `reason` says what is missing.
    """

    seed: SeedDecomposition
    corrected: CorrectedDecomposition | None
    reason: str | None


class CorpusDecomposition(msgspec.Struct, frozen=True, kw_only=True, tag="corpus_decomposition"):
    """The corrected decomposition over a sample of documents, all tokens of each.

    sources: the across-token share by the layer that added it. corpus: which one; sampled of
    available documents, each cut to max_tokens tokens. documents_digest: SHA-256 over the sampled
    documents' ids and texts. caveat: of the corpus.
    """

    corrected: CorrectedDecomposition | None
    sources: tuple[RouterSourceShares, ...] = ()
    reason: str | None
    corpus: str
    sampled: int
    available: int
    max_tokens: int
    documents_digest: str
    caveat: str | None = None
