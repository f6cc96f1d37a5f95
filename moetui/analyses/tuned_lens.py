"""Tuned lens: when it is fitted, to what, and how much nearer it comes to the model's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.corpus_used import CorpusUsed
from moetui.stats import Estimator, Statistic, document_intervals
from moetui.trace import Forward, ModelInfo, Trace, TunedLens
from moetui.trace.types import Floats

Numbers = NDArray[np.float64]

# A translator of a wider model has more parameters than a small corpus can settle.
WIDEST, ENOUGH_TOKENS = 512, 1_000_000
# Documents of the calibration text that decide when to stop, as a share of those that fit.
HELD_OUT = 0.3
# Documents below which there is nothing to fit to.
FEWEST = 20


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedLens:
    """What the calibration documents gave.

    lens: the translators; None with the reason. counts: int64 [V], how often each token occurs.
    """

    lens: TunedLens | None
    reason: str | None
    counts: NDArray[np.int64]
    documents: int


class LayerFit(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: KL(model ‖ layer) in nats on held-out calibration tokens, where training ended."""

    layer: int
    steps: int
    raw: Statistic
    tuned: Statistic


class TunedLensFit(msgspec.Struct, frozen=True, kw_only=True, tag="tuned_lens"):
    """The fit of a tuned lens; layers is empty, with the reason, where there is none.

    corpus: the calibration documents, None where none were asked for; corpus_tokens: of all of
    them; fit_*, held_out_*: what was used of them.
    """

    corpus: CorpusUsed | None
    reason: str | None
    corpus_documents: int
    corpus_tokens: int
    rank: int | None = None
    fit_documents: int = 0
    fit_tokens: int = 0
    held_out_documents: int = 0
    held_out_tokens: int = 0
    layers: tuple[LayerFit, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class FidelityRows:
    """Sums over the positions read of D documents: raw, tuned float64 [D, N] in nats (tuned is
    empty without a tuned lens), positions int64 [D]."""

    raw: Numbers
    tuned: Numbers
    positions: NDArray[np.int64]


class LayerFidelity(msgspec.Struct, frozen=True, kw_only=True):
    """KL(model ‖ layer) in nats: raw, tuned, and what tuning saves (raw − tuned), by document."""

    layer: int
    raw: Statistic
    tuned: Statistic | None
    saved: Statistic | None


class LensFidelity(msgspec.Struct, frozen=True, kw_only=True, tag="lens_fidelity"):
    """How far each layer's reading is from the model's output, on text that fitted nothing.
    corpus: these evaluation documents."""

    corpus: CorpusUsed | None
    layers: tuple[LayerFidelity, ...]


def why_not_tuned(info: ModelInfo, corpus_tokens: int) -> str | None:
    """Why no tuned lens is fitted unless asked for; None where it is."""
    if info.hidden_size <= WIDEST or corpus_tokens >= ENOUGH_TOKENS:
        return None
    return (
        f"no tuned lens: {info.hidden_size} hidden units are more than {WIDEST}, and "
        f"{corpus_tokens:,} calibration tokens fewer than the {ENOUGH_TOKENS:,} that so wide a "
        "translator needs; ask for it to have it all the same"
    )


def fitted_lens(
    model: Forward,
    texts: Sequence[str],
    *,
    fit_documents: int,
    tokens: int,
    asked: bool | None,
    seed: int,
    step: Callable[[int, int], None],
) -> FittedLens:
    """Fit translators to the first `tokens` tokens of `fit_documents` of the texts, drawn at
    random, and stop them by others.

    asked: True to fit whatever the width, False not to fit, None to go by `why_not_tuned`.
    """
    ids = [model.tokenize(text) for text in texts]
    counts = np.bincount(np.concatenate([*ids, np.empty(0, np.int32)]).astype(np.int64),
                         minlength=model.info.vocab_size)  # fmt: skip
    step(0, 1)
    reason = _refusal(model.info, len(texts), int(counts.sum()), asked)
    lens = None
    if reason is None:
        order = np.random.default_rng(seed).permutation(len(ids))
        used = [ids[i][:tokens] for i in order[: round(fit_documents * (1 + HELD_OUT))].tolist()]
        held_out = max(2, round(len(used) * HELD_OUT / (1 + HELD_OUT)))
        lens = model.fit_tuned_lens(used[held_out:], used[:held_out], seed=seed)
    step(1, 1)
    return FittedLens(
        lens=lens, reason=reason, counts=counts.astype(np.int64), documents=len(texts)
    )


def tuned_lens_fit(found: FittedLens, corpus: CorpusUsed | None) -> TunedLensFit:
    """What a reader must know of a fit."""
    lens = found.lens
    corpus_tokens = int(found.counts.sum())
    if lens is None:
        return TunedLensFit(
            corpus=corpus,
            reason=found.reason,
            corpus_documents=found.documents,
            corpus_tokens=corpus_tokens,
        )

    def statistic(value: float) -> Statistic:
        return Statistic(
            value=value,
            n_tokens=lens.held_out_tokens,
            n_documents=lens.held_out_documents,
            seed=lens.seed,
            caveat="on what stopped the training: no interval; see lens_fidelity",
        )

    return TunedLensFit(
        corpus=corpus,
        reason=None,
        corpus_documents=found.documents,
        corpus_tokens=corpus_tokens,
        rank=lens.rank,
        fit_documents=lens.fit_documents,
        fit_tokens=lens.fit_tokens,
        held_out_documents=lens.held_out_documents,
        held_out_tokens=lens.held_out_tokens,
        layers=tuple(
            LayerFit(layer=layer, steps=steps, raw=statistic(raw), tuned=statistic(tuned))
            for layer, (steps, raw, tuned) in enumerate(
                zip(lens.steps.tolist(), lens.kl_raw.tolist(), lens.kl_tuned.tolist(), strict=True)
            )
        ),
    )


def fidelity_rows(
    model: Forward,
    texts: Sequence[str],
    lens: TunedLens | None,
    *,
    tokens: int,
    positions: int,
    seed: int,
    step: Callable[[int, int], None],
) -> FidelityRows:
    """Read `positions` random positions of the first `tokens` tokens of every text."""
    raw, tuned, sizes = [], [], []
    for done, text in enumerate(texts, 1):
        ids = model.tokenize(text)[:tokens]
        rng = np.random.default_rng([seed, *text.encode()[:64]])
        rows = np.sort(rng.choice(len(ids), min(positions, len(ids)), replace=False))
        leaving = leaving_streams(model.trace(ids, lens=0, streams=True))[rows]
        raw.append(_total_kl(model, leaving, None))
        if lens is not None:
            tuned.append(_total_kl(model, leaving, lens))
        sizes.append(len(rows))
        step(done, len(texts))
    N = model.info.num_layers
    return FidelityRows(
        raw=np.array(raw).reshape(-1, N),
        tuned=np.array(tuned).reshape(-1, N),
        positions=np.array(sizes, np.int64),
    )


def leaving_streams(trace: Trace) -> Floats:
    """float32 [T, N, H], of a trace with its streams."""
    if trace.streams is None:
        raise ValueError("the trace was made without its streams")
    return trace.streams.leaving


def lens_fidelity(
    parts: Sequence[FidelityRows], corpus: CorpusUsed | None, *, seed: int
) -> LensFidelity:
    """KL by layer with intervals over documents."""
    raw = np.concatenate([part.raw for part in parts])
    tuned = np.concatenate([part.tuned for part in parts])
    sizes = np.concatenate([part.positions for part in parts]).astype(float)
    of_raw = _by_layer(raw, sizes, seed)
    both = len(tuned) == len(raw) > 0
    of_tuned = _by_layer(tuned, sizes, seed) if both else [None] * raw.shape[1]
    saved = _by_layer(raw - tuned, sizes, seed) if both else [None] * raw.shape[1]
    return LensFidelity(
        corpus=corpus,
        layers=tuple(
            LayerFidelity(layer=layer, raw=one, tuned=other, saved=gain)
            for layer, (one, other, gain) in enumerate(zip(of_raw, of_tuned, saved, strict=True))
            if one is not None
        ),
    )


def _total_kl(model: Forward, leaving: Floats, lens: TunedLens | None) -> Numbers:
    """[N]: KL of every layer, summed over the rows."""
    nothing: list[int] = []
    kl = model.read_words(leaving, nothing, tuned=lens, in_full=True).kl
    assert kl is not None
    total: Numbers = kl.sum(0, dtype=np.float64)
    return total


def _by_layer(sums: Numbers, sizes: Numbers, seed: int) -> list[Statistic | None]:
    found = document_intervals(_rates(sums, sizes), len(sizes), seed=seed)
    tokens = int(sizes.sum())
    return [found.statistic((layer,), n_tokens=tokens) for layer in range(sums.shape[1])]


def _rates(sums: Numbers, sizes: Numbers) -> Estimator:
    def estimate(weights: Numbers) -> Numbers:
        with np.errstate(invalid="ignore", divide="ignore"):
            rates: Numbers = (weights @ sums) / (weights @ sizes)[..., None]
        return np.moveaxis(rates, -1, 0)

    return estimate


def _refusal(info: ModelInfo, documents: int, tokens: int, asked: bool | None) -> str | None:
    if asked is False:
        return "no tuned lens was asked for"
    if documents < FEWEST:
        return f"no tuned lens: {documents} calibration documents, {FEWEST} needed"
    return None if asked else why_not_tuned(info, tokens)
