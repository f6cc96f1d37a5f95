"""The analyses of `attention_router` that read a corpus: shares, causes, the token's identity.

One pass a document serves all that need no more than it: `corpus_decomposition` reads, the others
take what it left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from moetui.analyses.attention_router import CorpusDecomposition, corrected_decomposition
from moetui.analyses.causal_check import (
    CausalSums,
    PartMoments,
    causal_check,
    causal_sums,
    part_moments,
)
from moetui.analyses.router_evidence import DocumentSums, document_sums
from moetui.analyses.source_shares import SourceSums, source_shares, source_sums
from moetui.analyses.token_identity import (
    TokenIdentity,
    TokenSums,
    token_identity,
    token_sums,
)
from moetui.stats import MIN_DOCUMENTS
from moetui.suites.documents import Documents, in_parts, some_of
from moetui.suites.layers import LayersAsked, routing_layers
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo
from moetui.trace.types import Ints

CORPUS = "corpus_decomposition"
NO_CORPUS = "no corpus was asked for (corpus_documents=0)"


class Text(msgspec.Struct, frozen=True):
    """A document's id and text."""

    id: str
    text: str


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """Documents, each cut to max_tokens tokens, and the layers as asked for. tokens: how many of
    each document are asked about, where not all are."""

    documents: tuple[Text, ...]
    max_tokens: int
    layers: LayersAsked
    tokens: int | None = None


class CorpusPlan(Documents):
    """Evaluation documents, and the layers as asked for."""

    def __init__(
        self, corpus: str | Path | None, *, documents: int, max_tokens: int, layers: LayersAsked
    ) -> None:
        super().__init__(corpus, "evaluation", documents=documents, tokens=max_tokens)
        self.max_tokens, self.layers = max_tokens, layers

    def parts(
        self, *, seed: int, limit: int | None = None, tokens: int | None = None
    ) -> tuple[Part, ...]:
        """The documents in parts; limit: only so many, drawn from them; tokens: as in `Texts`."""
        if self.empty:
            return ()
        found = some_of(self.sample(seed).documents, limit, seed)
        return tuple(
            Part(
                name=name,
                inputs=Texts(
                    documents=tuple(Text(one.id, one.text) for one in documents),
                    max_tokens=self.max_tokens,
                    layers=self.layers,
                    tokens=tokens,
                ),
                tokens=len(documents) * self.max_tokens,
            )
            for name, documents in in_parts(found)
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadDocument:
    """What one pass over a document left; sums, sources and moments are None without parts."""

    id: str
    ids: Ints
    sums: DocumentSums | None
    sources: SourceSums | None
    tokens: TokenSums
    moments: PartMoments | None


@dataclass(frozen=True, eq=False)
class ReadDocuments:
    """Documents, and the names of their sources."""

    documents: tuple[ReadDocument, ...]
    sources: tuple[tuple[str, int | None], ...]


class CorpusDecompositionAnalysis:
    """The corrected shares over a corpus, by part and by the layer that added it."""

    name = CORPUS
    needs: tuple[str, ...] = ()
    partial_type: Any = ReadDocuments

    def __init__(self, plan: CorpusPlan) -> None:
        self._plan = plan

    def settings(self, *, seed: int) -> Any:
        """Layers, length and what is said of the corpus."""
        return [self._plan.layers, self._plan.max_tokens, self._plan.used(seed)]

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers, or no corpus."""
        return no_router(info) or (NO_CORPUS if self._plan.empty else None)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each."""
        return self._plan.parts(seed=seed)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> ReadDocuments:
        """One pass a document."""
        given: Texts = part.inputs
        layers = routing_layers(given.layers, model.info)
        read: list[ReadDocument] = []
        names: tuple[tuple[str, int | None], ...] = ()
        for document in given.documents:
            ids = model.tokenize(document.text)[: given.max_tokens]
            trace = model.trace(ids, lens=0, sources=layers)
            whole = trace.router_parts is not None and trace.sources is not None
            if trace.sources is not None:
                names = trace.sources.names
            read.append(
                ReadDocument(
                    id=document.id,
                    ids=np.asarray(ids, np.int32),
                    sums=document_sums(trace, layers) if whole else None,
                    sources=source_sums(trace) if whole else None,
                    tokens=token_sums(trace, layers),
                    moments=part_moments(trace, document.id, seed=seed) if whole else None,
                )
            )
            step(len(read), len(given.documents))
        return ReadDocuments(tuple(read), names)

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Shares with intervals over documents."""
        layers = routing_layers(self._plan.layers, info)
        documents = [one for partial in partials for one in partial.documents]
        reason, corrected = undecomposed(info, [one.sums for one in documents]), None
        if reason is None:
            corrected = corrected_decomposition(
                info,
                [one.sums for one in documents if one.sums is not None],
                layers,
                positions="all tokens",
                seed=seed,
            )
            reason = None if corrected else "no document has all its router data"
        drawn = self._plan.sample(seed)
        found = CorpusDecomposition(
            corrected=corrected,
            sources=()
            if corrected is None
            else source_shares(
                [one.sources for one in documents], layers, partials[0].sources, seed=seed
            ),
            reason=reason,
            corpus=drawn.name,
            sampled=len(drawn.documents),
            available=drawn.available,
            max_tokens=self._plan.max_tokens,
            documents_digest=drawn.digest,
            caveat=drawn.caveat,
        )
        return Outcome(found, reason)


@dataclass(frozen=True, eq=False)
class AskedDocuments:
    """What routers answered about documents; error: why they could not be asked."""

    documents: tuple[CausalSums, ...]
    error: str | None = None


class CausalCheckAnalysis:
    """Parts replaced at the routers, on some tokens of some of the corpus's documents."""

    name = "causal_check"
    needs: tuple[str, ...] = (CORPUS,)
    partial_type: Any = AskedDocuments

    def __init__(self, plan: CorpusPlan, *, documents: int, tokens: int) -> None:
        self._plan, self._documents, self._tokens = plan, documents, tokens

    def settings(self, *, seed: int) -> Any:
        """The layers."""
        return self._plan.layers

    def unfit(self, info: ModelInfo) -> str | None:
        """Without routers, parts or documents nothing can be replaced."""
        nothing = None if self._documents else "no document was asked for (causal_documents=0)"
        return (
            no_router(info) or (NO_CORPUS if self._plan.empty else nothing) or _undecomposed(info)
        )

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five documents each."""
        return self._plan.parts(seed=seed, limit=self._documents, tokens=self._tokens)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> AskedDocuments:
        """One pass a document, then its routers are asked."""
        given: Texts = part.inputs
        if model.routes_error is not None:
            return AskedDocuments((), model.routes_error)
        layers = routing_layers(given.layers, model.info)
        read = [one for partial in needs[CORPUS] for one in partial.documents]
        moments = [one.moments for one in read if one.moments is not None]
        if len(moments) < 2:
            return AskedDocuments((), "replacing a part takes two documents with all their data")
        found = []
        for document in given.documents:
            ids = model.tokenize(document.text)[: given.max_tokens]
            trace = model.trace(ids, lens=0, sources=layers)
            if trace.sources is not None and np.isfinite(trace.sources.parts).all():
                assert given.tokens is not None
                found.append(
                    causal_sums(model, trace, document.id, moments, tokens=given.tokens, seed=seed)
                )
            step(len(found), len(given.documents))
        return AskedDocuments(tuple(found))

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """Effects with intervals over documents."""
        errors = [partial.error for partial in partials if partial.error is not None]
        documents = [one for partial in partials for one in partial.documents]
        if errors or not documents:
            return Outcome(None, errors[0] if errors else "no document has all its router data")
        layers = routing_layers(self._plan.layers, info)
        found = causal_check(info, documents, layers, minimum=MIN_DOCUMENTS, seed=seed)
        return Outcome(found, found.reason)


class TokenIdentityAnalysis:
    """η² of the token's identity, from what the corpus's passes left; no pass of its own."""

    name = "token_identity"
    needs: tuple[str, ...] = (CORPUS,)
    partial_type: Any = TokenIdentity | None

    def __init__(self, plan: CorpusPlan) -> None:
        self._plan = plan

    def settings(self, *, seed: int) -> None:
        """Nothing: all is in the parts."""

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers, or no corpus."""
        return no_router(info) or (NO_CORPUS if self._plan.empty else None)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """One: a token's mean needs all documents."""
        layers = Texts(documents=(), max_tokens=self._plan.max_tokens, layers=self._plan.layers)
        return (Part(name="all documents", inputs=layers, tokens=0),)

    def read(
        self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step
    ) -> TokenIdentity | None:
        """The whole statistic: what it is made of is larger than it, and kept already."""
        layers = routing_layers(part.inputs.layers, model.info)
        documents = [one.tokens for partial in needs[CORPUS] for one in partial.documents]
        documents = [one for one in documents if len(one.ids)]
        return token_identity(model.info, documents, layers, seed=seed) if documents else None

    def reduce(self, info: ModelInfo, partials: Sequence[Any], *, seed: int) -> Outcome:
        """What the one part found."""
        found: TokenIdentity | None = partials[0]
        if found is None:
            return Outcome(None, "no token has all its router logits")
        return Outcome(found, found.reason)


def undecomposed(info: ModelInfo, sums: Sequence[DocumentSums | None]) -> str | None:
    """Why there are no shares of a model's texts, None where there are."""
    absent = any(one is None for one in sums)
    return _undecomposed(info) or ("router parts are missing" if absent else None)


def _undecomposed(info: ModelInfo) -> str | None:
    if info.decomposition_error is None:
        return None
    return f"no exact decomposition of this model: {info.decomposition_error}"
