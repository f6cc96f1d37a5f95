"""A tiny random instance of an architecture, and what plain mlx-lm does with the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.switch_layers import SwitchGLU, SwitchMLP
from mlx_lm.utils import load_tokenizer

from moetui.errors import ModelError
from moetui.model.model import Model
from moetui.trace import Trace
from tests.model.architectures import VOCABULARY, build, config_of
from tests.reference.values import DATA

Array = np.ndarray[Any, Any]
# More than 64 chosen experts in one pass: mlx-lm then sorts the tokens by expert.
TOKENS = 30


class Subject:
    """A tiny random instance, its trace, and what plain mlx-lm does with the same tokens."""

    def __init__(self, name: str) -> None:
        network = build(name)
        folder = DATA / "olmoe"
        self.before = state_of(network)
        self.model = Model(
            name, folder, network, load_tokenizer(folder), config_of(name), "float32"
        )
        self.network = network
        self.ids = np.random.default_rng(7).integers(1, VOCABULARY, TOKENS).tolist()
        self.plain = self.run(self.ids)
        self.streams = self.model.info.decomposition_error is None
        self.trace: Trace = self.model.trace(
            self.ids, streams=self.streams, attention=True, expert_outputs=self.model.info.is_moe
        )

    def run(self, ids: list[int], memory: Any = None) -> Array:
        """Logits [T, V] of mlx-lm's own forward."""
        memory = make_prompt_cache(self.network) if memory is None else memory
        return np.array(self.network(mx.array(ids)[None], cache=memory)[0].astype(mx.float32))

    @cached_property
    def blocks(self) -> tuple[list[Array], list[Array]]:
        """What the parents of the banks put out [T, H]: as they do, and without their experts."""
        whole = outputs_of(self, lambda _, output, indices: output)
        return whole, each_alone(self, lambda _, output, indices: mx.zeros_like(output))

    @property
    def banks(self) -> list[nn.Module]:
        """The expert banks by layer, found in mlx-lm's own tree."""
        inside = (m for layer in self.network.layers for _, m in layer.named_modules())
        return [m for m in inside if isinstance(m, SwitchGLU | SwitchMLP)]

    def parent(self, bank: nn.Module) -> nn.Module:
        """The module that holds `bank`."""
        for _, module in self.network.named_modules():
            if any(child is bank for child in module.children().values()):
                return module
        raise LookupError("a bank without a parent")


def state_of(network: nn.Module) -> list[Any]:
    """Class and parameters of every module, and the functions that captures replace."""
    modules = [(name, type(module)) for name, module in network.named_modules()]
    arrays = [(name, id(array)) for name, array in tree_flatten(network.parameters())]
    return [modules, arrays, mx.argpartition, mx.fast.scaled_dot_product_attention]


def error(ours: Array, theirs: Array) -> float:
    """The largest difference, relative to the largest value."""
    assert ours.shape == theirs.shape
    assert np.isfinite(ours).all() and np.isfinite(theirs).all()
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@contextmanager
def replaced(kind: type, forward: Callable[..., Any]) -> Iterator[None]:
    """`kind.__call__` is `forward(original, module, *args)` inside the block."""
    original = kind.__call__
    kind.__call__ = lambda self, *a, **k: forward(original, self, *a, **k)  # type: ignore[method-assign]
    try:
        yield
    finally:
        kind.__call__ = original  # type: ignore[method-assign]


Bank = Callable[[int, mx.array, mx.array], mx.array]


@contextmanager
def banks_do(subject: Subject, act: Bank) -> Iterator[None]:
    """Every bank puts out act(number of the bank, its own output, indices)."""
    numbers = {id(bank): number for number, bank in enumerate(subject.banks)}

    def forward(original: Any, module: nn.Module, x: mx.array, indices: mx.array) -> mx.array:
        return act(numbers[id(module)], original(module, x, indices), indices)

    with replaced(SwitchGLU, forward), replaced(SwitchMLP, forward):
        yield


def outputs_of(subject: Subject, act: Bank) -> list[Array]:
    """What the parents of the banks put out, [T, H] each, while the banks do `act`."""
    parents = {id(subject.parent(bank)): number for number, bank in enumerate(subject.banks)}
    seen: dict[int, mx.array] = {}

    def forward(original: Any, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        output = original(module, *args, **kwargs)
        if id(module) in parents:
            seen[parents[id(module)]] = output[0] if isinstance(output, tuple) else output
        return output

    kind = type(subject.parent(subject.banks[0]))
    with banks_do(subject, act), replaced(kind, forward):
        subject.run(subject.ids)
    return [np.array(seen[n]).reshape(TOKENS, -1) for n in sorted(seen)]


def each_alone(subject: Subject, act: Bank) -> list[Array]:
    """The output of every block while its own bank alone does `act`."""
    found = []
    for chosen in range(len(subject.banks)):

        def one(number: int, output: mx.array, ids: mx.array, chosen: int = chosen) -> mx.array:
            return act(number, output, ids) if number == chosen else output

        found.append(outputs_of(subject, one)[chosen])
    return found


@cache
def subject_of(name: str) -> Subject | str:
    """The subject, or why it cannot be loaded."""
    try:
        return Subject(name)
    except ModelError as refused:
        return refused.message
