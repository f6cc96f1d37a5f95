"""Chains of edges through the layers, and how long they get by chance.

Many edges make long paths without any help: a path is only as surprising as its edges, unless
edges that were dealt out anew make shorter ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.edge_tests import Flags, Members, Pairs
from moetui.stats import (
    Statistic,
    document_intervals,
    permutation_test,
    ratio_of_sums,
)
from moetui.stats.permutation import PERMUTATIONS

Numbers = NDArray[np.float64]
# A node is an expert of a layer (row of the L axis).
Node = tuple[int, int]
Links = dict[Node, list[tuple[Node, float]]]

# So many paths are listed, the longest.
LISTED = 20
NULL = (
    "as many edges between each pair of layers, dealt out at random among the pairs of experts "
    "that were tested there"
)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """An expert of a decoder layer."""

    layer: int
    expert: int


class ExpertPath(msgspec.Struct, frozen=True, kw_only=True):
    """A chain of edges. weakest: the least of its edges' lifts over equal tokens. tokens: share
    of the evaluation tokens that chose all of its experts, with the product of their loads as
    null_mean and an interval over documents."""

    places: tuple[Place, ...]
    weakest: float
    tokens: Statistic


class ExpertPaths(msgspec.Struct, frozen=True, kw_only=True):
    """Paths through edges that beat all three shuffles.

    longest: edges of the longest path. joined: pairs of edges of which the second begins where
    the first ends. Both against the null. paths: two edges or more, the longest first; no edge
    is in two of them.
    """

    null: str
    longest: Statistic
    joined: Statistic
    paths: tuple[ExpertPath, ...]


class Tokens(Protocol):
    """A table of tokens, as `edge_halves.Half`."""

    @property
    def document(self) -> NDArray[np.int64]:
        """[T], ascending from 0."""

    @property
    def members(self) -> Members:
        """int8 [T, L, E]."""


def expert_paths(
    edges: Flags,
    tested: Flags,
    lift: Numbers,
    pairs: Pairs,
    layers: Sequence[int],
    half: Tokens,
    *,
    seed: int,
) -> ExpertPaths:
    """Paths of `edges` [P, E, E]; lift: [P, E, E], what makes one of equal length stronger."""
    counts = edges.sum(axis=(1, 2))
    cells = [np.argwhere(one) for one in tested]
    links = _links(edges, lift, pairs)

    def dealt(rng: np.random.Generator) -> tuple[float, float]:
        drawn = np.zeros_like(edges)
        for at, (n, among) in enumerate(zip(counts, cells, strict=True)):
            rows = among[rng.choice(len(among), n, replace=False)] if n else among[:0]
            drawn[at][tuple(rows.T)] = True
        return float(_longest(_links(drawn, lift, pairs))), float(_joined(drawn, pairs))

    rng = np.random.default_rng(seed)
    null = np.array([dealt(rng) for _ in range(PERMUTATIONS)]) if edges.any() else None
    return ExpertPaths(
        null=NULL,
        longest=_against(float(_longest(links)), None if null is None else null[:, 0], seed),
        joined=_against(float(_joined(edges, pairs)), None if null is None else null[:, 1], seed),
        paths=tuple(_listed(links, layers, half, seed)),
    )


def _against(observed: float, null: Numbers | None, seed: int) -> Statistic:
    if null is None:
        return Statistic(value=observed, seed=seed, caveat="there is no edge")
    found = permutation_test(observed, null)
    return msgspec.structs.replace(found, seed=seed, caveat="a count, without an interval")


def _links(edges: Flags, lift: Numbers, pairs: Pairs) -> Links:
    links: Links = {}
    for p, i, j in np.argwhere(edges).tolist():
        a, b = pairs[p]
        links.setdefault((a, i), []).append(((b, j), float(lift[p, i, j])))
    return links


def _joined(edges: Flags, pairs: Pairs) -> int:
    """Σ over experts of (edges that end there) · (edges that begin there)."""
    L, E = 1 + max((b for _, b in pairs), default=0), edges.shape[1]
    ending, beginning = np.zeros((L, E), np.int64), np.zeros((L, E), np.int64)
    for at, (a, b) in enumerate(pairs):
        beginning[a] += edges[at].sum(axis=1)
        ending[b] += edges[at].sum(axis=0)
    return int((ending * beginning).sum())


def _best(links: Links) -> dict[Node, tuple[int, float, Node | None]]:
    """From every node on: edges of the longest path, the sum of its log lifts, the next node."""
    best: dict[Node, tuple[int, float, Node | None]] = {}
    # Later layers first: all that follows a node is known when it is met.
    for node in sorted(links, reverse=True):
        for after, lift in links[node]:
            length, strength, _ = best.get(after, (0, 0.0, None))
            found = (length + 1, strength + float(np.log(max(lift, 1e-9))), after)
            if node not in best or found[:2] > best[node][:2]:
                best[node] = found
    return best


def _longest(links: Links) -> int:
    return max((length for length, _, _ in _best(links).values()), default=0)


def _listed(links: Links, layers: Sequence[int], half: Tokens, seed: int) -> list[ExpertPath]:
    """The longest path, then the longest of what is left without its edges, and so on."""
    left = {node: list(after) for node, after in links.items()}
    found: list[ExpertPath] = []
    while len(found) < LISTED:
        best = _best(left)
        start = max(best, key=lambda node: best[node][:2], default=None)
        if start is None or best[start][0] < 2:
            break
        nodes, weakest = [start], float("inf")
        while nodes[-1] in best and (after := best[nodes[-1]][2]) is not None:
            lift = dict(left[nodes[-1]])[after]
            weakest = min(weakest, lift)
            left[nodes[-1]] = [link for link in left[nodes[-1]] if link[0] != after]
            nodes.append(after)
        left = {node: links for node, links in left.items() if links}
        found.append(
            ExpertPath(
                places=tuple(Place(layer=layers[row], expert=e) for row, e in nodes),
                weakest=weakest,
                tokens=_share(nodes, half, seed),
            )
        )
    return found


def _share(nodes: Sequence[Node], half: Tokens, seed: int) -> Statistic:
    columns = np.stack([half.members[:, row, expert] for row, expert in nodes])
    n = np.bincount(half.document).astype(float)
    sums = np.bincount(half.document, columns.all(axis=0).astype(float))
    found = document_intervals(ratio_of_sums(sums, n), len(n), seed=seed)
    return msgspec.structs.replace(
        found.statistic(n_tokens=int(n.sum())),
        null_mean=float(columns.mean(axis=1).prod()),
    )
