"""The `moe_routing_correlation` suite: do routers make a model name the task in words?

Prompts, words, depths and the verdict's rule are the seed's; beside each number stands the
corrected reading, on prompts that ask every operation of the same numbers in the same wording.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from moetui.analyses.task_prompts import (
    SEED_PROMPTS,
    SYMBOLS,
    TASK_WORDS,
    TASKS,
    Task,
    TaskPrompt,
    answer,
    crossed_prompts,
)
from moetui.analyses.task_words import Prompt, of_operands, of_wordings
from moetui.errors import UsageError
from moetui.suites.documents import Documents
from moetui.suites.layers import LayersAsked
from moetui.suites.moe_routing_correlation_lens import (
    ExpertWordsAnalysis,
    VocabularyAlignmentAnalysis,
    WordPrompts,
)
from moetui.suites.moe_routing_correlation_measures import PEAK, measures
from moetui.suites.moe_routing_correlation_tasks import (
    AccuracyAnalysis,
    ProbeAnalysis,
    VirtualExpertAnalysis,
)
from moetui.suites.moe_routing_correlation_tuned import (
    LensFidelityAnalysis,
    TunedLensAnalysis,
)
from moetui.suites.moe_routing_correlation_verdict import conclude
from moetui.suites.names import Preset
from moetui.suites.parameters import parameters_of
from moetui.suites.plan import Analysis
from moetui.suites.results import CellResult, Measure, Published, Verdicts, digest
from moetui.suites.sanity import SanityAnalysis

OLMOE, LLAMA = "allenai/OLMoE-1B-7B-0924", "meta-llama/Llama-3.2-1B"
GPT_OSS = "openai/gpt-oss-20b"
DEMO, DEMO_DENSE = "demo", "demo-dense"
# Of each calibration document, for how frequent tokens are: as long as the bundled ones.
CALIBRATION_TOKENS = 512

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Text = Annotated[str, msgspec.Meta(min_length=1)]

# What --quick and --full make of the parameters.
QUICK: Mapping[str, Any] = {
    "operand_pairs": 6,
    "problems_per_task": 10,
    "calibration_documents": 100,
    "fit_documents": 30,
    "evaluation_documents": 30,
}
FULL: Mapping[str, Any] = {
    "operand_pairs": 30,
    "problems_per_task": 100,
    "fit_documents": 200,
    "evaluation_documents": 200,
}

_PROBLEM = re.compile(r"\s*(\d+)\s*([-+*/×÷])\s*(\d+)\s*=\s*")


def _seed_prompts() -> dict[Task, tuple[Text, ...]]:
    return {task: tuple(p.prompt for p in SEED_PROMPTS if p.task == task) for task in TASKS}


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be changed, with the seed's values as defaults; the fields say what they mean."""

    models: Annotated[
        tuple[Text, ...],
        msgspec.Meta(
            min_length=1,
            description="models to run on, at least one with routers and one without: demo, a "
            "folder, org/name; demo alone brings demo-dense along",
        ),
    ] = (DEMO, DEMO_DENSE)
    layers: Annotated[
        LayersAsked | None,
        msgspec.Meta(
            description="decoder layers whose words are read, by number, or first, mid, last, all; "
            "null: the seed's layers 4, 6, 8, 10, 12, 14 of 16, scaled to the depth of each model, "
            "less its last layer"
        ),
    ] = None
    prompts: Annotated[
        dict[Task, tuple[Text, ...]],
        msgspec.Meta(description="operation → the seed's problems, each like `5 + 3 = `"),
    ] = msgspec.field(default_factory=_seed_prompts)
    words: Annotated[
        dict[Task, tuple[Text, ...]],
        msgspec.Meta(min_length=2, description="operation → words that name it"),
    ] = msgspec.field(default_factory=lambda: dict(TASK_WORDS))
    operand_pairs: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=30)],
        msgspec.Meta(
            description="pairs of numbers of the larger set of prompts, each asked in 4 "
            "operations and 7 templates"
        ),
    ] = 20
    problems_per_task: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=100)],
        msgspec.Meta(description="problems of each operation for the accuracy of answers"),
    ] = 50
    tuned_lens: Annotated[
        bool | None,
        msgspec.Meta(
            description="whether to fit a tuned lens; null: unless the model is wider than 512 "
            "and the calibration text shorter than 1,000,000 tokens"
        ),
    ] = None
    calibration_documents: Annotated[
        Count,
        msgspec.Meta(
            description="documents that say how frequent tokens are, and that the lens is fitted to"
        ),
    ] = 300
    fit_documents: Annotated[
        Positive, msgspec.Meta(description="how many of them the tuned lens is fitted to")
    ] = 80
    fit_tokens: Annotated[
        Positive, msgspec.Meta(description="tokens of each of them, from its beginning")
    ] = 64
    evaluation_documents: Annotated[
        Count, msgspec.Meta(description="documents on which raw and tuned lens are compared")
    ] = 100
    evaluation_tokens: Annotated[
        Positive, msgspec.Meta(description="tokens to which each of these is cut")
    ] = 64
    evaluation_positions: Annotated[
        Positive, msgspec.Meta(description="positions read in each of these, drawn at random")
    ] = 8


class MoeRoutingCorrelation:
    """The suite with its parameters set; see `moetui.suites.plan.Suite`."""

    name = "moe_routing_correlation"
    question = (
        "Do routers press a model to name the task in words at its middle layers, where a dense "
        "model does not?"
    )
    cost = (
        "a fit of 80 × 64 tokens, some 600 short prompts twice, 200 generated "
        "numbers; with the defaults one to two minutes of CPU time for each demo model"
    )
    published: tuple[Published, ...] = (
        Published(model=OLMOE, measure=PEAK, value=0.0),
        Published(model=LLAMA, measure=PEAK, value=0.0),
        Published(model=f"{GPT_OSS}, layer 13, reported at least", measure=PEAK, value=0.5),
        Published(model=f"{GPT_OSS}, layer 13, reported at most", measure=PEAK, value=0.8),
        *(
            Published(model=model, measure=f"probe of the operation, {depth} depth", value=1.0)
            for depth in ("25%", "50%")
            for model in (OLMOE, LLAMA)
        ),
        Published(model=OLMOE, measure="task accuracy, the seed's prompts", value=0.667),
        Published(model=LLAMA, measure="task accuracy, the seed's prompts", value=1.0),
    )

    def __init__(self, parameters: Parameters, corpus: str | Path | None = None) -> None:
        self._given = given = parameters
        items = seed_items(given.prompts)
        worded = [item for item in items if item.task in given.words]
        if not worded:
            raise UsageError("no prompt of an operation that has words", "give prompts and words")
        prompts = WordPrompts(of_operands(worded), self._larger, given.words, given.layers)
        self.analyses: tuple[Analysis, ...] = (
            SanityAnalysis([item.prompt for item in items], max_tokens=64, layers="all"),
            TunedLensAnalysis(
                Documents(
                    corpus,
                    "calibration",
                    documents=given.calibration_documents,
                    tokens=CALIBRATION_TOKENS,
                ),
                fit_documents=given.fit_documents,
                tokens=given.fit_tokens,
                asked=given.tuned_lens,
            ),
            LensFidelityAnalysis(
                Documents(
                    corpus,
                    "evaluation",
                    documents=given.evaluation_documents,
                    tokens=given.evaluation_tokens,
                ),
                tokens=given.evaluation_tokens,
                positions=given.evaluation_positions,
            ),
            VocabularyAlignmentAnalysis(prompts),
            ExpertWordsAnalysis(),
            ProbeAnalysis(pairs=given.operand_pairs, seed_items=items),
            AccuracyAnalysis(per_task=given.problems_per_task, seed_items=items),
            VirtualExpertAnalysis(),
        )

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models to run on, each once. The question is a comparison, so the bundled
        mixture alone brings along the dense model that was trained as it was."""
        given = tuple(dict.fromkeys(self._given.models))
        return (*given, DEMO_DENSE) if given == (DEMO,) else given

    @property
    def parameters(self) -> Parameters:
        """All parameters, defaults filled in."""
        return self._given

    def prompts_digest(self) -> str:
        """Digest over prompts and words."""
        return digest([self._given.prompts, self._given.words])

    def measures(self, model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
        """Headline numbers, see `moetui.suites.moe_routing_correlation_measures`."""
        return measures(model, cells)

    def conclude(self, cells: Sequence[CellResult]) -> tuple[Verdicts, ...]:
        """Seed rule and corrected rule, see `moetui.suites.moe_routing_correlation_verdict`."""
        return (conclude(cells),)

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """Of the run as a whole."""
        return tuple(f"{c.model}, {c.analysis}: {c.reason}" for c in cells if c.reason is not None)

    def _larger(self, seed: int) -> tuple[Prompt, ...]:
        asked = crossed_prompts(self._given.operand_pairs, seed=seed)
        return tuple(p for p in of_wordings(asked) if p.task in self._given.words)


def seed_items(prompts: Mapping[Task, Sequence[str]]) -> tuple[TaskPrompt, ...]:
    """The seed's prompts as problems with their answers.

    Raises UsageError for a text that is no problem like `5 + 3 = `, or asks another operation.
    """
    return tuple(_problem(task, text) for task, texts in prompts.items() for text in texts)


def _problem(task: Task, text: str) -> TaskPrompt:
    found = _PROBLEM.fullmatch(text)
    same = found is not None and _symbol(found[2]) == SYMBOLS[task]
    if found is None or not same:
        raise UsageError(
            f"{text!r} is no problem of {task}", f"write them like `6 {SYMBOLS[task]} 3 = `"
        )
    a, b = int(found[1]), int(found[3])
    try:
        right = answer(task, a, b)
    except ValueError as error:
        raise UsageError(str(error), "its result has to be a whole number") from error
    return TaskPrompt(
        prompt=text, task=task, template="seed", operands=f"{a},{b}", answer=right, symbol=True
    )


def _symbol(written: str) -> str:
    return {"×": "*", "÷": "/"}.get(written, written)


def preset(name: str, which: Preset) -> Mapping[str, Any]:
    """The parameters that differ under `which`."""
    return QUICK if which == "quick" else FULL


def suite(
    parameters: Mapping[str, Any], *, corpus: str | Path | None = None
) -> MoeRoutingCorrelation:
    """The suite with `parameters`, on the documents of `corpus` (default: bundled).

    Raises UsageError for an unknown parameter or a prompt that is no problem, CorpusError for a
    corpus that is missing.
    """
    from moetui.suites.corpus import open_corpus

    open_corpus(corpus, "evaluation")
    return MoeRoutingCorrelation(
        parameters_of(Parameters, parameters, MoeRoutingCorrelation.name), corpus
    )
