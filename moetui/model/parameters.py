"""How many numbers a model learnt, and in which of its parts they are."""

from __future__ import annotations

from collections.abc import Iterable

import mlx.core as mx
import mlx.nn as nn

from moetui.model.architecture import Architecture, embedding_rows
from moetui.trace import ModelInfo
from moetui.trace.bank import ParameterCount, ParameterCounts

_QUANTIZATION = ("scales", "biases", "global_scale")


def learnt(module: nn.Module) -> int:
    """How many numbers the module itself learnt, without those of its children; packed weights
    count as what they stand for."""
    total = 0
    packed = "scales" in module
    for name, array in module.items():
        if not isinstance(array, mx.array) or name.startswith("_"):
            continue
        if packed and name == "weight":
            total += array.size * 32 // module.bits
        elif not (packed and name in _QUANTIZATION):
            total += array.size
    return total


def all_learnt(network: nn.Module) -> int:
    """The same of the network and everything below it."""
    return sum(learnt(module) for _, module in network.named_modules())


def parameter_counts(
    network: nn.Module, architecture: Architecture, info: ModelInfo
) -> ParameterCounts:
    """Every module is counted once, for the first part that it belongs to."""
    sites = architecture.sites.values()
    layers = {id(layer) for layer in architecture.layers}
    apart = [site.block for site in sites if id(site.block) not in layers]
    left = {id(module): module for _, module in network.named_modules()}

    def take(roots: Iterable[nn.Module]) -> ParameterCount:
        mine = {id(m): m for root in roots for _, m in root.named_modules()}
        return _counted([left.pop(key) for key in mine if key in left])

    routed = take(site.bank for site in sites)
    routers = take(module for site in sites for module in (site.gate, site.router))
    shared = take(apart)
    rows = embedding_rows(network)
    embeddings = take([m for m in left.values() if _rows(m) == rows])
    return ParameterCounts(
        routers=routers,
        routed=routed,
        shared=shared,
        embeddings=embeddings,
        rest=_counted(left.values()),
        active_routed=sum(
            all_learnt(site.bank) * info.top_k // site.bank_experts for site in sites
        ),
        caveat=_caveat(len(apart), len(sites), info),
    )


def _caveat(apart: int, sites: int, info: ModelInfo) -> str | None:
    if info.routing_error is not None:
        return f"its experts are counted with the rest: {info.routing_error}"
    if apart < sites:
        return (
            "the decoder layer itself routes: a shared or dense expert beside the routed ones is "
            "counted with the rest"
        )
    return None


def _counted(modules: Iterable[nn.Module]) -> ParameterCount:
    found = list(modules)
    arrays = [
        array
        for module in found
        for name, array in module.items()
        if isinstance(array, mx.array) and not name.startswith("_")
    ]
    return ParameterCount(
        parameters=sum(map(learnt, found)), bytes=sum(array.nbytes for array in arrays)
    )


def _rows(module: nn.Module) -> int:
    weight = module.get("weight")
    matrix = isinstance(weight, mx.array) and weight.ndim == 2
    return int(weight.shape[0]) if matrix else 0
