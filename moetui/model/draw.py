"""Weights for a network that is built from a checkpoint's settings, drawn instead of read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.utils import _get_classes

from moetui.demo.architecture import Shape
from moetui.errors import ModelError

Progress = Callable[[str], None]


class Drawing:
    """Draws the weights of one network, all from one seed.

    `classes` goes to `mlx_lm.utils.load_model`, inside `seeded`; then `fill` takes the network
    that it returned, whose weights must still be lazy, so that none has been read.
    shape: of the demo model whose trainer's distribution is wanted; None for the initialisers of
    the modules themselves.
    """

    def __init__(self, seed: int, shape: Shape | None, progress: Progress) -> None:
        self._seed, self._shape, self._progress = seed, shape, progress
        self._folder, self._usual = Path(), mx.float32
        self._initial: dict[str, mx.array] = {}
        self._plain: dict[str, nn.Module] = {}

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """Draws of mlx follow the seed inside; afterwards they go on as they would have."""
        state: Any = mx.random.state
        high, low = (int(word) for word in np.array(state[0]))
        mx.random.seed(self._seed)
        try:
            yield
        finally:
            mx.random.seed(high << 32 | low)

    def classes(self, config: dict[str, Any]) -> tuple[Callable[[Any], nn.Module], Any]:
        """What makes the network of `config`, and the class of its settings."""
        model_class, settings_class = _get_classes(config)
        return lambda settings: self._constructed(model_class(settings)), settings_class

    def _constructed(self, network: nn.Module) -> nn.Module:
        """Note what the modules drew for themselves; not computed yet."""
        self._initial = dict(tree_flatten(network.parameters()))
        self._plain = dict(network.named_modules())
        return network

    def fill(self, network: nn.Module, folder: Path) -> None:
        """Replace every parameter by a drawn one, in the type in which `folder` stores it.

        Raises ModelError, naming one, for parameters that the network was not built with.
        """
        self._folder, self._usual = folder, _usual_type(network)
        seen: set[int] = set()
        modules = dict(network.named_modules())
        for number, (path, module) in enumerate(modules.items(), 1):
            self._progress(f"drawing weights, module {number} of {len(modules)}")
            if id(module) not in seen:
                seen.add(id(module))
                fresh = self._packed(path, module) if "scales" in module else {}
                for name, array in _own_parameters(module):
                    if name not in fresh:
                        fresh[name] = self._plain_value(_join(path, name), array)
                mx.eval(list(fresh.values()))
                module.update(tree_unflatten(list(fresh.items())))
        self._initial.clear()
        self._plain.clear()

    def _packed(self, path: str, module: nn.Module) -> dict[str, mx.array]:
        """Weight, scales and biases of a quantised module: a drawn matrix, quantised as it is."""
        plain = self._plain.pop(path, module)
        name = _join(path, "weight")
        if plain is module or not hasattr(plain, "to_quantized"):
            raise self._not_drawn(name)
        # What the matrix was before it was packed: its scales are of its type, or no floats.
        before = module["scales"].dtype
        floating = mx.issubdtype(before, mx.floating)
        plain.weight = self._value(name).astype(before if floating else self._usual)
        options = {"global_scale": True} if module.get("global_scale") is not None else {}
        packed = plain.to_quantized(
            group_size=module.group_size, bits=module.bits, mode=module.mode, **options
        )
        names = [name for name in _PACKED if isinstance(module.get(name), mx.array)]
        fresh = {name: packed[name] for name in names}
        for name, array in fresh.items():
            if (array.shape, array.dtype) != (module[name].shape, module[name].dtype):
                raise self._not_drawn(_join(path, name))
        return fresh

    def _plain_value(self, name: str, array: mx.array) -> mx.array:
        if not mx.issubdtype(array.dtype, mx.floating) or name not in self._initial:
            raise self._not_drawn(name)
        value = self._value(name).astype(array.dtype)
        if value.shape != array.shape:
            raise self._not_drawn(name)
        return value

    def _value(self, name: str) -> mx.array:
        """What the parameter `name` starts with, float32."""
        own = self._initial.pop(name).astype(mx.float32)
        if self._shape is not None:
            mean, std = self._shape.initial(name)
            return mean + std * self._normal(name, own.shape) if std else mx.full(own.shape, mean)
        if own.ndim < 2 or name.endswith("bias") or (own.min() != own.max()).item():
            return own
        scale: float = own.shape[-1] ** -0.5
        return scale * self._normal(name, own.shape)

    def _normal(self, name: str, shape: tuple[int, ...]) -> mx.array:
        """N(0, 1), by a key of the parameter's own: what else is drawn makes no difference."""
        words = hashlib.sha256(f"{self._seed} {name}".encode()).digest()
        return mx.random.normal(shape, key=mx.random.key(int.from_bytes(words[:8], "big")))

    def _not_drawn(self, name: str) -> ModelError:
        return ModelError(
            f"{self._folder} stores {name} in a way in which it cannot be drawn anew",
            "take an unquantised version, or leave out the null model",
        )


_PACKED = ("weight", "scales", "biases", "global_scale")


def _own_parameters(module: nn.Module) -> Iterator[tuple[str, mx.array]]:
    """The parameters that are no child module's, lists and dictionaries of them included."""
    for name, value in module.items():
        if isinstance(value, nn.Module) or name.startswith("_"):
            continue
        for below, array in tree_flatten(value, prefix=f".{name}", is_leaf=nn.Module.is_module):
            if isinstance(array, mx.array):
                yield below, array


def _usual_type(network: nn.Module) -> mx.Dtype:
    """The floating type of most parameters."""
    types = [array.dtype for _, array in tree_flatten(network.parameters())]
    floats = Counter(kind for kind in types if mx.issubdtype(kind, mx.floating))
    return floats.most_common(1)[0][0] if floats else mx.float32


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
