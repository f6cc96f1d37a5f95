"""What manipulations do in contexts that they were not fitted to: one part of the contexts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.manipulation_targets import Target, TokenChange, generator, reached
from moetui.analyses.residual_steering import layer_rule, patch, random_follows, steer
from moetui.analyses.token_search import forced
from moetui.errors import UsageError
from moetui.stats import kl_divergences
from moetui.trace import AddLogits, ContextReadings, Forward, Intervention, Trace
from moetui.trace.types import ExpertIds, Floats, Ints

AT, BEFORE, TOKENS = (
    "token at the position",
    "token before it",
    "tokens before it, by gradient",
)
RAISED, FORCED, STREAM = "logits raised", "expert forced", "smallest change of the stream"
INPUTS = (AT, BEFORE, TOKENS)
METHODS = (*INPUTS, RAISED, FORCED, STREAM)
DRAWS = 20

# Purposes of random draws.
_TOKENS_DRAWN, _PROMPTS_DRAWN, _WAYS_DRAWN = 11, 12, 13


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """What was fitted for a target: token changes in the order of INPUTS, the share of the fitted
    contexts that each reached, and what is added to the logits of its experts."""

    target: Target
    changes: tuple[TokenChange, ...]
    fit: tuple[float, ...]
    raised: tuple[AddLogits, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Checked:
    """n contexts, G targets, the METHODS M, J draws; NaN (−1) where something was not possible.

    untouched: bool [n, G]. untouched_experts: int16 [n, G, k], at the router of a target's last
    layer. reached: float32 [n, G, M]; experts: int16 [n, G, M, k], as before. kl: float32
    [n, G, M], nats at the position; nll: float32 [n, G, M], nats that the tokens after it cost
    more, all together. random: bool [J, n, G, 3], random tokens in the place of each of INPUTS;
    random_kl: float32 [J, n, 3]. prompts: bool [J, n, G], after another document's words. stream:
    float32 [n, G, 7]: length, pair formula, pair bound (all over the stream's length), whether
    the router chose the expert after the pair formula, exact, rounds, router followed; ways: bool
    [n, G, J], random changes of that length. reasons: by target, why its stream could not be
    changed, "" where it could.
    """

    untouched: NDArray[np.bool_]
    untouched_experts: ExpertIds
    reached: Floats
    experts: ExpertIds
    kl: Floats
    nll: Floats
    random: NDArray[np.bool_]
    random_kl: Floats
    prompts: NDArray[np.bool_]
    stream: Floats
    ways: NDArray[np.bool_]
    reasons: tuple[tuple[str, ...], ...]


def check_contexts(
    model: Forward,
    contexts: Ints,
    position: int,
    fitted: Sequence[Fitted],
    donors: Ints,
    *,
    draws: int = DRAWS,
    seed: int,
    step: Callable[[int, int], None] = lambda done, of: None,
) -> Checked:
    """Try everything in contexts [n, T].

    donors: contexts [D, T] of other documents, for random prompts. step: told of how much is
    done. Raises ValueError for no contexts or donors.
    """
    if not len(contexts) or not len(donors):
        raise ValueError("a check needs contexts and others to take prompts from")
    found = _Check(model, contexts, position, fitted, draws, seed)
    G, steps = len(fitted), len(fitted) + draws + len(contexts)
    for at in range(G):
        found.try_target(at)
        step(at + 1, steps)
    for draw in range(draws):
        found.try_random(draw, donors)
        step(G + draw + 1, steps)
    for row in range(len(contexts)):
        found.try_stream(row)
        step(G + draws + row + 1, steps)
    return found.result()


class _Check:
    def __init__(
        self,
        model: Forward,
        contexts: Ints,
        position: int,
        fitted: Sequence[Fitted],
        draws: int,
        seed: int,
    ) -> None:
        self._model, self._contexts, self._position = model, contexts, position
        self._fitted, self._seed = fitted, seed
        self._routing = model.info.moe_layers
        self._base = model.read_contexts(contexts, position, output=True)
        n, G, M = len(contexts), len(fitted), len(METHODS)
        k = self._base.experts.shape[-1]
        self._rows = [self._routing.index(one.target.cells[-1].layer) for one in fitted]
        self._untouched = np.stack([self._hits(self._base, one.target) for one in fitted], axis=1)
        self._reached = np.full((n, G, M), np.nan, np.float32)
        self._experts = np.full((n, G, M, k), -1, np.int16)
        self._kl, self._nll = (np.full((n, G, M), np.nan, np.float32) for _ in range(2))
        self._random = np.zeros((draws, n, G, len(INPUTS)), bool)
        self._random_kl = np.zeros((draws, n, len(INPUTS)), np.float32)
        self._prompts = np.zeros((draws, n, G), bool)
        self._stream = np.full((n, G, 7), np.nan, np.float32)
        self._ways = np.zeros((n, G, draws), bool)
        self._reasons = [[""] * M for _ in fitted]
        self._draws = draws

    def _hits(self, read: ContextReadings, target: Target) -> NDArray[np.bool_]:
        return reached(read.experts, self._routing, target)

    def try_target(self, at: int) -> None:
        """Tokens and logits."""
        one = self._fitted[at]
        for method, change in zip(INPUTS, one.changes, strict=True):
            self._try(at, method, change.applied(self._contexts, self._position), ())
        self._try(at, RAISED, self._contexts, one.raised)
        self._try(at, FORCED, self._contexts, forced(one.target))

    def _try(self, at: int, method: str, contexts: Ints, changes: Sequence[Intervention]) -> None:
        try:
            read = self._model.read_contexts(
                contexts, self._position, output=True, interventions=changes
            )
        except UsageError as error:
            self._lacks(at, method, error.message)
            return
        self._note(slice(None), at, method, read)

    def _lacks(self, at: int, method: str, reason: str) -> None:
        """The first reason is kept."""
        reasons = self._reasons[at]
        reasons[METHODS.index(method)] = reasons[METHODS.index(method)] or reason

    def _note(self, rows: slice, at: int, method: str, read: ContextReadings) -> None:
        m, base = METHODS.index(method), self._base
        assert base.logprobs is not None and base.nll is not None
        assert read.logprobs is not None and read.nll is not None
        self._reached[rows, at, m] = self._hits(read, self._fitted[at].target)
        self._experts[rows, at, m] = read.experts[:, self._rows[at]]
        self._kl[rows, at, m] = kl_divergences(base.logprobs[rows], read.logprobs)
        self._nll[rows, at, m] = read.nll - base.nll[rows]

    def try_random(self, draw: int, donors: Ints) -> None:
        """Random tokens, the same in all contexts, and random words before the position."""
        end = self._position + 1
        assert self._base.logprobs is not None
        for at in range(len(INPUTS)):
            rows = self._fitted[0].changes[at].rows
            rng = np.random.default_rng([self._seed, _TOKENS_DRAWN, draw, at])
            tokens = tuple(rng.integers(self._model.info.vocab_size, size=len(rows)).tolist())
            changed = TokenChange(rows=rows, tokens=tokens).applied(
                self._contexts[:, :end], self._position
            )
            read = self._model.read_contexts(changed, self._position, output=True)
            assert read.logprobs is not None
            self._random_kl[draw, :, at] = kl_divergences(self._base.logprobs, read.logprobs)
            for g, one in enumerate(self._fitted):
                self._random[draw, :, g, at] = self._hits(read, one.target)
        others = [
            int(generator(self._seed, _PROMPTS_DRAWN, ids).integers(0, 2**31, draw + 1)[draw])
            for ids in self._contexts
        ]
        prompts = donors[np.array(others) % len(donors), :end].copy()
        prompts[:, -1] = self._contexts[:, self._position]
        read = self._model.read_contexts(prompts, self._position)
        for g, one in enumerate(self._fitted):
            self._prompts[draw, :, g] = self._hits(read, one.target)

    def try_stream(self, row: int) -> None:
        """The smallest change, in one context."""
        single = [at for at, one in enumerate(self._fitted) if len(one.target.cells) == 1]
        why = self._model.router_slope_error
        if why is not None or not single:
            for at in single:
                self._lacks(at, STREAM, why or "")
            return
        ids = self._contexts[row, : self._position + 1]
        trace = self._model.trace(ids, lens=0, streams=True)
        for at in single:
            self._steer(row, at, trace)

    def _steer(self, row: int, at: int, trace: Trace) -> None:
        cell = self._fitted[at].target.cells[0]
        rule = layer_rule([trace], self._rows[at])
        found = steer(self._model, trace, self._position, cell.layer, cell.expert, rule)
        if found.delta is None:
            self._lacks(at, STREAM, found.reason or "")
            return
        self._stream[row, at] = (
            found.length, found.pair, found.pair_bound, found.pair_follows, found.exact,
            found.rounds, found.follows,
        )  # fmt: skip
        rng = generator(self._seed, _WAYS_DRAWN, self._contexts[row])
        self._ways[row, at] = random_follows(
            self._model, trace, self._position, cell.layer, cell.expert, found, self._draws, rng
        )
        try:
            read = self._model.read_contexts(
                self._contexts[row : row + 1],
                self._position,
                output=True,
                interventions=[patch(trace, self._position, cell.layer, found.delta)],
            )
        except UsageError as error:
            self._lacks(at, STREAM, error.message)
            return
        self._note(slice(row, row + 1), at, STREAM, read)

    def result(self) -> Checked:
        """All of it."""
        experts = np.stack([self._base.experts[:, row] for row in self._rows], axis=1)
        return Checked(
            untouched=self._untouched,
            untouched_experts=experts,
            reached=self._reached,
            experts=self._experts,
            kl=self._kl,
            nll=self._nll,
            random=self._random,
            random_kl=self._random_kl,
            prompts=self._prompts,
            stream=self._stream,
            ways=self._ways,
            reasons=tuple(map(tuple, self._reasons)),
        )
