"""The seed's linear probe: trained and scored on the same nine prompts.

A linear classifier of as many features as a residual stream has fits any labels of nine prompts,
so its accuracy says nothing; how often random labels are fitted as well is shown beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.task_prompts import Task
from moetui.stats import Statistic, permutation_p

Numbers = NDArray[np.float64]

# As the seed's code names its classes; division is left out.
CLASSES: tuple[Task, ...] = ("addition", "subtraction", "multiplication")
EPOCHS, RATE = 50, 1.0
PERMUTATIONS = 999

DEFINITION = (
    f"linear softmax classifier of the last token's standardised residual stream into "
    f"{', '.join(CLASSES)}, {EPOCHS} epochs of gradient descent from zero, scored on the seed's "
    "prompts that it was trained on: the seed names no others"
)


class SeedProbe(msgspec.Struct, frozen=True, kw_only=True):
    """The seed's probe at one layer, asked for by its depth. predicted: for each prompt of its
    classes, in order."""

    depth: float
    layer: int
    accuracy: Statistic
    tasks: tuple[Task, ...]
    predicted: tuple[Task, ...]


def seed_probe(
    hidden: Numbers, tasks: Sequence[Task], *, depth: float, layer: int, seed: int
) -> SeedProbe:
    """The probe at `layer`; hidden: [n, H], the last tokens of the seed's prompts, tasks: [n]."""
    kept = np.array([task in CLASSES for task in tasks])
    chosen = [task for task in tasks if task in CLASSES]
    labels = np.array([CLASSES.index(task) for task in chosen])
    gram = _gram(np.asarray(hidden, float)[kept])
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.tile(labels, (PERMUTATIONS, 1)), axis=1)
    predicted = _trained(gram, labels[None])[0]
    null = (_trained(gram, shuffled) == shuffled).mean(axis=1)
    value = float((predicted == labels).mean())
    low, high = np.quantile(null, [0.025, 0.975])
    return SeedProbe(
        depth=depth,
        layer=layer,
        accuracy=Statistic(
            value=value,
            null_mean=float(null.mean()),
            null_low=float(low),
            null_high=float(high),
            p=permutation_p(value, null),
            n_documents=len(labels),
            seed=seed,
            caveat="training accuracy; null = the same fit to shuffled labels; too few prompts "
            "for an interval",
        ),
        tasks=tuple(chosen),
        predicted=tuple(CLASSES[index] for index in predicted),
    )


def _gram(hidden: Numbers) -> Numbers:
    """[n, n]: products of the standardised rows, the bias as one more feature, per feature."""
    spread = hidden.std(axis=0)
    standard = (hidden - hidden.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    product: Numbers = standard @ standard.T / hidden.shape[1] + 1.0
    return product


def _trained(gram: Numbers, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Predictions [m, n] on the training prompts for m labellings [m, n].

    Gradient descent on the weights, followed through the logits that they give: one step on the
    mean cross-entropy moves them by rate · gram · (target − probability) / n.
    """
    n = len(gram)
    targets = np.eye(len(CLASSES))[labels]
    logits = np.zeros_like(targets)
    for _ in range(EPOCHS):
        grown = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities = grown / grown.sum(axis=-1, keepdims=True)
        logits = logits + RATE * (gram @ (targets - probabilities)) / n
    found: NDArray[np.int64] = logits.argmax(axis=-1)
    return found
