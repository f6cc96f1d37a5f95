"""The `attention_router` suite: does attention, and not the token itself, decide the experts?

Prompts, contexts, layers and the verdict's rule are the seed's; beside each stands the corrected
reading, over the same prompts and over a corpus large enough for an interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from moetui.suites.attention_router_corpus import (
    CausalCheckAnalysis,
    CorpusDecompositionAnalysis,
    CorpusPlan,
    TokenIdentityAnalysis,
)
from moetui.suites.attention_router_experts import SourceExpertsAnalysis
from moetui.suites.attention_router_heads import SourceHeadsAnalysis
from moetui.suites.attention_router_measures import SENSITIVE, measures
from moetui.suites.attention_router_prompts import ContextSensitivityAnalysis, Decomposition
from moetui.suites.attention_router_verdict import conclude
from moetui.suites.layers import MEANING, LayersAsked
from moetui.suites.names import Preset
from moetui.suites.parameters import parameters_of
from moetui.suites.plan import Analysis
from moetui.suites.results import CellResult, Measure, Published, Verdicts, digest
from moetui.suites.sanity import SanityAnalysis

PROMPTS = (
    "127 + 45 =",
    "999 * 3 =",
    "What is forty-five times thirty-seven?",
    "def fibonacci(n):",
    "import numpy as np",
    "The capital of France is",
    "A synonym for happy is",
    "Calculate the sum: 100 + 200 + 300 =",
    "In Python, compute 45 * 37:",
)
CONTEXTS = {
    "127": ("111 127", "abc 127", "The number 127", "= 127"),
    "+": ("3 + 5", "x + y", '"a" + "b"', "count +="),
    "def": ("def foo():", "class Foo:\n    def", "f = lambda: def", "word = 'def'"),
}
OLMOE = "allenai/OLMoE-1B-7B-0924"

# What --quick and --full make of the parameters.
QUICK: Mapping[str, Any] = {
    "corpus_documents": 40,
    "source_documents": 20,
    "causal_documents": 20,
    "mined_tokens": 2,
    "shuffles": 1,
}
FULL: Mapping[str, Any] = {
    "layers": "all",
    "corpus_documents": 400,
    "source_documents": 200,
    "causal_documents": 200,
    "mined_tokens": 20,
    "shuffles": 10,
}

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be changed, with the seed's values as defaults; the fields say what they mean."""

    models: Annotated[
        tuple[Text, ...],
        msgspec.Meta(min_length=1, description="models to run on: demo, a folder, org/name"),
    ] = ("demo",)
    layers: Annotated[LayersAsked, msgspec.Meta(description=MEANING)] = ("first", "mid", "last")
    prompts: Annotated[
        tuple[Text, ...],
        msgspec.Meta(
            min_length=1,
            description="texts whose last token the seed's ratio is read at; the corrected shares "
            "of prompts have an interval from 20 on",
        ),
    ] = PROMPTS
    contexts: Annotated[
        dict[str, tuple[Text, ...]],
        msgspec.Meta(description="word → texts that hold it, for context sensitivity"),
    ] = msgspec.field(default_factory=lambda: dict(CONTEXTS))
    corpus_documents: Annotated[
        Count,
        msgspec.Meta(
            description="how many documents of the corpus the corrected shares are estimated on; "
            "0: none. They need 100 documents or 5,000 tokens; below a tenth of that the corrected "
            "verdict is inconclusive"
        ),
    ] = 200
    corpus_tokens: Annotated[
        Positive, msgspec.Meta(description="tokens to which each of these documents is cut")
    ] = 128
    source_documents: Annotated[
        Count,
        msgspec.Meta(
            description="how many documents of the corpus the shares of single experts and "
            "of single attention heads are estimated on; 0: none. An interval takes 20"
        ),
    ] = 60
    source_tokens: Annotated[
        Positive, msgspec.Meta(description="tokens to which each of these documents is cut")
    ] = 64
    source_layer: Annotated[
        Count | None,
        msgspec.Meta(
            description="decoder layer whose router these are the shares of; null: the last of "
            "`layers`"
        ),
    ] = None
    causal_documents: Annotated[
        Count,
        msgspec.Meta(
            description="how many of these documents, drawn at random, the causal check asks the "
            "routers about; an interval takes 20"
        ),
    ] = 60
    causal_tokens: Annotated[
        Positive, msgspec.Meta(description="tokens of each of them, drawn at random")
    ] = 8
    mined_tokens: Annotated[
        Count,
        msgspec.Meta(
            description="how many frequent tokens of the corpus are compared in contexts from it"
        ),
    ] = 6
    mined_contexts: Annotated[
        Annotated[int, msgspec.Meta(ge=2)],
        msgspec.Meta(description="contexts of each of them, one a document; a claim takes 30"),
    ] = 30
    shuffles: Annotated[
        Count, msgspec.Meta(description="shuffled orders of every context, for its null")
    ] = 3


class AttentionRouter:
    """The suite with its parameters set; see `moetui.suites.plan.Suite`."""

    name = "attention_router"
    question = (
        "Does what attention adds decide which experts a token gets, rather than the token's own "
        "embedding?"
    )
    cost = (
        "about 200 × 128 tokens of the corpus, a third of them twice, 60 × 64 each for "
        "single experts and heads, and 700 texts of 16 tokens; "
        "with the defaults about a minute of CPU time for the demo model"
    )
    published: tuple[Published, ...] = (
        Published(model=OLMOE, measure="seed ratio, layer 0", value=0.0),
        Published(model=OLMOE, measure="seed ratio, layer 8", value=0.892),
        Published(model=OLMOE, measure="seed ratio, layer 15", value=0.983),
        Published(model=OLMOE, measure=SENSITIVE, value=0.78),
        Published(model="openai/gpt-oss-20b", measure="seed ratio, middle layer", value=0.96),
    )

    def __init__(self, parameters: Parameters, corpus: str | Path | None = None) -> None:
        self._given = given = parameters
        plan = CorpusPlan(
            corpus,
            documents=given.corpus_documents,
            max_tokens=given.corpus_tokens,
            layers=given.layers,
        )
        singles = CorpusPlan(
            corpus,
            documents=given.source_documents if given.corpus_documents else 0,
            max_tokens=given.source_tokens,
            layers=given.layers if given.source_layer is None else (given.source_layer,),
        )
        asked = given.corpus_documents > 0
        self.analyses: tuple[Analysis, ...] = (
            SanityAnalysis(given.prompts, max_tokens=given.corpus_tokens, layers=given.layers),
            Decomposition(given.prompts, given.layers),
            CorpusDecompositionAnalysis(plan),
            SourceExpertsAnalysis(singles, asked=asked),
            SourceHeadsAnalysis(singles, asked=asked),
            CausalCheckAnalysis(plan, documents=given.causal_documents, tokens=given.causal_tokens),
            TokenIdentityAnalysis(plan),
            ContextSensitivityAnalysis(
                given.contexts,
                given.layers,
                tokens=given.mined_tokens,
                contexts=given.mined_contexts,
                shuffles=given.shuffles,
            ),
        )

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models to run on, each once."""
        return tuple(dict.fromkeys(self._given.models))

    @property
    def parameters(self) -> Parameters:
        """All parameters, defaults filled in."""
        return self._given

    def prompts_digest(self) -> str:
        """Digest over prompts and contexts."""
        return digest([self._given.prompts, self._given.contexts])

    def measures(self, model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
        """Headline numbers, see `moetui.suites.attention_router_measures`."""
        return measures(model, cells)

    def conclude(self, cells: Sequence[CellResult]) -> tuple[Verdicts, ...]:
        """Seed rule and corrected rule, see `moetui.suites.attention_router_verdict`."""
        return (conclude(cells),)

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """Of the run as a whole."""
        notes = [f"{c.model}, {c.analysis}: {c.reason}" for c in cells if c.reason is not None]
        if not self._given.corpus_documents:
            notes.append("no corpus: the corrected shares rest on the prompts alone")
        return tuple(notes)


def preset(name: str, which: Preset) -> Mapping[str, Any]:
    """The parameters that differ under `which`."""
    return QUICK if which == "quick" else FULL


def suite(parameters: Mapping[str, Any], *, corpus: str | Path | None = None) -> AttentionRouter:
    """The suite with `parameters`, on the documents of `corpus` (default: bundled).

    Raises UsageError for an unknown parameter, CorpusError for a corpus that is missing.
    """
    from moetui.suites.corpus import open_corpus

    open_corpus(corpus, "evaluation")
    return AttentionRouter(parameters_of(Parameters, parameters, AttentionRouter.name), corpus)
