"""A trace as a JSON document: what `moetui trace` prints and what the explorer exports."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from moetui.trace.types import LensReadout, ModelInfo, Trace

SCHEMA_VERSION = 1

# Nested lists in the shape that the field's docstring names; NaN is written as null.
Numbers = list[Any]


class LensDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The logit lens: `top` [P, N, n] of {id, text, logprob} would repeat texts, so by index.

    positions [P], layers [N], token_ids and logprobs [P, N, n], answer_ids [P],
    answer_rank and answer_logprob [P, N], text: id → readable token.
    """

    layers: list[int]
    positions: list[int]
    token_ids: Numbers
    logprobs: Numbers
    answer_ids: list[int]
    answer_rank: Numbers
    answer_logprob: Numbers
    text: dict[int, str]


class SharesDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Signed shares of the router's decision: values [T, L, G] over `parts`, and cancellation."""

    parts: list[str]
    values: Numbers
    cancellation: Numbers


class TraceDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt's trace. Shapes as in `moetui.trace.Trace`; absent readings are null."""

    schema_version: int
    model: ModelInfo
    tokens: list[str]
    token_kinds: list[str]
    token_ids: list[int]
    prompt_tokens: int
    interventions: list[str]
    layers: list[int]
    router_logits: Numbers
    expert_ids: Numbers
    expert_weights: Numbers
    shares: SharesDocument | None
    seed_ratio: Numbers | None
    lens: LensDocument | None
    completeness: Numbers | None


def trace_document(trace: Trace) -> TraceDocument:
    """The JSON form of `trace`."""
    return TraceDocument(
        schema_version=SCHEMA_VERSION,
        model=trace.model,
        tokens=list(trace.tokens),
        token_kinds=list(trace.token_kinds),
        token_ids=trace.token_ids.tolist(),
        prompt_tokens=trace.prompt_tokens,
        interventions=list(trace.interventions),
        layers=trace.layers.tolist(),
        router_logits=trace.router_logits.tolist(),
        expert_ids=trace.expert_ids.tolist(),
        expert_weights=trace.expert_weights.tolist(),
        shares=_shares(trace),
        seed_ratio=_listed(trace.seed_ratio),
        lens=None if trace.lens is None else _lens(trace.lens),
        completeness=_listed(trace.completeness),
    )


def to_json(document: msgspec.Struct, *, indent: int = 0) -> bytes:
    """The document as UTF-8 JSON with a final newline; `indent` 0 means one line."""
    raw = msgspec.json.encode(document)
    return (msgspec.json.format(raw, indent=indent) if indent else raw) + b"\n"


def _listed(values: np.ndarray[Any, Any] | None) -> Numbers | None:
    return None if values is None else values.tolist()


def _shares(trace: Trace) -> SharesDocument | None:
    shares = trace.shares
    if shares is None:
        return None
    return SharesDocument(
        parts=list(trace.part_names),
        values=shares.values.tolist(),
        cancellation=shares.cancellation.tolist(),
    )


def _lens(lens: LensReadout) -> LensDocument:
    return LensDocument(
        layers=lens.layers.tolist(),
        positions=lens.positions.tolist(),
        token_ids=lens.token_ids.tolist(),
        logprobs=lens.logprobs.tolist(),
        answer_ids=lens.answer_ids.tolist(),
        answer_rank=lens.answer_rank.tolist(),
        answer_logprob=lens.answer_logprob.tolist(),
        text=dict(lens.text),
    )
