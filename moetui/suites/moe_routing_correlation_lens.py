"""The analyses of `moe_routing_correlation` that read words through the lens, and experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from moetui.analyses.expert_words import (
    ExpertRows,
    expert_rows,
    expert_words,
    joined_experts,
)
from moetui.analyses.task_words import Prompt, TaskWords, lexicon, said_words
from moetui.analyses.tuned_lens import FittedLens, leaving_streams
from moetui.analyses.vocabulary_alignment import (
    CORRECTED_DEFINITION,
    SEED_DEFINITION,
    VocabularyAlignment,
    prompt_set_alignment,
)
from moetui.analyses.vocabulary_reading import (
    VocabularyRows,
    joined_rows,
    seed_layers,
    word_rows,
)
from moetui.suites.layers import LayersAsked, chosen_layers
from moetui.suites.moe_routing_correlation_tuned import TUNED_LENS
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.trace import Forward, ModelInfo

SEED_SET, LARGER_SET = "the seed's prompts", "every operation of the same operands"
# About how long a prompt is.
_TOKENS = 8

Words = Mapping[Any, tuple[str, ...]]


class WordInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Prompts, and the words that are looked for. said: template → words that it says."""

    of_seed: bool
    prompts: tuple[Prompt, ...]
    words: dict[str, tuple[str, ...]]
    said: dict[str, tuple[str, ...]]
    layers: LayersAsked | None


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadWords:
    """What a part of `vocabulary_alignment` leaves; experts: None for a dense model."""

    of_seed: bool
    prompts: tuple[Prompt, ...]
    words: tuple[TaskWords, ...]
    rows: VocabularyRows
    experts: ExpertRows | None
    tuned_reason: str | None


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadExperts:
    """What `expert_words` takes from `vocabulary_alignment`; prompts: of the larger set."""

    prompts: tuple[Prompt, ...]
    larger: ExpertRows | None
    of_seed: ExpertRows | None


class WordPrompts:
    """The prompts whose words are read: the seed's, and a larger set a template at a time."""

    def __init__(
        self,
        seed_prompts: Sequence[Prompt],
        larger: Callable[[int], Sequence[Prompt]],
        words: Words,
        layers: LayersAsked | None,
    ) -> None:
        self._seed_prompts, self._larger = tuple(seed_prompts), larger
        self._words, self._layers = dict(words), layers

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in order."""
        return tuple(self._words)

    def said(self, prompts: Sequence[Prompt]) -> dict[str, tuple[str, ...]]:
        """Template → words that it says."""
        return said_words(prompts, self._words)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """The seed's prompts, then one part a template."""
        by_template: dict[str, list[Prompt]] = {}
        for prompt in self._larger(seed):
            by_template.setdefault(prompt.template, []).append(prompt)
        return (
            self._part("seed", self._seed_prompts, of_seed=True),
            *(self._part(name, prompts) for name, prompts in by_template.items()),
        )

    def _part(self, name: str, prompts: Sequence[Prompt], *, of_seed: bool = False) -> Part:
        inputs = WordInputs(
            of_seed=of_seed,
            prompts=tuple(prompts),
            words=self._words,
            said=self.said(prompts),
            layers=self._layers,
        )
        return Part(name=name, inputs=inputs, tokens=_TOKENS * len(prompts))


def word_layers(asked: LayersAsked | None, info: ModelInfo) -> tuple[int, ...]:
    """Decoder layers whose words are read; None: the seed's. Raises UsageError for one too deep."""
    if asked is None:
        return seed_layers(info.num_layers)
    return chosen_layers(asked, range(info.num_layers), f"is none of {info.name}", "decoder")


class VocabularyAlignmentAnalysis:
    """`vocabulary_alignment`: see `moetui.analyses.vocabulary_alignment`."""

    name = "vocabulary_alignment"
    needs: tuple[str, ...] = (TUNED_LENS,)
    partial_type: Any = ReadWords

    def __init__(self, prompts: WordPrompts) -> None:
        self._prompts = prompts

    def settings(self, *, seed: int) -> tuple[str, ...]:
        """The tasks in order, columns of the scores, and what is made of them."""
        return (*self._prompts.tasks, CORRECTED_DEFINITION)

    def unfit(self, info: ModelInfo) -> str | None:
        """Words are read through the lens."""
        return info.lens_error

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """See `WordPrompts`."""
        return self._prompts.parts(seed=seed)

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> ReadWords:
        """One pass a prompt: its last token raw and tuned, and all tokens beside their experts."""
        asked: WordInputs = part.inputs
        fitted: FittedLens = needs[TUNED_LENS][0]
        words = lexicon(model, asked.words, fitted.counts, seed=seed)
        layers = word_layers(asked.layers, model.info)
        tasks = list(asked.words)
        rows, experts = [], []
        for done, prompt in enumerate(asked.prompts, 1):
            trace = model.trace(prompt.text, lens=0, streams=True)
            spoken = asked.said[prompt.template]
            leaving = leaving_streams(trace)
            rows.append(word_rows(model, leaving, words, spoken, layers=layers, tuned=fitted.lens))
            if model.info.is_moe:
                task = tasks.index(prompt.task)
                experts.append(expert_rows(model, trace, task, words, spoken))
            step(done, len(asked.prompts))
        return ReadWords(
            of_seed=asked.of_seed,
            prompts=asked.prompts,
            words=words.tasks,
            rows=joined_rows(rows),
            experts=joined_experts(experts) if experts else None,
            tuned_reason=fitted.reason,
        )

    def reduce(self, info: ModelInfo, partials: Sequence[ReadWords], *, seed: int) -> Outcome:
        """Statistics of both sets."""
        sets = []
        for name, of_seed in ((SEED_SET, True), (LARGER_SET, False)):
            chosen = [partial for partial in partials if partial.of_seed == of_seed]
            prompts = [prompt for partial in chosen for prompt in partial.prompts]
            if not prompts:
                continue
            sets.append(
                prompt_set_alignment(
                    name,
                    prompts,
                    self._prompts.tasks,
                    joined_rows([partial.rows for partial in chosen]),
                    self._prompts.said(prompts),
                    num_layers=info.num_layers,
                    seed=seed,
                )
            )
        return Outcome(
            VocabularyAlignment(
                seed_definition=SEED_DEFINITION,
                definition=CORRECTED_DEFINITION,
                routers=info.is_moe,
                words=partials[0].words,
                sets=tuple(sets),
                tuned_reason=partials[0].tuned_reason,
            )
        )


class ExpertWordsAnalysis:
    """`expert_words`: see `moetui.analyses.expert_words`; from the passes of the words."""

    name = "expert_words"
    needs: tuple[str, ...] = (VocabularyAlignmentAnalysis.name,)
    partial_type: Any = ReadExperts

    def settings(self, *, seed: int) -> None:
        """Nothing: all is in the parts."""

    def unfit(self, info: ModelInfo) -> str | None:
        """A dense model has no experts; that is an answer."""
        if not info.is_moe:
            return info.routing_error or f"no router: {info.name} is a dense model"
        return info.lens_error

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One; it takes no pass of its own."""
        return (Part(name="experts", inputs=None, tokens=0),)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> ReadExperts:
        """Weights and words of every token."""
        read: list[ReadWords] = list(needs[VocabularyAlignmentAnalysis.name])
        larger = [one for one in read if not one.of_seed]
        return ReadExperts(
            prompts=tuple(prompt for one in larger for prompt in one.prompts),
            larger=_experts(larger),
            of_seed=_experts([one for one in read if one.of_seed]),
        )

    def reduce(self, info: ModelInfo, partials: Sequence[ReadExperts], *, seed: int) -> Outcome:
        """The larger set decides; the seed's table is of the seed's prompts."""
        (left,) = partials
        if left.larger is None:
            return Outcome(None, "no larger set of prompts was asked for")
        found = expert_words(left.prompts, left.larger, left.of_seed, seed=seed)
        if found.arrangements < found.permutations:
            few = f"{found.arrangements} ways to permute, {found.permutations} needed"
            return Outcome(found, f"too few wordings with equally many tokens: {few}")
        return Outcome(found)


def _experts(read: Sequence[ReadWords]) -> ExpertRows | None:
    rows = [one.experts for one in read if one.experts is not None]
    return joined_experts(rows) if rows else None
