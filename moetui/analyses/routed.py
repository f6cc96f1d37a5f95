"""What a study of routing keeps of a document: one pass with its experts, and its own likelihood.

Every analysis of the dynamics of routing starts from these, so that the passes are made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from moetui.analyses.corpus_used import CorpusUsed
from moetui.stats import Statistic, document_intervals, ratio_of_sums
from moetui.trace import Forward, Trace
from moetui.trace.types import ExpertIds, Floats, Ints


@dataclass(frozen=True, eq=False, kw_only=True)
class RoutedDocument:
    """One document as the model routed it. L: all layers that route, in order.

    domain: as the corpus has it. ids: int32 [T]. experts: int16 [T, L, k], weights: float32
    [T, L, k], as in `Trace`. nll: float32 [T - 1], of the untouched model, nats.
    output_norms: float32 [T, L, k], ‖f_e‖ of each chosen expert's output before weighting.
    mixture_norms: float32 [T, L], ‖Σ g f‖. top_cosines: float32 [T, L], cosine of the first
    expert's output with that mixture; NaN where one of them is 0. All three are None where the
    model does not show what its experts put out.
    """

    id: str
    domain: str
    ids: Ints
    experts: ExpertIds
    weights: Floats
    nll: Floats
    output_norms: Floats | None
    mixture_norms: Floats | None
    top_cosines: Floats | None


class RoutingRead(msgspec.Struct, frozen=True, kw_only=True, tag="routing_read"):
    """The documents that the analyses of a run share. max_tokens: what each was cut to.

    layers: the decoder layers that route. nll: nats a predicted token, of the untouched model.
    """

    corpus: CorpusUsed | None
    n_documents: int
    n_tokens: int
    max_tokens: int
    layers: tuple[int, ...]
    nll: Statistic


def read_document(
    model: Forward, name: str, domain: str, text: str, max_tokens: int
) -> RoutedDocument:
    """`text`, cut to `max_tokens` tokens, through the model: once watched, once for its NLL.

    Raises UsageError for a text without a token.
    """
    ids = model.tokenize(text)[:max_tokens]
    trace = model.trace(ids, lens=0, residuals=False, expert_outputs=True)
    return routed_document(model, name, domain, ids, trace)


def routed_document(
    model: Forward, name: str, domain: str, ids: Ints, trace: Trace, *, likelihood: bool = True
) -> RoutedDocument:
    """What is kept of a document that was traced with the outputs of its experts. likelihood:
    whether a pass is spent on its NLL, which is empty without."""
    norms, mixture, cosines = _outputs(trace)
    scored = likelihood and len(ids) > 1
    return RoutedDocument(
        id=name,
        domain=domain,
        ids=np.asarray(ids, np.int32),
        experts=trace.expert_ids,
        weights=trace.expert_weights,
        nll=model.nll(ids) if scored else np.empty(0, np.float32),
        output_norms=norms,
        mixture_norms=mixture,
        top_cosines=cosines,
    )


def routing_read(
    documents: Sequence[RoutedDocument],
    layers: Sequence[int],
    used: CorpusUsed | None,
    *,
    max_tokens: int,
    seed: int,
) -> RoutingRead:
    """What was read, for the result."""
    sums = np.array([one.nll.sum(dtype=float) for one in documents])
    tokens = np.array([len(one.nll) for one in documents], float)
    size = int(tokens.sum())
    nll = Statistic(n_tokens=0, n_documents=len(documents), caveat="no token was predicted")
    if size:
        found = document_intervals(ratio_of_sums(sums, tokens), len(documents), seed=seed)
        nll = found.statistic(n_tokens=size)
    return RoutingRead(
        corpus=used,
        n_documents=len(documents),
        n_tokens=sum(len(one.ids) for one in documents),
        max_tokens=max_tokens,
        layers=tuple(layers),
        nll=nll,
    )


def _outputs(trace: Trace) -> tuple[Floats | None, Floats | None, Floats | None]:
    """Norms of outputs and mixture, and the first expert's cosine with the mixture."""
    if trace.expert_outputs is None:
        return None, None, None
    outputs = np.nan_to_num(trace.expert_outputs)
    weights = np.nan_to_num(trace.expert_weights)
    mixture = np.einsum("tlk,tlkh->tlh", weights, outputs)
    norms = np.linalg.norm(outputs, axis=-1)
    mixed = np.linalg.norm(mixture, axis=-1)
    dots = np.einsum("tlh,tlh->tl", outputs[:, :, 0], mixture)
    lengths = norms[:, :, 0] * mixed
    cosines = np.full_like(dots, np.nan)
    np.divide(dots, lengths, out=cosines, where=lengths > 0)
    return norms, mixed, cosines
