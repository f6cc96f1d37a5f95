"""What `generation` may be asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from moetui.analyses.seed_generation import PROMPTS
from moetui.analyses.segments import LENGTHS
from moetui.suites.moe_dynamics.study import Count, Positive, Text

# About how many tokens the prompts of seed and problems have.
TOKENS = 8

Permutations = Annotated[int, msgspec.Meta(ge=999)]
Window = Annotated[int, msgspec.Meta(ge=2)]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `generation` may be asked."""

    generation_prompts: Annotated[
        tuple[Text, ...], msgspec.Meta(min_length=1, description="prompts of the seed's generation")
    ] = PROMPTS
    generation_tokens: Annotated[
        Window, msgspec.Meta(description="tokens written after each of them")
    ] = 30
    texts: Annotated[
        Positive,
        msgspec.Meta(
            description="evaluation documents whose beginning is continued; at least 20, and 100 "
            "for intervals that are not approximate"
        ),
    ] = 200
    prompt_tokens: Annotated[
        Positive, msgspec.Meta(description="tokens of each document that are its prompt")
    ] = 16
    new_tokens: Annotated[
        Positive, msgspec.Meta(description="tokens written after each prompt, greedily")
    ] = 48
    compared: Annotated[
        Count,
        msgspec.Meta(
            description="finished texts that are read once more in one pass, to compare decoding "
            "with prefill"
        ),
    ] = 50
    segments: Annotated[
        tuple[Positive, ...],
        msgspec.Meta(description="lengths of segments for local routing consistency, tokens"),
    ] = LENGTHS
    window: Annotated[
        Window, msgspec.Meta(description="tokens on either side of a step that may begin a phase")
    ] = 8
    phase_texts: Annotated[
        Positive,
        msgspec.Meta(
            description="texts in which phases are looked for, at the routers of `layers`"
        ),
    ] = 60
    generation_permutations: Annotated[
        Permutations, msgspec.Meta(description="token-stratified shuffles, 999 or more")
    ] = 999
    problems_per_task: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=100,
            description="arithmetic problems of each of four operations, written with symbols, for "
            "right against wrong answers: 100 of each are needed; 0 for none",
        ),
    ] = 100
    problem_pairs: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=30,
            description="pairs of operands that are asked besides in 7 wordings of the four "
            "operations, so that small models are wrong and large ones right often enough",
        ),
    ] = 8


QUICK: Mapping[str, Any] = {
    "texts": 40,
    "new_tokens": 24,
    "compared": 20,
    "phase_texts": 30,
    "problems_per_task": 10,
    "problem_pairs": 1,
}
FULL: Mapping[str, Any] = {
    "texts": 400,
    "new_tokens": 112,
    "compared": 200,
    "phase_texts": 100,
}
