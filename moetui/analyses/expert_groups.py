"""Which experts of a layer become one or are left out, and the interventions that do it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moetui.errors import UsageError
from moetui.trace import Ban, Deselect, Forward, Intervention, Merge

Numbers = NDArray[np.float64]
Group = tuple[int, ...]


def control_pairs(
    load: Numbers, pair: tuple[int, int], *, wanted: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Pairs of other experts, drawn from the half of all pairs (at least `wanted`) whose load
    together is nearest to that of `pair`: merging what is hardly used costs little whatever it
    is."""
    i, j = np.triu_indices(len(load), 1)
    others = (i != pair[0]) | (j != pair[1])
    i, j = i[others], j[others]
    distance = np.abs(load[i] + load[j] - load[list(pair)].sum())
    near = np.argsort(distance, kind="stable")[: max(wanted, len(i) // 2)]
    drawn = rng.choice(near, min(wanted, len(near)), replace=False)
    return [(int(i[at]), int(j[at])) for at in np.sort(drawn)]


def groups_of(similarity: Numbers, removed: int) -> list[Group]:
    """The groups of two or more that `removed` joins make of E experts: average linkage on
    1 − similarity [E, E] (as HC-SMoE, arXiv 2410.08589), so that E − removed experts are left.
    What is not known counts as not alike."""
    from scipy.cluster.hierarchy import linkage

    E = len(similarity)
    i, j = np.triu_indices(E, 1)
    distance = 1 - np.nan_to_num(similarity[i, j], nan=-1.0)
    clusters: dict[int, Group] = {e: (e,) for e in range(E)}
    for step, (one, other, *_) in enumerate(linkage(distance, "average")[:removed]):
        clusters[E + step] = clusters.pop(int(one)) + clusters.pop(int(other))
    return sorted(tuple(sorted(c)) for c in clusters.values() if len(c) > 1)


def random_groups(groups: Sequence[Group], experts: int, rng: np.random.Generator) -> list[Group]:
    """Groups of the same sizes, of experts drawn at random."""
    order = rng.permutation(experts).tolist()
    found, start = [], 0
    for size in map(len, groups):
        found.append(tuple(sorted(order[start : start + size])))
        start += size
    return found


def merges(
    layer: int, groups: Sequence[Group], load: Numbers | None, *, aligned: bool
) -> list[Intervention]:
    """Each group becomes one expert: its mean by load (equal shares for None, or without any)."""
    made: list[Intervention] = []
    for group in groups:
        shares = None if load is None else tuple(float(load[e]) for e in group)
        if shares is not None and sum(shares) <= 0:
            shares = None
        made.append(Merge(experts=group, layers=(layer,), frequencies=shares, aligned=aligned))
    return made


def least(scores: Numbers, removed: int) -> Group:
    """The `removed` experts with the smallest scores, the first of equals."""
    return tuple(sorted(int(e) for e in np.argsort(scores, kind="stable")[:removed]))


def prunes(model: Forward, layer: int, experts: Group) -> list[Intervention]:
    """What a model without these experts does: they cannot be chosen.

    Under softmax the logit decides choice and weights, and a banned one leaves the others those
    of a router without that row. Elsewhere a correction bias may choose them still, so the choice
    is edited; weights there depend on nothing but the chosen. Where that is refused, the logit.
    """
    if model.info.shift_invariant:
        return [Ban(experts=experts, layers=(layer,))]
    deselected = Deselect(experts=experts, layers=(layer,))
    try:
        model.nll([0, 0], [deselected])
    except UsageError:
        return [Ban(experts=experts, layers=(layer,))]
    return [deselected]
