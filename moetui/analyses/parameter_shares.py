"""Where a model's learnt numbers are, and which of them one token uses."""

from __future__ import annotations

import msgspec

from moetui.trace import Forward
from moetui.trace.bank import ParameterCount, ParameterCounts


class ParameterShare(msgspec.Struct, frozen=True, kw_only=True):
    """One part: its learnt numbers, their share of the whole, the bytes that it takes, and how
    many of its numbers one token uses."""

    part: str
    parameters: int
    share: float
    bytes: int
    active: int


class ParameterShares(msgspec.Struct, frozen=True, kw_only=True, tag="parameter_shares"):
    """All parts, which add up to `total`; active: what one token uses, embeddings counted whole.

    router_bits, quantization: of the checkpoint. dense: why there is no router, None where there
    is one.
    """

    parts: tuple[ParameterShare, ...]
    total: int
    active: int
    experts: int
    top_k: int
    moe_layers: int
    router_bits: int | None
    quantization: str | None
    dense: str | None
    caveat: str | None


def parameter_shares(model: Forward, dense: str | None) -> ParameterShares:
    """Of a model; dense: why it has no router that can be read."""
    counts: ParameterCounts = model.parameter_counts()
    info = model.info
    named: tuple[tuple[str, ParameterCount, int], ...] = (
        ("routers", counts.routers, counts.routers.parameters),
        ("routed experts", counts.routed, counts.active_routed),
        ("shared experts", counts.shared, counts.shared.parameters),
        ("embeddings", counts.embeddings, counts.embeddings.parameters),
        ("attention, dense parts, norms", counts.rest, counts.rest.parameters),
    )
    parts = tuple(
        ParameterShare(
            part=name,
            parameters=count.parameters,
            share=count.parameters / max(counts.total, 1),
            bytes=count.bytes,
            active=active,
        )
        for name, count, active in named
    )
    return ParameterShares(
        parts=parts,
        total=counts.total,
        active=sum(part.active for part in parts),
        experts=info.num_experts,
        top_k=info.top_k,
        moe_layers=len(info.moe_layers),
        router_bits=info.router_bits,
        quantization=info.quantization,
        dense=dense,
        caveat=counts.caveat,
    )
