"""Local routing consistency: how far a few fixed experts serve a whole segment of a text.

After "segment routing best performance" (arXiv 2505.16056): for segments of m tokens the k experts
that are used most in a segment are kept, and the share of its choices counted that they serve. The
best k of few tokens serve many of them by chance alone, the more the shorter the segment is.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.decoded import Sequences
from moetui.analyses.routing_sets import members
from moetui.stats import Statistic, document_intervals, ratio_of_sums, token_stratified_shuffle

Numbers = NDArray[np.float64]

LENGTHS = (4, 8, 16, 32, 64, 128, 256)
# Shuffles behind the null's mean of each sequence.
DRAWS = 20
DEFINITION = (
    "texts are cut into segments of m tokens from their start; share of a segment's choices that "
    "its k most used experts serve, mean over segments and layers (arXiv 2505.16056, segment "
    f"routing best performance). Null: the same after a token-stratified shuffle, {DRAWS} draws"
)


class SegmentConsistency(msgspec.Struct, frozen=True, kw_only=True):
    """Segments of `length` tokens.

    share: served by the best k, with the token-stratified shuffle's mean and range as null.
    over_tokens: less that null, sequence by sequence. uniform: k/E, what any k experts of an
    even router serve. reason: why there is no number.
    """

    length: int
    segments: int
    share: Statistic
    over_tokens: Statistic
    uniform: float
    reason: str | None


def segment_consistency(
    found: Sequences, lengths: Sequence[int], *, seed: int
) -> tuple[SegmentConsistency, ...]:
    """Of every length that some sequence has."""
    chosen, rng = members(found.experts, found.num_experts), np.random.default_rng(seed)
    segments = {length: _segments(found, length) for length in lengths}
    observed = {
        length: _served(found, chosen, starts, length) for length, starts in segments.items()
    }
    null: dict[int, list[Numbers]] = {length: [] for length in lengths}
    for _ in range(DRAWS):
        moved = chosen[token_stratified_shuffle(found.token, rng)]
        for length, starts in segments.items():
            null[length].append(_served(found, moved, starts, length))
    return tuple(
        _consistency(found, length, segments[length], observed[length], null[length], seed)
        for length in lengths
    )


def _segments(found: Sequences, length: int) -> NDArray[np.intp]:
    """The rows at which segments begin."""
    sizes = np.bincount(found.sequence, minlength=found.count)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return np.array(
        [
            s + at
            for s, n in zip(starts, sizes, strict=True)
            for at in range(0, n - length + 1, length)
        ],
        np.intp,
    )


def _served(
    found: Sequences, chosen: NDArray[np.int8], starts: NDArray[np.intp], length: int
) -> Numbers:
    """[S]: the share of each segment's choices that its best k serve, mean over layers."""
    if not len(starts):
        return np.zeros(0)
    sums = np.zeros((len(chosen) + 1, *chosen.shape[1:]), np.int32)
    np.cumsum(chosen, axis=0, dtype=np.int32, out=sums[1:])
    counts = np.sort(sums[starts + length] - sums[starts], axis=-1)[..., ::-1]
    shares = [
        counts[:, layer, :k].sum(axis=-1) / (k * length) for layer, k in enumerate(found.sizes)
    ]
    return np.asarray(np.mean(shares, axis=0), float)


def _consistency(
    found: Sequences,
    length: int,
    starts: NDArray[np.intp],
    observed: Numbers,
    null: Sequence[Numbers],
    seed: int,
) -> SegmentConsistency:
    uniform = float((found.sizes / found.num_experts).mean())
    if not len(starts):
        nothing = Statistic(n_documents=0, caveat="no segment")
        return SegmentConsistency(
            length=length, segments=0, share=nothing, over_tokens=nothing, uniform=uniform,
            reason=f"no text has {length} tokens",
        )  # fmt: skip
    of = found.sequence[starts]
    used, of = np.unique(of, return_inverse=True)
    n = np.bincount(of).astype(float)

    def mean(values: Numbers) -> Statistic:
        intervals = document_intervals(
            ratio_of_sums(np.bincount(of, values), n), len(used), seed=seed
        )
        return intervals.statistic(n_tokens=len(starts) * length)

    draws = [float(one.mean()) for one in null]
    return SegmentConsistency(
        length=length,
        segments=len(starts),
        share=msgspec.structs.replace(
            mean(observed),
            null_mean=float(np.mean(draws)),
            null_low=min(draws),
            null_high=max(draws),
        ),
        over_tokens=mean(observed - np.mean(null, axis=0)),
        uniform=uniform,
        reason=None,
    )
