"""The passes that the studies share: every document once, with its experts and its likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from moetui.analyses.routed import RoutedDocument, read_document, routing_read
from moetui.demo import Split
from moetui.suites.documents import Documents, in_parts
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo

ROUTING = "routing"
"""Name of the analysis that reads the evaluation documents."""
CALIBRATION = "calibration_routing"
"""Name of the analysis that reads the calibration documents."""


class RoutingText(msgspec.Struct, frozen=True):
    """A document as it is read."""

    id: str
    domain: str
    text: str


class RoutingTexts(msgspec.Struct, frozen=True, kw_only=True):
    """Documents, each cut to max_tokens tokens."""

    documents: tuple[RoutingText, ...]
    max_tokens: int


@dataclass(frozen=True, eq=False)
class RoutedDocuments:
    """The documents of a part."""

    documents: tuple[RoutedDocument, ...]


class RoutingAnalysis:
    """Documents of one half of the corpus, as the model routes them."""

    needs: tuple[str, ...] = ()
    partial_type: Any = RoutedDocuments

    def __init__(self, split: Split, documents: Documents, *, max_tokens: int) -> None:
        self.name = ROUTING if split == "evaluation" else CALIBRATION
        self._documents, self._max_tokens = documents, max_tokens

    def settings(self, *, seed: int) -> Any:
        """Length, and what is said of the corpus."""
        return [self._max_tokens, self._documents.used(seed)]

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers."""
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each."""
        found = self._documents.sample(seed).documents
        return tuple(
            Part(
                name=name,
                inputs=RoutingTexts(
                    documents=tuple(RoutingText(d.id, d.domain, d.text) for d in some),
                    max_tokens=self._max_tokens,
                ),
                # Once watched, once for the likelihood.
                tokens=2 * len(some) * self._max_tokens,
            )
            for name, some in in_parts(found)
        )

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> RoutedDocuments:
        """Two passes a document."""
        given: RoutingTexts = part.inputs
        read = []
        for document in given.documents:
            read.append(
                read_document(model, document.id, document.domain, document.text, given.max_tokens)
            )
            step(len(read), len(given.documents))
        return RoutedDocuments(tuple(read))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """What was read, and how well the untouched model predicts it."""
        documents = routed(partials)
        used = self._documents.used(seed)
        return Outcome(
            routing_read(documents, info.moe_layers, used, max_tokens=self._max_tokens, seed=seed)
        )


def routed(partials: Sequence[RoutedDocuments]) -> list[RoutedDocument]:
    """The documents of all parts: of `needs[ROUTING]` or `needs[CALIBRATION]`."""
    return [one for partial in partials for one in partial.documents]
