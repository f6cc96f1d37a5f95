"""The same tokens routed by two checkpoints of one model, and what unrelated routing would show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.analyses.router_margin import boundary, eligible_experts
from moetui.trace import Trace

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Pairs of tokens grow with the square; so many tokens give a chance level to about 0.01.
_PAIRED_TOKENS = 2000


@dataclass(frozen=True, eq=False)
class Routing:
    """What a comparison keeps of a trace; shapes as in `moetui.trace.Trace`."""

    token_ids: NDArray[np.int32]
    expert_ids: NDArray[np.int16]
    router_logits: NDArray[np.float32]
    selection_scores: NDArray[np.float32] | None

    @classmethod
    def of(cls, trace: Trace) -> Routing:
        """The routing of `trace`, without what costs memory."""
        return cls(trace.token_ids, trace.expert_ids, trace.router_logits, trace.selection_scores)


# One text: as the model in question routes it, and as the reference does.
RoutingPair = tuple[Routing, Routing]


@dataclass(frozen=True, eq=False)
class Edge:
    """The k-boundary of one layer in both checkpoints, by the reference's two experts at it.

    known: bool [N], tokens that have such a boundary in both.
    margin: [N], the reference's gap from its k-th expert to the next; change: [N], the model's
    gap between the same two less that. In `unit`: "router logit" where top-k ranks by logit,
    "selection score" where it does not; None (and nothing known) where the model hides both.
    """

    known: Flags
    margin: Numbers
    change: Numbers
    unit: str | None

    @property
    def typical_change(self) -> float | None:
        """The median of |change|; None where nothing is known."""
        return float(np.median(np.abs(self.change[self.known]))) if self.known.any() else None

    @property
    def near(self) -> Flags:
        """bool [N]: tokens whose margin is smaller than the typical change."""
        typical = self.typical_change
        if typical is None:
            return np.zeros(self.known.shape, bool)
        return np.asarray(self.known & (self.margin < typical))


@dataclass(frozen=True, eq=False)
class Pairs:
    """All tokens of several texts, N in all, in both checkpoints.

    document: [N], which text a token is of. ours, theirs: bool [N, L, E], the chosen experts.
    top: int16 [N, L, 2], the first expert in each.
    """

    document: NDArray[np.int64]
    ours: Flags
    theirs: Flags
    top: NDArray[np.int16]
    model: Routing
    reference: Routing

    @classmethod
    def of(cls, texts: Sequence[RoutingPair]) -> Pairs:
        """The pairs of all `texts` (at least one). ValueError where a text's tokens differ."""
        for one, other in texts:
            if not np.array_equal(one.token_ids, other.token_ids):
                raise ValueError("the two checkpoints read other tokens")
        sizes = [len(one.token_ids) for one, _ in texts]
        model, reference = (_joined([pair[side] for pair in texts]) for side in (0, 1))
        return cls(
            document=np.repeat(np.arange(len(sizes)), sizes),
            ours=_members(model),
            theirs=_members(reference),
            top=np.stack([model.expert_ids[..., 0], reference.expert_ids[..., 0]], axis=-1),
            model=model,
            reference=reference,
        )

    def __len__(self) -> int:
        return len(self.document)

    @property
    def changed(self) -> Flags:
        """bool [N, L]: the sets differ."""
        return np.asarray((self.ours != self.theirs).any(axis=-1))

    @property
    def jaccard(self) -> Numbers:
        """[N, L]: |A ∩ B| / |A ∪ B|."""
        shared = (self.ours & self.theirs).sum(axis=-1)
        return np.asarray(shared / (self.ours | self.theirs).sum(axis=-1), float)

    def edge(self, index: int) -> Edge:
        """The k-boundary at layer `index` (on the L axis)."""
        logits = [r.router_logits[:, index].astype(float) for r in (self.model, self.reference)]
        chosen = (self.ours[:, index], self.theirs[:, index])
        unit, scores = "router logit", logits
        if not all(_best(z, c) for z, c in zip(logits, chosen, strict=True)):
            ranked = (self.model.selection_scores, self.reference.selection_scores)
            known = [s[:, index].astype(float) for s in ranked if s is not None]
            if len(known) < 2 or not all(_best(s, c) for s, c in zip(known, chosen, strict=True)):
                nothing = np.full(len(self), np.nan)
                return Edge(np.zeros(len(self), bool), nothing, nothing, None)
            unit, scores = "selection score", known
        ours, theirs = (eligible_experts(s, z) for s, z in zip(scores, logits, strict=True))
        found = boundary(self.reference.expert_ids[:, index], scores[1], theirs)
        if found is None:  # every expert is used
            nothing = np.full(len(self), np.nan)
            return Edge(np.zeros(len(self), bool), nothing, nothing, unit)
        inside, outside, defined = found
        row = np.arange(len(self))
        gaps = [s[row, inside] - s[row, outside] for s in scores]
        # An expert whose group is masked in one checkpoint has no score of its own there.
        known_in_both = defined & ours[row, inside] & ours[row, outside]
        return Edge(known_in_both, gaps[1], gaps[0] - gaps[1], unit)


def chance_equal(ours: NDArray[Any], theirs: NDArray[Any]) -> float | None:
    """How often rows of `ours` [N, …] equal rows of *other* tokens in `theirs`; exact."""
    N = len(ours)
    if N < 2:
        return None
    rows = np.concatenate([ours.reshape(N, -1), theirs.reshape(N, -1)])
    packed = np.packbits(rows, axis=-1) if rows.dtype == bool else rows
    _, code = np.unique(packed, axis=0, return_inverse=True)
    one, other = code.reshape(2, N)
    counts = [np.bincount(side, minlength=code.max() + 1) for side in (one, other)]
    return float((counts[0] @ counts[1] - (one == other).sum()) / (N * (N - 1)))


def chance_jaccard(ours: Flags, theirs: Flags) -> float | None:
    """Mean Jaccard overlap of sets [N, E] of one checkpoint with those of other tokens in the
    other; over up to 2,000 tokens at equal distances."""
    rows = np.unique(np.linspace(0, len(ours) - 1, min(len(ours), _PAIRED_TOKENS)).astype(int))
    if len(rows) < 2:
        return None
    one, other = ours[rows].astype(np.float32), theirs[rows].astype(np.float32)
    shared = one @ other.T
    overlap = shared / (one.sum(axis=1)[:, None] + other.sum(axis=1) - shared)
    n = len(rows)
    return float((overlap.sum(dtype=float) - np.trace(overlap, dtype=float)) / (n * (n - 1)))


def _members(routing: Routing) -> Flags:
    """bool [N, L, E] from ids [N, L, k]."""
    ids, E = routing.expert_ids, routing.router_logits.shape[-1]
    members = np.zeros((*ids.shape[:2], E + 1), bool)
    np.put_along_axis(members, np.where(ids < 0, E, ids).astype(np.int64), True, axis=-1)
    return members[..., :E]


def _best(scores: Numbers, chosen: Flags) -> bool:
    """Whether in every row the chosen experts are the best of those that have a score."""
    known = np.isfinite(scores)
    lowest = np.where(chosen, scores, np.inf).min(axis=-1)
    return bool((np.where(known & ~chosen, scores, -np.inf).max(axis=-1) <= lowest).all())


def _joined(parts: Sequence[Routing]) -> Routing:
    scores = [part.selection_scores for part in parts if part.selection_scores is not None]
    return Routing(
        np.concatenate([part.token_ids for part in parts]),
        np.concatenate([part.expert_ids for part in parts]),
        np.concatenate([part.router_logits for part in parts]),
        np.concatenate(scores) if len(scores) == len(parts) else None,
    )
