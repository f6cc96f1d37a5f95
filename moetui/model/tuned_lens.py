"""Tuned lens: an affine map of low rank for each layer, so that norm and head can read it.

Trained to make each layer's reading as near as can be to the model's own output (KL, arXiv
2303.08112). The model is frozen. Every layer keeps the translator that did best on texts that were
held out from the fit; the identity is the first candidate, so none is worse than the raw lens
there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from numpy.typing import NDArray

from moetui.model.lens import Lens
from moetui.model.likelihood import divergence
from moetui.trace import TunedLens

Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]
# down [M, H, r], up [M, r, H], bias [M, H] of M layers.
Maps = dict[str, mx.array]


@dataclass(frozen=True)
class Recipe:
    """How a tuned lens is trained; the defaults take the demo model about 20 seconds of CPU time.

    rank: of what is added to the identity, at most. steps, tokens: at most so many steps of so
    many positions each. rate: of Adam, falling to 0 as a cosine. check: steps between looks at
    the held-out positions, of which there are held_out. patience: looks without a gain in any
    layer after which training ends.
    """

    rank: int = 32
    steps: int = 60
    tokens: int = 32
    rate: float = 2e-3
    check: int = 10
    held_out: int = 256
    patience: int = 2


@dataclass(frozen=True, eq=False)
class States:
    """Residual streams after every layer, float32 [R, N, H], at R positions of some documents."""

    hidden: Floats
    documents: int


def translate(hidden: mx.array, lens: TunedLens) -> mx.array:
    """hidden [P, N, H] as the last layer would have it, in the type in which it came."""
    maps = {name: mx.array(getattr(lens, name)) for name in ("down", "up", "bias")}
    return _mapped(hidden.astype(mx.float32), maps).astype(hidden.dtype)


def fit(
    reader: Lens,
    fit_on: States,
    held_out: States,
    *,
    digest: str,
    seed: int,
    recipe: Recipe | None = None,
    look: Callable[[], None] = lambda: None,
) -> TunedLens:
    """Translators for every layer; deterministic on one machine. The last one's is the identity.

    look: called before every step; what it raises ends the fit.
    """
    recipe = recipe or Recipe()
    rng = np.random.default_rng(seed)
    judged = _drawn(held_out.hidden, recipe.held_out, rng)
    maps = _identity(fit_on.hidden, recipe.rank, rng)
    best = _Best(maps, _Reading(reader, judged).kl(maps))
    raw = best.kl.copy()
    _train(reader, fit_on.hidden, judged, best, rng, recipe, look)
    none = np.zeros((1, *best.maps["down"].shape[1:]), np.float32)
    H = none.shape[1]
    return TunedLens(
        digest=digest,
        down=np.concatenate([best.maps["down"], none]),
        up=np.concatenate([best.maps["up"], none.swapaxes(1, 2)]),
        bias=np.concatenate([best.maps["bias"], np.zeros((1, H), np.float32)]),
        steps=np.append(best.steps, 0).astype(np.int32),
        kl_raw=np.append(raw, 0.0),
        kl_tuned=np.append(best.kl, 0.0),
        fit_documents=fit_on.documents,
        fit_tokens=len(fit_on.hidden),
        held_out_documents=held_out.documents,
        held_out_tokens=len(judged),
        seed=seed,
    )


class _Reading:
    """Layers against the last one at the positions of hidden [P, N, H]."""

    def __init__(self, reader: Lens, hidden: Floats) -> None:
        self._reader = reader
        states = mx.array(hidden)
        self._below = states[:, :-1]
        self._own = mx.stop_gradient(reader.logits(states[:, -1]))

    def divergences(self, maps: Maps) -> mx.array:
        """[M]: mean KL(model ‖ layer) of every layer but the last, in the graph."""
        P, M, H = self._below.shape
        read = self._reader.logits(_mapped(self._below, maps).reshape(P * M, H))
        of_layers = read.reshape(P, M, -1)
        own, its = _logprobs(self._own)[:, None], _logprobs(of_layers)
        return mx.where(mx.exp(own) == 0, 0, mx.exp(own) * (own - its)).sum(-1).mean(0)

    def kl(self, maps: Maps) -> Numbers:
        """The same as numbers, without the rounding of a difference of logarithms."""
        read = _mapped(self._below, maps)
        by_layer = [
            divergence(self._own, self._reader.logits(read[:, layer])).mean()
            for layer in range(read.shape[1])
        ]
        mx.eval(by_layer)
        return np.array([float(one) for one in by_layer])


class _Best:
    """Of every layer the translator of least KL on the held-out positions so far."""

    def __init__(self, maps: Maps, kl: Numbers) -> None:
        self.maps = {name: np.array(value) for name, value in maps.items()}
        self.kl = kl.copy()
        self.steps = np.zeros(len(kl), np.int32)

    def offer(self, maps: Maps, kl: Numbers, step: int) -> bool:
        """Take what is better; whether anything was."""
        better = kl < self.kl
        for name, value in maps.items():
            self.maps[name][better] = np.array(value)[better]
        self.kl[better], self.steps[better] = kl[better], step
        return bool(better.any())


def _train(
    reader: Lens,
    hidden: Floats,
    judged: Floats,
    best: _Best,
    rng: np.random.Generator,
    how: Recipe,
    look: Callable[[], None],
) -> None:
    """Adam from the identity, until no layer gains on the held-out positions any more."""
    maps = {name: mx.array(value) for name, value in best.maps.items()}
    # What is learnt is the bias in units of the layer's states: they differ by orders of size.
    size = mx.array(np.sqrt((hidden[:, :-1].astype(np.float64) ** 2).mean((0, 2)) + 1e-30))
    size = size.astype(mx.float32)[:, None]
    adam = optim.Adam(optim.cosine_decay(how.rate, how.steps))
    held_out, without_gain = _Reading(reader, judged), 0

    def whole(learnt: Maps) -> Maps:
        return {**learnt, "bias": learnt["bias"] * size}

    def loss(learnt: Maps, reading: _Reading) -> mx.array:
        return reading.divergences(whole(learnt)).sum()

    gradient = mx.grad(loss)
    for step in range(1, how.steps + 1):
        look()
        reading = _Reading(reader, _drawn(hidden, how.tokens, rng))
        maps = adam.apply_gradients(gradient(maps, reading), maps)
        mx.eval(maps, adam.state)
        if step % how.check and step != how.steps:
            continue
        found = whole(maps)
        gained = best.offer(found, held_out.kl(found), step)
        without_gain = 0 if gained else without_gain + 1
        if without_gain >= how.patience:
            return


def _identity(hidden: Floats, rank: int, rng: np.random.Generator) -> Maps:
    """up and bias are 0, so nothing is added; down is random, so that up has a gradient."""
    _, N, H = hidden.shape
    r = min(rank, H)
    down = rng.normal(size=(N - 1, H, r)) / np.sqrt(H)
    return {
        "down": mx.array(down.astype(np.float32)),
        "up": mx.zeros((N - 1, r, H)),
        "bias": mx.zeros((N - 1, H)),
    }


def _mapped(hidden: mx.array, maps: Maps) -> mx.array:
    """h + (h · down) · up + bias for hidden [P, M, H]."""
    by_layer = mx.swapaxes(hidden, 0, 1)
    added = (by_layer @ maps["down"]) @ maps["up"] + maps["bias"][:, None]
    return mx.swapaxes(by_layer + added, 0, 1)


def _logprobs(logits: mx.array) -> mx.array:
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def _drawn(hidden: Floats, n: int, rng: np.random.Generator) -> Floats:
    rows = rng.choice(len(hidden), min(n, len(hidden)), replace=False)
    drawn: Floats = hidden[np.sort(rows)]
    return drawn
