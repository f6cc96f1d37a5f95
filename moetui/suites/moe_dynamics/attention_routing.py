"""Study `attention_routing`: do attention's pattern and output foretell which experts are used?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from moetui.analyses.attention_features import seed_features
from moetui.analyses.attention_routing import ReadTokens, attention_routing, read_tokens
from moetui.analyses.seed_prediction import SeedAttention, seed_prediction
from moetui.demo import Split
from moetui.suites.layers import LayersAsked, routing_layers
from moetui.suites.moe_dynamics.attention_routing_verdict import conclude, measures
from moetui.suites.moe_dynamics.both_halves import parts_of_both, used_of_both
from moetui.suites.moe_dynamics.prompts import PROMPTS
from moetui.suites.moe_dynamics.routing import RoutingText
from moetui.suites.moe_dynamics.study import Count, Positive, Setting, Text
from moetui.suites.plan import Analysis, Needs, Outcome, Part, Step
from moetui.suites.results import CellResult, Measure, Published, Verdicts
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo
from moetui.trace.types import ExpertIds, Floats

NAME = "attention_routing"
GPT_OSS = "openai/gpt-oss-20b"
# What the features of a document may take, so that those of a wide model fit into memory.
_BYTES_A_DOCUMENT = 3 * 2**20


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be changed; the fields say what they mean."""

    prompts: Annotated[
        tuple[Text, ...],
        msgspec.Meta(
            min_length=2,
            description="texts whose last token the published predictor is fitted to and scored on",
        ),
    ] = PROMPTS
    sampled_tokens: Annotated[
        Positive,
        msgspec.Meta(
            description="tokens of each document, drawn at random, that the predictors are fitted "
            "to and judged on; fewer where their features would take more than 3 MiB a document. "
            "Of those drawn, the ones that a document has twice tell what is beyond the two"
        ),
    ] = 32
    shuffles: Annotated[
        Count,
        msgspec.Meta(
            description="draws of each null: features exchanged within documents, or among equal "
            "tokens, and fitted anew; 19 or more can reach the p of 0.05 that a finding takes"
        ),
    ] = 20


QUICK: Mapping[str, Any] = {}
FULL: Mapping[str, Any] = {"shuffles": 99}


class SeedTexts(msgspec.Struct, frozen=True, kw_only=True):
    """The published prompts, and the layers as asked for."""

    prompts: tuple[str, ...]
    layers: LayersAsked


@dataclass(frozen=True, eq=False)
class SeedRead:
    """Last tokens of P prompts at R layers: features [P, R, 6] or None, experts [P, R, k]."""

    features: Floats | None
    experts: ExpertIds


class AttentionPromptsAnalysis:
    """The published predictor on the published prompts."""

    name = "attention_prompts"
    needs: tuple[str, ...] = ()
    partial_type: Any = SeedRead

    def __init__(self, prompts: Sequence[str], layers: LayersAsked) -> None:
        self._inputs = SeedTexts(prompts=tuple(prompts), layers=layers)

    def settings(self, *, seed: int) -> Any:
        """The layers."""
        return self._inputs.layers

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers, or without attention that can be read."""
        return no_router(info) or info.attention_error

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """All prompts in one."""
        return (Part(name="prompts", inputs=self._inputs, tokens=16 * len(self._inputs.prompts)),)

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> SeedRead:
        """One pass a prompt."""
        given: SeedTexts = part.inputs
        layers = routing_layers(given.layers, model.info)
        at = [model.info.moe_layers.index(layer) for layer in layers]
        experts, features = [], []
        for prompt in given.prompts:
            trace = model.trace(prompt, lens=0, residuals=False, attention=True)
            experts.append(trace.expert_ids[-1][at])
            if trace.attention is not None:
                last = len(trace) - 1
                features.append([seed_features(trace.attention[layer], last) for layer in layers])
            step(len(experts), len(given.prompts))
        whole = len(features) == len(experts)
        return SeedRead(np.array(features, np.float32) if whole else None, np.stack(experts))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Its scores."""
        found: SeedRead = partials[0]
        if found.features is None or not np.isfinite(found.features).all():
            return Outcome(None, "one of the layers has no attention over the tokens")
        layers = routing_layers(self._inputs.layers, info)
        scores = seed_prediction(
            list(found.features.swapaxes(0, 1)),
            list(found.experts.swapaxes(0, 1)),
            layers,
            num_experts=info.num_experts,
            correlate=True,
            seed=seed,
        )
        return Outcome(SeedAttention(scores=scores))


class TokensToRead(msgspec.Struct, frozen=True, kw_only=True):
    """Documents of one half, each cut to max_tokens tokens, `sampled` of which are kept."""

    split: Split
    documents: tuple[RoutingText, ...]
    max_tokens: int
    layers: LayersAsked
    sampled: int


@dataclass(frozen=True, eq=False)
class TokensRead:
    """What was kept of the documents of a part."""

    split: Split
    documents: tuple[ReadTokens, ...]


class AttentionRoutingAnalysis:
    """The corrected predictors: fitted to calibration documents, judged on evaluation ones."""

    name = NAME
    needs: tuple[str, ...] = ()
    partial_type: Any = TokensRead

    def __init__(self, own: Parameters, setting: Setting) -> None:
        self._own, self._setting = own, setting

    def settings(self, *, seed: int) -> Any:
        """Layers, draws, and what is said of the corpus."""
        shared = self._setting.shared
        return [shared.layers, self._own.shuffles, *used_of_both(self._setting, seed=seed)]

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each."""
        return tuple(
            parts_of_both(
                self._setting,
                TokensToRead,
                seed=seed,
                layers=self._setting.shared.layers,
                sampled=self._own.sampled_tokens,
            )
        )

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> TokensRead:
        """One pass a document; which of its tokens are kept follows from its text and the seed."""
        given: TokensToRead = part.inputs
        layers = routing_layers(given.layers, model.info)
        kept = min(given.sampled, _affordable(model.info, len(layers)))
        found = []
        for document in given.documents:
            ids = model.tokenize(document.text)[: given.max_tokens]
            rng = np.random.default_rng([seed, *ids.tolist()])
            rows = np.sort(rng.choice(len(ids), min(kept, len(ids)), replace=False))
            found.append(read_tokens(model, document.id, ids, layers, rows.astype(np.int32)))
            step(len(found), len(given.documents))
        return TokensRead(given.split, tuple(found))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """All predictors, with intervals over evaluation documents."""
        sides: dict[str, list[ReadTokens]] = {"calibration": [], "evaluation": []}
        for partial in partials:
            sides[partial.split] += partial.documents
        fit, judge = sides["calibration"], sides["evaluation"]
        found = attention_routing(
            fit,
            judge,
            routing_layers(self._setting.shared.layers, info),
            num_experts=info.num_experts,
            no_pattern=info.attention_error,
            sampled=max(len(one.rows) for one in judge),
            shuffles=self._own.shuffles,
            seed=seed,
        )
        fit_corpus, corpus = used_of_both(self._setting, seed=seed)
        return Outcome(msgspec.structs.replace(found, fit_corpus=fit_corpus, corpus=corpus))


def _affordable(info: ModelInfo, layers: int) -> int:
    """Tokens of a document whose features take no more than _BYTES_A_DOCUMENT."""
    return max(1, _BYTES_A_DOCUMENT // (layers * 3 * info.hidden_size * 4))


class AttentionRoutingStudy:
    """The study with its parameters set; see `moetui.suites.moe_dynamics.study.Study`."""

    name = NAME
    question = (
        "Can the experts of a token be foretold from attention, better than from the token itself?"
    )
    published: tuple[Published, ...] = (
        Published(model=GPT_OSS, measure="seed accuracy, top expert", value=0.043),
        Published(model=GPT_OSS, measure="seed correlation, largest |r|", value=0.906),
    )

    def __init__(self, own: Parameters, setting: Setting) -> None:
        self._own, self._setting = own, setting
        self.analyses: tuple[Analysis, ...] = (
            AttentionPromptsAnalysis(own.prompts, setting.shared.layers),
            AttentionRoutingAnalysis(own, setting),
        )

    @property
    def cost(self) -> str:
        """Passes over both halves of the corpus."""
        shared = self._setting.shared
        documents = shared.documents + shared.calibration_documents
        return (
            f"{documents} documents of {shared.tokens} tokens, once, with attention kept; with "
            "the defaults about half a minute of CPU time for the demo model"
        )

    def texts(self) -> Any:
        """The prompts."""
        return self._own.prompts

    def measures(self, model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
        """See `moetui.suites.moe_dynamics.attention_routing_verdict`."""
        return measures(model, cells)

    def conclude(self, cells: Sequence[CellResult]) -> Verdicts:
        """See `moetui.suites.moe_dynamics.attention_routing_verdict`."""
        return conclude(cells)

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """How far a linear reading goes."""
        return (
            "attention_routing: predictors are linear in their features; what the router input "
            "predicts is the most that such a reading finds, and random routers read attention "
            "too: only what differs from random weights was learnt",
        )


def study(own: Parameters, setting: Setting) -> AttentionRoutingStudy:
    """The study with its parameters set."""
    return AttentionRoutingStudy(own, setting)
