"""The matrices of an expert bank: which there are, and what they hold when unpacked.

A bank is a `SwitchGLU` or a `SwitchMLP` of mlx-lm; their linear layers have a row block for every
expert, and are told apart by the names that those two classes give them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from moetui.stats.neurons import align_neurons

# The parameters of one linear layer of a bank, [experts, ...] each.
Held = dict[str, mx.array]

INTO, OUT_OF = ("gate_proj", "up_proj", "fc1"), ("down_proj", "fc2")


def linears(bank: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every linear layer of a bank."""
    for name, module in bank.named_modules():
        if "weight" in module and module["weight"].ndim == 3:
            yield name, module


def parameters(linear: nn.Module) -> Held:
    """What a linear layer of a bank is made of."""
    return {name: value for name, value in linear.items() if isinstance(value, mx.array)}


def packing(linear: nn.Module) -> dict[str, Any]:
    """How a quantised linear layer is packed, as mlx's functions want it."""
    return {"group_size": linear.group_size, "bits": linear.bits, "mode": linear.mode}


def matrix(linear: nn.Module, held: Held, expert: int) -> mx.array:
    """float32 [out, in] of one expert, `held` in the place of the layer's own parameters."""
    if "scales" not in held:
        return held["weight"][expert].astype(mx.float32)
    biases, global_scale = held.get("biases"), held.get("global_scale")
    return mx.dequantize(
        held["weight"][expert],
        held["scales"][expert],
        None if biases is None else biases[expert],
        global_scale=None if global_scale is None else global_scale[expert],
        dtype=mx.float32,
        **packing(linear),
    )


def neuron_orders(
    bank: nn.Module, held: Mapping[int, Held], experts: list[int]
) -> dict[int, NDArray[np.intp]]:
    """[F] for each of `experts`: its neurons in the order of those of the first.

    held: by id of the linear layer, what stands in the place of its own parameters.
    """
    reference = _neurons(bank, held, experts[0])
    orders = {experts[0]: np.arange(len(reference))}
    for expert in experts[1:]:
        orders[expert] = align_neurons(reference, _neurons(bank, held, expert))
    return orders


def _neurons(bank: nn.Module, held: Mapping[int, Held], expert: int) -> NDArray[np.float32]:
    """[F, D]: what each neuron of one expert reads and writes by."""
    sides = []
    for name, linear in linears(bank):
        whole = matrix(linear, held.get(id(linear), parameters(linear)), expert)
        sides.append(np.array(whole if name in INTO else whole.T))
    return np.concatenate(sides, axis=-1)
