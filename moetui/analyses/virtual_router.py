"""A virtual expert router: tells from inside a model's own forward pass which task a prompt is.

    router = moetui.VirtualExpertRouter(moetui.load("demo"))
    router.train([("5 + 3 =", "add"), ("9 - 2 =", "subtract"), …])
    router.route("7 + 1 =")          # {"add": 0.98, "subtract": 0.02}

It reads the residual stream of the last token at one layer through a linear map, so it works on
mixtures of experts and dense models alike. How far it can be trusted on wordings that it was not
trained on is what `evaluate` is for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.linear_route import LinearRoute, fit_route
from moetui.analyses.probe_features import last_hidden, layer_at
from moetui.errors import UsageError
from moetui.stats import MIN_DOCUMENTS, Statistic, wilson
from moetui.trace import Forward
from moetui.trace.file import write_atomically
from moetui.trace.types import Floats

# Prompt and the name of its task.
Example = tuple[str, str]

# Of the seed: layer 4 of 16.
DEPTH = 0.25


class RouteCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many prompts of `task` were routed to `routed`."""

    task: str
    routed: str
    count: int


class RouteReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a router does on prompts that it was not trained on.

    accuracy: share of prompts whose most probable task is the right one; most_frequent: what
    always giving their commonest task reaches; log_loss: mean −ln P(right task), ln K when
    nothing is known of K tasks. confusion: all pairs that occur. skipped: prompts left out
    because the router was trained on them.
    """

    accuracy: Statistic
    most_frequent: Statistic
    log_loss: Statistic
    confusion: tuple[RouteCount, ...]
    skipped: int


class VirtualExpertRouter:
    """Routes prompts to tasks by the residual stream that leaves `routing_layer`.

    routing_layer: a decoder layer, 0 being the first; None means at 25 % depth. Raises UsageError
    for a layer that the model does not have.
    """

    def __init__(self, model: Forward, routing_layer: int | None = None) -> None:
        layers = model.info.num_layers
        if routing_layer is None:
            routing_layer = layer_at(DEPTH, layers)
        if not 0 <= routing_layer < layers:
            raise UsageError(
                f"{model.info.name} has no layer {routing_layer}", f"layers are 0 to {layers - 1}"
            )
        self._model = model
        self._layer = routing_layer
        self._route: LinearRoute | None = None
        self._trained_on: frozenset[str] = frozenset()

    @property
    def routing_layer(self) -> int:
        """The decoder layer that is read."""
        return self._layer

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks it was trained for, sorted; empty before training."""
        return () if self._route is None else self._route.tasks

    def train(self, examples: Sequence[Example]) -> None:
        """Learn from (prompt, task) pairs: one forward pass each, then logistic regression.

        Whatever was learned before is forgotten. Raises UsageError without examples of at least
        two tasks, and where training does not converge.
        """
        tasks = sorted({task for _, task in examples})
        if len(tasks) < 2:
            had = f"all examples are of the task {tasks[0]!r}" if tasks else "no examples"
            raise UsageError(had, "give (prompt, task) pairs of at least two tasks")
        hidden = np.stack([self._read(prompt) for prompt, _ in examples])
        route, converged = fit_route(hidden, [task for _, task in examples])
        if not converged:
            raise UsageError(
                f"no linear map was found for {len(examples)} examples of {len(tasks)} tasks",
                "check the labels, or read another layer with routing_layer",
            )
        self._route = route
        self._trained_on = frozenset(_mark(prompt) for prompt, _ in examples)

    def route(self, prompt: str) -> dict[str, float]:
        """The probability of every task, summing to 1.

        Raises UsageError before training, and for an empty prompt.
        """
        route = self._trained()
        shares = route.probabilities(self._read(prompt))
        return dict(zip(route.tasks, shares.tolist(), strict=True))

    def evaluate(self, examples: Sequence[Example]) -> RouteReport:
        """How it does on (prompt, task) pairs; those that it was trained on are left out.

        Raises UsageError before training, for tasks that it was not trained for, and where no
        example is left.
        """
        route = self._trained()
        unknown = sorted({task for _, task in examples} - set(route.tasks))
        if unknown:
            raise UsageError(
                f"not trained for the task {unknown[0]!r}", f"its tasks: {', '.join(route.tasks)}"
            )
        new = [(p, task) for p, task in examples if _mark(p) not in self._trained_on]
        if not new:
            raise UsageError(
                "no example is left that the router was not trained on",
                "evaluate on other prompts than those of train",
            )
        shares = route.probabilities(np.stack([self._read(prompt) for prompt, _ in new]))
        right = np.array([route.tasks.index(task) for _, task in new])
        return _report(route.tasks, right, shares, skipped=len(examples) - len(new))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what was learned to `path`, one JSON file. Raises UsageError before training and
        where the folder cannot be written."""
        route = self._trained()
        info = self._model.info
        stored = _Stored(
            model=info.name,
            digest=info.digest,
            layer=self._layer,
            hidden_size=route.weights.shape[1],
            tasks=route.tasks,
            weights=route.weights.astype("<f8").tobytes(),
            bias=tuple(route.bias.tolist()),
            trained_on=tuple(sorted(self._trained_on)),
        )
        write_atomically(Path(path), msgspec.json.encode(stored) + b"\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Forward) -> VirtualExpertRouter:
        """The router saved at `path`, on the model that it was trained on.

        Opening a file runs nothing of it. Raises UsageError for a file that is none, is damaged,
        or belongs to another model, layer or width.
        """
        stored = _opened(Path(path))
        info = model.info
        again = "train one on this model, or load the model that it was trained on"
        if stored.digest != info.digest:
            raise UsageError(
                f"{path} was trained on {stored.model} ({stored.digest[:12]}), not on "
                f"{info.name} ({info.digest[:12]})",
                again,
            )
        router = cls(model, stored.layer)
        width = len(stored.weights) // 8 // len(stored.tasks)
        if stored.hidden_size != width:
            raise _damaged(Path(path), f"{width} weights a task, {stored.hidden_size} announced")
        if info.hidden_size != width:
            raise UsageError(
                f"{path} reads {width} features, {info.name} has {info.hidden_size}", again
            )
        weights = np.frombuffer(stored.weights, "<f8").reshape(-1, width).astype(float)
        router._route = LinearRoute(stored.tasks, weights, np.array(stored.bias))
        router._trained_on = frozenset(stored.trained_on)
        return router

    def _trained(self) -> LinearRoute:
        if self._route is None:
            raise UsageError("the router is not trained", "call train(examples), or load one")
        return self._route

    def _read(self, prompt: str) -> Floats:
        return last_hidden(self._model, prompt, self._layer)


class _Stored(msgspec.Struct, frozen=True, kw_only=True, tag_field="format", tag="moetui router"):
    """The file: weights [tasks, hidden_size] as little-endian float64, in base64."""

    version: Literal[1] = 1
    model: str
    digest: str
    layer: int
    hidden_size: int
    tasks: tuple[str, ...]
    weights: bytes
    bias: tuple[float, ...]
    trained_on: tuple[str, ...]


def _opened(path: Path) -> _Stored:
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error
    tasks = len(stored.tasks)
    if tasks < 2 or len(set(stored.tasks)) < tasks or len(stored.bias) != tasks:
        raise _damaged(path, "its tasks do not fit its weights")
    if not stored.weights or len(stored.weights) % (8 * tasks):
        raise _damaged(path, "its weights are incomplete")
    if not np.isfinite(np.frombuffer(stored.weights, "<f8")).all():
        raise _damaged(path, "its weights are not finite")
    return stored


def _damaged(path: Path, what: str) -> UsageError:
    return UsageError(
        f"{path} is no router, or a damaged one: {what}",
        "VirtualExpertRouter.save writes one; train and save it again",
    )


def _mark(prompt: str) -> str:
    """Recognises a prompt without storing it."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _report(
    tasks: Sequence[str], right: NDArray[np.int64], shares: NDArray[np.float64], *, skipped: int
) -> RouteReport:
    n, routed = len(right), shares.argmax(axis=1)
    pairs = list(zip(right.tolist(), routed.tolist(), strict=True))
    losses = -np.log(np.maximum(shares[np.arange(n), right], np.finfo(float).tiny))
    return RouteReport(
        accuracy=_share(int((routed == right).sum()), n),
        most_frequent=Statistic(
            value=float(np.bincount(right).max() / n),
            n_documents=n,
            caveat="the commonest task of these prompts, always",
        ),
        log_loss=Statistic(
            value=float(losses.mean()),
            n_documents=n,
            caveat=f"nats; {np.log(len(tasks)):.3f} where nothing is known",
        ),
        confusion=tuple(
            RouteCount(task=tasks[one], routed=tasks[other], count=pairs.count((one, other)))
            for one, other in sorted(set(pairs))
        ),
        skipped=skipped,
    )


def _share(hits: int, n: int) -> Statistic:
    low, high = wilson(hits, n)
    few = n < MIN_DOCUMENTS
    return Statistic(
        value=hits / n,
        ci_low=None if few else low,
        ci_high=None if few else high,
        n_documents=n,
        caveat=f"{hits} of {n}: too few for an interval"
        if few
        else "Wilson interval, as if the prompts were independent; those of one wording are not",
    )
