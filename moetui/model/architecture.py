"""Where a model routes, found by structure alone: no architecture is known by name.

An expert bank is a `SwitchGLU` or `SwitchMLP` of mlx-lm. Its router is the matrix with at least
as many rows as there are experts below a child called `gate` or `router` of the nearest ancestor
that has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.switch_layers import SwitchGLU, SwitchMLP

_GATE_NAME = re.compile(r"gate|router")
# Where a model's embedding is none of mlx's own: no limit is known.
_ANY_ROWS = 2**31 - 1
_LAYER_IN_PATH = re.compile(r"\.(\d+)(?:\.|$)")


@dataclass(frozen=True, eq=False)
class Site:
    """Where one decoder layer routes: block ⊇ {gate ⊇ router, bank}.

    block: the smallest module that holds the bank and its router; gate: the child of the block
    that holds the router (often the router itself); router: the module that owns the
    [experts, hidden] matrix; bare: that matrix is a plain parameter, not a Linear layer;
    num_experts: what the router chooses among; bank_experts: those of them that the bank holds,
    the rest (of longcat) hand their input on; shares_block: the block adds something besides the
    routed experts (a shared expert).
    """

    layer: int
    block: nn.Module
    gate: nn.Module
    router: nn.Module
    bank: nn.Module
    num_experts: int
    bank_experts: int
    bare: bool
    shares_block: bool

    def matrix(self) -> mx.array:
        """W: float32 [E, H], dequantised where the checkpoint quantises its router."""
        return weight_matrix(self.router)

    @property
    def bias(self) -> mx.array | None:
        """The router's own additive bias [E], if it has one."""
        return None if self.bare else self.router.get("bias")

    @property
    def bits(self) -> int | None:
        """Bits per router weight when quantised, None otherwise."""
        return int(self.router.bits) if "scales" in self.router else None


@dataclass(frozen=True, eq=False)
class Architecture:
    """The decoder layers of a model, and the sites at which some of them route.

    separate_experts: some block routes among separate modules instead of a bank; there is no one
    place at which its choice can be read, and it has no site.
    """

    layers: tuple[nn.Module, ...]
    sites: dict[int, Site]
    separate_experts: bool = False

    @property
    def num_experts(self) -> int:
        """The largest number of experts of any layer, 0 for a dense model."""
        return max((site.num_experts for site in self.sites.values()), default=0)


def examine(model: nn.Module) -> Architecture:
    """Find the decoder layers and every place where `model` routes."""
    layers = tuple(layer for layer in model.layers if layer is not None)
    sites = sorted(_find_sites(model), key=lambda site: site.layer)
    separate = any(_routes_among_modules(module) for _, module in model.named_modules())
    return Architecture(layers, {site.layer: site for site in sites}, separate)


def embedding_rows(model: nn.Module) -> int:
    """Rows of the largest embedding: how many token ids `model` knows."""
    kinds = (nn.Embedding, nn.QuantizedEmbedding)
    embeddings = [module for module in model.modules() if isinstance(module, kinds)]
    return max((int(module["weight"].shape[0]) for module in embeddings), default=_ANY_ROWS)


def weight_matrix(linear: nn.Module) -> mx.array:
    """The [out, in] matrix of a linear layer as float32, dequantised if need be."""
    weight: mx.array = linear["weight"]
    if "scales" in linear:
        weight = mx.dequantize(
            weight,
            linear["scales"],
            linear.get("biases"),
            group_size=linear.group_size,
            bits=linear.bits,
            mode=linear.mode,
        )
    return weight.astype(mx.float32)


def _find_sites(model: nn.Module) -> Iterator[Site]:
    modules = dict(model.named_modules())
    for path, bank in modules.items():
        if isinstance(bank, SwitchGLU | SwitchMLP) and (site := _site(modules, path, bank)):
            yield site


def _site(modules: dict[str, nn.Module], path: str, bank: nn.Module) -> Site | None:
    experts = _bank_size(bank)
    layer = _LAYER_IN_PATH.search(path)
    above = path
    while layer is not None and "." in above:
        above = above.rpartition(".")[0]
        router_path = _router_below(modules, above, path, experts)
        if router_path is None:
            continue
        block, router = modules[above], modules[router_path]
        gate = modules[f"{above}.{router_path[len(above) + 1 :].split('.')[0]}"]
        return Site(
            layer=int(layer[1]),
            block=block,
            gate=gate,
            router=router,
            bank=bank,
            num_experts=_rows(router),
            bank_experts=experts,
            bare="scales" not in router and not hasattr(router, "to_quantized"),
            shares_block=_has_other_matrices(block, (gate, bank)),
        )
    return None


def _router_below(
    modules: dict[str, nn.Module], above: str, bank_path: str, experts: int
) -> str | None:
    """The path of the router under `above`, None when no child there is called a gate."""
    found = []
    for path, module in modules.items():
        if not path.startswith(f"{above}.") or path.startswith(f"{bank_path}."):
            continue
        rows = _rows(module)
        below = path[len(above) + 1 :]
        if rows >= experts and _GATE_NAME.fullmatch(below.split(".")[0]):
            found.append((rows != experts, below.count("."), path))
    return min(found)[2] if found else None


def _routes_among_modules(module: nn.Module) -> bool:
    """Whether `module` holds a list of equal modules and a router with a row for each of them."""
    children = module.children()
    counts = {len(c) for c in children.values() if isinstance(c, list) and len(c) > 1}
    gates = [c for name, c in children.items() if _GATE_NAME.fullmatch(name)]
    inside = [m for gate in gates if isinstance(gate, nn.Module) for _, m in gate.named_modules()]
    return any(_rows(m) in counts for m in inside)


def _rows(module: nn.Module) -> int:
    weight = module.get("weight") if isinstance(module, nn.Module) else None
    return int(weight.shape[0]) if isinstance(weight, mx.array) and weight.ndim == 2 else 0


def _bank_size(bank: nn.Module) -> int:
    return next(int(m["weight"].shape[0]) for _, m in bank.named_modules() if "weight" in m)


def _has_other_matrices(block: nn.Module, known: tuple[nn.Module, ...]) -> bool:
    """Whether `block` holds matrices outside `known`: then it does more than route."""
    inside = {id(m) for module in known for _, m in module.named_modules()}
    return any(id(m) not in inside and _rows(m) > 0 for _, m in block.named_modules())
