"""Documents as a model routed them, and what the experts of one layer put out in them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moetui.analyses.expert_load import chosen_counts
from moetui.analyses.routed import RoutedDocument, routed_document
from moetui.analyses.trigger_tokens import RoutedTokens
from moetui.trace import Forward, Trace

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Text:
    """A document to read."""

    id: str
    domain: str
    text: str


@dataclass
class DocumentsRead:
    """Documents read so far, each cut to max_tokens, and, of every expert of one layer (row of
    those that route), what it put out: sums [2, E, H] and counts [2, E] of every other document.
    experts: of that layer."""

    model: Forward
    row: int
    max_tokens: int
    experts: int = 0
    documents: list[RoutedDocument] = field(default_factory=list)
    sums: NDArray[np.float32] | None = None
    counts: Array = field(default_factory=lambda: np.zeros((2, 0)))

    def read(self, text: Text, *, likelihood: bool) -> None:
        """One pass, and one for its likelihood."""
        ids = self.model.tokenize(text.text)[: self.max_tokens]
        trace = self.model.trace(ids, lens=0, residuals=False, expert_outputs=True)
        self.experts = int((~np.isnan(trace.router_logits[0, self.row])).sum())
        document = routed_document(
            self.model, text.id, text.domain, ids, trace, likelihood=likelihood
        )
        self.documents.append(document)
        self._add(trace, len(self.documents) % 2)

    def _add(self, trace: Trace, half: int) -> None:
        if trace.expert_outputs is None:
            return
        chosen, outputs = trace.expert_ids[:, self.row], trace.expert_outputs[:, self.row]
        if self.sums is None:
            E = trace.router_logits.shape[-1]
            self.sums = np.zeros((2, E, outputs.shape[-1]), np.float32)
            self.counts = np.zeros((2, E))
        used = chosen >= 0
        np.add.at(self.sums[half], chosen[used], outputs[used])
        np.add.at(self.counts[half], chosen[used], 1)

    def hits(self) -> Array:
        """[D, E]: tokens of each document that use each expert of the layer."""
        E = self.model.info.num_experts
        counted = [chosen_counts(one.experts, E)[self.row] for one in self.documents]
        return np.array(counted, float)[:, : self.experts]

    def tokens(self) -> Array:
        """[D]."""
        return np.array([len(one.ids) for one in self.documents], float)

    def routed(self) -> RoutedTokens:
        """For the tests of trigger tokens."""
        info = self.model.info
        return RoutedTokens(
            ids=[one.ids for one in self.documents],
            experts=[one.experts for one in self.documents],
            layers=info.moe_layers,
            num_experts=info.num_experts,
        )
