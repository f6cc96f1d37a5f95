"""How often each expert was used: the counts that every load statistic starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moetui.trace import Trace
from moetui.trace.types import ExpertIds

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RunLoad:
    """Expert counts of one run (one prompt and what was generated): one document.

    layers: the L routing layers; experts: [L], how many each has (the columns beyond do not
        exist in that layer); top_k: experts a token uses.
    prefill, decode: int64 [L, E], how many tokens of the prompt and of the generation used an
        expert. prefill_tokens, decode_tokens: how many tokens there were.
    """

    layers: tuple[int, ...]
    experts: tuple[int, ...]
    top_k: int
    prefill: Counts
    decode: Counts
    prefill_tokens: int
    decode_tokens: int

    @property
    def counts(self) -> Counts:
        """int64 [L, E], prompt and generation together."""
        return self.prefill + self.decode

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return self.prefill_tokens + self.decode_tokens


def expert_counts(trace: Trace) -> Counts:
    """int64 [L, E]: in how many rows of `trace` each expert was among the chosen."""
    return chosen_counts(trace.expert_ids, trace.router_logits.shape[2])


def chosen_counts(experts: ExpertIds, num_experts: int) -> Counts:
    """int64 [L, E]: how many of the rows of experts [T, L, k] each expert is chosen in; an expert
    is chosen once in a row, and -1 is none."""
    L = experts.shape[1]
    cells = experts.astype(np.int64) + np.arange(L)[:, None] * num_experts
    counts = np.bincount(cells[experts >= 0], minlength=L * num_experts)
    return counts.reshape(L, num_experts)


def run_load(trace: Trace) -> RunLoad:
    """The load of one run, prompt and generation apart."""
    prompt = trace.prompt_tokens
    return RunLoad(
        layers=tuple(trace.layers.tolist()),
        experts=tuple((~np.isnan(trace.router_logits[0])).sum(axis=-1).tolist()),
        top_k=trace.expert_ids.shape[2],
        prefill=expert_counts(trace.rows(0, prompt)),
        decode=expert_counts(trace.rows(prompt, len(trace))),
        prefill_tokens=prompt,
        decode_tokens=len(trace) - prompt,
    )


def total_load(runs: Sequence[RunLoad]) -> RunLoad:
    """The counts of all `runs` (at least one, of one model) together."""
    return RunLoad(
        layers=runs[0].layers,
        experts=runs[0].experts,
        top_k=runs[0].top_k,
        prefill=np.sum([run.prefill for run in runs], axis=0),
        decode=np.sum([run.decode for run in runs], axis=0),
        prefill_tokens=sum(run.prefill_tokens for run in runs),
        decode_tokens=sum(run.decode_tokens for run in runs),
    )
