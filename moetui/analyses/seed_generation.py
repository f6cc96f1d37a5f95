"""The seed's generation dynamics: consistency, handoffs and phases of a few greedy texts.

Reproduced as published. Its phases compare four experts with the union of the twelve before, which
are no more than a third alike even where nothing changes: beside them stands what the same rule
says of the same steps in random order.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.decoded import Decoded
from moetui.analyses.routing_sets import expert_sets, shared
from moetui.stats import Statistic, permutation_test
from moetui.stats.permutation import PERMUTATIONS
from moetui.trace.types import ExpertIds

PROMPTS: tuple[str, ...] = (
    "127 * 89 = ",
    "def fibonacci(n):",
    "The capital of France is",
    "Once upon a time",
    "To solve this problem, we need to",
)
# Steps of the window before, and the divergence from it at which a phase begins.
WINDOW, DIVERGENCE = 3, 0.5

DEFINITION = (
    "per text, over all layers and steps: consistency = Σ|S_t ∩ S_(t−1)| / Σk; handoffs = changes "
    "of the first expert, a generated token; a phase begins where 1 − Jaccard of a step's experts "
    f"and the union of the {WINDOW} steps before, mean over layers, exceeds {DIVERGENCE}"
)
NULL = "the steps of every text in random order"


class SeedText(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt. steps: generated tokens; consistency None below two. phases: steps where one
    begins, counted from 0."""

    prompt: str
    steps: int
    consistency: float | None
    handoffs: int
    phases: tuple[int, ...]


class SeedGeneration(msgspec.Struct, frozen=True, kw_only=True, tag="seed_generation"):
    """By the seed's rule on the seed's prompts.

    consistency: mean over texts. handoffs: a generated token. phase_steps: share of the steps
    that could begin a phase and do. All with the null's mean, band and p.
    """

    definition: str
    null: str
    consistency: Statistic
    handoffs: Statistic
    phase_steps: Statistic
    texts: tuple[SeedText, ...]


def seed_generation(
    texts: Sequence[Decoded], prompts: Sequence[str], num_experts: int, *, seed: int
) -> SeedGeneration:
    """The seed's numbers of `texts`, one for each of `prompts`.

    A step is the pass that chose a token, so the first one read the last token of the prompt.
    """
    steps = [one.experts[one.prompt_tokens - 1 : -1] for one in texts]
    found = [_text(prompt, rows, num_experts) for prompt, rows in zip(prompts, steps, strict=True)]
    rng = np.random.default_rng(seed)
    null = np.array(
        [
            _numbers([_text("", rows[rng.permutation(len(rows))], num_experts) for rows in steps])
            for _ in range(PERMUTATIONS)
        ]
    )
    observed = _numbers(found)
    tokens = sum(one.steps for one in found)

    def against(at: int) -> Statistic:
        if not np.isfinite(observed[at]) or not np.isfinite(null[:, at]).all():
            return Statistic(n_tokens=tokens, n_documents=len(found), caveat="too few steps")
        return msgspec.structs.replace(
            permutation_test(observed[at], null[:, at], tail="two-sided"),
            n_tokens=tokens,
            n_documents=len(found),
            seed=seed,
            caveat="as published: no interval; null = the steps in random order",
        )

    return SeedGeneration(
        definition=DEFINITION,
        null=NULL,
        consistency=against(0),
        handoffs=against(1),
        phase_steps=against(2),
        texts=tuple(found),
    )


def _text(prompt: str, rows: ExpertIds, num_experts: int) -> SeedText:
    """One text, rows [steps, L, k]."""
    sets, n = expert_sets(rows, num_experts), len(rows)
    k = (rows >= 0).sum(axis=-1)  # [steps, L]
    both = shared(sets[1:], sets[:-1])
    return SeedText(
        prompt=prompt,
        steps=n,
        consistency=float(both.sum() / k[1:].sum()) if n > 1 else None,
        handoffs=int((rows[1:, :, 0] != rows[:-1, :, 0]).sum()),
        phases=tuple(_phases(sets)),
    )


def _phases(sets: NDArray[np.uint64]) -> list[int]:
    """Steps from the third on that differ from the union of up to three before."""
    if len(sets) <= 2:
        return []
    window = sets[1:-1].copy()  # the step before, of steps 2 …
    for back in range(2, WINDOW + 1):
        reach = min(back, 2)  # the first steps have fewer before them
        window[back - reach :] |= sets[2 - reach : len(sets) - back]
    now = sets[2:]
    divergence = 1 - shared(window, now) / shared(window | now, window | now)
    return (np.flatnonzero(divergence.mean(axis=-1) > DIVERGENCE) + 2).tolist()


def _numbers(texts: Sequence[SeedText]) -> tuple[float, float, float]:
    """Consistency, handoffs a token, share of phase steps."""
    known = [one.consistency for one in texts if one.consistency is not None]
    steps = sum(one.steps for one in texts)
    possible = sum(max(0, one.steps - 2) for one in texts)
    return (
        float(np.mean(known)) if known else float("nan"),
        sum(one.handoffs for one in texts) / steps if steps else float("nan"),
        sum(len(one.phases) for one in texts) / possible if possible else float("nan"),
    )
