"""Following the outputs of an expert bank until they are one tensor.

In most blocks the mixing weights live only in a local variable of
`(outputs * weights[..., None]).sum(-2)`, and some blocks multiply the sum once more. So the bank's
output is handed out as an array that sees what it is multiplied with, turns into one that sees
its sum, and that into one that sees later factors. The arithmetic is the model's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from moetui.model.records import LayerRecord


class Mixture:
    """Follows one call of a bank. `on_weights` sees the weights [..., k] that are multiplied with
    the outputs [..., k, H], notes them and returns what shall be multiplied instead; what the sum
    is multiplied with inside the block ([..., 1] or one number) goes to `record.factor`."""

    def __init__(self, record: LayerRecord, on_weights: Callable[[mx.array], mx.array]) -> None:
        self._record, self._on_weights = record, on_weights
        self._open = True

    def follow(self, outputs: mx.array) -> mx.array:
        """The same outputs, observed."""
        followed: mx.array = _Outputs.of(self, outputs)
        return followed

    def weigh(self, factor: mx.array) -> mx.array:
        """The factor [..., k, 1] that takes the place of the one given."""
        seen = factor.squeeze(-1)
        weights = self._on_weights(seen)
        return factor if weights is seen else weights[..., None]

    def scale(self, factor: mx.array | float) -> None:
        """Note what the sum over experts is multiplied with."""
        if self._open:
            before = self._record.factor
            self._record.factor = factor if before is None else before * factor

    def sum(self, routed: mx.array) -> None:
        """Note the routed output at its newest scale."""
        if self._open:
            self._record.routed_sum = routed

    def close(self) -> None:
        """The block has put out its result: what happens to it now is the layer's affair."""
        self._open = False


class _Followed(mx.array):
    """An array of the mixture; operations that keep its meaning keep it followed."""

    mixture: Mixture

    @classmethod
    def of(cls, mixture: Mixture, array: mx.array) -> Any:
        followed = cls(array)
        followed.mixture = mixture
        return followed

    def astype(self, *args: Any, **kwargs: Any) -> Any:
        return self.of(self.mixture, mx.array.astype(self, *args, **kwargs))


class _Outputs(_Followed):
    """[..., k, H], one row for each chosen expert."""

    def __mul__(self, other: Any) -> Any:
        weights = isinstance(other, mx.array) and other.ndim == self.ndim and other.shape[-1] == 1
        if not weights:
            return mx.multiply(self, other)
        return _Weighted.of(self.mixture, mx.multiply(self, self.mixture.weigh(other)))

    __rmul__ = __mul__


class _Weighted(_Followed):
    """[..., k, H], each row times its weight."""

    def sum(self, *args: Any, **kwargs: Any) -> Any:
        total = mx.sum(self, *args, **kwargs)
        self.mixture.sum(total)
        return _Sum.of(self.mixture, total)


class _Sum(_Followed):
    """[..., H], the routed output, perhaps not at its final scale."""

    def __mul__(self, other: Any) -> Any:
        scalar = not isinstance(other, mx.array) or other.ndim == 0 or other.shape[-1] == 1
        if not scalar:
            return mx.multiply(self, other)
        scaled = mx.multiply(self, other)
        self.mixture.scale(other)
        self.mixture.sum(scaled)
        return self.of(self.mixture, scaled)

    __rmul__ = __mul__
