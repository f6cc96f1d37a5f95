"""One trace out of several that follow each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moetui.trace.types import Floats, LensReadout, Trace


def join(traces: Sequence[Trace]) -> Trace:
    """The rows of `traces` in order, as one trace of the same model.

    A field that is missing from one is missing from the whole, but for the lens, which names the
    positions that were read. Streams and their sources, and attention, whose shape depends on
    where a row stands, are left out.
    """
    first, last = traces[0], traces[-1]
    return replace(
        first,
        tokens=tuple(text for t in traces for text in t.tokens),
        token_kinds=tuple(kind for t in traces for kind in t.token_kinds),
        token_ids=np.concatenate([t.token_ids for t in traces]),
        prompt_tokens=sum(t.prompt_tokens for t in traces),
        router_logits=np.concatenate([t.router_logits for t in traces]),
        selection_scores=_joined([t.selection_scores for t in traces]),
        expert_ids=np.concatenate([t.expert_ids for t in traces]),
        expert_weights=np.concatenate([t.expert_weights for t in traces]),
        logits=last.logits,
        router_parts=_joined([t.router_parts for t in traces]),
        seed_parts=_joined([t.seed_parts for t in traces]),
        lens=_joined_lens(traces),
        streams=None,
        sources=None,
        attention=None,
        expert_outputs=_joined([t.expert_outputs for t in traces]),
    )


def _joined(arrays: Sequence[Floats | None]) -> Floats | None:
    present = [a for a in arrays if a is not None]
    return np.concatenate(present) if len(present) == len(arrays) else None


def _joined_lens(traces: Sequence[Trace]) -> LensReadout | None:
    starts = np.cumsum([0, *(len(t) for t in traces)]).tolist()
    read = [(t.lens, start) for t, start in zip(traces, starts, strict=False) if t.lens]
    if not read:
        return None
    lenses = [lens for lens, _ in read]
    text: dict[int, str] = {}
    for lens in lenses:
        text.update(lens.text)
    return replace(
        lenses[0],
        positions=np.concatenate([lens.positions + start for lens, start in read], dtype=np.int32),
        token_ids=np.concatenate([lens.token_ids for lens in lenses]),
        logprobs=np.concatenate([lens.logprobs for lens in lenses]),
        answer_ids=np.concatenate([lens.answer_ids for lens in lenses]),
        answer_rank=np.concatenate([lens.answer_rank for lens in lenses]),
        answer_logprob=np.concatenate([lens.answer_logprob for lens in lenses]),
        text=text,
    )
