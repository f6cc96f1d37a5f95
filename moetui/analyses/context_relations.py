"""How tables of distances between contexts go together: token by token, and over tokens.

A token in n contexts gives n × n tables; whether two go together is told by Mantel's test. Pairs
of contexts are not independent, so a token gives one number. Nor are tokens: their contexts are
from the same documents, so what is told of tokens allows for what these do to all at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.attention_profiles import (
    TargetContexts,
    attention_distances,
    hidden_distances,
    length_distances,
    previous_distances,
)
from moetui.analyses.context_distances import Distances, distances_of
from moetui.analyses.context_uses import WordUses
from moetui.stats import (
    APPROXIMATE,
    MIN_DOCUMENTS,
    DocumentGroups,
    Statistic,
    joined,
    partial_mantel,
    rank_correlation,
    shared_mean,
)

Numbers = NDArray[np.float64]

# The fewest objects that two tables of distances can be compared on.
LEAST_CONTEXTS = 4
OVER_TARGETS = "mean of Fisher's z over target tokens"
INTERVAL = (
    "interval and p by t, from the variance between tokens and what they share through documents "
    "(by leaving groups of documents out of all tokens)"
)
# A number at the end of its range has no Fisher's z.
_MOST = 1 - 1e-12


class Relation(msgspec.Struct, frozen=True, kw_only=True):
    """How tables of distances go together at a layer (None: mean over the layers).

    raw: attention and routing. partial: the same without what length, the token before and the
    hidden state explain. hidden: hidden state and routing.
    """

    layer: int | None
    raw: Statistic
    partial: Statistic
    hidden: Statistic


@dataclass(frozen=True, eq=False, kw_only=True)
class _Tables:
    """Distances [C, C] between the contexts of a token at a layer; shared: of length and of the
    token before."""

    attention: Numbers
    routing: Numbers
    hidden: Numbers
    shared: tuple[Numbers, ...]

    def compared(self) -> tuple[tuple[Numbers, Numbers, tuple[Numbers, ...]], ...]:
        """The two tables of each number of a Relation, and what is taken out of them."""
        return (
            (self.attention, self.routing, ()),
            (self.attention, self.routing, (*self.shared, self.hidden)),
            (self.hidden, self.routing, ()),
        )

    def of(self, contexts: NDArray[np.intp]) -> _Tables:
        """Of some of the contexts."""
        some = np.ix_(contexts, contexts)
        return _Tables(
            attention=self.attention[some],
            routing=self.routing[some],
            hidden=self.hidden[some],
            shared=tuple(table[some] for table in self.shared),
        )


def relations(
    target: TargetContexts,
    layers: Sequence[int],
    places: Sequence[int],
    *,
    permutations: int,
    seed: int,
) -> tuple[Relation, ...]:
    """The Mantel tests of one target at the `places` of `layers`. Raises ValueError below four
    contexts."""
    found = []
    for place in places:
        raw, partial, hidden = (
            partial_mantel(a, b, controls, permutations=permutations, seed=seed)
            for a, b, controls in _tables(target, place).compared()
        )
        found.append(Relation(layer=layers[place], raw=raw, partial=partial, hidden=hidden))
    return tuple(found)


def relations_without(
    target: TargetContexts, places: Sequence[int], groups: DocumentGroups
) -> Numbers:
    """[3, P, G]: Fisher's z of raw, partial and hidden at the places, without the contexts from
    the documents of each group; NaN where there is none."""
    mine = np.array([groups.of[one.use.document] for one in target.contexts])
    found = np.full((3, len(places), groups.size), np.nan)
    for row, place in enumerate(places):
        tables = _tables(target, place)
        for group in range(groups.size):
            left = np.flatnonzero(mine != group)
            if len(left) >= LEAST_CONTEXTS:
                found[:, row, group] = [
                    _fisher(rank_correlation(*one)) for one in tables.of(left).compared()
                ]
    return found


def relation_over_targets(
    targets: Sequence[Sequence[Relation]],
    without: Numbers,
    *,
    layer: int | None,
    documents: int,
    seed: int,
) -> Relation:
    """Over n targets, of each the mean over its R relations; without [n, 3, R, G] as from
    `relations_without`. layer: what to call it; documents: how many the contexts are from."""
    raw, partial, hidden = (
        over_targets(
            *_mean_of_layers(
                [[getattr(one, name).value for one in rows] for rows in targets],
                without[:, at],
            ),
            documents=documents,
            seed=seed,
        )
        for at, name in enumerate(("raw", "partial", "hidden"))
    )
    return Relation(layer=layer, raw=raw, partial=partial, hidden=hidden)


def over_targets(z: Numbers, without: Numbers, *, documents: int, seed: int) -> Statistic:
    """Mean correlation of n target tokens by their Fisher's z [n], NaN for none; without [n, G]:
    the same without each group of the `documents` that the contexts are from.

    A token is one number, whatever its own test says. 95 % interval and two-sided p by t, from 20
    tokens and 20 documents on.
    """
    known = np.isfinite(z)
    n, missing = int(known.sum()), int((~known).sum())
    lacking = f"{missing} targets have no such correlation" if missing else None
    if not n:
        return Statistic(n_documents=0, seed=seed, caveat=joined("no target", lacking))
    value = Statistic(
        value=float(np.tanh(z[known].mean())), null_mean=0.0, n_documents=documents, seed=seed
    )
    short = _too_few(n, documents, without[known])
    if short is not None:
        return msgspec.structs.replace(value, caveat=joined(OVER_TARGETS, short, lacking))
    mean, error, degrees = shared_mean(z[known], without[known])
    if error == 0:
        short = "no interval: all tokens and documents give the same number"
        return msgspec.structs.replace(value, caveat=joined(OVER_TARGETS, short, lacking))
    # Imported here: scipy.stats takes most of a second.
    from scipy.stats import t

    half = float(t.ppf(0.975, degrees)) * error
    usual = f"approximate interval: {documents} documents" if documents < APPROXIMATE else None
    return msgspec.structs.replace(
        value,
        ci_low=float(np.tanh(mean - half)),
        ci_high=float(np.tanh(mean + half)),
        p=max(2 * float(t.sf(abs(mean) / error, degrees)), float(np.finfo(float).tiny)),
        caveat=joined(OVER_TARGETS, INTERVAL, usual, lacking),
    )


def routing_distances(target: TargetContexts, place: int) -> Distances:
    """Distances of the experts' weights."""
    uses = WordUses(
        word=target.word,
        token_id=target.token_id,
        token_text=target.token_text,
        experts=target.experts,
        kept=tuple(one.use for one in target.contexts),
        dropped=target.dropped,
    )
    return distances_of(uses, place)[1]


def _too_few(targets: int, documents: int, without: Numbers) -> str | None:
    """Why there is no interval, None where there is one."""
    if targets < MIN_DOCUMENTS:
        return f"no interval: {targets} targets, {MIN_DOCUMENTS} needed"
    if documents < MIN_DOCUMENTS:
        return f"no interval: {documents} documents, {MIN_DOCUMENTS} needed"
    if not np.isfinite(without).all():
        return "no interval: undefined without some of the documents"
    return None


def _mean_of_layers(
    values: Sequence[Sequence[float | None]], without: Numbers
) -> tuple[Numbers, Numbers]:
    """Of every target the mean Fisher's z over the layers where it has one [n], and the same
    without each group [n, G]; without [n, R, G]."""
    z = np.array([_fisher(value) for row in values for value in row]).reshape(without.shape[:2])
    known = np.isfinite(z)
    layers = known.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, z, 0.0).sum(axis=1) / layers
        left = np.where(known[..., None], without, 0.0).sum(axis=1) / layers[:, None]
    return mean, left


def _fisher(correlation: float | None) -> float:
    return np.nan if correlation is None else float(np.arctanh(np.clip(correlation, -_MOST, _MOST)))


def _tables(target: TargetContexts, place: int) -> _Tables:
    contexts = target.contexts
    return _Tables(
        attention=attention_distances(np.stack([one.profiles[place] for one in contexts])),
        routing=routing_distances(target, place).matrix.round(6),
        hidden=hidden_distances(np.stack([one.hidden[place] for one in contexts])),
        shared=(length_distances(contexts), previous_distances(contexts)),
    )
