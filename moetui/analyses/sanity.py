"""Checks of the readings themselves, on the model that a suite is about to judge.

Nothing here is a finding about the model. A check that fails says which numbers not to believe.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.router_margin import boundary, eligible_experts
from moetui.stats import Statistic, document_bootstrap, ratio_of_sums
from moetui.trace import Forward, ModelInfo, Trace
from moetui.trace.shares import centred

Numbers = NDArray[np.float64]

SHUFFLED_DEFINITION = (
    "share of the variance of the router's logits that another token of the same text explains: "
    "0 but for −1/(tokens − 1), whatever the model"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class SanitySums:
    """One text, for L layers.

    tokens: how many. same_logits: whether a pass that is watched ends in the very logits of one
    that is not. bounded: [L], tokens with a selected and an eligible unselected expert; ties:
    [L], those of them whose scores are equal. reproduced: [L], tokens whose experts the router
    chose again when handed the stream as it was; NaN where it cannot be asked. completeness: [L],
    worst token's; NaN without parts. covariance, variance: [L], Σ_t ⟨z̃_other(t), z̃_t⟩ and
    Σ_t ‖z̃_t‖² about the text's mean. first_ratio: seed's ratio at decoder layer 0, last token,
    NaN where that does not route; first_experts: largest |logit| that experts added there.
    routes_error: why the routers cannot be asked.
    """

    tokens: int
    same_logits: bool
    bounded: Numbers
    ties: Numbers
    reproduced: Numbers
    completeness: Numbers
    covariance: Numbers
    variance: Numbers
    first_ratio: float
    first_experts: float
    routes_error: str | None


class LayerSanity(msgspec.Struct, frozen=True, kw_only=True):
    """One layer.

    ties: rate of exact ties at the k-boundary, where the choice rests on the order of experts.
    reproduced: rate of tokens whose experts follow from their stream by the model's own norm,
    router and selection. shuffled: see `Sanity.shuffled_definition`. completeness: worst token's
    max_e |Σ_c z_c − z| / max_e |z|.
    """

    layer: int
    ties: Statistic | None
    reproduced: Statistic | None
    shuffled: Statistic
    completeness: float | None


class Sanity(msgspec.Struct, frozen=True, kw_only=True, tag="sanity"):
    """All checks, over `texts` texts.

    same_logits: of how many texts a watched pass ended in the logits of an unwatched one, bit for
    bit. reproduced_error: why routers cannot be asked. router_bits: of the coarsest router,
    None where nothing says. completeness_bound: what the precision allows. first_layer_ratio:
    the seed's ratio at layer 0, 0 by construction; first_layer_experts: whether experts add
    nothing to the logits there, as must be. Both None where layer 0 does not route.
    failed: the checks that failed, in words; empty where all passed.
    """

    texts: int
    tokens: int
    same_logits: int
    layers: tuple[LayerSanity, ...]
    shuffled_definition: str
    reproduced_error: str | None
    router_bits: int | None
    dtype: str
    completeness_bound: float
    first_layer_ratio: float | None
    first_layer_experts: bool | None
    failed: tuple[str, ...]


def sanity_sums(
    model: Forward,
    prompt: str | NDArray[np.int32],
    layers: Sequence[int],
    *,
    seed: int,
) -> SanitySums:
    """The checks on one text, at the decoder layers `layers`."""
    trace = model.trace(prompt, lens=0, sources=layers)
    at = [trace.layers.tolist().index(layer) for layer in layers]
    edges = [_ties(trace, index) for index in at]
    shuffled = [_shuffled(trace, index, seed) for index in at]
    complete = trace.completeness
    first = 0 in trace.layers
    ratio = None if trace.seed_ratio is None or not first else trace.seed_ratio[-1, 0]
    return SanitySums(
        tokens=len(trace),
        same_logits=np.array_equal(trace.logits, model.next_logits(trace.token_ids)),
        bounded=np.array([bounded for bounded, _ in edges], float),
        ties=np.array([ties for _, ties in edges], float),
        reproduced=np.array([_reproduced(model, trace, layer) for layer in layers]),
        completeness=np.full(len(at), np.nan)
        if complete is None
        else complete[:, at].max(axis=0).astype(float),
        covariance=np.array([covariance for covariance, _ in shuffled]),
        variance=np.array([variance for _, variance in shuffled]),
        first_ratio=float("nan") if ratio is None else float(ratio),
        first_experts=_experts_at_first(trace) if first else float("nan"),
        routes_error=model.routes_error,
    )


def _ties(trace: Trace, index: int) -> tuple[int, int]:
    z = trace.router_logits[:, index].astype(float)
    scores = trace.selection_scores
    s = z if scores is None else scores[:, index].astype(float)
    edge = boundary(trace.expert_ids[:, index], s, eligible_experts(s, z))
    if edge is None:
        return 0, 0
    inside, outside, defined = edge
    row = np.arange(len(s))
    equal = defined & (s[row, inside] == s[row, outside])
    return int(defined.sum()), int(equal.sum())


def _reproduced(model: Forward, trace: Trace, layer: int) -> float:
    if model.routes_error is not None or trace.sources is None:
        return float("nan")
    row = trace.sources.layers.tolist().index(layer)
    chosen = model.routes(layer, trace.sources.at_router[:, row])
    passed = np.sort(trace.expert_ids[:, trace.layers.tolist().index(layer)], axis=-1)
    return float((passed[:, -chosen.shape[-1] :] == chosen).all(axis=-1).sum())


def _shuffled(trace: Trace, index: int, seed: int) -> tuple[float, float]:
    z = centred(trace.router_logits[:, index], shift_invariant=trace.model.shift_invariant)
    z = np.nan_to_num(z - z.mean(axis=0))
    text = zlib.crc32(trace.token_ids.tobytes())
    other = np.random.default_rng([seed, index, text]).permutation(len(z))
    return float((z[other] * z).sum()), float((z**2).sum())


def _experts_at_first(trace: Trace) -> float:
    if trace.router_parts is None:
        return float("nan")
    experts = [g for g, name in enumerate(trace.part_names) if name in _ADDED_LATER]
    if not experts:
        return float("nan")
    return float(np.nanmax(np.abs(trace.router_parts[:, 0, experts]), initial=0.0))


# Parts to which decoder layer 0 adds only after its router.
_ADDED_LATER = ("routed experts", "shared expert", "experts, combined", "dense MLP")


def sanity(
    model: ModelInfo,
    texts: Sequence[SanitySums],
    layers: Sequence[int],
    *,
    seed: int,
) -> Sanity:
    """What the checks on all texts say. Raises ValueError for no texts."""
    if not texts:
        raise ValueError("checks need a text")
    rows = tuple(_layer(texts, index, layer, seed) for index, layer in enumerate(layers))
    ratios = [one.first_ratio for one in texts if np.isfinite(one.first_ratio)]
    added = [one.first_experts for one in texts if np.isfinite(one.first_experts)]
    bound = 1e-5 if model.dtype.endswith("float32") else 1e-3
    same = sum(one.same_logits for one in texts)
    first = all(value == 0 for value in added) if added else None
    return Sanity(
        texts=len(texts),
        tokens=sum(one.tokens for one in texts),
        same_logits=same,
        layers=rows,
        shuffled_definition=SHUFFLED_DEFINITION,
        reproduced_error=texts[0].routes_error,
        router_bits=model.router_bits,
        dtype=model.dtype,
        completeness_bound=bound,
        first_layer_ratio=float(np.mean(ratios)) if ratios else None,
        first_layer_experts=first,
        failed=_failed(rows, bound, len(texts) - same, first, ratios),
    )


def _layer(texts: Sequence[SanitySums], index: int, layer: int, seed: int) -> LayerSanity:
    def rate(hits: Callable[[SanitySums], float], of: Callable[[SanitySums], float]) -> Statistic:
        return document_bootstrap(
            ratio_of_sums([hits(one) for one in texts], [of(one) for one in texts]),
            len(texts),
            seed=seed,
            n_tokens=int(sum(of(one) for one in texts)),
        )

    asked = all(np.isfinite(one.reproduced[index]) for one in texts)
    bounded = sum(one.bounded[index] for one in texts) > 0
    worst = max(one.completeness[index] for one in texts)
    return LayerSanity(
        layer=layer,
        ties=rate(lambda one: one.ties[index], lambda one: one.bounded[index]) if bounded else None,
        reproduced=rate(lambda one: one.reproduced[index], lambda one: one.tokens)
        if asked
        else None,
        shuffled=document_bootstrap(
            ratio_of_sums(
                [one.covariance[index] for one in texts], [one.variance[index] for one in texts]
            ),
            len(texts),
            seed=seed,
            n_tokens=sum(one.tokens for one in texts),
        ),
        completeness=float(worst) if np.isfinite(worst) else None,
    )


def _failed(
    rows: Sequence[LayerSanity],
    bound: float,
    other_logits: int,
    first: bool | None,
    ratios: Sequence[float],
) -> tuple[str, ...]:
    found = []
    if other_logits:
        found.append(f"in {other_logits} texts the logits of a watched pass are others")
    for row in rows:
        if row.completeness is not None and row.completeness > bound:
            found.append(f"layer {row.layer}: the parts miss the logits by {row.completeness:.1e}")
        if row.reproduced is not None and row.reproduced.value != 1:
            rate = row.reproduced.value
            told = "no" if rate is None else f"{rate:.4%} of"
            found.append(f"layer {row.layer}: {told} tokens' experts follow from their stream")
    if first is False:
        found.append("layer 0: experts of earlier layers, of which there are none, add to logits")
    if any(ratio != 0 for ratio in ratios):
        found.append("layer 0: the seed's ratio, 0 by construction, is not 0")
    return tuple(found)
