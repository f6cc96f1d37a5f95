"""The routing of many texts step by step: those that the model wrote, and those that it read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from moetui.analyses.decoded import Decoded, Sequences
from moetui.analyses.fidelity import RoutingFidelity, routing_fidelity
from moetui.analyses.persistence import Persistence, persistence
from moetui.analyses.phases import Phases, phases
from moetui.analyses.routed import RoutedDocument
from moetui.analyses.segments import SegmentConsistency, segment_consistency
from moetui.stats import MIN_DOCUMENTS
from moetui.trace import ModelInfo

NO_STEP = "no text has two tokens that follow one another"


class GeneratedRouting(msgspec.Struct, frozen=True, kw_only=True, tag="generated_routing"):
    """Texts that the model wrote greedily after a prompt.

    texts, tokens: how many, and how many tokens were written. persistence, segments: of the
    written tokens (and the last of the prompt). phases: of prompt and written text. decode: the
    written tokens as decoded against one pass over the finished text, the reference; None where
    that was not made. reason: why no verdict may rest on this.
    """

    texts: int
    tokens: int
    persistence: Persistence
    segments: tuple[SegmentConsistency, ...]
    phases: Phases
    decode: RoutingFidelity | None
    reason: str | None


class NaturalRouting(msgspec.Struct, frozen=True, kw_only=True, tag="natural_routing"):
    """The same of documents that the model read."""

    texts: int
    tokens: int
    persistence: Persistence
    segments: tuple[SegmentConsistency, ...]


def generated_routing(
    texts: Sequence[Decoded],
    info: ModelInfo,
    *,
    layers: Sequence[int],
    lengths: Sequence[int],
    window: int,
    phase_texts: int,
    permutations: int,
    seed: int,
    step: Callable[[], None] = lambda: None,
) -> GeneratedRouting | None:
    """Of `texts`, those without a written token left out; None where all are.

    layers: decoder layers in which phases are looked for, in the first `phase_texts` texts.
    """
    kept = [one for one in texts if len(one.ids) > one.prompt_tokens]
    if not kept:
        return None
    E, moe = info.num_experts, info.moe_layers
    written = Sequences.of(
        [(o.ids[o.prompt_tokens - 1 :], o.experts[o.prompt_tokens - 1 :], 1) for o in kept], E
    )
    some = kept[:phase_texts]
    whole = Sequences.of([(one.ids, one.experts, 1) for one in some], E)
    pairs = [(o.decode, o.prefill) for o in kept if o.decode is not None and o.prefill is not None]
    return GeneratedRouting(
        texts=len(kept),
        tokens=sum(len(one.ids) - one.prompt_tokens for one in kept),
        persistence=persistence(written, moe, permutations=permutations, seed=seed),
        segments=segment_consistency(written, lengths, seed=seed),
        phases=phases(
            whole,
            [one.id for one in some],
            [one.prompt_tokens for one in some],
            layers,
            [moe.index(layer) for layer in layers],
            window=window,
            permutations=permutations,
            seed=seed,
            step=step,
        ),
        decode=routing_fidelity(pairs, moe, seed=seed) if pairs else None,
        reason=None
        if len(kept) >= MIN_DOCUMENTS
        else f"{len(kept)} texts, {MIN_DOCUMENTS} needed for an interval",
    )


def natural_routing(
    documents: Sequence[RoutedDocument],
    info: ModelInfo,
    *,
    lengths: Sequence[int],
    permutations: int,
    seed: int,
) -> NaturalRouting | None:
    """Of documents; None where none has two tokens."""
    kept = [one for one in documents if len(one.ids) > 1]
    if not kept:
        return None
    found = Sequences.of([(one.ids, one.experts, 1) for one in kept], info.num_experts)
    return NaturalRouting(
        texts=len(kept),
        tokens=len(found.token),
        persistence=persistence(found, info.moe_layers, permutations=permutations, seed=seed),
        segments=segment_consistency(found, lengths, seed=seed),
    )
