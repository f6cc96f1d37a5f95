"""One sequence step by step: which experts stay from token to token, who hands over, and when.

Two unrelated tokens share Σ_e f_e²/k of their experts, which is far from nothing where some experts
are popular: a bare consistency says nothing, so every one stands beside that level.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from moetui.analyses.expert_load import RunLoad
from moetui.analyses.phase_changes import WINDOW, ChangeScores, change_scores
from moetui.analyses.routing_sets import (
    Array,
    chance_overlap,
    left_and_came,
    sizes,
    step_overlap,
)
from moetui.stats import (
    MIN_DOCUMENTS,
    Statistic,
    document_intervals,
    finite,
    joined,
    ratio_of_sums,
)
from moetui.trace import Trace
from moetui.trace.types import ExpertIds

FEW = "too few prompts for an interval"


class Handoff(msgspec.Struct, frozen=True, kw_only=True):
    """Of one layer at one step. left: experts of the token before that this one does without;
    came: those that it has instead."""

    left: list[int]
    came: list[int]


class GenerationSteps(msgspec.Struct, frozen=True, kw_only=True, tag="generation_steps"):
    """One sequence of T tokens, a step being a token and the one before it.

    layers: the L decoder layers that route; top_k: [L], k of each; prompt_tokens: how many of the
        tokens are the prompt.
    overlap: [T − 1][L], |S_t ∩ S_{t−1}| / k: step t − 1 is from token t − 1 to token t.
    chance: [L], Σ_e f_e²/k of the given loads, what unrelated tokens share; NaN where nothing is
        known. uniform: [L], k/E.
    handoffs: [T − 1][L].
    by_layer: [L], the mean overlap of this sequence with chance as `null_mean`; decoded: of the
        steps to generated tokens and mean over layers, prefill: of those within the prompt. One
        sequence is a description: no interval, no p.
    changes: None where the sequence is shorter than two windows.
    load_prompts: over how many prompts the loads were counted. caveat: what may be claimed.
    """

    layers: list[int]
    num_layers: int
    num_experts: int
    top_k: list[int]
    tokens: int
    prompt_tokens: int
    overlap: list[list[float]]
    chance: list[float]
    uniform: list[float]
    handoffs: list[list[Handoff]]
    by_layer: list[Statistic]
    prefill: Statistic
    decoded: Statistic
    changes: ChangeScores | None
    load_prompts: int
    caveat: str


def generation_steps(
    trace: Trace,
    load: RunLoad,
    *,
    prompts: int,
    window: int = WINDOW,
    permutations: int = 0,
    seed: int = 0,
) -> GenerationSteps | None:
    """The steps of `trace`; None for a dense model or fewer than two tokens.

    load: counts of the session (`total_load`) or of a corpus, over `prompts` prompts. permutations:
    see `change_scores`; 0 is fast enough for every new token.
    """
    if len(trace) < 2 or not len(trace.layers):
        return None
    return steps_of(
        trace.expert_ids,
        trace.token_ids,
        load.counts / max(load.tokens, 1),
        layers=trace.layers.tolist(),
        num_layers=trace.model.num_layers,
        experts_of=load.experts,
        prompt_tokens=trace.prompt_tokens,
        load_tokens=load.tokens,
        prompts=prompts,
        window=window,
        permutations=permutations,
        seed=seed,
    )


def steps_of(
    experts: ExpertIds,
    token_ids: ArrayLike,
    load: ArrayLike,
    *,
    layers: Sequence[int],
    num_layers: int,
    experts_of: Sequence[int] | None = None,
    prompt_tokens: int,
    load_tokens: int,
    prompts: int,
    window: int = WINDOW,
    permutations: int = 0,
    seed: int = 0,
) -> GenerationSteps:
    """The same from arrays: experts [T, L, k] with T ≥ 2, tokens [T], loads f_e [L, E].

    experts_of: [L], how many experts each layer has (all E by default).
    """
    T, L, _ = experts.shape
    f = np.asarray(load, float)
    E = f.shape[-1]
    overlap = step_overlap(experts, E)
    chance = chance_overlap(f, load_tokens)
    k = sizes(experts)
    return GenerationSteps(
        layers=list(layers),
        num_layers=num_layers,
        num_experts=E,
        top_k=k.tolist(),
        tokens=T,
        prompt_tokens=prompt_tokens,
        overlap=overlap.tolist(),
        chance=chance.tolist(),
        uniform=(k / np.asarray(experts_of if experts_of is not None else [E] * L)).tolist(),
        handoffs=_handoffs(experts),
        by_layer=[_described(overlap[:, row], chance[row]) for row in range(L)],
        # Step t - 1 leads to token t; the first generated token is token `prompt_tokens`.
        prefill=_described(overlap[: max(prompt_tokens - 1, 0)], chance),
        decoded=_described(overlap[max(prompt_tokens - 1, 0) :], chance),
        changes=change_scores(
            experts, token_ids, E, window=window, permutations=permutations, seed=seed
        ),
        load_prompts=prompts,
        caveat=_caveat(prompts),
    )


def mean_overlap(
    shared: ArrayLike, steps: ArrayLike, chance: float, *, seed: int, caveat: str | None = None
) -> Statistic:
    """The mean overlap of many sequences, with an interval over them and chance as `null_mean`.

    shared, steps: [D], of every sequence its summed overlaps and how many there were; chance as
    of `chance_overlap`. Below 20 sequences there is no interval.
    """
    sums, n = np.asarray(shared, float), np.asarray(steps, float)
    if not n.sum():
        return Statistic(n_tokens=0, n_documents=len(n), caveat="no step from token to token")
    found = document_intervals(ratio_of_sums(sums, n), len(n), seed=seed)
    told = joined(caveat, FEW if len(n) < MIN_DOCUMENTS else None)
    statistic = found.statistic(n_tokens=int(n.sum()), caveat=told)
    return msgspec.structs.replace(statistic, null_mean=finite(float(chance)))


def _handoffs(experts: ExpertIds) -> list[list[Handoff]]:
    rows = experts.tolist()
    return [
        [Handoff(left=left, came=came) for left, came in map(left_and_came, before, after)]
        for before, after in pairwise(rows)
    ]


def _described(overlap: Array, chance: ArrayLike) -> Statistic:
    """The mean of one sequence, beside chance."""
    if not overlap.size:
        return Statistic(n_tokens=0, n_documents=1, caveat="no such step")
    return Statistic(
        value=float(overlap.mean()),
        null_mean=finite(float(np.mean(np.asarray(chance, float)))),
        n_tokens=len(overlap),
        n_documents=1,
        caveat=f"one sequence: {FEW}",
    )


def _caveat(prompts: int) -> str:
    if prompts < MIN_DOCUMENTS:
        counted = "1 prompt" if prompts == 1 else f"{prompts} prompts"
        return f"loads of {counted}: {FEW}; a description, no claim"
    return f"loads of {prompts} prompts; one sequence is a description, no claim"
