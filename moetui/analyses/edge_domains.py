"""In which part of a corpus two experts meet: arithmetic, code, prose …"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.edge_tests import Members, Pairs
from moetui.analyses.routed import RoutedDocument
from moetui.stats import Statistic, family_test, finite
from moetui.stats.permutation import PERMUTATIONS

Numbers = NDArray[np.float64]


class EdgeDomain(msgspec.Struct, frozen=True, kw_only=True):
    """Where two experts meet most.

    rate: share of the domain's tokens that chose both, with that of all documents as null_mean
    and a family-wise q over all edges and domains (domains of documents permuted). lift_inside:
    how many times more often than independent layers would *within* that domain: about 1 where
    both are merely popular there.
    """

    domain: str
    rate: Statistic
    lift_inside: float | None


class Documents(Protocol):
    """A table of tokens, as `edge_halves.Half`."""

    @property
    def documents(self) -> tuple[RoutedDocument, ...]:
        """[D]."""

    @property
    def members(self) -> Members:
        """int8 [T, L, E]."""

    def by_document(self, rows: NDArray[np.generic]) -> Numbers:
        """[D, C] from [T, C]."""


def edge_domains(
    half: Documents, cells: Sequence[tuple[int, int, int]], pairs: Pairs, *, seed: int
) -> list[EdgeDomain]:
    """Of every cell (pair of layers, expert, expert); none where there are no two domains."""
    domains = [one.domain for one in half.documents]
    names = sorted(set(domains))
    if len(names) < 2 or not cells:
        return []
    source = half.by_document(_columns(half.members, [(pairs[p][0], i) for p, i, _ in cells]))
    target = half.by_document(_columns(half.members, [(pairs[p][1], j) for p, _, j in cells]))
    both = half.by_document(
        _columns(half.members, [(pairs[p][0], i) for p, i, _ in cells])
        * _columns(half.members, [(pairs[p][1], j) for p, _, j in cells])
    )
    tokens = np.array([len(one.ids) for one in half.documents], float)
    of = np.array([[domain == name for domain in domains] for name in names], float)
    family = family_test(
        _scores(of, both, tokens).ravel(),
        lambda rng: _scores(rng.permutation(of, axis=1), both, tokens).ravel(),
        permutations=PERMUTATIONS,
        seed=seed,
    )
    best = family.value.reshape(len(names), len(cells)).argmax(axis=0)
    found = []
    for cell, domain in enumerate(best.tolist()):
        size = float(of[domain] @ tokens)
        inside = [float(of[domain] @ counts[:, cell]) for counts in (both, source, target)]
        expected = inside[1] * inside[2] / size
        index = domain * len(cells) + cell
        found.append(
            EdgeDomain(
                domain=names[domain],
                rate=Statistic(
                    value=inside[0] / size,
                    null_mean=finite(float(both[:, cell].sum() / tokens.sum())),
                    p=float(family.p[index]),
                    q=float(family.q[index]),
                    n_tokens=int(size),
                    n_documents=int(of[domain].sum()),
                    seed=seed,
                    caveat="null = the rate in all documents; no interval",
                ),
                lift_inside=inside[0] / expected if expected else None,
            )
        )
    return found


def _columns(chosen: Members, experts: Sequence[tuple[int, int]]) -> NDArray[np.int8]:
    """int8 [T, C]."""
    layers, ids = np.array(experts).T
    return np.asarray(chosen[:, layers, ids])


def _scores(of: Numbers, both: Numbers, tokens: Numbers) -> Numbers:
    """[G, C]: how many standard deviations (over permutations of documents) more often than its
    size says each pair meets in each domain."""
    excess = both - tokens[:, None] * (both.sum(axis=0) / tokens.sum())
    D, n = len(tokens), of.sum(axis=1)
    spread = excess.var(axis=0, ddof=1)
    scale = np.sqrt(n * (D - n) / D)[:, None] * np.sqrt(spread)
    scores = np.zeros((len(of), both.shape[1]))
    centred = of @ excess - n[:, None] * excess.mean(axis=0)
    np.divide(centred, scale, out=scores, where=scale > 0)
    return scores
