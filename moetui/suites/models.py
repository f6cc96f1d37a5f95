"""The models of a run: trained ones, and the same architectures with weights drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import msgspec

from moetui.trace import Forward, ModelInfo

# How a null model's weights are drawn, and what is said of it beside the model's name.
OWN, TRAINER = "own", "trainer"
_SAID = {OWN: "random weights", TRAINER: "random weights of its trainer"}


class ModelRef(msgspec.Struct, frozen=True):
    """A model by name; initialisation: how its weights are drawn anew, None for its own."""

    name: str
    initialisation: str | None = None
    seed: int = 0

    @property
    def label(self) -> str:
        """What results call it."""
        if self.initialisation is None:
            return self.name
        return f"{self.name} ({_SAID[self.initialisation]})"


class Models(Protocol):
    """Where a run gets its models from."""

    def identity(self, ref: ModelRef) -> str:
        """What a cell's hash needs of a model, without loading it.

        Raises ModelError where there is no such model.
        """

    def nulls(self, name: str, *, seed: int) -> tuple[ModelRef, ...]:
        """The null models of the model `name`."""

    def open(self, ref: ModelRef) -> Forward:
        """The model, loaded. Raises ModelError where it cannot be."""

    def free(self) -> None:
        """Give back the memory of models that are no longer referred to."""


class Loaded:
    """Models from the disk, by `moetui.model`.

    go_on: called while a model loads and before each of its passes; may raise to end the run.
    """

    def __init__(self, go_on: Callable[[], None] = lambda: None) -> None:
        self._go_on = go_on

    def identity(self, ref: ModelRef) -> str:
        """Digest of the checkpoint, with what the weights are computed in."""
        from moetui.model.identity import identity

        base = identity(ref.name)
        if ref.initialisation is None:
            return base
        return f"{base} {ref.initialisation} {ref.seed}"

    def nulls(self, name: str, *, seed: int) -> tuple[ModelRef, ...]:
        """By the architecture's own initialiser; the demo models also by their trainer's."""
        from moetui.demo import NAMES

        hows = (OWN, TRAINER) if name in NAMES else (OWN,)
        return tuple(ModelRef(name, how, seed) for how in hows)

    def open(self, ref: ModelRef) -> Forward:
        """Loaded without downloading."""
        from moetui.model import load
        from moetui.model.reinitialise import Initialisation

        how = ref.initialisation
        drawn = None if how is None else Initialisation(how, ref.seed)
        model = load(ref.name, progress=lambda step: self._go_on(), initialisation=drawn)
        model.before_pass = self._go_on
        return model

    def free(self) -> None:
        """What mlx keeps for reuse goes too."""
        from moetui.model.release import free_unused

        free_unused()


class LazyModel:
    """One model of a run, loaded when the first cell needs it; `info` alone may be known before."""

    def __init__(self, ref: ModelRef, models: Models) -> None:
        self.ref = ref
        self.known: ModelInfo | None = None
        self._models = models
        self._forward: Forward | None = None

    @cached_property
    def identity(self) -> str:
        """What a cell's hash needs of it."""
        return self._models.identity(self.ref)

    @property
    def info(self) -> ModelInfo:
        """What the model is, under the name that results use."""
        if self.known is None:
            self.known = msgspec.structs.replace(self.forward().info, name=self.ref.label)
        return self.known

    def forward(self) -> Forward:
        """The model itself."""
        if self._forward is None:
            self._forward = self._models.open(self.ref)
        return self._forward


def with_nulls(
    names: Sequence[str], models: Models, *, null_model: bool, seed: int
) -> tuple[ModelRef, ...]:
    """All models of a run; a null model follows the one that it stands beside."""
    refs: list[ModelRef] = []
    for name in names:
        refs.append(ModelRef(name))
        if null_model:
            refs += models.nulls(name, seed=seed)
    return tuple(refs)
