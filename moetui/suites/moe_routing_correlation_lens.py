"""The analyses of `moe_routing_correlation` that read the lens: tuned lens, words, experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from moetui.analyses.expert_words import (
    ExpertRows,
    expert_rows,
    expert_words,
    joined_experts,
)
from moetui.analyses.task_words import Prompt, TaskWords, lexicon, said_words
from moetui.analyses.tuned_lens import (
    FidelityRows,
    FittedLens,
    fidelity_rows,
    fitted_lens,
    leaving_streams,
    lens_fidelity,
    tuned_lens_fit,
)
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
from moetui.suites.corpus import Sample, Split, open_corpus, sample
from moetui.suites.layers import LayersAsked, chosen_layers
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.trace import Forward, ModelInfo

TUNED_LENS = "tuned_lens"
SEED_SET, LARGER_SET = "the seed's prompts", "every operation of the same operands"
# Documents of one part, and characters kept of each.
DOCUMENTS_A_PART, CHARACTERS = 25, 8192
# About how long a prompt is.
_TOKENS = 8

Words = Mapping[Any, tuple[str, ...]]


class FitInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Calibration texts; of fit_documents of them the first tokens are fitted to. asked: see
    `moetui.analyses.tuned_lens.fitted_lens`."""

    texts: tuple[str, ...]
    fit_documents: int
    tokens: int
    asked: bool | None


class EvaluationInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluation texts, of which some positions of the first tokens are read."""

    texts: tuple[str, ...]
    tokens: int
    positions: int


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


class Documents:
    """A sample of one half of a corpus, drawn when first asked for."""

    def __init__(self, corpus: str | Path | None, split: Split, *, documents: int) -> None:
        self._corpus, self._split, self._documents = corpus, split, documents
        self.sample = lru_cache(maxsize=2)(self._drawn)

    def texts(self, seed: int) -> tuple[str, ...]:
        """The texts; none where none was asked for."""
        if not self._documents:
            return ()
        return tuple(found.text for found in self.sample(seed).documents)

    def _drawn(self, seed: int) -> Sample:
        corpus = open_corpus(self._corpus, self._split)
        return sample(corpus, self._documents, seed=seed, max_characters=CHARACTERS)


class TunedLensAnalysis:
    """`tuned_lens`: how often each token occurs in calibration text, and translators fitted to it.

    The first is what words are matched to random tokens by, so this runs on every model.
    """

    name = TUNED_LENS
    needs: tuple[str, ...] = ()
    partial_type: Any = FittedLens
    settings = None

    def __init__(
        self, calibration: Documents, *, fit_documents: int, tokens: int, asked: bool | None
    ) -> None:
        self._calibration = calibration
        self._fit_documents, self._tokens, self._asked = fit_documents, tokens, asked

    def unfit(self, info: ModelInfo) -> str | None:
        """A model whose lens cannot be read has no use for it."""
        return info.lens_error

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One: the fit is a whole."""
        inputs = FitInputs(
            texts=self._calibration.texts(seed),
            fit_documents=self._fit_documents,
            tokens=self._tokens,
            asked=self._asked,
        )
        return (Part(name="fit", inputs=inputs, tokens=self._fit_documents * self._tokens),)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> FittedLens:
        """Counts and fit."""
        asked: FitInputs = part.inputs
        return fitted_lens(
            model,
            asked.texts,
            fit_documents=asked.fit_documents,
            tokens=asked.tokens,
            asked=asked.asked,
            seed=seed,
            step=step,
        )

    def reduce(self, info: ModelInfo, partials: Sequence[FittedLens], *, seed: int) -> Outcome:
        """Sizes and what stopped the training."""
        (found,) = partials
        return Outcome(tuned_lens_fit(found), found.reason)


class LensFidelityAnalysis:
    """`lens_fidelity`: how near raw and tuned lens come to the output on evaluation documents."""

    name = "lens_fidelity"
    needs: tuple[str, ...] = (TUNED_LENS,)
    partial_type: Any = FidelityRows
    settings = None

    def __init__(self, evaluation: Documents, *, tokens: int, positions: int) -> None:
        self._evaluation, self._tokens, self._positions = evaluation, tokens, positions

    def unfit(self, info: ModelInfo) -> str | None:
        """A model whose lens cannot be read has none to judge."""
        return info.lens_error

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """25 documents each."""
        texts = self._evaluation.texts(seed)
        return tuple(
            Part(
                name=f"documents {start + 1}-{min(start + DOCUMENTS_A_PART, len(texts))}",
                inputs=EvaluationInputs(
                    texts=texts[start : start + DOCUMENTS_A_PART],
                    tokens=self._tokens,
                    positions=self._positions,
                ),
                tokens=self._tokens * len(texts[start : start + DOCUMENTS_A_PART]),
            )
            for start in range(0, len(texts), DOCUMENTS_A_PART)
        )

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> FidelityRows:
        """KL at some positions of every document."""
        asked: EvaluationInputs = part.inputs
        return fidelity_rows(
            model,
            asked.texts,
            needs[TUNED_LENS][0].lens,
            tokens=asked.tokens,
            positions=asked.positions,
            seed=seed,
            step=step,
        )

    def reduce(self, info: ModelInfo, partials: Sequence[FidelityRows], *, seed: int) -> Outcome:
        """Intervals over documents; a raw lens alone is a result as well."""
        if not partials:
            return Outcome(None, "no evaluation documents were asked for")
        return Outcome(lens_fidelity(partials, seed=seed))


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

    @property
    def settings(self) -> tuple[str, ...]:
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
    settings = None

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
