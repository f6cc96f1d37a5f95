"""The `attention_router` suite: does attention, and not the token itself, decide the experts?

Prompts, contexts, layers and the verdict's rule are the seed's; beside each stands the corrected
reading, over the same prompts and over a corpus large enough for an interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np

from moetui.analyses.attention_router import (
    CorpusDecomposition,
    PromptDecomposition,
    corrected_decomposition,
    default_layers,
    prompt_sums,
    seed_decomposition,
)
from moetui.analyses.context_sensitivity import context_sensitivity
from moetui.analyses.router_evidence import document_sums
from moetui.errors import UsageError
from moetui.suites.attention_router_verdict import conclude
from moetui.suites.results import CellResult, Published, Verdicts, digest
from moetui.suites.runner import Outcome, Step, Tracer
from moetui.trace import ModelInfo

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

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be changed, with the seed's values as defaults; the fields say what they mean."""

    models: Annotated[
        tuple[Text, ...],
        msgspec.Meta(min_length=1, description="models to run on: demo, a folder, org/name"),
    ] = ("demo",)
    layers: Annotated[
        Annotated[tuple[Count, ...], msgspec.Meta(min_length=1)] | None,
        msgspec.Meta(
            description="decoder layers to read; null: the first, the middle (n // 2) and the last "
            "of those that route"
        ),
    ] = None
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


class AttentionRouter:
    """The suite with its parameters set; see `moetui.suites.runner.Suite`."""

    name = "attention_router"
    question = (
        "Does what attention adds decide which experts a token gets, rather than the token's own "
        "embedding?"
    )
    cost = (
        "one forward pass a prompt, context and corpus document: about 200 × 128 tokens with the "
        "defaults, half a minute of CPU time for the demo model"
    )
    analyses: tuple[str, ...] = ("decomposition", "corpus_decomposition", "context_sensitivity")
    published: tuple[Published, ...] = (
        Published(model=OLMOE, measure="seed ratio, layer 0", value=0.0),
        Published(model=OLMOE, measure="seed ratio, layer 8", value=0.892),
        Published(model=OLMOE, measure="seed ratio, layer 15", value=0.983),
        Published(model=OLMOE, measure="context sensitivity", value=0.78),
        Published(model="openai/gpt-oss-20b", measure="seed ratio, middle layer", value=0.96),
    )

    def __init__(self, parameters: Parameters) -> None:
        self._given = parameters

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

    def run(self, analysis: str, model: Tracer, *, seed: int, step: Step) -> Outcome:
        """One cell; a model without routers is an answer, not a failure."""
        if not model.info.is_moe:
            dense = f"no router: {model.info.name} is a dense model"
            return Outcome(None, model.info.routing_error or dense)
        layers = _checked_layers(self._given.layers, model.info)
        cell = {
            "decomposition": self._prompts,
            "corpus_decomposition": self._corpus,
            "context_sensitivity": self._contexts,
        }[analysis]
        return cell(model, layers, seed, step)

    def conclude(self, cells: Sequence[CellResult]) -> Verdicts:
        """Seed rule and corrected rule, see `moetui.suites.attention_router_verdict`."""
        return conclude(cells)

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """Of the run as a whole."""
        notes = [f"{c.model}, {c.analysis}: {c.reason}" for c in cells if c.reason is not None]
        if not self._given.corpus_documents:
            notes.append("no corpus: the corrected shares rest on the prompts alone")
        return tuple(notes)

    def _prompts(self, model: Tracer, layers: Sequence[int], seed: int, step: Step) -> Outcome:
        traced = []
        for done, prompt in enumerate(self._given.prompts, 1):
            traced.append((prompt, model.trace(prompt, lens=0)))
            step(done, len(self._given.prompts))
        reason = _undecomposed(model.info, [trace.router_parts is None for _, trace in traced])
        corrected = None
        if reason is None:
            sums = (prompt_sums(trace, layers) for _, trace in traced)
            corrected = corrected_decomposition(
                model.info, sums, layers, positions="last token", seed=seed
            )
            reason = None if corrected else "no prompt's last token has all its router data"
        found = PromptDecomposition(
            seed=seed_decomposition(traced, layers), corrected=corrected, reason=reason
        )
        return Outcome(found, reason)

    def _corpus(self, model: Tracer, layers: Sequence[int], seed: int, step: Step) -> Outcome:
        from moetui.demo import corpus

        if not self._given.corpus_documents:
            return Outcome(None, "no corpus was asked for (corpus_documents=0)")
        documents = list(corpus("evaluation"))
        size = min(self._given.corpus_documents, len(documents))
        drawn = np.random.default_rng(seed).choice(len(documents), size, replace=False)
        sample = [documents[i] for i in sorted(drawn.tolist())]
        sums, absent = [], []
        for done, document in enumerate(sample, 1):
            ids = model.tokenize(document.text)[: self._given.corpus_tokens]
            trace = model.trace(ids, lens=0)
            absent.append(trace.router_parts is None)
            if not absent[-1]:
                sums.append(document_sums(trace, layers))
            step(done, size)
        reason = _undecomposed(model.info, absent)
        corrected = corrected_decomposition(
            model.info, sums, layers, positions="all tokens", seed=seed
        )
        if corrected is None and reason is None:
            reason = "no document has all its router data"
        found = CorpusDecomposition(
            corrected=corrected if reason is None else None,
            reason=reason,
            corpus="moetui demo corpus, evaluation split",
            sampled=size,
            available=len(documents),
            max_tokens=self._given.corpus_tokens,
            documents_digest=digest([(d.id, d.text) for d in sample]),
        )
        return Outcome(found, reason)

    def _contexts(self, model: Tracer, layers: Sequence[int], seed: int, step: Step) -> Outcome:
        total = sum(len(texts) for texts in self._given.contexts.values())
        words, done = [], 0
        for word, texts in self._given.contexts.items():
            traced = []
            for text in texts:
                traced.append((text, model.trace(text, lens=0, residuals=False)))
                done += 1
                step(done, total)
            words.append((word, traced))
        found = context_sensitivity(words, layers, seed=seed)
        return Outcome(found, found.reason)


def _checked_layers(asked: tuple[int, ...] | None, info: ModelInfo) -> tuple[int, ...]:
    if asked is None:
        return default_layers(info.moe_layers)
    for layer in asked:
        if layer not in info.moe_layers:
            raise UsageError(
                f"layer {layer} of {info.name} does not route",
                f"its routing layers are {', '.join(map(str, info.moe_layers))}",
            )
    return tuple(sorted(set(asked)))


def _undecomposed(info: ModelInfo, absent: list[bool]) -> str | None:
    if info.decomposition_error is not None:
        return f"no exact decomposition of this model: {info.decomposition_error}"
    return "router parts are missing" if any(absent) else None
