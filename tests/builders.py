"""Synthetic models, traces and recordings that are consistent inside, for tests without a model.

Everything follows from random parts by the definitions of the types: router logits are the sum of
their parts, ids are the best by selection score, weights are softmax factors, and the lens arrays
are read from one full table of logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moetui.analyses.expert_load import RunLoad, run_load
from moetui.trace import LensReadout, ModelInfo, Phase, Recording, Snapshot, TokenKind, Trace

Array = NDArray[np.float64]

PARTS = ("embedding", "attention", "experts, combined")
SENTENCE = "The| capital| of| France| is| Paris|,| a| city|.|\n|127| +| 45| =| 172|def| fib|(|n|):"
WORDS = tuple(SENTENCE.split("|"))


def make_model_info(
    *,
    num_layers: int = 4,
    num_experts: int = 16,
    top_k: int = 4,
    moe_layers: Sequence[int] | None = None,
    vocab_size: int = 96,
    **changes: object,
) -> ModelInfo:
    """A small MoE model; `moe_layers=()` makes it dense."""
    moe = tuple(range(num_layers)) if moe_layers is None else tuple(moe_layers)
    fields: dict[str, object] = {
        "name": "synthetic",
        "architecture": "olmoe",
        "digest": "0123456789abcdef",
        "num_layers": num_layers,
        "moe_layers": moe,
        "num_experts": num_experts if moe else 0,
        "top_k": top_k if moe else 0,
        "hidden_size": 32,
        "vocab_size": vocab_size,
        "parameters": 1_000_000,
        "weight_bytes": 4_000_000,
        "dtype": "float32",
        "backend": "cpu",
        "part_names": PARTS if moe else (),
    }
    return ModelInfo(**{**fields, **changes})  # type: ignore[arg-type]


def make_trace(
    T: int = 6,
    N: int = 4,
    E: int = 16,
    k: int = 4,
    seed: int = 0,
    *,
    moe_layers: Sequence[int] | None = None,
    layer_experts: Mapping[int, int] | None = None,
    tokens: Sequence[str] | None = None,
    kinds: Sequence[TokenKind] | None = None,
    prompt_tokens: int | None = None,
    lens_positions: Sequence[int] | None = None,
    lens_top: int = 5,
    with_parts: bool = True,
    with_lens: bool = True,
    info: Mapping[str, object] | None = None,
) -> Trace:
    """A trace of T tokens through N decoder layers with E experts, k of them used.

    moe_layers: the layers that route (all by default; () for a dense model).
    layer_experts: decoder layer → number of experts where that is less than E (padded with NaN).
    lens_positions: rows that the lens read (all by default).
    """
    rng = np.random.default_rng(seed)
    model = make_model_info(
        num_layers=N, num_experts=E, top_k=k, moe_layers=moe_layers, **(info or {})
    )
    layers = np.array(model.moe_layers, np.int32)
    G, L = len(model.part_names), len(layers)
    E, k = (E, k) if L else (0, 0)
    growth = np.linspace(0.3, 1.5, max(L, 1))[:L, None, None]
    parts = rng.normal(size=(T, L, G, E)) * growth * np.linspace(0.6, 1.4, max(G, 1))[:G, None]
    parts = parts.astype(np.float32)
    for row, layer in enumerate(layers.tolist()):
        parts[:, row, :, (layer_experts or {}).get(layer, E) :] = np.nan
    z = parts.astype(np.float64).sum(axis=2)
    scores, ids, weights = _route(z, k)
    texts = tuple(tokens) if tokens is not None else tuple(WORDS[i % len(WORDS)] for i in range(T))
    table = _vocabulary_logits(rng, T, N, model.vocab_size)
    rows = list(range(T)) if lens_positions is None else list(lens_positions)
    return Trace(
        model=model,
        tokens=texts,
        token_kinds=tuple(kinds) if kinds is not None else ("text",) * T,
        token_ids=np.arange(T, dtype=np.int32) % model.vocab_size,
        prompt_tokens=T if prompt_tokens is None else prompt_tokens,
        layers=layers,
        router_logits=z.astype(np.float32),
        selection_scores=scores.astype(np.float32),
        expert_ids=ids.astype(np.int16),
        expert_weights=weights.astype(np.float32),
        logits=table[-1, -1].astype(np.float32),
        router_parts=parts if with_parts and L else None,
        seed_parts=rng.normal(size=(T, L, 2, E)).astype(np.float32) if with_parts and L else None,
        lens=_lens(table, rows, lens_top) if with_lens else None,
    )


def make_recording(prompt_tokens: int = 6, steps: int = 4, **trace: object) -> Recording:
    """A recording of one run: a prompt, then `steps` generated tokens; options as `make_trace`."""
    T = prompt_tokens + steps
    whole = make_trace(T, prompt_tokens=prompt_tokens, **trace)  # type: ignore[arg-type]
    recording = Recording(whole.rows(0, prompt_tokens))
    for row in range(prompt_tokens, T):
        recording.append(whole.rows(row, row + 1))
    return recording


def make_snapshot(recording: Recording | None = None, **changes: object) -> Snapshot:
    """A snapshot at rest that shows the whole of `recording`."""
    shown = make_recording() if recording is None else recording
    snapshot = Snapshot(
        version=1,
        phase=Phase.READY,
        model=shown.prompt.model,
        recording=shown,
        rows=shown.rows,
        run=1,
        tokens_per_second=23.4,
        memory_bytes=123_000_000,
    )
    return replace(snapshot, **changes)  # type: ignore[arg-type]


def make_runs(
    count: int = 3, *, prompt_tokens: int = 6, steps: int = 4, **trace: object
) -> tuple[RunLoad, ...]:
    """Expert counts of `count` different runs."""
    return tuple(
        run_load(make_recording(prompt_tokens, steps, seed=seed, **trace).trace())
        for seed in range(count)
    )


def _route(z: Array, k: int) -> tuple[Array, NDArray[np.int64], Array]:
    """Scores [T, L, E] (softmax), ids and weights [T, L, k] of the best k; layers padded."""
    with np.errstate(invalid="ignore"):
        exp = np.exp(z - np.nanmax(z, axis=-1, keepdims=True)) if z.size else z
        scores = exp / np.nansum(exp, axis=-1, keepdims=True)
    order = np.argsort(np.where(np.isnan(scores), np.inf, -scores), axis=-1, kind="stable")
    ids = order[..., :k]
    weights = np.take_along_axis(scores, ids, axis=-1)
    ids = np.where(np.isnan(weights), -1, ids)
    return scores, ids, weights


def _vocabulary_logits(rng: np.random.Generator, T: int, N: int, V: int) -> Array:
    """[T, N, V]: noise at first, the final answer in the end."""
    final = rng.normal(size=(T, 1, V)) * 3
    noise = rng.normal(size=(T, N, V)) * 2
    depth = np.linspace(0, 1, N)[:, None]
    return depth * final + (1 - depth) * noise


def _lens(table: Array, rows: list[int], top: int) -> LensReadout:
    read = table[rows]
    logprobs = read - np.log(np.exp(read).sum(-1, keepdims=True))
    order = np.argsort(-logprobs, axis=-1, kind="stable")
    answers = order[:, -1, 0]
    of_answer = np.take_along_axis(logprobs, answers[:, None, None], axis=-1)[..., 0]
    ids = order[..., :top]
    return LensReadout(
        layers=np.arange(table.shape[1], dtype=np.int32),
        positions=np.array(rows, np.int32),
        token_ids=ids.astype(np.int32),
        logprobs=np.take_along_axis(logprobs, ids, axis=-1).astype(np.float32),
        answer_ids=answers.astype(np.int32),
        answer_rank=(logprobs > of_answer[..., None]).sum(-1).astype(np.int32),
        answer_logprob=of_answer.astype(np.float32),
        text={int(i): f" w{i}" for i in np.unique(ids)} | {int(i): f" w{i}" for i in answers},
    )
