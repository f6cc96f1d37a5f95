"""Merging experts: every expert of a group gets the group's weighted mean as its parameters.

Only the rows of the group are new; all other experts keep theirs bit for bit. The mean is taken
in float32, of neurons in one order where that is asked for. A quantised bank is dequantised for
it, and the mean quantised the same way again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from moetui.model.bank import (
    INTO,
    Held,
    linears,
    matrix,
    neuron_orders,
    packing,
    parameters,
)
from moetui.model.swap import Swap
from moetui.trace.interventions import Merge


class Merging:
    """The banks of a model, by decoder layer. The parameters made last are kept: the passes of a
    study ask for the same merge once a document."""

    def __init__(self, banks: Mapping[int, nn.Module]) -> None:
        self._banks = banks
        self._merges: tuple[Merge, ...] = ()
        self._made_of: list[mx.array] = []
        self._swaps: list[Swap] = []

    def swaps(self, merges: Sequence[Merge]) -> list[Swap]:
        """`merged_banks` of these merges; with none, what was kept is given back."""
        arrays = _arrays(self._banks.values()) if merges else []
        same = len(arrays) == len(self._made_of) and all(
            one is other for one, other in zip(arrays, self._made_of, strict=True)
        )
        if not same or tuple(merges) != self._merges:
            self._swaps = merged_banks(self._banks, merges)
            self._merges, self._made_of = tuple(merges), arrays
        return self._swaps


def merged_banks(banks: Mapping[int, nn.Module], merges: Sequence[Merge]) -> list[Swap]:
    """What to put in place of the parameters of `banks` (by decoder layer), the merges made one
    after the other. Evaluated: attaching the swaps costs nothing."""
    held: dict[int, Held] = {}
    modules: dict[int, nn.Module] = {}
    for merge in merges:
        if len(merge.experts) < 2:
            continue  # an expert is its own mean: quantising it again would change it
        for layer in banks if merge.layers is None else merge.layers:
            bank = banks[layer]
            group = _group(merge, bank, held)
            for name, linear in linears(bank):
                before = held.get(id(linear), parameters(linear))
                held[id(linear)] = before | _merge(name, linear, before, group)
                modules[id(linear)] = linear
    swaps = [
        Swap(modules[key], name, array)
        for key, after in held.items()
        for name, array in after.items()
        if array is not modules[key][name]
    ]
    mx.eval(list(held.values()))
    return swaps


@dataclass(frozen=True, eq=False)
class _Member:
    """An expert of a group: its share, and the order in which its neurons are taken."""

    expert: int
    share: float
    order: NDArray[np.intp] | None

    def taken(self, array: mx.array, axis: int) -> mx.array:
        return array if self.order is None else mx.take(array, mx.array(self.order), axis=axis)


def _group(merge: Merge, bank: nn.Module, held: Mapping[int, Held]) -> list[_Member]:
    """The members by their number; aligned ones follow the first of the largest share."""
    shares = dict(zip(merge.experts, merge.frequencies or (1.0,) * len(merge.experts), strict=True))
    orders: dict[int, NDArray[np.intp]] = {}
    if merge.aligned:
        leading = sorted(shares, key=lambda expert: (-shares[expert], expert))
        orders = neuron_orders(bank, held, leading)
    return [_Member(expert, shares[expert], orders.get(expert)) for expert in sorted(shares)]


def _arrays(banks: Iterable[nn.Module]) -> list[mx.array]:
    return [
        array for bank in banks for _, linear in linears(bank)
        for array in parameters(linear).values()
    ]  # fmt: skip


def _merge(name: str, linear: nn.Module, held: Held, group: Sequence[_Member]) -> Held:
    """The parameters that change, with the rows of the group replaced."""
    axis = 0 if name in INTO else 1
    matrices = [
        (member.taken(matrix(linear, held, member.expert), axis), member.share) for member in group
    ]
    rows = _packed(linear, held, _mean(matrices))
    if "bias" in held:
        # What is added to the neurons goes with them, what is added to their sum does not.
        order = partial(_Member.taken, axis=0) if name in INTO else (lambda _, bias: bias)
        biases = [(order(member, held["bias"][member.expert]), member.share) for member in group]
        rows["bias"] = _mean(biases)
    experts = mx.array([member.expert for member in group])
    return {key: _with_rows(held[key], experts, row) for key, row in rows.items()}


def _mean(group: Sequence[tuple[mx.array, float]]) -> mx.array:
    """float32 Σ_i f_i x_i / Σ_i f_i."""
    total = mx.zeros(group[0][0].shape)
    for array, share in group:
        total = total + share * array.astype(mx.float32)
    return total / mx.array(sum(share for _, share in group), mx.float32)


def _packed(linear: nn.Module, held: Held, mean: mx.array) -> Held:
    """A matrix as the layer holds those of its experts."""
    if "scales" not in held:
        return {"weight": mean}
    how = packing(linear)
    rows: Held = {}
    if "global_scale" in held:  # nvfp4 scales every expert by its own largest value
        rows["global_scale"] = how["global_scale"] = mx.abs(mean).max()
    if "biases" in held:  # affine scales have the precision of what was quantised
        mean = mean.astype(held["scales"].dtype)
    names = ("weight", "scales", "biases")
    return rows | dict(zip(names, mx.quantize(mean, **how), strict=False))


def _with_rows(array: mx.array, group: mx.array, row: mx.array) -> mx.array:
    changed = mx.array(array)
    changed[group] = row.astype(array.dtype)
    return changed
