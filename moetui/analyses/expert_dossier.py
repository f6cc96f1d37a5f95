"""Everything known of one expert on one page: load, tokens, what it writes, its worth, partners.

All of it is of a corpus, not of a prompt: triggers are looked for on calibration documents and
judged on evaluation documents, on which everything else is measured too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.ablation import controls
from moetui.analyses.corpus_used import CorpusUsed
from moetui.analyses.documents_read import DocumentsRead, Text
from moetui.analyses.expert_ablation import ExpertAblation, expert_ablations
from moetui.analyses.expert_removal import (
    AblatedDocuments,
    LayerAblations,
    Mode,
    Target,
    ablate,
    whole,
)
from moetui.analyses.routed import RoutedDocument
from moetui.analyses.trigger_tokens import TriggerTokens, trigger_tokens
from moetui.stats import (
    Statistic,
    co_activation,
    document_intervals,
    domain_strata,
    joined,
    rate,
)
from moetui.stats.minimum import LOAD, warned
from moetui.trace import Forward

Array = NDArray[np.float64]

CONTROLS = 20
TOP = 8  # tokens and partners listed
MODE: Mode = "drop"
UNADJUSTED = "intervals of single partners, not adjusted for how many were looked at"


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
    load: f_e with the uniform share as `null_mean`, limits as in `moetui.stats.cold_experts`;
    domains: the same by domain, highest first.
    writes, partners: None where they cannot be known, the reason says why. partners: the highest
    of `together` over its null, then the lowest.
    causal: ΔNLL without it, beside the same without up to 20 random and 20 equally loaded experts
    of the layer; None before it has been measured, and on fewer documents where it was stopped.
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
    """A dossier on its way. doing: what is being done, done documents of `of`. measured: the loss
    of these, a document each. stopped: nothing more will come of it."""

    layer: int
    expert: int
    dossier: ExpertDossier | None
    doing: str
    done: int
    of: int
    measured: tuple[AblatedDocuments, ...] = ()
    stopped: bool = False

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.dossier is not None and self.dossier.causal is not None and not self.stopped


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
    parts: tuple[AblatedDocuments, ...] = ()
    documents = found.in_any_order()
    for document in documents:
        so_far = _so_far(request, dossier, "measuring the loss", len(parts), len(documents))
        yield replace(so_far, measured=parts)
        parts = (*parts, ablate(model, [document], layers, (MODE,), with_kl=[False]))
    dossier = msgspec.structs.replace(dossier, causal=_loss(parts, request.seed))
    yield _so_far(request, dossier, "", len(parts), len(parts))


def stopped_dossier(found: DossierSoFar, *, seed: int) -> DossierSoFar | None:
    """`found` with the loss as far as it was measured, which says where it was stopped; None where
    none of it was."""
    if found.dossier is None or not found.measured:
        return None
    causal = _loss(found.measured, seed)
    told = f"stopped after {found.done} of {found.of} documents, in random order"
    delta, matched = (
        msgspec.structs.replace(one, caveat=joined(told, one.caveat))
        for one in (causal.delta_nll, causal.matched)
    )
    causal = msgspec.structs.replace(causal, delta_nll=delta, matched=matched)
    dossier = msgspec.structs.replace(found.dossier, causal=causal)
    return replace(found, dossier=dossier, stopped=True)


def _loss(parts: Sequence[AblatedDocuments], seed: int) -> ExpertAblation:
    return expert_ablations(whole(parts), seed=seed).ablations[0]


def _so_far(
    request: DossierRequest, dossier: ExpertDossier | None, doing: str, done: int, of: int
) -> DossierSoFar:
    return DossierSoFar(
        layer=request.layer, expert=request.expert, dossier=dossier, doing=doing, done=done, of=of
    )


class _Dossier:
    """Both halves of the corpus, and what is found on them."""

    def __init__(self, model: Forward, request: DossierRequest) -> None:
        self._model, self._request = model, request
        row = model.info.moe_layers.index(request.layer)
        self.calibration = DocumentsRead(model, row, request.max_tokens)
        self.evaluation = DocumentsRead(model, row, request.max_tokens)

    def described(self) -> ExpertDossier:
        """All but the loss."""
        request, half = self._request, self.evaluation
        hits, tokens = half.hits(), half.tokens()
        strata = domain_strata([one.domain for one in half.documents])
        load = rate(hits[:, request.expert], tokens, seed=request.seed, strata=strata)
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

    def in_any_order(self) -> list[RoutedDocument]:
        """The evaluation documents shuffled: those measured when it is stopped are drawn at random
        from all domains."""
        rng = np.random.default_rng(self._request.seed)
        documents = self.evaluation.documents
        return [documents[at] for at in rng.permutation(len(documents))]

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
