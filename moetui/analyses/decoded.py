"""What a study of generation keeps of a text that the model wrote itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moetui.analyses.routing_pairs import Routing
from moetui.analyses.routing_sets import Sets, expert_sets, sizes
from moetui.trace import Forward, Prompt
from moetui.trace.types import ExpertIds, Ints


@dataclass(frozen=True, eq=False, kw_only=True)
class Decoded:
    """A prompt and what the model wrote after it, greedily.

    id, domain: of the prompt. ids: int32 [T], the first `prompt_tokens` of them the prompt.
    experts: int16 [T, L, k], those of generated tokens as single tokens were decoded. decode,
    prefill: the routing of the generated rows as decoded, and as one pass over the finished text
    routes them; None where that pass was not made.
    """

    id: str
    domain: str
    prompt_tokens: int
    ids: Ints
    experts: ExpertIds
    decode: Routing | None = None
    prefill: Routing | None = None


def decoded(
    model: Forward,
    name: str,
    domain: str,
    prompt: Prompt,
    max_tokens: int,
    *,
    again: bool = False,
) -> Decoded:
    """`prompt` and at most `max_tokens` greedy tokens after it; again: with a pass over all of it.

    Raises UsageError for an empty prompt.
    """
    trace = model.generated(prompt, max_tokens)
    start, decode, prefill = trace.prompt_tokens, None, None
    if again and len(trace) > start:
        whole = model.trace(trace.token_ids, lens=0, residuals=False)
        decode, prefill = (Routing.of(one.rows(start, len(one))) for one in (trace, whole))
    return Decoded(
        id=name,
        domain=domain,
        prompt_tokens=start,
        ids=trace.token_ids,
        experts=trace.expert_ids,
        decode=decode,
        prefill=prefill,
    )


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences of tokens one after another, N tokens of D sequences in all.

    sequence: [N], ascending from 0. token: [N]. experts: int16 [N, L, k]. sets: the same as bits.
    generated: bool [N]. follows: [M], the rows n whose row n − 1 is of the same sequence and
    whose step counts.
    """

    count: int
    sequence: NDArray[np.int64]
    token: NDArray[np.int64]
    experts: ExpertIds
    sets: Sets
    follows: NDArray[np.intp]
    num_experts: int

    @classmethod
    def of(
        cls,
        rows: Sequence[tuple[Ints, ExpertIds, int]],
        num_experts: int,
    ) -> Sequences:
        """Of (ids [T], experts [T, L, k], first row whose step to it counts; 1 for all)."""
        lengths = [len(ids) for ids, _, _ in rows]
        sequence = np.repeat(np.arange(len(rows)), lengths)
        experts = np.concatenate([e for _, e, _ in rows])
        within = np.concatenate([np.arange(n) for n in lengths])
        first = np.repeat([max(start, 1) for _, _, start in rows], lengths)
        return cls(
            count=len(rows),
            sequence=sequence,
            token=np.concatenate([ids for ids, _, _ in rows]).astype(np.int64),
            experts=experts,
            sets=expert_sets(experts, num_experts),
            follows=np.flatnonzero(within >= first),
            num_experts=num_experts,
        )

    @property
    def sizes(self) -> NDArray[np.int64]:
        """[L], k of each layer."""
        return sizes(self.experts)

    def sums(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        """[D]: sums of values [M] of the steps over each sequence."""
        of = self.sequence[self.follows]
        sums = np.bincount(of, np.asarray(values, float), minlength=self.count)
        return np.asarray(sums, float)
