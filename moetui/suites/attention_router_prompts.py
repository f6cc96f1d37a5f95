"""The analyses of `attention_router` that read the seed's own prompts and contexts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from moetui.analyses.attention_router import (
    PromptDecomposition,
    SeedPrompt,
    corrected_decomposition,
    prompt_sums,
    seed_prompt,
    seed_summary,
)
from moetui.analyses.context_sensitivity import context_sensitivity
from moetui.analyses.context_uses import WordUses, frequent_tokens, mined_uses, word_uses
from moetui.analyses.router_evidence import DocumentSums
from moetui.suites.attention_router_corpus import CORPUS, undecomposed
from moetui.suites.documents import some_of
from moetui.suites.layers import LayersAsked, routing_layers
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo
from moetui.trace.types import Ints


class Prompts(msgspec.Struct, frozen=True, kw_only=True):
    """The seed's prompts and the layers as asked for."""

    prompts: tuple[str, ...]
    layers: LayersAsked


@dataclass(frozen=True, eq=False)
class ReadPrompts:
    """By prompt: the seed metric by layer, and the corrected sums (None without parts)."""

    seed: tuple[tuple[SeedPrompt, ...], ...]
    sums: tuple[DocumentSums | None, ...]


class Decomposition:
    """The seed's prompts, the seed's metric beside the corrected one."""

    name = "decomposition"
    needs: tuple[str, ...] = ()
    partial_type: Any = ReadPrompts

    def __init__(self, prompts: Sequence[str], layers: LayersAsked) -> None:
        self._inputs = Prompts(prompts=tuple(prompts), layers=layers)

    def settings(self, *, seed: int) -> Any:
        """The layers."""
        return self._inputs.layers

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """All prompts in one."""
        return (Part(name="the seed's prompts", inputs=self._inputs),)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> ReadPrompts:
        """One pass a prompt."""
        given: Prompts = part.inputs
        layers = routing_layers(given.layers, model.info)
        rows, sums = [], []
        for done, prompt in enumerate(given.prompts, 1):
            trace = model.trace(prompt, lens=0)
            rows.append(seed_prompt(prompt, trace, layers))
            sums.append(None if trace.router_parts is None else prompt_sums(trace, layers))
            step(done, len(given.prompts))
        return ReadPrompts(tuple(rows), tuple(sums))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Means over prompts; every prompt's row is kept."""
        layers = routing_layers(self._inputs.layers, info)
        rows = [row for partial in partials for row in partial.seed]
        sums = [one for partial in partials for one in partial.sums]
        reason, corrected = undecomposed(info, sums), None
        if reason is None:
            corrected = corrected_decomposition(
                info, [s for s in sums if s], layers, positions="last token", seed=seed
            )
            reason = None if corrected else "no prompt's last token has all its router data"
        found = PromptDecomposition(
            seed=seed_summary(rows, layers), corrected=corrected, reason=reason
        )
        return Outcome(found, reason)


class Contexts(msgspec.Struct, frozen=True, kw_only=True):
    """Words with texts that hold them, or (empty) the tokens of these ranks in the corpus."""

    words: dict[str, tuple[str, ...]]
    ranks: tuple[int, ...]
    contexts: int
    shuffles: int
    layers: LayersAsked


@dataclass(frozen=True, eq=False)
class ReadContexts:
    """What was read of words of the seed, or of the corpus."""

    seed: tuple[WordUses, ...]
    mined: tuple[WordUses, ...]


class ContextSensitivityAnalysis:
    """The seed's words in its contexts, and frequent tokens of the corpus in theirs."""

    name = "context_sensitivity"
    needs: tuple[str, ...] = (CORPUS,)
    partial_type: Any = ReadContexts

    def __init__(
        self,
        words: Mapping[str, Sequence[str]],
        layers: LayersAsked,
        *,
        tokens: int,
        contexts: int,
        shuffles: int,
    ) -> None:
        self._words = {word: tuple(texts) for word, texts in words.items()}
        self._layers = layers
        self._tokens, self._contexts, self._shuffles = tokens, contexts, shuffles

    def settings(self, *, seed: int) -> Any:
        """The layers."""
        return self._layers

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """The seed's words, then a part for every token of the corpus."""
        words = Part(name="the seed's words", inputs=self._inputs(self._words, ()))
        tokens = (
            Part(name=f"frequent token {rank + 1}", inputs=self._inputs({}, (rank,)))
            for rank in range(self._tokens)
        )
        return (words, *tokens)

    def _inputs(self, words: dict[str, tuple[str, ...]], ranks: tuple[int, ...]) -> Contexts:
        return Contexts(
            words=words,
            ranks=ranks,
            contexts=self._contexts,
            shuffles=self._shuffles,
            layers=self._layers,
        )

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> ReadContexts:
        """One pass a context, and one for each of its shuffled orders."""
        given: Contexts = part.inputs
        layers = routing_layers(given.layers, model.info)
        total = sum(map(len, given.words.values())) + len(given.ranks) * given.contexts
        counted = _Steps(step, total)
        words = tuple(
            word_uses(
                model, word, texts, layers, shuffles=given.shuffles, seed=seed, step=counted.next
            )
            for word, texts in given.words.items()
        )
        documents = [(one.id, one.ids) for partial in needs[CORPUS] for one in partial.documents]
        mined = [
            mined_uses(
                model, token, where, layers, shuffles=given.shuffles, seed=seed, step=counted.next
            )
            for rank in given.ranks
            for token, where in token_of_rank(rank, documents, given.contexts, seed)
        ]
        return ReadContexts(words, tuple(mined))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Every word, and all tokens of the corpus together."""
        layers = routing_layers(self._layers, info)
        words = [word for partial in partials for word in partial.seed]
        mined = [word for partial in partials for word in partial.mined]
        found = context_sensitivity(words, mined, layers, seed=seed)
        return Outcome(found, found.reason)


class _Steps:
    """Counts texts."""

    def __init__(self, step: Step, total: int) -> None:
        self._step, self._total, self._done = step, total, 0

    def next(self) -> None:
        """One more is done."""
        self._done += 1
        self._step(self._done, max(self._total, self._done))


def token_of_rank(
    rank: int, documents: Sequence[tuple[str, Ints]], contexts: int, seed: int
) -> list[tuple[int, list[tuple[str, Ints]]]]:
    """The token of that rank with `contexts` documents, drawn from those that hold it; empty where
    there is none."""
    found = frequent_tokens([ids for _, ids in documents], contexts=contexts)
    return [
        (token, [documents[index] for index in some_of(where, contexts, [seed, token])])
        for token, where in found[rank : rank + 1]
    ]
