"""The changes that what-if makes: what they concern, whether a model can be asked, and controls.

A single ablation says little: in some layers every expert matters as much. So the same change is
made to other experts of the same layer (or, where it names no expert, in other layers), and the
value is read beside what these give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import msgspec
import numpy as np

from moetui.errors import UsageError
from moetui.trace import Ban, Deselect, Drop, Force, ScalePart, TopK, Trace

ExpertChange = Drop | Deselect | Ban | Force
LayerChange = TopK | ScalePart
Change = ExpertChange | LayerChange

_Chosen = tuple[int, ...]


def layers_of(change: Change, trace: Trace) -> tuple[int, ...]:
    """The decoder layers that `change` concerns."""
    if change.layers is not None:
        return change.layers
    if isinstance(change, ScalePart):
        return tuple(range(trace.model.num_layers))
    return tuple(trace.layers.tolist())


def experts_at(trace: Trace, layers: Sequence[int]) -> tuple[int, ...]:
    """The experts that every one of these layers has."""
    rows = np.isin(trace.layers, layers)
    # A layer with fewer experts than the widest has no logits for the rest.
    has = ~np.isnan(trace.router_logits[0, rows]).any(axis=0)
    return tuple(np.flatnonzero(has).tolist())


def chosen_at(trace: Trace, layer: int) -> tuple[int, ...]:
    """The experts that ran in `layer` at the last token."""
    row = int(np.flatnonzero(trace.layers == layer)[0])
    return tuple(e for e in trace.expert_ids[-1, row].tolist() if e >= 0)


def later_layers(changes: Sequence[Change], trace: Trace) -> list[int]:
    """The routing layers whose router sees the change: those after the first that is changed.

    Where attention is changed that layer's own router too, which reads what attention adds.
    """
    seen_from = [
        min(layers_of(change, trace)) + (0 if _is_attention(change) else 1) for change in changes
    ]
    return [layer for layer in trace.layers.tolist() if layer >= min(seen_from)]


def edits_selection(changes: Sequence[Change], layer: int, trace: Trace) -> bool:
    """Whether the selection in `layer` is itself edited. Experts that are dropped stay selected."""
    return any(
        not isinstance(change, Drop | ScalePart) and layer in layers_of(change, trace)
        for change in changes
    )


def tokens_using(changes: Sequence[Change], trace: Trace) -> int | None:
    """How many tokens select any of the changed experts; None where no expert is named."""
    uses = np.zeros(len(trace), bool)
    for change in changes:
        if isinstance(change, LayerChange):
            return None
        rows = np.isin(trace.layers, layers_of(change, trace))
        uses |= np.isin(trace.expert_ids[:, rows], change.experts).any(axis=(1, 2))
    return int(uses.sum())


def check_changes(changes: Sequence[Change], trace: Trace) -> None:
    """Refuse what this model cannot do, before any pass is spent on it. Raises UsageError."""
    if not changes:
        raise UsageError("there is nothing to change", "name an intervention")
    for change in changes:
        if not isinstance(change, LayerChange):
            _check_experts(change, trace)


def _check_experts(change: ExpertChange, trace: Trace) -> None:
    layers = layers_of(change, trace)
    dense = [layer for layer in layers if layer not in trace.layers]
    if dense or not layers:
        raise UsageError(
            f"layer {dense[0] if dense else 0} does not route", "choose a layer that routes"
        )
    there = experts_at(trace, layers)
    missing = [expert for expert in change.experts if expert not in there]
    if missing:
        raise UsageError(f"there is no expert {missing[0]}", "count experts from 0")
    k, named = trace.model.top_k, len(set(change.experts))
    if isinstance(change, Force) and named > k:
        raise UsageError(f"{named} experts cannot be forced: a token uses {k}", f"pin at most {k}")
    if isinstance(change, Deselect | Ban) and len(there) - named < k:
        raise UsageError(
            f"without {named} of {len(there)} experts fewer than {k} are left to choose",
            f"leave at least {k}, or drop them instead",
        )


def _is_attention(change: Change) -> bool:
    return isinstance(change, ScalePart) and change.part == "attention"


@dataclass(frozen=True)
class _Pool:
    """What may stand in for the experts (or layers) of one change: `size` out of `others`."""

    change: Change
    others: tuple[int, ...]
    size: int

    @property
    def count(self) -> int:
        return math.comb(len(self.others), self.size)

    def put(self, chosen: _Chosen) -> Change:
        name = "layers" if isinstance(self.change, LayerChange) else "experts"
        changed: Change = msgspec.structs.replace(self.change, **{name: chosen})
        return changed


def controls_of(
    changes: Sequence[Change], trace: Trace, *, count: int, seed: int
) -> list[tuple[Change, ...]]:
    """At most `count` different controls of `changes`, fewer where there are not as many.

    trace: of the unchanged model; it says which experts each layer has. A control shares no
    expert with the change it stands beside; a change that names no expert is made in other
    layers, and has no control where it concerns all of them.
    """
    pools = [_pool(change, trace) for change in changes]
    rng = np.random.default_rng(seed)
    possible = math.prod(pool.count for pool in pools)
    if possible <= count:
        whole = list(product(*(combinations(pool.others, pool.size) for pool in pools)))
        drawn = [whole[i] for i in rng.permutation(len(whole))]
    else:
        drawn = _distinct(pools, rng, count)
    return [
        tuple(pool.put(chosen) for pool, chosen in zip(pools, picked, strict=True))
        for picked in drawn
    ]


def possible_controls(changes: Sequence[Change], trace: Trace) -> int:
    """How many different controls there are."""
    return math.prod(_pool(change, trace).count for change in changes)


def _pool(change: Change, trace: Trace) -> _Pool:
    if isinstance(change, LayerChange):
        layers = layers_of(change, trace)
        routing = tuple(trace.layers.tolist())
        every = routing if set(layers) <= set(routing) else range(trace.model.num_layers)
        return _Pool(change, tuple(layer for layer in every if layer not in layers), len(layers))
    there = experts_at(trace, layers_of(change, trace))
    return _Pool(change, tuple(e for e in there if e not in change.experts), len(change.experts))


def _distinct(
    pools: Sequence[_Pool], rng: np.random.Generator, count: int
) -> list[tuple[_Chosen, ...]]:
    """`count` different draws, of the more than `count` that there are."""
    drawn: dict[tuple[_Chosen, ...], None] = {}
    while len(drawn) < count:
        picked = tuple(
            tuple(sorted(rng.choice(pool.others, pool.size, replace=False).tolist()))
            for pool in pools
        )
        drawn.setdefault(picked)
    return list(drawn)
