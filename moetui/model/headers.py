"""What the headers of a checkpoint's safetensors files tell of its experts and routers.

A header names every tensor with its type and shape, so nothing here reads a weight or knows an
architecture: experts are numbered siblings or tensors with one slice an expert, a router is the
matrix with a row an expert below a child called `gate` or `router`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set

from moetui.model.safetensors import Tensor

# `model.layers.3.mlp.experts.7.up_proj.weight`: one tensor an expert.
_NUMBERED = re.compile(r"(?:^|\.)(?:experts|moe\.mlp)\.(\d+)\.")
# `model.layers.3.mlp.switch_mlp.up_proj.weight` [E, F, H]: all experts of a layer in one tensor.
_STACKED = re.compile(r"(?:^|\.)(?:experts|switch_mlp|switch_glu)(?:\.|$)")
_LAYER = re.compile(r"(?:^|\.)(?:layers|blocks|h)\.(\d+)\.")
_GATES = frozenset(("gate", "router"))
_BITS = {"F64": 64, "F32": 32, "BF16": 16, "F16": 16, "F8_E4M3": 8, "F8_E5M2": 8}


Tensors = Mapping[str, Tensor]


def experts_by_layer(tensors: Tensors, claimed: int) -> dict[int, int]:
    """Layer → how many routed experts it has weights for; empty for a dense model.

    claimed: what the configuration says, 0 for nothing. It is needed only for experts that are
    named like any other tensor, and for those whose matrices lie on top of each other.
    """
    found: dict[int, int] = {}
    for layer, count, _ in _of_experts(tensors, claimed):
        found[layer] = max(found.get(layer, 0), count)
    return found


def expert_bytes(tensors: Tensors, claimed: int) -> dict[int, int]:
    """Layer → bytes that one routed expert takes in the checkpoint (the mean of its layer, whose
    experts are alike), scales and biases included; `claimed` as for `experts_by_layer`."""
    counts = experts_by_layer(tensors, claimed)
    sums = dict.fromkeys(counts, 0)
    for layer, _, tensor in _of_experts(tensors, claimed):
        sums[layer] += tensor.nbytes
    return {layer: total // counts[layer] for layer, total in sums.items()}


def _of_experts(tensors: Tensors, claimed: int) -> Iterator[tuple[int, int, Tensor]]:
    """Layer, how many experts there must be at least, and tensor, of all that belong to experts."""
    blocks = {_block(name) for name in tensors if _may_be_router(name, tensors[name], claimed)}
    for name, tensor in tensors.items():
        layer = _LAYER.search(name)
        if layer is None:
            continue
        count = _named_experts(name, tensor, claimed) or _beside(name, tensor, claimed, blocks)
        if count:
            yield int(layer[1]), count, tensor


def router_bits(tensors: Tensors, experts: int, hidden_size: int | None) -> int | None:
    """Bits per weight of the routers themselves, the fewest of any layer; None when unknown.

    A packed router has its bits from its shape: its columns of 32 bits hold `hidden_size` weights.
    """
    bits = [_bits(tensors, name, hidden_size) for name in _routers(tensors, experts)]
    known = [b for b in bits if b is not None]
    return min(known) if known else None


def _named_experts(name: str, tensor: Tensor, claimed: int) -> int:
    """How many experts there must be for a tensor of this name; 0 when it names none."""
    if numbered := _NUMBERED.search(name):
        return int(numbered[1]) + 1
    if not _STACKED.search(name) or not tensor.shape:
        return 0
    rows = tensor.shape[0]
    if len(tensor.shape) > 2:
        return rows
    return claimed if claimed and rows and rows % claimed == 0 else 0


def _beside(name: str, tensor: Tensor, claimed: int, blocks: Set[str]) -> int:
    """The same for `block_sparse_moe.input_linear.weight`: one slice an expert, beside a router."""
    if len(tensor.shape) != 3 or tensor.shape[0] != claimed:
        return 0
    return claimed if ".".join(name.split(".")[:-2]) in blocks else 0


def _block(router: str) -> str:
    """The path of the module whose child the router is."""
    path = router.split(".")
    return ".".join(path[: next(i for i, part in enumerate(path) if part in _GATES)])


def _routers(tensors: Tensors, experts: int) -> Iterator[str]:
    """The name of every layer's router weight."""
    found: dict[int, tuple[bool, int, str]] = {}
    for name, tensor in tensors.items():
        layer = _LAYER.search(name)
        if layer is None or not _may_be_router(name, tensor, experts):
            continue
        rank = (tensor.shape[0] != experts, name.count("."), name)
        number = int(layer[1])
        found[number] = min(found.get(number, rank), rank)
    return (name for _, _, name in found.values())


def _may_be_router(name: str, tensor: Tensor, experts: int) -> bool:
    if not name.endswith(".weight") or len(tensor.shape) != 2 or tensor.shape[0] < experts:
        return False
    if _NUMBERED.search(name) or _STACKED.search(name):
        return False
    return not _GATES.isdisjoint(name.split("."))


def _bits(tensors: Tensors, router: str, hidden_size: int | None) -> int | None:
    weight = tensors[router]
    packed = f"{router.removesuffix('.weight')}.scales" in tensors
    if not packed:
        return _BITS.get(weight.dtype)
    return weight.shape[1] * 32 // hidden_size if hidden_size else None
