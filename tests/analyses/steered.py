"""Routers whose rule is known: a context's logits are a function of its tokens, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.trace import AddLogits, ContextReadings, Force
from tests.builders import make_model_info

Numbers = NDArray[np.float64]
Rule = Callable[[Any, int], Numbers]


class RuledRouters:
    """`rule(contexts [B, T], position)` gives router logits [B, L, E]. What is expected next
    depends on the position's token alone: every other token is as likely as the rest."""

    def __init__(
        self,
        rule: Rule,
        *,
        experts: int = 8,
        k: int = 2,
        layers: int = 2,
        vocabulary: int = 40,
        table: Numbers | None = None,
        slope: Callable[..., Numbers] | None = None,
    ) -> None:
        self.info = make_model_info(
            num_layers=layers, num_experts=experts, top_k=k, vocab_size=vocabulary
        )
        self._rule, self._table, self._slope = rule, table, slope
        self.router_gradient_error = None if table is not None else "no gradient here"
        self.router_slope_error = "no stream here"
        self.tried = 0

    def token_text(self, token_id: int) -> str:
        return f" w{token_id}"

    def tokenize(self, text: str) -> Any:
        return np.array([ord(letter) % self.info.vocab_size for letter in text], np.int32)

    def read_contexts(
        self, contexts: Any, position: int, *, output: bool = False, interventions: Any = ()
    ) -> ContextReadings:
        contexts = np.asarray(contexts)
        self.tried += len(contexts)
        z = np.array(self._rule(contexts, position), float)
        ranked = z.copy()
        for one in interventions:
            for layer in one.layers:
                if isinstance(one, AddLogits):
                    z[:, layer] += one.delta
                    ranked[:, layer] += one.delta
                elif isinstance(one, Force):
                    ranked[:, layer, list(one.experts)] = np.inf
        k = self.info.top_k
        experts = np.sort(np.argsort(-ranked, axis=-1, kind="stable")[..., :k], axis=-1)
        logprobs = np.full((len(contexts), self.info.vocab_size), -4.0)
        logprobs[np.arange(len(contexts)), contexts[:, position]] = 0.0
        logprobs -= np.logaddexp.reduce(logprobs, axis=1, keepdims=True)
        return ContextReadings(
            experts=experts.astype(np.int16),
            logits=z.astype(np.float32),
            logprobs=logprobs.astype(np.float32) if output else None,
            nll=np.zeros(len(contexts), np.float32) if output else None,
        )

    def router_gradient(
        self, ids: Any, layer: int, expert: int, position: int, *, against: int | None = None
    ) -> Numbers:
        assert self._slope is not None
        found = self._slope(ids, layer, expert, position)
        return found if against is None else found - self._slope(ids, layer, against, position)

    def token_scores(self, gradient: Numbers) -> Numbers:
        assert self._table is not None
        return gradient @ self._table.T


def by_token(row: int, experts: int = 8, layers: int = 2, k: int = 2) -> Rule:
    """The experts chosen are those that the token at `row` from the position names, counted on
    by the layer: token t chooses t, t + 1 … modulo E."""

    def rule(contexts: Any, position: int) -> Numbers:
        z = np.zeros((len(contexts), layers, experts))
        for layer in range(layers):
            first = contexts[:, position + row] + 3 * layer
            for j in range(k):
                z[np.arange(len(z)), layer, (first + j) % experts] = 5.0 - j
        return z

    return rule


def by_nothing(experts: int = 8, layers: int = 2) -> Rule:
    """Every context the same."""
    constant = np.arange(experts, 0, -1.0)
    return lambda contexts, position: np.tile(constant, (len(contexts), layers, 1))


def by_chance(seed: int, experts: int = 8, layers: int = 2) -> Rule:
    """Every context its own logits, without any relation to its tokens."""
    # Random weights of positions and of logits; their products are as good as independent.
    rng = np.random.default_rng(seed)
    words, cells = rng.integers(2**62, size=(64, 4096)), rng.integers(2**62, size=(layers, experts))

    def rule(contexts: Any, position: int) -> Numbers:
        T = contexts.shape[1]
        states = np.bitwise_xor.reduce(words[np.arange(T), contexts], axis=1).astype(np.uint64)
        mixed = _mixed(states[:, None, None] ^ cells.astype(np.uint64))
        return np.asarray(mixed / 2.0**64)

    return rule


def _mixed(x: Any) -> Any:
    """splitmix64: neighbouring numbers become unlike."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def contexts(count: int, length: int = 6, vocabulary: int = 40, seed: int = 0) -> Any:
    drawn = np.random.default_rng([seed, 99]).integers(vocabulary, size=(count, length))
    return drawn.astype(np.int32)
