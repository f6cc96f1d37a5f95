"""Taps: ways to look at what passes through a model without changing it.

A module is tapped by giving that one instance a subclass of its own class for a while. Its place
in the tree, its parameter names, its `isinstance` answers and its arithmetic stay as they were.
(A wrapper module would change names, an attribute `__call__` on the instance is ignored by
Python, and a patched class would be shared by every layer and every model.)

An array is tapped by a subclass of `mx.array` that reports what it is multiplied with: gates that
write `x @ self.weight.T` with a bare matrix; `moetui.model.mixture` follows expert outputs so.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn

# around(call, *args, **kwargs): runs instead of the module; `call` is the module's own forward.
Around = Callable[..., Any]
OnProduct = Callable[[mx.array, mx.array], mx.array]


class ModuleTap:
    """Routes the calls of one module instance through `around` while attached.

    Taps nest: what `around` calls is the module with the taps that were on before. One that is
    `alone` calls the module's own forward and so hides the others while it is on.
    """

    def __init__(self, module: nn.Module, around: Around, *, alone: bool = False) -> None:
        self._module = module
        original: type[nn.Module] = type(module)

        def observed(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            forward = original.__call__ if alone else self._before.__call__
            return around(lambda *a, **k: forward(module, *a, **k), *args, **kwargs)

        self._tapped = type(
            original.__name__,
            (original,),
            {"__call__": observed, "__module__": original.__module__},
        )
        # What the module was when this tap was put on: its own class, or another tap's.
        self._before: type[nn.Module] = original

    def attach(self) -> None:
        """Start to observe, before any tap that is already on."""
        self._before = type(self._module)
        object.__setattr__(self._module, "__class__", self._tapped)

    def detach(self) -> None:
        """Give the module back the class it had."""
        object.__setattr__(self._module, "__class__", self._before)


class TappedMatrix(mx.array):
    """A matrix whose products x @ matrix are reported; everything else is plain `mx.array`.

    `on_matmul(x, y)` sees x and y = x @ matrix and may return another y.
    """

    on_matmul: OnProduct

    @classmethod
    def wrap(cls, array: mx.array, on_matmul: OnProduct) -> TappedMatrix:
        """`array`, observed."""
        tapped = cls(array)
        tapped.on_matmul = on_matmul
        return tapped

    def __rmatmul__(self, other: Any) -> mx.array:
        return self.on_matmul(other, mx.matmul(other, self))

    def astype(self, *args: Any, **kwargs: Any) -> TappedMatrix:
        return TappedMatrix.wrap(mx.array.astype(self, *args, **kwargs), self.on_matmul)

    @property
    def T(self) -> TappedMatrix:
        return TappedMatrix.wrap(mx.transpose(self), self.on_matmul)


class ParameterTap:
    """Puts a TappedMatrix in the place of one parameter of a module while attached."""

    def __init__(self, module: nn.Module, name: str, on_matmul: OnProduct) -> None:
        self._module, self._name, self._on_matmul = module, name, on_matmul
        self._original: mx.array = module[name]

    def attach(self) -> None:
        """Start to observe the products with this parameter."""
        self._original = self._module[self._name]
        self._module[self._name] = TappedMatrix.wrap(self._original, self._on_matmul)

    def detach(self) -> None:
        """Give the module its own array back."""
        self._module[self._name] = self._original


class FunctionTap:
    """Replaces a function of an mlx module (`mx.argpartition`, say) while attached.

    Model files look these up at every call, so the replacement is seen by all of them; the
    engine runs one forward at a time, on one thread.
    """

    def __init__(self, owner: Any, name: str, around: Around) -> None:
        self._owner, self._name = owner, name
        self._original = getattr(owner, name)
        original = self._original
        self._tapped = lambda *args, **kwargs: around(original, *args, **kwargs)

    def attach(self) -> None:
        """Start to observe."""
        setattr(self._owner, self._name, self._tapped)

    def detach(self) -> None:
        """Put the original function back."""
        setattr(self._owner, self._name, self._original)


class Tap(Protocol):
    """Something that is put on for a while and taken off again."""

    def attach(self) -> None:
        """Put it on."""

    def detach(self) -> None:
        """Take it off."""


class Attached:
    """`with Attached(taps): …`: all taps on, and all off again whatever happens inside."""

    def __init__(self, taps: list[Tap]) -> None:
        self._taps = taps
        self._on: list[Tap] = []

    def __enter__(self) -> None:
        try:
            for tap in self._taps:
                tap.attach()
                self._on.append(tap)
        except BaseException:
            self._detach()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._detach()

    def _detach(self) -> None:
        while self._on:
            self._on.pop().detach()
