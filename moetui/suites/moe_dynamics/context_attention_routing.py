"""The study `context_attention_routing`: does a token that looks alike get the same experts?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from moetui.analyses.attention_profiles import TargetContexts, mined_target, seed_target
from moetui.analyses.context_attention_routing import context_attention_routing
from moetui.analyses.context_uses import LEAST_BEFORE
from moetui.stats.mantel import PERMUTATIONS
from moetui.suites.attention_router_prompts import token_of_rank
from moetui.suites.layers import LayersAsked, routing_layers
from moetui.suites.moe_dynamics.context_attention_routing_verdict import (
    MIDDLE,
    conclude,
    measures,
)
from moetui.suites.moe_dynamics.routing import ROUTING, routed
from moetui.suites.moe_dynamics.study import Count, Setting, Text
from moetui.suites.plan import Analysis, Needs, Outcome, Part, Step
from moetui.suites.results import CellResult, Measure, Published, Verdicts
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo

CONTEXTS = (
    "127 + ",
    "127 * ",
    "127 = ",
    "125 126 127",
    "x = 127",
    "print(127",
    "[127,",
    "0x7F == 127",
    "the number 127",
    "value is 127",
    "room 127",
    "error 127",
    "Calculate: 127",
    "What is 127",
    "I saw 127",
    "127",
)
# Tokens of a context of the seed, as a plan takes it.
_SHORT = 6


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What can be changed; the fields say what they mean."""

    target_token: Annotated[
        Text, msgspec.Meta(description="the seed's target: a word that is one token in `contexts`")
    ] = "127"
    contexts: Annotated[
        tuple[Text, ...],
        msgspec.Meta(min_length=1, description="texts that hold it; the others are dropped"),
    ] = CONTEXTS
    mined_tokens: Annotated[
        Count,
        msgspec.Meta(
            description="how many frequent tokens of the evaluation documents are targets too; an "
            "interval takes 20, and 20 documents that hold them"
        ),
    ] = 24
    mined_contexts: Annotated[
        Annotated[int, msgspec.Meta(ge=2)],
        msgspec.Meta(description="contexts of each of them, one a document; a claim takes 30"),
    ] = 30
    permutations: Annotated[
        Annotated[int, msgspec.Meta(ge=999)],
        msgspec.Meta(
            description="of contexts, for each of Mantel's tests; 999 with --quick, and fewer than "
            "by default are told among the caveats"
        ),
    ] = PERMUTATIONS


QUICK: Mapping[str, Any] = {"mined_contexts": 12, "permutations": 999}
FULL: Mapping[str, Any] = {"mined_tokens": 60, "mined_contexts": 60}


class ContextTarget(msgspec.Struct, frozen=True, kw_only=True):
    """The seed's word with its texts, or the token of that rank in the evaluation documents."""

    word: str | None
    texts: tuple[str, ...]
    rank: int | None
    contexts: int
    layers: LayersAsked


@dataclass(frozen=True, eq=False)
class ReadTargets:
    """What a part read; none where the corpus has no token of that rank."""

    targets: tuple[TargetContexts, ...]


class ContextAnalysis:
    """The seed's target and frequent tokens of the corpus, each in its contexts."""

    name = "context_attention_routing"
    needs: tuple[str, ...] = (ROUTING,)
    partial_type: Any = ReadTargets

    def __init__(self, own: Parameters, layers: LayersAsked, *, max_tokens: int) -> None:
        self._own, self._layers, self._max_tokens = own, layers, max_tokens

    def settings(self, *, seed: int) -> Any:
        """Layers and permutations."""
        return [self._layers, self._own.permutations]

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """The seed's target, then a part for every frequent token."""
        own = self._own
        given = Part(
            name="the seed's target",
            inputs=self._inputs(own.target_token, own.contexts, None),
            tokens=_SHORT * len(own.contexts),
        )
        mined = (
            Part(
                name=f"frequent token {rank + 1}",
                inputs=self._inputs(None, (), rank),
                tokens=own.mined_contexts * self._max_tokens,
            )
            for rank in range(own.mined_tokens)
        )
        return (given, *mined)

    def _inputs(self, word: str | None, texts: tuple[str, ...], rank: int | None) -> ContextTarget:
        return ContextTarget(
            word=word,
            texts=texts,
            rank=rank,
            contexts=self._own.mined_contexts,
            layers=self._layers,
        )

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> ReadTargets:
        """One pass a context."""
        given: ContextTarget = part.inputs
        layers, done = routing_layers(given.layers, model.info), 0
        total = len(given.texts) or given.contexts

        def next_context() -> None:
            nonlocal done
            done += 1
            step(done, total)

        if given.rank is None:
            word = given.word or ""
            found = seed_target(model, word, given.texts, layers, step=next_context)
            return ReadTargets((found,))
        documents = [(one.id, one.ids) for one in routed(needs[ROUTING])]
        return ReadTargets(
            tuple(
                mined_target(
                    model,
                    token,
                    [(name, ids, _place(ids, token)) for name, ids in where],
                    layers,
                    step=next_context,
                )
                for token, where in token_of_rank(given.rank, documents, given.contexts, seed)
            )
        )

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Mantel's tests, and their mean over targets."""
        (given,) = partials[0].targets
        mined = [one for partial in partials[1:] for one in partial.targets]
        found = context_attention_routing(
            given,
            mined,
            routing_layers(self._layers, info),
            permutations=self._own.permutations,
            attention_error=info.attention_error,
            seed=seed,
        )
        return Outcome(found, found.reason)


def _place(ids: Any, token: int) -> int:
    """Where the token first stands with enough before it."""
    return int(np.flatnonzero(ids[LEAST_BEFORE:] == token)[0]) + LEAST_BEFORE


class ContextAttentionRoutingStudy:
    """The study with its parameters set; see `moetui.suites.moe_dynamics.study.Study`."""

    name = "context_attention_routing"
    question = (
        "Do contexts in which a token's attention is alike give it the same experts, beyond what "
        "its neighbours and its hidden state explain?"
    )
    cost = (
        "24 tokens in 30 contexts of up to 64 tokens each; with the defaults about half a minute "
        "of CPU time for the demo model"
    )
    published: tuple[Published, ...] = (
        Published(model="openai/gpt-oss-20b", measure=MIDDLE, value=0.32),
    )

    def __init__(self, own: Parameters, setting: Setting) -> None:
        self._own = own
        shared = setting.shared
        self.analyses: tuple[Analysis, ...] = (
            ContextAnalysis(own, shared.layers, max_tokens=shared.tokens),
        )

    def texts(self) -> Any:
        """Target and contexts."""
        return [self._own.target_token, self._own.contexts]

    def measures(self, model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
        """Headline numbers."""
        return measures(model, cells)

    def conclude(self, cells: Sequence[CellResult]) -> Verdicts:
        """Seed rule and corrected rule."""
        return conclude(cells)

    def caveats(self, cells: Sequence[CellResult]) -> tuple[str, ...]:
        """Fewer permutations than by default, as --quick makes."""
        made = self._own.permutations
        if made >= PERMUTATIONS:
            return ()
        return (
            f"context_attention_routing: {made:,} permutations in each of Mantel's tests, where "
            f"{PERMUTATIONS:,} are the default: no p of a single token is below {1 / (made + 1):g}",
        )


def study(own: Parameters, setting: Setting) -> ContextAttentionRoutingStudy:
    """The study with its parameters set."""
    return ContextAttentionRoutingStudy(own, setting)
