"""Tokens at which an expert is chosen more often than the documents they stand in would foretell.

Occurrences of a token in one document are no independent trials, so a document counts once: by
the share of the token's occurrences in it that go to the expert. Under the null such a share lies
in [0, 1], and its mean is how often the document's other tokens use the expert. However the
occurrences of a document hang together, the sum of the shares is then no more spread out than one
coin for each document (convex order; Hoeffding 1963). The tail of the sum of these coins, a
Poisson binomial distribution, is computed exactly; that is p.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.expert_load import chosen_counts
from moetui.stats import (
    MIN_DOCUMENTS,
    Statistic,
    benjamini_hochberg,
    document_intervals,
    joined,
)
from moetui.trace.types import ExpertIds, Ints

Array = NDArray[np.float64]
Cell = tuple[int, int]

MIN_OCCURRENCES = 10
LEVEL = 0.05
# As many tokens of the whole sample join each document where its use of an expert is estimated:
# that 60 tokens did without an expert does not prove that the document never uses it.
PRIOR_TOKENS = 32
SAME_DOCUMENTS = "the lift is of the documents that it was found on, so somewhat too large"
ABSENT = "the token does not occur in the documents that the lift is judged on"


class TriggerToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token that goes to an expert more often than its documents would foretell.

    occurrences, documents, hits: where it was found: how often the token stands there, in how many
    documents, and how often it goes to the expert. lift: P(expert | token) / P(expert) in the
    documents that it is judged on, with an interval over them and 1 as its null; its n_tokens and
    n_documents are occurrences of the token there, p and q belong to the documents where it was
    found, q being the false discovery rate over all cells.
    """

    token_id: int
    token: str
    occurrences: int
    documents: int
    hits: int
    lift: Statistic


class ExpertTriggers(msgspec.Struct, frozen=True, kw_only=True):
    """Triggers of one expert of a decoder layer. discovered: how many there are, of which those
    with the largest lift where they were found are listed, in the order of the lift that is told:
    the largest first, of equal ones that which occurs more often, those that have none last."""

    layer: int
    expert: int
    discovered: int
    tokens: tuple[TriggerToken, ...]


class TriggerTokens(msgspec.Struct, frozen=True, kw_only=True, tag="trigger_tokens"):
    """Triggers of experts, found by one family of tests.

    token_ids: how many tokens occur min_occurrences times or more; tested: cells (such a token ×
    layer × expert); discovered: those with q ≤ level. found_on, judged_on: how many documents the
    triggers were found and their lift judged on; held_out: whether these are others.
    """

    token_ids: int
    min_occurrences: int
    tested: int
    discovered: int
    level: float
    found_on: int
    judged_on: int
    held_out: bool
    experts: tuple[ExpertTriggers, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class RoutedTokens:
    """D documents: ids int32 [T] and experts int16 [T, L, k] of each. layers: the L decoder layers;
    num_experts: E, of the layer that has most."""

    ids: Sequence[Ints]
    experts: Sequence[ExpertIds]
    layers: tuple[int, ...]
    num_experts: int

    def used(self, document: int, rows: NDArray[np.bool_] | None = None) -> Array:
        """[L·E]: how many tokens (of some rows) of a document use each expert of each layer."""
        chosen = self.experts[document]
        counts = chosen_counts(chosen if rows is None else chosen[rows], self.num_experts)
        return counts.ravel().astype(float)


def trigger_tokens(
    found: RoutedTokens,
    text: Callable[[int], str] = str,
    *,
    judged: RoutedTokens | None = None,
    only: Collection[Cell] | None = None,
    top: int = 5,
    min_occurrences: int = MIN_OCCURRENCES,
    level: float = LEVEL,
    seed: int,
) -> TriggerTokens:
    """The triggers of every expert, or of the (decoder layer, expert) in `only`.

    found: documents on which triggers are looked for. judged: other ones on which the lift of
    those found is estimated; without them it is that of the same documents, which a caveat says.
    text: how a token reads. top: how many are listed for an expert. The tests are one family over
    all tokens, layers and experts, whichever are asked about.
    """
    use = _Use(found)
    ids = _frequent(found, min_occurrences)
    tests = [_Tested(use, token) for token in ids]
    p = np.array([one.p for one in tests]).reshape(len(ids), len(found.layers) * found.num_experts)
    q = benjamini_hochberg(p.ravel()).reshape(p.shape)
    listed = {
        cell: _listed([one.lift[cell] for one in tests], q[:, cell] <= level, top)
        for cell in _cells(found, only)
    }
    pairs = [(ids[row], cell) for cell, rows in listed.items() for row in rows]
    lifts = _judged(found if judged is None else judged, pairs, seed=seed)

    def trigger(row: int, cell: int) -> TriggerToken:
        one, lift = tests[row], next(lifts)
        return TriggerToken(
            token_id=ids[row],
            token=text(ids[row]),
            occurrences=int(one.occurrences.sum()),
            documents=len(one.occurrences),
            hits=int(one.hits[:, cell].sum()),
            lift=msgspec.structs.replace(
                lift,
                null_mean=1.0,
                p=float(p[row, cell]),
                q=float(q[row, cell]),
                caveat=joined(SAME_DOCUMENTS if judged is None else None, lift.caveat),
            ),
        )

    return TriggerTokens(
        token_ids=len(ids),
        min_occurrences=min_occurrences,
        tested=p.size,
        discovered=int((q <= level).sum()),
        level=level,
        found_on=len(found.ids),
        judged_on=len((found if judged is None else judged).ids),
        held_out=judged is not None,
        experts=tuple(
            ExpertTriggers(
                layer=found.layers[cell // found.num_experts],
                expert=cell % found.num_experts,
                discovered=int((q[:, cell] <= level).sum()),
                tokens=tuple(sorted((trigger(row, cell) for row in rows), key=_by_lift)),
            )
            for cell, rows in listed.items()
        ),
    )


class _Use:
    """How much each document uses each of the C = L·E cells: used [D, C], of tokens [D]."""

    def __init__(self, documents: RoutedTokens) -> None:
        self.documents = documents
        self.used = np.array([documents.used(d) for d in range(len(documents.ids))])
        self.tokens = np.array([len(ids) for ids in documents.ids], float)


class _Tested:
    """One token: occurrences [D'] in the documents that have it, hits [D', C], and of every cell
    its lift [C] and p [C]."""

    def __init__(self, use: _Use, token: int) -> None:
        documents = use.documents
        rows = [ids == token for ids in documents.ids]
        having = [d for d, here in enumerate(rows) if here.any()]
        self.occurrences = np.array([rows[d].sum() for d in having], float)
        self.hits = np.array([documents.used(d, rows[d]) for d in having])
        n, hits = self.occurrences.sum(), self.hits.sum(axis=0)
        used, tokens = use.used.sum(axis=0), use.tokens.sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            self.lift = np.nan_to_num((hits / n) / (used / tokens))
        # Of the other tokens; one more hit than there is, as in a permutation test: never 0.
        elsewhere = (used - hits + 1) / (tokens - n + 1)
        others = use.tokens[having] - self.occurrences + PRIOR_TOKENS
        chance = (use.used[having] - self.hits + PRIOR_TOKENS * elsewhere) / others[:, None]
        self.p = _tail((self.hits / self.occurrences[:, None]).sum(axis=0), np.minimum(chance, 1))


def _frequent(documents: RoutedTokens, least: int) -> list[int]:
    """Token ids that occur so often, ascending."""
    if not documents.ids:
        return []
    ids, counts = np.unique(np.concatenate(documents.ids), return_counts=True)
    return [int(token) for token in ids[counts >= least]]


def _tail(sums: Array, chance: Array) -> Array:
    """[C]: P(heads ≥ ⌊sum⌋) for one coin of each document; chance [D', C], sums [C].

    Where the sum lies below what is expected, 1."""
    D, C = chance.shape
    p = np.ones(C)
    # Sums of shares of a token such as 1/3 + 2/3 are whole numbers but for their rounding.
    reached = np.floor(sums + 1e-9).astype(int)
    above = np.flatnonzero(sums > chance.sum(axis=0))
    heads = np.zeros((len(above), D + 1))
    heads[:, 0] = 1
    for number, coin in enumerate(chance[:, above], 1):
        heads[:, 1 : number + 1] = (
            heads[:, 1 : number + 1] * (1 - coin)[:, None] + heads[:, :number] * coin[:, None]
        )
        heads[:, 0] *= 1 - coin
    tails = np.cumsum(heads[:, ::-1], axis=1)[:, ::-1]
    p[above] = np.clip(tails[np.arange(len(above)), reached[above]], np.finfo(float).tiny, 1)
    return p


def _cells(documents: RoutedTokens, only: Collection[Cell] | None) -> list[int]:
    E = documents.num_experts
    every = range(len(documents.layers) * E)
    if only is None:
        return list(every)
    return [cell for cell in every if (documents.layers[cell // E], cell % E) in only]


def _listed(lifts: Sequence[float], discovered: NDArray[np.bool_], top: int) -> list[int]:
    """Rows of the tokens discovered for one cell, the largest lifts first."""
    rows = np.flatnonzero(discovered).tolist()
    return sorted(rows, key=lambda row: -lifts[row])[:top]


def _by_lift(trigger: TriggerToken) -> tuple[float, int]:
    lift = trigger.lift
    return math.inf if lift.value is None else -lift.value, -(lift.n_tokens or 0)


def _judged(
    documents: RoutedTokens, pairs: Sequence[tuple[int, int]], *, seed: int
) -> Iterator[Statistic]:
    """The lift of each (token, cell)."""
    if not pairs:
        return
    use = _Use(documents)
    cells = [cell for _, cell in pairs]
    n, hits = np.zeros((2, len(documents.ids), len(pairs)))
    for token in {token for token, _ in pairs}:
        columns = [at for at, (one, _) in enumerate(pairs) if one == token]
        for d, ids in enumerate(documents.ids):
            here = ids == token
            if here.any():
                n[d, columns] = here.sum()
                hits[d, columns] = documents.used(d, here)[[cells[at] for at in columns]]
    used = use.used[:, cells]

    def estimate(weights: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            of_token = (weights @ hits) / (weights @ n)
            of_all = (weights @ used) / (weights @ use.tokens)[:, None]
            found: Array = (of_token / of_all).T
        return found

    found = document_intervals(estimate, len(documents.ids), seed=seed)
    for at in range(len(pairs)):
        yield _lift(found.statistic((at,), n_tokens=int(n[:, at].sum())), int((n[:, at] > 0).sum()))


def _lift(statistic: Statistic, documents: int) -> Statistic:
    """The documents that hold the token are those that tell something."""
    few = documents < MIN_DOCUMENTS
    return msgspec.structs.replace(
        statistic,
        n_documents=documents,
        ci_low=None if few else statistic.ci_low,
        ci_high=None if few else statistic.ci_high,
        caveat=(
            ABSENT
            if not documents
            else f"no interval: it stands in {documents} of the documents, {MIN_DOCUMENTS} needed"
            if few
            else statistic.caveat
        ),
    )
