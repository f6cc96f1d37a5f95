"""Merging experts: every expert of a group gets the group's weighted mean as its parameters.

Only the rows of the group are new; all other experts keep theirs bit for bit. The mean is taken
in float32. A quantised bank is dequantised for it, and the mean quantised the same way again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from moetui.model.swap import Swap
from moetui.trace.interventions import Merge

# The parameters of one linear layer of a bank, [experts, ...] each.
Held = dict[str, mx.array]


def merged_banks(banks: Mapping[int, nn.Module], merges: Sequence[Merge]) -> list[Swap]:
    """What to put in place of the parameters of `banks` (by decoder layer), the merges made one
    after the other. Evaluated: attaching the swaps costs nothing."""
    held: dict[int, tuple[nn.Module, Held]] = {}
    for merge in merges:
        if len(merge.experts) < 2:
            continue  # an expert is its own mean: quantising it again would change it
        for layer in banks if merge.layers is None else merge.layers:
            for linear in _linears(banks[layer]):
                _, before = held.get(id(linear), (linear, _parameters(linear)))
                held[id(linear)] = linear, before | _merge(linear, before, merge)
    swaps = [
        Swap(linear, name, array)
        for linear, after in held.values()
        for name, array in after.items()
        if array is not linear[name]
    ]
    mx.eval([after for _, after in held.values()])
    return swaps


def _linears(bank: nn.Module) -> Iterator[nn.Module]:
    matrices = (module for _, module in bank.named_modules() if "weight" in module)
    return (module for module in matrices if module["weight"].ndim == 3)


def _parameters(linear: nn.Module) -> Held:
    return {name: value for name, value in linear.items() if isinstance(value, mx.array)}


def _merge(linear: nn.Module, held: Held, merge: Merge) -> Held:
    """The parameters that change, with the rows of the group replaced."""
    frequencies = merge.frequencies or (1.0,) * len(merge.experts)
    group = sorted(zip(merge.experts, frequencies, strict=True))
    if "scales" in held:
        rows = _quantised_mean(linear, held, group)
    else:
        rows = {"weight": _mean([(held["weight"][expert], share) for expert, share in group])}
    if "bias" in held:
        rows["bias"] = _mean([(held["bias"][expert], share) for expert, share in group])
    experts = mx.array([expert for expert, _ in group])
    return {name: _with_rows(held[name], experts, row) for name, row in rows.items()}


def _mean(group: Sequence[tuple[mx.array, float]]) -> mx.array:
    """float32 Σ_i f_i x_i / Σ_i f_i."""
    total = mx.zeros(group[0][0].shape)
    for array, share in group:
        total = total + share * array.astype(mx.float32)
    return total / mx.array(sum(share for _, share in group), mx.float32)


def _quantised_mean(linear: nn.Module, held: Held, group: Sequence[tuple[int, float]]) -> Held:
    how: dict[str, Any] = {
        "group_size": linear.group_size, "bits": linear.bits, "mode": linear.mode,
    }  # fmt: skip
    mean = _mean([(_dequantised(held, expert, how), share) for expert, share in group])
    rows: Held = {}
    if "global_scale" in held:  # nvfp4 scales every expert by its own largest value
        rows["global_scale"] = how["global_scale"] = mx.abs(mean).max()
    if "biases" in held:  # affine scales have the precision of what was quantised
        mean = mean.astype(held["scales"].dtype)
    names = ("weight", "scales", "biases")
    return rows | dict(zip(names, mx.quantize(mean, **how), strict=False))


def _dequantised(held: Held, expert: int, how: Mapping[str, Any]) -> mx.array:
    biases, global_scale = held.get("biases"), held.get("global_scale")
    return mx.dequantize(
        held["weight"][expert],
        held["scales"][expert],
        None if biases is None else biases[expert],
        global_scale=None if global_scale is None else global_scale[expert],
        dtype=mx.float32,
        **how,
    )


def _with_rows(array: mx.array, group: mx.array, row: mx.array) -> mx.array:
    changed = mx.array(array)
    changed[group] = row.astype(array.dtype)
    return changed
