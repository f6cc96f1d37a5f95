"""The part of a model that runs with the weights that fewer bits would leave it.

Every matrix that mlx-lm would quantise holds, while the block lasts, what it would be after being
quantised and read back (affine, mlx-lm's own choice of modules). So the arithmetic is that of the
model as it was loaded, and what changes is the weights alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from moetui.errors import ModelError, UsageError
from moetui.model.swap import Swap
from moetui.model.taps import Attached, Tap

GROUP_SIZES = (64, 32)
BITS = (2, 3, 4, 5, 6, 8)


class Quantised:
    """What `moetui.model.Model` can be with fewer bits."""

    network: nn.Module

    @cached_property
    def quantised_error(self) -> str | None:
        """Why `quantised` cannot be asked of this model, None where it can."""
        if any("scales" in module for _, module in self.network.named_modules()):
            return "the weights are quantised already: what they were before is not known"
        if not list(_matrices(self.network, 8)):
            return "no matrix of this model has rows that mlx can quantise"
        return None

    @contextmanager
    def quantised(self, bits: int) -> Iterator[None]:
        """Inside the block every pass runs with weights rounded to `bits` bits, for which the
        weights are held in memory a second time.

        Raises UsageError for a number of bits that mlx does not have, ModelError where
        `quantised_error` says why.
        """
        if bits not in BITS:
            raise UsageError(
                f"weights cannot have {bits} bits", f"use one of {', '.join(map(str, BITS))}"
            )
        if self.quantised_error is not None:
            raise ModelError(self.quantised_error, "the other perturbations need no such weights")
        rounded = [
            (module, _read_back(module["weight"], group, width))
            for module, group, width in _matrices(self.network, bits)
        ]
        mx.eval([weight for _, weight in rounded])
        taps: list[Tap] = [Swap(module, "weight", weight) for module, weight in rounded]
        with Attached(taps):
            yield


def _matrices(network: nn.Module, bits: int) -> Iterator[tuple[nn.Module, int, int]]:
    """The modules that mlx-lm would quantise, with their group size and bits: groups of 64 where
    that divides every row, else of 32."""
    choose: Any = getattr(network, "quant_predicate", None)
    chosen = [
        (module, True if choose is None else choose(path, module))
        for path, module in network.named_modules()
        if hasattr(module, "to_quantized") and "weight" in module
    ]
    rows = [int(module["weight"].shape[-1]) for module, how in chosen if how]
    common = next((g for g in GROUP_SIZES if not any(row % g for row in rows)), GROUP_SIZES[-1])
    for module, how in chosen:
        own = how if isinstance(how, dict) else {}
        group = int(own.get("group_size", common))
        if how and module["weight"].shape[-1] % group == 0:
            yield module, group, int(own.get("bits", bits))


def _read_back(weight: mx.array, group: int, bits: int) -> mx.array:
    packed = mx.quantize(weight, group_size=group, bits=bits)
    return mx.dequantize(*packed, group_size=group, bits=bits).astype(weight.dtype)
