"""Would the router choose other experts without a part? Asked of the router itself.

Shares say what logits consist of. Here a part of the stream at a router is replaced, by its mean
over the corpus or by what it was at a token of another document, and the model's own norm, router
and selection run on the changed stream: nothing is frozen. Only this router sees the change.
Directions drawn at random, as long as the change, show how much any change of that size does.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.attention_router import ATTENTION
from moetui.stats import (
    Intervals,
    Statistic,
    document_bootstrap,
    document_intervals,
    permutation_p,
    ratio_of_sums,
)
from moetui.trace import Forward, ModelInfo, Trace
from moetui.trace.types import Floats

Numbers = NDArray[np.float64]

DIRECTIONS = 20
# What stands in a part's place, in the order of the axis K.
BY_MEAN, BY_RESAMPLE = "mean of the corpus", "a token of another document"
REPLACEMENTS = (BY_MEAN, BY_RESAMPLE)
DECIDES, DECIDES_NOT = "attention matters most", "attention does not matter most"
DEFINITION = (
    "at a router's own input a part is replaced, the norm is computed anew and the model's own "
    "router chooses: 1 − Jaccard of the chosen set with what it was; null: random directions with "
    "the length of the change, paired token by token. A replacement takes the part away, a random "
    "direction leaves it where it is: of a part that makes up most of the stream, some of what "
    "goes beyond them is just that"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class PartMoments:
    """What the replacements of R routers and P parts are made of, from one document.

    document: its id. tokens: how many. total: float64 [R, P, H], the parts' sum over tokens.
    one: float32 [R, P, H], the parts at one token, drawn by the seed and the text.
    """

    document: str
    tokens: int
    total: Numbers
    one: Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class CausalSums:
    """Sums over the tokens that were asked about in one document (K replacements, J directions).

    tokens: how many. reproduced: [R], those whose experts the router chose again when it was
    handed the stream as it was. change: [R, P, K], Σ of 1 − Jaccard after the replacement;
    random: [R, P, K, J], after the random directions. length: [R, P, K], Σ ‖change‖ / ‖stream‖.
    """

    tokens: int
    reproduced: Numbers
    change: Numbers
    random: Numbers
    length: Numbers


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """What one replacement does.

    change: mean of 1 − Jaccard; its null is the mean over random directions of the same length,
    with the band of their 20 draws, p = (1 + #{draws ≥ value}) / (1 + draws). excess: change less
    the mean of the random directions. length: ‖change‖ / ‖stream‖.
    """

    change: Statistic
    excess: Statistic
    length: Statistic


class PartEffects(msgspec.Struct, frozen=True, kw_only=True):
    """Both replacements of one part."""

    part: str
    mean: Effect
    resample: Effect


class LayerEffects(msgspec.Struct, frozen=True, kw_only=True):
    """One router, or (layer None) the mean over `CausalCheck.mean_layers`.

    lead: attention's change by resample less that of the part that comes next to it or goes
    ahead; above 0 where no other part matters as much. None without attention or other parts.
    """

    layer: int | None
    parts: tuple[PartEffects, ...]
    lead: Statistic | None


class CausalCheck(msgspec.Struct, frozen=True, kw_only=True, tag="causal_check"):
    """Over `tokens` tokens of `documents` documents.

    reproduced: of how many, worst layer, the router chose the same experts again when handed its
    own stream. verdict: "attention matters most" where replacing attention by a resample changes
    the experts more than random directions do and more than replacing any other part, both by
    95 % intervals over documents in the mean over layers; "attention does not matter most" where
    either is refuted by them; else "unclear", or "inconclusive" with the reason.
    """

    definition: str
    layers: tuple[LayerEffects, ...]
    mean_layers: tuple[int, ...]
    mean: LayerEffects
    directions: int
    documents: int
    tokens: int
    reproduced: Statistic
    verdict: str
    reason: str | None


def part_moments(trace: Trace, document: str, *, seed: int) -> PartMoments:
    """What one document contributes to the replacements of others.

    Raises ValueError where the trace was made without sources.
    """
    if trace.sources is None:
        raise ValueError("the trace holds no sources")
    parts = trace.sources.parts
    row = int(_generator(seed, trace, 0).integers(len(trace)))
    total = parts.sum(axis=0, dtype=np.float64)
    return PartMoments(document=document, tokens=len(trace), total=total, one=parts[row].copy())


def causal_sums(
    model: Forward,
    trace: Trace,
    document: str,
    moments: Sequence[PartMoments],
    *,
    tokens: int,
    seed: int,
    directions: int = DIRECTIONS,
) -> CausalSums:
    """Ask the routers about `tokens` tokens of one document, drawn by seed and text.

    moments: those of the whole corpus; the resamples are drawn from other documents'.
    Raises ValueError without sources, or where there is no other document.
    """
    others = [one for one in moments if one.document != document]
    if trace.sources is None or not others:
        raise ValueError("a causal check needs sources and another document")
    rng = _generator(seed, trace, 1)
    rows = np.sort(rng.choice(len(trace), min(tokens, len(trace)), replace=False))
    mean = sum(one.total for one in moments) / sum(one.tokens for one in moments)
    donors = rng.integers(len(others), size=len(rows))
    parts = trace.sources.parts[rows]  # [n, R, P, H]
    instead = np.stack(
        [np.broadcast_to(mean, parts.shape), np.stack([others[d].one for d in donors])], axis=3
    )
    changes = instead - parts[:, :, :, None]  # [n, R, P, K, H]
    at = [trace.layers.tolist().index(layer) for layer in trace.sources.layers.tolist()]
    found = [
        _ask(
            model,
            layer,
            trace.sources.at_router[rows, index].astype(np.float64),
            changes[:, index].astype(np.float64),
            trace.expert_ids[rows, at[index]],
            directions,
            rng,
        )
        for index, layer in enumerate(trace.sources.layers.tolist())
    ]
    reproduced, change, random, length = (np.stack(values) for values in zip(*found, strict=True))
    return CausalSums(
        tokens=len(rows), reproduced=reproduced, change=change, random=random, length=length
    )


def causal_check(
    model: ModelInfo,
    documents: Sequence[CausalSums],
    layers: Sequence[int],
    *,
    minimum: int,
    seed: int,
) -> CausalCheck:
    """What the sums of all documents say at the decoder layers `layers`.

    minimum: below so many documents the verdict is inconclusive. Raises ValueError for none.
    """
    if not documents:
        raise ValueError("a causal check needs documents")
    found = _Effects(model, documents, layers)
    intervals = document_intervals(found.estimate, len(documents), seed=seed)
    rows = tuple(
        _layer_effects(found, intervals, row, layer) for row, layer in enumerate((*layers, None))
    )
    verdict, reason = _verdict(rows[-1], len(documents), minimum)
    tokens = sum(one.tokens for one in documents)
    least = int(found.reproduced.argmin())
    return CausalCheck(
        definition=DEFINITION,
        layers=rows[:-1],
        mean_layers=tuple(layers[index] for index in found.mean_over),
        mean=rows[-1],
        directions=found.directions,
        documents=len(documents),
        tokens=tokens,
        reproduced=document_bootstrap(
            ratio_of_sums(
                [one.reproduced[least] for one in documents], [one.tokens for one in documents]
            ),
            len(documents),
            seed=seed,
            n_tokens=tokens,
        ),
        verdict=verdict,
        reason=reason,
    )


class _Effects:
    """The sums of all documents, ready to be estimated from; the columns of `estimate` are
    change, excess, length [P, K each], then the lead."""

    def __init__(
        self, model: ModelInfo, documents: Sequence[CausalSums], layers: Sequence[int]
    ) -> None:
        change = np.stack([one.change for one in documents])  # [D, R, P, K]
        random = np.stack([one.random for one in documents])
        length = np.stack([one.length for one in documents])
        self.parts = model.part_names[: change.shape[2]]
        self.mean_over = [i for i, layer in enumerate(layers) if layer > 0] or [*range(len(layers))]
        self.directions = random.shape[-1]
        self._tokens = np.array([one.tokens for one in documents], float)
        self._sums = np.stack([change, change - random.mean(axis=-1), length], axis=2)
        self.reproduced = np.sum([one.reproduced for one in documents], axis=0)
        draws = random.sum(axis=0) / self._tokens.sum()  # [R, P, K, J]
        self.draws = np.concatenate([draws, draws[self.mean_over].mean(axis=0, keepdims=True)])
        self.attention = self.parts.index(ATTENTION) if ATTENTION in self.parts else None

    def estimate(self, weights: Numbers) -> Numbers:
        """[R + 1, 3·P·K + 1, resamples]; the last row is the mean over `mean_over`."""
        tokens = (weights @ self._tokens)[:, None, None, None, None]
        values = np.tensordot(weights, self._sums, axes=1) / tokens  # [n, R, 3, P, K]
        mean = values[:, self.mean_over].mean(axis=1, keepdims=True)
        whole = np.concatenate([values, mean], axis=1)
        lead = np.full(whole.shape[:2], np.nan)
        if self.attention is not None and len(self.parts) > 1:
            change = whole[:, :, 0, :, REPLACEMENTS.index(BY_RESAMPLE)]
            rest = np.delete(change, self.attention, axis=-1).max(axis=-1)
            lead = change[..., self.attention] - rest
        flat = whole.reshape(*whole.shape[:2], -1)
        return np.moveaxis(np.concatenate([flat, lead[..., None]], axis=-1), 0, -1)


def _layer_effects(
    found: _Effects, intervals: Intervals, row: int, layer: int | None
) -> LayerEffects:
    P, K = len(found.parts), len(REPLACEMENTS)

    def effect(part: int, kind: int) -> Effect:
        change, excess, length = (
            intervals.statistic((row, (measure * P + part) * K + kind)) for measure in range(3)
        )
        draws = found.draws[row, part, kind]
        low, high = np.quantile(draws, [0.025, 0.975]).tolist()
        null = {"null_mean": float(draws.mean()), "null_low": low, "null_high": high}
        if change.value is not None:
            change = msgspec.structs.replace(change, p=permutation_p(change.value, draws), **null)
        return Effect(change=change, excess=excess, length=length)

    lead = intervals.statistic((row, 3 * P * K))
    return LayerEffects(
        layer=layer,
        parts=tuple(
            PartEffects(part=name, mean=effect(part, 0), resample=effect(part, 1))
            for part, name in enumerate(found.parts)
        ),
        lead=None if lead.value is None else lead,
    )


def _verdict(mean: LayerEffects, documents: int, minimum: int) -> tuple[str, str | None]:
    attention = next((part for part in mean.parts if part.part == ATTENTION), None)
    if attention is None or mean.lead is None:
        return "inconclusive", "attention is no part of its own in this architecture"
    if documents < minimum:
        return "inconclusive", f"{documents} documents, {minimum} needed"
    if attention.resample.change.value == 0:
        return DECIDES_NOT, None
    excess, lead = attention.resample.excess, mean.lead
    if excess.ci_low is None or lead.ci_low is None:
        return "inconclusive", excess.caveat or lead.caveat or "no interval"
    assert excess.ci_high is not None and lead.ci_high is not None
    if excess.ci_low > 0 and lead.ci_low > 0:
        return DECIDES, None
    if excess.ci_high < 0 or lead.ci_high < 0:
        return DECIDES_NOT, None
    return "unclear", None


def _ask(
    model: Forward,
    layer: int,
    stream: Numbers,
    changes: Numbers,
    passed: NDArray[np.int16],
    directions: int,
    rng: np.random.Generator,
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """One router: streams [n, H], changes [n, P, K, H], experts of the pass [n, k]. All streams
    in one call: equal streams then are computed alike."""
    n, P, K, H = changes.shape
    size = np.linalg.norm(changes, axis=-1)
    noise = rng.standard_normal((n, P, K, directions, H))
    noise *= (size[..., None] / np.linalg.norm(noise, axis=-1))[..., None]
    tried = np.concatenate([changes[:, :, :, None], noise], axis=3).reshape(n, -1, H)
    asked = np.concatenate([stream[:, None], stream[:, None] + tried], axis=1)
    answers = model.routes(layer, asked.reshape(-1, H).astype(np.float32))
    ids = answers.reshape(n, asked.shape[1], -1)
    base, k = ids[:, 0], ids.shape[-1]
    in_pass = np.sort(passed, axis=-1)[:, -k:]  # padding, −1, comes first
    shared = (ids[:, 1:, :, None] == base[:, None, None, :]).sum(axis=(-2, -1))
    moved = (1 - shared / (2 * k - shared)).reshape(n, P, K, 1 + directions)
    with np.errstate(invalid="ignore", divide="ignore"):
        length = size / np.linalg.norm(stream, axis=-1)[:, None, None]
    return (
        np.array((in_pass == base).all(axis=-1).sum(), float),
        moved[..., 0].sum(axis=0),
        moved[..., 1:].sum(axis=0),
        np.nan_to_num(length).sum(axis=0),
    )


def _generator(seed: int, trace: Trace, purpose: int) -> np.random.Generator:
    """By the tokens, not the name: one text is asked about in one way, wherever it comes from."""
    return np.random.default_rng([seed, purpose, zlib.crc32(trace.token_ids.tobytes())])
