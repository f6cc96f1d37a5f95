"""Null models: an architecture, its settings and its tokenizer, with weights drawn anew.

What such a model shows of routing is what architecture and tokens alone make of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moetui.demo.architecture import SHAPES, Shape
from moetui.errors import UsageError

if TYPE_CHECKING:
    from moetui.model.model import Model

OWN, TRAINER = "own", "trainer"


@dataclass(frozen=True, slots=True)
class Initialisation:
    """Where weights come from that were never trained.

    how: "own", the initialiser of the architecture's modules in mlx; "trainer", the distribution
    from which the training of the demo models started (`moetui.demo.architecture`).
    seed: of all draws, 0 … 2⁶³ − 1; the same one gives the same weights, whatever was drawn
    before. Raises UsageError for any other of either.
    """

    how: str = OWN
    seed: int = 0

    def __post_init__(self) -> None:
        if self.how not in (OWN, TRAINER):
            raise UsageError(f"no initialiser {self.how!r}", f"there are {OWN} and {TRAINER}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed {self.seed} is out of range", "give one of 0 … 2**63 − 1")

    def __str__(self) -> str:
        whose = "own" if self.how == OWN else "trainer's"
        return f"{whose} initialiser, seed {self.seed}"

    def shape(self, model: str) -> Shape | None:
        """The shape of the demo model `model` if its trainer's distribution is wanted, else None.

        Raises UsageError where it is, and `model` is no demo model.
        """
        if self.how == OWN:
            return None
        if model not in SHAPES:
            raise UsageError(
                f"how the training of {model} began is not known",
                f"take the initialiser {OWN!r}; {TRAINER!r} is for {' and '.join(SHAPES)}",
            )
        return SHAPES[model]


def load_random(
    model: str | os.PathLike[str],
    *,
    how: str = OWN,
    seed: int = 0,
    progress: Callable[[str], None] = lambda step: None,
) -> Model:
    """`moetui.load` without the weights: they are drawn, and none of the checkpoint's is read.

    how, seed: see `Initialisation`. With "own", matrices whose initialiser is constant (router
    matrices of zeros, say) are drawn from N(0, 1/fan_in); biases and the gains of norms start as
    their initialiser has them. Weights are rounded to the types that the checkpoint stores, and
    quantised where and as it is.

    Raises ModelError as `moetui.load` does, and for weights stored in a way in which they cannot
    be drawn; UsageError as `Initialisation` does.
    """
    from moetui.model.load import load

    return load(model, progress=progress, initialisation=Initialisation(how, seed))
