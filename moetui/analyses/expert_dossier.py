"""Everything known of one expert on one page: load, tokens, what it writes, its worth, partners.

All of it is of a corpus, not of a prompt: triggers are looked for on calibration documents and
judged on evaluation documents, on which everything else is measured too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.ablation import controls
from moetui.analyses.corpus_used import CorpusUsed
from moetui.analyses.expert_ablation import ExpertAblation, expert_ablations
from moetui.analyses.expert_load import chosen_counts
from moetui.analyses.expert_removal import (
    AblatedDocuments,
    LayerAblations,
    Mode,
    Target,
    ablate,
    whole,
)
from moetui.analyses.routed import RoutedDocument, routed_document
from moetui.analyses.trigger_tokens import RoutedTokens, TriggerTokens, trigger_tokens
from moetui.stats import Statistic, co_activation, document_intervals, joined, rate
from moetui.stats.minimum import LOAD, warned
from moetui.trace import Forward, Trace

Array = NDArray[np.float64]

CONTROLS = 20
TOP = 8  # tokens and partners listed
MODE: Mode = "drop"
UNADJUSTED = "intervals of single partners, not adjusted for how many were looked at"


@dataclass(frozen=True, kw_only=True)
class Text:
    """A document to read."""

    id: str
    domain: str
    text: str


class DomainShare(msgspec.Struct, frozen=True, kw_only=True):
    """f_e in the documents of one domain."""

    domain: str
    share: Statistic


class WrittenToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token that an expert writes. logprob: ln p of it through the model's own norm and head when
    the stream is nothing but the expert's mean output; typical: the same of the mean output of all
    experts of its layer, each as often as it is used."""

    token_id: int
    text: str
    logprob: float
    typical: float


class ExpertWrites(msgspec.Struct, frozen=True, kw_only=True):
    """What an expert writes, head · norm(mean f_e) (METHODS §6): the most probable tokens.

    agreement: the share of these that two disjoint halves of the documents both find, beside what
    chance gives. n_tokens: how many tokens used the expert.
    """

    tokens: tuple[WrittenToken, ...]
    agreement: Statistic
    n_tokens: int


class Partner(msgspec.Struct, frozen=True, kw_only=True):
    """Another expert of the layer. together: how often a token that uses the one uses it too,
    P(partner | expert), with an interval over documents; null_mean: the same of random sets in
    which every expert is as popular as here."""

    expert: int
    together: Statistic


class ExpertDossier(msgspec.Struct, frozen=True, kw_only=True, tag="expert_dossier"):
    """One expert of a decoder layer.

    top_k, num_experts: of the layer. corpus, calibration: the documents that it was judged on and
    those on which triggers and control experts were found, each cut to max_tokens.
    load: f_e with the uniform share as `null_mean`; domains: the same by domain, highest first.
    writes, partners: None where they cannot be known, the reason says why. partners: the highest
    of `together` over its null, then the lowest.
    causal: ΔNLL without it, beside the same without up to 20 random and 20 equally loaded experts
    of the layer; None before it has been measured.
    """

    layer: int
    expert: int
    num_experts: int
    top_k: int
    corpus: CorpusUsed | None
    calibration: CorpusUsed | None
    max_tokens: int
    load: Statistic
    domains: tuple[DomainShare, ...]
    triggers: TriggerTokens
    writes: ExpertWrites | None
    writes_reason: str | None
    partners: tuple[Partner, ...] | None
    partners_reason: str | None
    causal: ExpertAblation | None


@dataclass(frozen=True, kw_only=True)
class DossierRequest:
    """Which expert, on which documents; seed: of intervals and of the control experts."""

    layer: int
    expert: int
    evaluation: Sequence[Text]
    calibration: Sequence[Text]
    corpus: CorpusUsed | None = None
    calibration_corpus: CorpusUsed | None = None
    max_tokens: int = 64
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class DossierSoFar:
    """A dossier on its way. doing: what is being done, done documents of `of`."""

    layer: int
    expert: int
    dossier: ExpertDossier | None
    doing: str
    done: int
    of: int

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.dossier is not None and self.dossier.causal is not None


def expert_dossier(model: Forward, request: DossierRequest) -> Iterator[DossierSoFar]:
    """The dossier, after every document: reading first, then the loss without the expert.

    Costs a pass for each calibration document, two for each evaluation document, and one for each
    of these and each of up to 41 experts that is used in it. Raises UsageError for a layer that
    does not route, or a model that refuses to drop an expert.
    """
    found = _Dossier(model, request)
    for doing, half, texts in (
        ("reading calibration documents", found.calibration, request.calibration),
        ("reading documents", found.evaluation, request.evaluation),
    ):
        for done, text in enumerate(texts, 1):
            half.read(text, likelihood=half is found.evaluation)
            yield _so_far(request, None, doing, done, len(texts))
    dossier, layers = found.described(), found.planned()
    parts: list[AblatedDocuments] = []
    for document in found.evaluation.documents:
        yield _so_far(
            request, dossier, "measuring the loss", len(parts), len(found.evaluation.documents)
        )
        parts.append(ablate(model, [document], layers, (MODE,), with_kl=[False]))
    causal = expert_ablations(whole(parts), seed=request.seed).ablations[0]
    dossier = msgspec.structs.replace(dossier, causal=causal)
    yield _so_far(request, dossier, "", len(parts), len(parts))


def _so_far(
    request: DossierRequest, dossier: ExpertDossier | None, doing: str, done: int, of: int
) -> DossierSoFar:
    return DossierSoFar(
        layer=request.layer, expert=request.expert, dossier=dossier, doing=doing, done=done, of=of
    )


@dataclass
class _Half:
    """The documents of one half of the corpus as the model routed them, and, of every expert of
    one layer (row of those that route), what it put out: sums [2, E, H] and counts [2, E] of
    every other document."""

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


class _Dossier:
    """Both halves of the corpus, and what is found on them."""

    def __init__(self, model: Forward, request: DossierRequest) -> None:
        self._model, self._request = model, request
        row = model.info.moe_layers.index(request.layer)
        self.calibration = _Half(model, row, request.max_tokens)
        self.evaluation = _Half(model, row, request.max_tokens)

    def described(self) -> ExpertDossier:
        """All but the loss."""
        request, half = self._request, self.evaluation
        hits, tokens = half.hits(), half.tokens()
        load = rate(hits[:, request.expert], tokens, seed=request.seed)
        k = round(float(hits.sum() / tokens.sum()))
        writes, why_not_written = self._writes()
        partners, why_none = self._partners(hits)
        return ExpertDossier(
            layer=request.layer,
            expert=request.expert,
            num_experts=half.experts,
            top_k=k,
            corpus=request.corpus,
            calibration=request.calibration_corpus,
            max_tokens=request.max_tokens,
            load=warned(
                msgspec.structs.replace(load, null_mean=k / half.experts),
                LOAD,
                effective_tokens=load.n_effective or 0.0,
                documents=len(tokens),
            ),
            domains=self._domains(hits[:, request.expert], tokens),
            triggers=trigger_tokens(
                self.calibration.routed(),
                self._model.token_text,
                judged=half.routed(),
                only={(request.layer, request.expert)},
                top=TOP,
                seed=request.seed,
            ),
            writes=writes,
            writes_reason=why_not_written,
            partners=partners,
            partners_reason=why_none,
            causal=None,
        )

    def planned(self) -> tuple[LayerAblations, ...]:
        """The expert and its controls, by their load on calibration documents."""
        request, half = self._request, self.calibration
        load = half.hits().sum(axis=0) / half.tokens().sum()
        rng = np.random.default_rng([request.seed, request.layer])
        chosen = controls(load, request.expert, wanted=CONTROLS, rng=rng)
        target = Target(expert=request.expert, role="asked", controls=chosen)
        every = {request.expert, *chosen.random, *chosen.matched}
        return (
            LayerAblations(
                layer=request.layer,
                row=half.row,
                load=tuple(load.tolist()),
                targets=(target,),
                experts=tuple(sorted(every)),
            ),
        )

    def _domains(self, hits: Array, tokens: Array) -> tuple[DomainShare, ...]:
        names = [one.domain for one in self.evaluation.documents]
        found = []
        for name in dict.fromkeys(names):
            rows = np.array([other == name for other in names])
            share = rate(hits[rows], tokens[rows], seed=self._request.seed)
            found.append(DomainShare(domain=name, share=share))
        return tuple(sorted(found, key=lambda one: -(one.share.value or 0.0)))

    def _writes(self) -> tuple[ExpertWrites | None, str | None]:
        """Top tokens of the mean output, of all documents and of either half of them."""
        half, info, expert = self.evaluation, self._model.info, self._request.expert
        if half.sums is None:
            return None, "the model does not show what single experts put out"
        if info.lens_error is not None:
            return None, info.lens_error
        if half.sums.shape[-1] != info.hidden_size:
            return None, "its experts do not write into the residual stream itself"
        if not half.counts[:, expert].all():
            return None, "too few tokens of these documents use it"
        sums, counts = half.sums.sum(axis=0), half.counts.sum(axis=0)
        means = [sums[expert] / counts[expert], sums.sum(axis=0) / counts.sum()]
        means += [half.sums[at, expert] / half.counts[at, expert] for at in (0, 1)]
        own, typical, first, second = self._read(np.array(means, np.float32))
        top = np.argsort(-own, kind="stable")[:TOP].tolist()
        tops = [set(np.argsort(-one, kind="stable")[:TOP].tolist()) for one in (first, second)]
        tokens = int(counts[expert])
        agreement = Statistic(
            value=len(tops[0] & tops[1]) / TOP,
            null_mean=TOP / len(own),
            n_tokens=tokens,
            n_documents=len(half.documents),
            caveat=f"top {TOP} of two halves of the documents; the null is of random tokens",
        )
        listed = tuple(
            WrittenToken(
                token_id=token,
                text=self._model.token_text(token),
                logprob=float(own[token]),
                typical=float(typical[token]),
            )
            for token in top
        )
        return ExpertWrites(tokens=listed, agreement=agreement, n_tokens=tokens), None

    def _read(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """[P, V]: ln p of every token through norm and head, of vectors [P, H]."""
        info = self._model.info
        shape = (len(vectors), info.num_layers, info.hidden_size)
        streams = np.broadcast_to(vectors[:, None], shape)
        every = np.arange(info.vocab_size, dtype=np.int32)
        # Norm and head are the same after every layer, so any of them will do.
        return self._model.read_words(streams, every, layers=[0]).logprobs[:, 0]

    def _partners(self, hits: Array) -> tuple[tuple[Partner, ...] | None, str | None]:
        """Those of the layer that come along more and less often than by their popularity."""
        half, expert = self.evaluation, self._request.expert
        chosen = [one.experts[:, half.row] for one in half.documents]
        pooled = co_activation(np.concatenate(chosen), half.experts)
        alone = hits[:, expert]
        others = [e for e in range(half.experts) if e != expert]
        if not alone.sum():
            return None, "no token of these documents uses it"
        if not others or pooled.load.sum() < 1.5:
            return None, "a token uses one expert of this layer"
        try:
            expected = pooled.fitted().joint()[expert] / pooled.load[expert]
        except ArithmeticError as error:
            return None, str(error)
        both = np.array([co_activation(ids, half.experts).pairs[expert] for ids in chosen], float)

        def conditional(weights: Array) -> Array:
            with np.errstate(invalid="ignore", divide="ignore"):
                share: Array = (weights @ both[:, others]).T / (weights @ alone)
            return share

        found = document_intervals(conditional, len(chosen), seed=self._request.seed)
        partners = []
        for at, other in enumerate(others):
            together = found.statistic((at,), n_tokens=int(alone.sum()))
            told = joined(UNADJUSTED, together.caveat)
            beside = msgspec.structs.replace(
                together, null_mean=float(expected[other]), caveat=told
            )
            partners.append(Partner(expert=other, together=beside))
        ordered = sorted(partners, key=lambda one: -_over_null(one.together))
        few = len(ordered) <= TOP
        return tuple(ordered if few else [*ordered[: TOP - 3], *ordered[-3:]]), None


def _over_null(together: Statistic) -> float:
    return (together.value or 0.0) / together.null_mean if together.null_mean else 0.0
