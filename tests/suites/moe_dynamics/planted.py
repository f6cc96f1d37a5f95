"""Models in memory with something planted in their weights, as a run gets them."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from moetui.model.bank import INTO, linears
from moetui.model.model import Model
from moetui.suites.models import ModelRef
from moetui.trace import Forward


class InMemory:
    """Every name is the one model."""

    def __init__(self, model: Forward) -> None:
        self._model = model

    def identity(self, ref: ModelRef) -> str:
        return "in memory"

    def nulls(self, name: str, *, seed: int) -> tuple[ModelRef, ...]:
        return ()

    def open(self, ref: ModelRef) -> Forward:
        return self._model

    def free(self) -> None:
        pass


def copy_expert(model: Model, layer: int, source: int, target: int, *, exchanged: bool) -> None:
    """Expert `target` becomes `source`, with its neurons exchanged or as they are; its row of the
    router stays what it was."""
    bank = model.architecture.sites[layer].bank
    parts = dict(linears(bank))
    F = next(m for name, m in parts.items() if name not in INTO)["weight"].shape[-1]
    order = np.random.default_rng(7).permutation(F) if exchanged else np.arange(F)
    for name, linear in parts.items():
        weight = mx.array(linear["weight"])
        row = weight[source]
        moved = mx.array(order)
        weight[target] = row[moved] if name in INTO else row[:, moved]
        linear["weight"] = weight
