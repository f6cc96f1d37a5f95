"""How easily routing changes: by noise, a typing error, another wording, fewer bits.

The change of a token's chosen sets, 1 − Jaccard, mean over the routing layers, beside the same
between tokens of different texts: what a change would be that leaves nothing of the token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.corpus_used import CorpusUsed
from moetui.analyses.manipulation import MINIMUM
from moetui.analyses.manipulation_targets import generator
from moetui.analyses.misrouting import set_change
from moetui.errors import UsageError
from moetui.stats import Statistic, document_bootstrap, joined, permutation_p, ratio_of_sums
from moetui.stats.minimum import warned
from moetui.trace import Forward, PatchPart, Trace
from moetui.trace.types import ExpertIds, Ints

Numbers = NDArray[np.float64]

DEFINITION = (
    "change: 1 − Jaccard of a token's chosen sets, mean over routing layers and tokens; other "
    "sets: share of tokens and layers in which the set is another one; noise is Gaussian and as "
    "long, relative to each token's vector, as is said; null: last tokens of other documents, by "
    "20 permutations. Where text is changed the last token is looked at, if it is the same"
)
LAST_TOKENS = "null: last tokens only, beside a change of all tokens"
DRAWS = 20
_NOISE, _TYPO = 31, 32


@dataclass(frozen=True, eq=False, kw_only=True)
class Perturbed:
    """One document under P perturbations: changed, flipped: float64 [P], Σ over tokens of the mean
    over layers of 1 − Jaccard, and of "another set"; tokens: float64 [P], how many count. last:
    int16 [L, k], the experts of its last token. reasons: [P], "" where it was tried."""

    changed: Numbers
    flipped: Numbers
    tokens: Numbers
    last: ExpertIds
    reasons: tuple[str, ...]


class Flips(msgspec.Struct, frozen=True, kw_only=True):
    """One perturbation; change has the null, flipped is the share of sets that are others."""

    name: str
    change: Statistic | None
    flipped: Statistic | None
    missing: str | None = None


class RoutingRobustness(msgspec.Struct, frozen=True, kw_only=True, tag="routing_robustness"):
    """Over `documents` documents of at most `tokens` tokens. prompt: the seed's prompt under single
    typing errors, mean Jaccard of its last token's sets (as the seed would: no interval, no null);
    variants: how many."""

    definition: str
    corpus: CorpusUsed | None
    documents: int
    tokens: int
    perturbations: tuple[Flips, ...]
    prompt: Statistic | None
    variants: int


def names(noise: Sequence[float], bits: Sequence[int]) -> tuple[str, ...]:
    """What the perturbations are called, in their order."""
    return (
        *(f"noise on the embedding, {size:g} of its length" for size in noise),
        *(f"noise on the routers' stream, {size:g} of its length" for size in noise),
        "typing error in an earlier word",
        *(f"weights in {one} bits" for one in bits),
    )


def perturb(
    model: Forward,
    text: str,
    max_tokens: int,
    noise: Sequence[float],
    rounded: Sequence[ExpertIds | str],
    *,
    seed: int,
) -> Perturbed:
    """Everything for one document. rounded: its experts with fewer bits, by `rounded_experts`.
    Raises UsageError for a text without a token."""
    ids = model.tokenize(text)[:max_tokens]
    trace = model.trace(ids, lens=0, streams=True)
    found: list[tuple[ExpertIds, ExpertIds] | str] = []
    found += [_embedding_noise(model, trace, size, seed) for size in noise]
    found += [_stream_noise(model, trace, size, seed) for size in noise]
    found.append(_typo(model, text, trace, max_tokens, seed))
    found += [one if isinstance(one, str) else (trace.expert_ids, one) for one in rounded]
    rows = [_sums(one) for one in found]
    return Perturbed(
        changed=np.array([row[0] for row in rows]),
        flipped=np.array([row[1] for row in rows]),
        tokens=np.array([row[2] for row in rows]),
        last=np.sort(trace.expert_ids[-1], axis=-1),
        reasons=tuple(one if isinstance(one, str) else "" for one in found),
    )


def rounded_experts(
    model: Forward, texts: Sequence[str], max_tokens: int, bits: int
) -> list[ExpertIds | str]:
    """The experts of every text with weights of so many bits, or why there are none."""
    if model.quantised_error is not None:
        return [model.quantised_error] * len(texts)
    with model.quantised(bits):
        return [
            model.trace(model.tokenize(text)[:max_tokens], lens=0, residuals=False).expert_ids
            for text in texts
        ]


def typo(text: str, rng: np.random.Generator) -> str | None:
    """Two neighbouring letters of a word exchanged, never in the last word; None without any."""
    words = text.split(" ")
    able = [
        (at, letter)
        for at, word in enumerate(words[:-1])
        for letter in range(len(word) - 1)
        if word[letter].isalnum() and word[letter + 1].isalnum()
        if word[letter] != word[letter + 1]
    ]
    if not able:
        return None
    at, letter = able[int(rng.integers(len(able)))]
    word = words[at]
    words[at] = word[:letter] + word[letter + 1] + word[letter] + word[letter + 2 :]
    return " ".join(words)


def prompt_stability(model: Forward, prompt: str, variants: int, *, seed: int) -> list[float]:
    """Mean Jaccard of the last token's sets with those after single typing errors in the prompt."""
    ids = model.tokenize(prompt)
    base = model.trace(ids, lens=0, residuals=False).expert_ids[-1]
    found = []
    for at in range(variants):
        changed = typo(f"{prompt} ", np.random.default_rng([seed, at]))
        if changed is not None:
            other = model.trace(changed[:-1], lens=0, residuals=False).expert_ids[-1]
            found.append(float(1 - set_change(base, other).mean()))
    return found


def routing_robustness(
    documents: Sequence[Perturbed],
    called: Sequence[str],
    stability: Sequence[float],
    *,
    tokens: int,
    corpus: CorpusUsed | None,
    seed: int,
) -> RoutingRobustness:
    """What all documents say. Raises ValueError for none."""
    if not documents:
        raise ValueError("robustness is judged by documents")
    draws = other_documents([one.last for one in documents], seed=seed)
    return RoutingRobustness(
        definition=DEFINITION,
        corpus=corpus,
        documents=len(documents),
        tokens=tokens,
        perturbations=tuple(
            _flips(at, name, documents, draws, seed) for at, name in enumerate(called)
        ),
        prompt=Statistic(
            value=float(np.mean(stability)),
            n_documents=1,
            caveat="as published: no interval, no null",
        )
        if stability
        else None,
        variants=len(stability),
    )


def other_documents(last: Sequence[ExpertIds], *, seed: int) -> Numbers:
    """[draws]: mean change from a document's last token to that of another one."""
    ids = np.stack(last)
    if len(ids) < 2:
        return np.empty(0)
    rng = np.random.default_rng(seed)
    shifts = rng.integers(1, len(ids), size=DRAWS)
    orders = [rng.permutation(len(ids)) for _ in range(DRAWS)]
    return np.array(
        [
            set_change(ids[order], ids[np.roll(order, shift)]).mean()
            for order, shift in zip(orders, shifts.tolist(), strict=True)
        ]
    )


def _flips(at: int, name: str, documents: Sequence[Perturbed], draws: Numbers, seed: int) -> Flips:
    tokens = np.array([one.tokens[at] for one in documents])
    used = tokens > 0
    if not used.any():
        reasons = [one.reasons[at] for one in documents if one.reasons[at]]
        return Flips(
            name=name, change=None, flipped=None, missing=reasons[0] if reasons else "no token"
        )
    change, flipped = (
        warned(
            document_bootstrap(
                ratio_of_sums(np.array([getattr(one, kind)[at] for one in documents])[used],
                              tokens[used]),
                int(used.sum()), seed=seed, n_tokens=int(tokens.sum()),
            ),
            MINIMUM,
            contexts=int(used.sum()),
        )
        for kind in ("changed", "flipped")
    )  # fmt: skip
    if change.value is not None and len(draws):
        low, high = np.quantile(draws, [0.025, 0.975]).tolist()
        change = msgspec.structs.replace(
            change,
            null_mean=float(draws.mean()),
            null_low=low,
            null_high=high,
            p=permutation_p(change.value, draws, tail="less"),
            caveat=joined(LAST_TOKENS if (tokens > 1).any() else None, change.caveat),
        )
    return Flips(name=name, change=change, flipped=flipped)


def _sums(found: tuple[ExpertIds, ExpertIds] | str) -> tuple[float, float, float]:
    """Sums over tokens of sets [T, L, k] before and after."""
    if isinstance(found, str):
        return 0.0, 0.0, 0.0
    change = set_change(*found)
    return (
        float(change.mean(axis=1).sum()),
        float((change > 0).mean(axis=1).sum()),
        float(len(change)),
    )


def _embedding_noise(
    model: Forward, trace: Trace, size: float, seed: int
) -> tuple[ExpertIds, ExpertIds] | str:
    assert trace.streams is not None
    noisy = _noisy(trace.streams.entering[:, 0], size, seed, trace.token_ids)
    change = PatchPart(part="embedding", layer=0, values=noisy, rows=tuple(range(len(trace))))
    try:
        after = model.trace(
            trace.token_ids, lens=0, residuals=False, interventions=[change]
        ).expert_ids
    except UsageError as error:
        return error.message
    return trace.expert_ids, after


def _stream_noise(
    model: Forward, trace: Trace, size: float, seed: int
) -> tuple[ExpertIds, ExpertIds] | str:
    """Every router is asked by itself: noise at one does not reach the next."""
    if model.routes_error is not None:
        return model.routes_error
    assert trace.streams is not None
    after = np.full_like(trace.expert_ids, -1)
    for row, layer in enumerate(trace.layers.tolist()):
        noisy = _noisy(trace.streams.at_router[:, layer], size, seed + row, trace.token_ids)
        chosen = model.routes(layer, noisy)
        after[:, row, : chosen.shape[-1]] = chosen
    return trace.expert_ids, after


def _typo(
    model: Forward, text: str, trace: Trace, max_tokens: int, seed: int
) -> tuple[ExpertIds, ExpertIds] | str:
    """In the part of the text that was read; the last token must be the same afterwards."""
    read = "".join(trace.tokens)
    whole = text[: max(1, min(len(text), len(read)))]
    base = model.trace(model.tokenize(whole)[: 2 * max_tokens], lens=0, residuals=False)
    changed = typo(whole, generator(seed, _TYPO, trace.token_ids))
    if changed is None:
        return "no word with two different letters"
    other = model.trace(model.tokenize(changed)[: 2 * max_tokens], lens=0, residuals=False)
    if other.token_ids[-1] != base.token_ids[-1]:
        return "the last token is another one after it"
    return base.expert_ids[-1:], other.expert_ids[-1:]


def _noisy(vectors: NDArray[np.float32], size: float, seed: int, ids: Ints) -> NDArray[np.float32]:
    """Vectors [T, H] with noise of `size` times their length."""
    noise = generator(seed, _NOISE, ids).standard_normal(vectors.shape)
    noise *= (
        size
        * np.linalg.norm(vectors, axis=-1, keepdims=True)
        / np.linalg.norm(noise, axis=-1, keepdims=True)
    )
    return (vectors + noise).astype(np.float32)
