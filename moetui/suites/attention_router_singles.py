"""What the analyses of `attention_router` share that go down to single sources of a router."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moetui.analyses.single_sources import Numbers, SingleSums, Split, permuted_powers, single_sums
from moetui.analyses.source_experts import SourceExperts
from moetui.analyses.source_heads import SourceHeads
from moetui.stats import Statistic
from moetui.suites.attention_router_corpus import NO_CORPUS, CorpusPlan, Texts
from moetui.suites.corpus import Sample
from moetui.suites.layers import routing_layers
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo
from moetui.trace.types import Floats

# Of all sources before a router, so many are listed: the largest shares.
LISTED = 10


@dataclass(frozen=True, eq=False)
class ReadSingles:
    """The sums of some documents and, over all of them, the powers under permutation [P, M, X].

    layers: (decoder layer, how many sources it has) of the M layers that are split; error: why
    they could not be.
    """

    documents: tuple[SingleSums, ...]
    permuted: Floats
    layers: tuple[tuple[int, int], ...] = ()
    error: str | None = None


@dataclass(frozen=True, eq=False)
class AllSingles:
    """What all documents left, at the router of one decoder layer; drawn: of which corpus."""

    documents: tuple[SingleSums, ...]
    permuted: Numbers
    layers: tuple[tuple[int, int], ...]
    router: int
    drawn: Sample


class SinglesAnalysis(ABC):
    """The shares of single sources in the logits of one router: the last of the plan's.

    asked: whether there is a corpus at all.
    """

    needs: tuple[str, ...] = ()
    partial_type: Any = ReadSingles

    def __init__(self, plan: CorpusPlan, *, asked: bool) -> None:
        self._plan, self._asked = plan, asked

    @abstractmethod
    def refused(self, model: Forward) -> str | None:
        """Why the model's sources cannot be told apart, None where they can."""

    @abstractmethod
    def split(
        self, model: Forward, ids: Any, router: int
    ) -> tuple[Split, int, tuple[tuple[int, int], ...]]:
        """The sources of one document, the most that a layer has, and how many each has."""

    @abstractmethod
    def result(self, read: AllSingles, *, seed: int) -> SourceExperts | SourceHeads:
        """Shares with intervals over documents, and their test."""

    def settings(self, *, seed: int) -> Any:
        """Layers, length and what is said of the corpus."""
        return [self._plan.layers, self._plan.max_tokens, self._plan.used(seed)]

    def router(self, info: ModelInfo) -> int:
        """The decoder layer that is asked about. Raises UsageError where it does not route."""
        return routing_layers(self._plan.layers, info)[-1]

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers, or no documents.

        Raises UsageError for a layer that does not route."""
        if (reason := no_router(info)) is not None:
            return reason
        self.router(info)
        if self._plan.empty:
            return "no document was asked for (source_documents=0)" if self._asked else NO_CORPUS
        return None

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each."""
        return self._plan.parts(seed=seed)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> ReadSingles:
        """One pass a document."""
        given: Texts = part.inputs
        permuted = np.zeros((0, 0, 0))
        if (error := self.refused(model)) is not None:
            return ReadSingles((), permuted.astype(np.float32), error=error)
        router = routing_layers(given.layers, model.info)[-1]
        invariant = model.info.shift_invariant
        layers: tuple[tuple[int, int], ...] = ()
        sums: list[SingleSums] = []
        for document in given.documents:
            ids = model.tokenize(document.text)[: given.max_tokens]
            found, most, layers = self.split(model, ids, router)
            sums.append(single_sums(found, most, shift_invariant=invariant))
            powers = permuted_powers(
                found, most, document.text, seed=seed, shift_invariant=invariant
            )
            permuted = permuted + powers if len(sums) > 1 else powers
            step(len(sums), len(given.documents))
        return ReadSingles(tuple(sums), permuted.astype(np.float32), layers)

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Shares with intervals over documents, and their test."""
        errors = [partial.error for partial in partials if partial.error is not None]
        documents = [one for partial in partials for one in partial.documents]
        if errors or not any(one.tokens for one in documents):
            return Outcome(None, errors[0] if errors else "no token has all its router data")
        read = AllSingles(
            tuple(documents),
            np.sum([partial.permuted for partial in partials], axis=0, dtype=float),
            partials[0].layers,
            self.router(info),
            self._plan.sample(seed),
        )
        return Outcome(self.result(read, seed=seed))

    @property
    def max_tokens(self) -> int:
        """To which a document is cut."""
        return self._plan.max_tokens


def above_null(shares: Iterable[Statistic]) -> int:
    """How many shares are larger than by exchange."""
    return sum(
        share.q is not None
        and share.value is not None
        and share.null_mean is not None
        and share.q <= 0.05
        and share.value > share.null_mean
        for share in shares
    )
