"""What the analyses of `interference` have in common: what they ask, and of which models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from moetui.analyses.routed import RoutedDocument
from moetui.suites.layers import LayersAsked
from moetui.suites.moe_dynamics.routing import routed
from moetui.suites.plan import Needs
from moetui.suites.sanity import no_router
from moetui.trace import ModelInfo

SEED, GEOMETRY, NUMBERS, PAIRS = (
    "seed_interference", "expert_interference", "fewer_experts", "pair_additivity",
)  # fmt: skip


def unfit(info: ModelInfo) -> str | None:
    """A model without routers, or with one expert a token."""
    if info.is_moe and info.top_k == 1:
        return f"{info.name} uses one expert a token: there is nothing that it could interfere with"
    return no_router(info)


def named(needs: Needs, which: str, ids: Sequence[str]) -> list[RoutedDocument]:
    """The documents `ids` of what `which` has read."""
    found = {one.id: one for one in routed(needs[which])}
    return [found[name] for name in ids]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Documents of one half by id, and what is asked of them.

    layers: as asked for. draws: how often experts are dealt out anew. counts: numbers of experts.
    kl: ids of documents that KL is measured on. pairs, random: how many pairs of either kind.
    """

    half: Literal["evaluation", "calibration"]
    documents: tuple[str, ...]
    layers: LayersAsked | None = None
    draws: int = 0
    counts: Literal["few", "all"] | tuple[int, ...] = ()
    kl: tuple[str, ...] = ()
    pairs: int = 0
    random: int = 0
