"""Which experts later layers will need, foretold from an early layer: what that is worth.

A probe of the stream that leaves one layer foretells the experts of every later one, in time to
fetch them. It is worth having as far as it beats what costs nothing: what is popular, what the
token before used, what the token's identity says, and the later routers themselves, asked about
the stream as it is already there (Fate, arXiv 2502.12224; pre-attention prediction, 2511.10676).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.corpus_used import CorpusUsed
from moetui.analyses.expert_ranks import (
    Hits,
    Numbers,
    beyond_equals,
    by_document,
    first,
    gain,
    multi_hot,
    of_equals,
    ranks,
    recall,
    recalled,
    together,
)
from moetui.analyses.offload import EQUAL, TOKEN, OffloadPlan
from moetui.analyses.one_thread import one_thread
from moetui.analyses.probed_documents import ProbedDocument, later_layers
from moetui.analyses.ridge import Predictor, Sample
from moetui.analyses.token_table import TokenTable
from moetui.stats import Statistic, movable_share
from moetui.trace import NO_EXPERT
from moetui.trace.types import ExpertIds

PROBE, BESIDE = "probe", "probe and token"
GATE_AT_PROBE, GATE_BEFORE = "gate, at the probe", "gate, one router early"
PREVIOUS, POPULARITY = "previous token", "popularity"
PREDICTORS = (PROBE, BESIDE, GATE_AT_PROBE, GATE_BEFORE, EQUAL, TOKEN, PREVIOUS, POPULARITY)
# What a probe, the table at its side, must beat to be worth training: all that is known when it is
# asked.
BASELINES = (TOKEN, EQUAL, PREVIOUS, POPULARITY, GATE_AT_PROBE)
DEFINITION = (
    "recall@m: share of the k experts of a token that are among m foretold, at layers after the "
    "probe's only. Probe: ridge regression on the stream that leaves its layer, fitted to the "
    "calibration documents (penalty by grouped cross-validation over whole documents of these), "
    "judged on the evaluation documents; probe and token: together with the table's scores. Gate: "
    "the later router itself, asked about the stream that leaves the probe's layer, or about the "
    "one that the router before it reads (Fate). Token identity: a table of the calibration "
    "documents, backed off to popularity, which is all it says of tokens that it has not seen; "
    "probe of equal tokens: the table and a probe together, streams exchanged among all tokens of "
    "one id in both halves, so that the probe tells what it can of the token and nothing of where "
    "it stands; previous token: what the token before used in that "
    "layer; popularity: the most frequent experts of the calibration documents. What names k "
    "experts only (the previous token) is filled up with popular ones where m is more"
)
NULL = (
    "null of the probe: the stream exchanged among the tokens of each document, in both halves, "
    "and fitted anew; of what it gains over the probe of equal tokens: among all tokens of one id"
)


class GainOver(msgspec.Struct, frozen=True, kw_only=True):
    """recall@m less that of the predictor `over`, paired by document."""

    over: str
    gain: Statistic


class RecallAt(msgspec.Struct, frozen=True, kw_only=True):
    """recall@m and gains: where m = k over everything that is known at the probe, in the mean over
    layers, and over token identity in both its forms at one layer; else over the table alone."""

    m: int
    recall: Statistic
    gains: tuple[GainOver, ...]


class TaskPredictor(msgspec.Struct, frozen=True, kw_only=True):
    """One way to foretell experts, with m = k, 1.5 k and 2 k."""

    predictor: str
    sizes: tuple[RecallAt, ...]


class TaskLayer(msgspec.Struct, frozen=True, kw_only=True):
    """Every predictor at one decoder layer; layer None: over all later layers."""

    layer: int | None
    predictors: tuple[TaskPredictor, ...]


class TaskAware(msgspec.Struct, frozen=True, kw_only=True, tag="task_aware"):
    """How well the experts of later layers are foretold from `probe_layer`, and what it saves.

    k, chance: as many experts as a token uses, and recall@k of as many drawn at random. penalty:
    of the probe, in units of a feature's variance. coverage: share of the judged tokens whose
    identity the table knows; movable: that have an equal among them to change streams with.
    fit_corpus, corpus: where the documents are from that the predictors were fitted to and judged
    on. shuffles: draws of each null. gate_missing: why the routers could not be asked, None where
    they were. plan: what caches of expert weights would do.
    """

    definition: str
    null: str
    probe_layer: int
    k: int
    chance: float
    penalty: float
    layers: tuple[TaskLayer, ...]
    mean: TaskLayer
    fit_corpus: CorpusUsed | None = None
    corpus: CorpusUsed | None = None
    fit_documents: int
    fit_tokens: int
    documents: int
    tokens: int
    coverage: float
    movable: float
    shuffles: int
    gate_missing: str | None
    plan: OffloadPlan | None = None


@dataclass(frozen=True, eq=False)
class Foretold:
    """Experts foretold for the tokens of the judged documents: by name, a target layer each
    int16 [n, k], the surest first."""

    experts: dict[str, list[NDArray[np.int16]]]


def task_aware(
    fit: Sequence[ProbedDocument],
    judge: Sequence[ProbedDocument],
    *,
    probe_layer: int,
    moe_layers: Sequence[int],
    num_experts: int,
    sizes: tuple[int, ...],
    gate_missing: str | None,
    shuffles: int,
    seed: int,
) -> tuple[TaskAware, Foretold]:
    """Predictors fitted to the documents `fit`, judged on `judge`, at every later layer; sizes: m,
    k first. Raises ValueError where no layer routes after the probe's, or without documents."""
    targets = later_layers(probe_layer, moe_layers)
    if not targets or not fit or not judge:
        raise ValueError("a prediction needs documents, and layers after the probe's")
    with one_thread():
        work = _Work(fit, judge, [list(moe_layers).index(t) for t in targets], num_experts, sizes)
        found = [work.layer(row, shuffles, seed) for row in range(len(targets))]
    tokens = len(work.judged)
    pooled = {name: together([one.hits[name] for one in found]) for name in found[0].hits}
    totals = np.sum([one.totals for one in found], axis=0)
    result = TaskAware(
        definition=DEFINITION,
        null=NULL,
        probe_layer=probe_layer,
        k=sizes[0],
        chance=sizes[0] / num_experts,
        penalty=work.predictor.penalty,
        layers=tuple(
            TaskLayer(
                layer=layer,
                predictors=_predictors(one.hits, one.totals, sizes, (TOKEN, EQUAL), seed, tokens),
            )
            for layer, one in zip(targets, found, strict=True)
        ),
        mean=TaskLayer(
            layer=None,
            predictors=_predictors(pooled, totals, sizes, BASELINES, seed, tokens),
        ),
        fit_documents=len(fit),
        fit_tokens=sum(len(one.ids) for one in fit),
        documents=len(judge),
        tokens=tokens,
        coverage=float(np.isin(work.asked_ids, work.known_ids).mean()),
        movable=movable_share(work.asked_ids),
        shuffles=shuffles,
        gate_missing=gate_missing,
    )
    return result, Foretold(
        {name: [one.experts[name] for one in found] for name in found[0].experts}
    )


@dataclass(frozen=True, eq=False)
class _Found:
    """What became of one layer: hits and [D] totals, and the experts foretold by some."""

    hits: dict[str, Hits]
    totals: Numbers
    experts: dict[str, NDArray[np.int16]]


class _Work:
    """Both sides' tokens in one row each, and the probe prepared for all later layers."""

    def __init__(
        self,
        fit: Sequence[ProbedDocument],
        judge: Sequence[ProbedDocument],
        at: Sequence[int],
        E: int,
        sizes: tuple[int, ...],
    ) -> None:
        self._judge, self._at, self._E, self._sizes = judge, at, E, sizes
        self._fitted, self.judged = _numbers(fit), _numbers(judge)
        self.known_ids = np.concatenate([one.ids for one in fit])
        self.asked_ids = np.concatenate([one.ids for one in judge])
        self._learnt = [np.concatenate([one.experts[:, row] for one in fit]) for row in at]
        self.predictor = Predictor(
            np.concatenate([one.stream for one in fit]),
            np.concatenate([one.stream for one in judge]),
            self._fitted,
            self._learnt,
            E=E,
            size=sizes[0],
        )

    def layer(self, row: int, shuffles: int, seed: int) -> _Found:
        """All predictors at the target layer number `row`."""
        asked = np.concatenate([one.experts[:, self._at[row]] for one in self._judge])
        learnt, E = self._learnt[row], self._E
        table = TokenTable(self.known_ids, multi_hot(learnt, E), self._fitted, learnt)
        known, popular = table.scores(self.asked_ids), table.popularity
        told = self.predictor.told(
            Sample(
                experts=learnt,
                known=table.left_out(),
                documents=self._fitted,
                tokens=self.known_ids,
            ),
            Sample(experts=asked, known=known, documents=self.judged, tokens=self.asked_ids),
            sizes=self._sizes,
            shuffles=shuffles,
            seed=seed,
        )
        scores = {
            TOKEN: known,
            POPULARITY: np.tile(popular, (len(asked), 1)),
            PREVIOUS: _filled(self._previous(self._at[row]), popular),
        }
        gates = {
            GATE_AT_PROBE: [one.at_probe for one in self._judge],
            GATE_BEFORE: [one.before for one in self._judge],
        }
        for name, chosen in gates.items():
            sets = [one[:, row] for one in chosen if one is not None]
            if len(sets) == len(self._judge):
                scores[name] = _in_order(np.concatenate(sets), popular)
        hits = {
            PROBE: self._hits(told.alone, told.null, told.equal),
            BESIDE: self._hits(told.beside, told.null_beside, told.equal_beside),
            **{name: self._hits(ranks(one, asked)) for name, one in scores.items()},
        }
        k = self._sizes[0]
        guesses = {
            TOKEN: known,
            EQUAL: told.scores_equal,
            PROBE: told.scores,
            BESIDE: told.scores_beside,
            GATE_BEFORE: scores.get(GATE_BEFORE),
        }
        experts = {name: first(one, k) for name, one in guesses.items() if one is not None}
        totals = by_document((asked >= 0).sum(axis=1), self.judged, len(self._judge))
        return _Found(hits, totals, experts)

    def _previous(self, at: int) -> ExpertIds:
        """int16 [n, k], the experts of the token before; none for the first of a document."""
        rows = []
        for one in self._judge:
            shifted = np.full_like(one.experts[:, at], NO_EXPERT)
            shifted[1:] = one.experts[:-1, at]
            rows.append(shifted)
        return np.concatenate(rows)

    def _hits(
        self,
        places: NDArray[np.int64],
        null: Numbers | None = None,
        equal: Numbers | None = None,
    ) -> Hits:
        found = recalled(places, self._sizes)
        hits = by_document(found, self.judged, len(self._judge))
        return Hits(hits=hits, null=null, equal=equal)


def _filled(chosen: ExpertIds, popularity: Numbers) -> Numbers:
    """float64 [n, E], scores that put the chosen experts first, and popular ones after them."""
    scores: Numbers = 2.0 * multi_hot(chosen, len(popularity)) + popularity
    return scores


def _in_order(ranked: ExpertIds, popularity: Numbers) -> Numbers:
    """float64 [n, E], scores that keep the order of the ranked experts, popular ones after them."""
    scores: Numbers = np.tile(popularity, (len(ranked), 1))
    for place in range(ranked.shape[1]):
        scores += (1.0 + ranked.shape[1] - place) * multi_hot(ranked[:, [place]], len(popularity))
    return scores


def _numbers(some: Sequence[ProbedDocument]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(some)), [len(one.ids) for one in some])


def _predictors(
    hits: dict[str, Hits],
    totals: Numbers,
    sizes: tuple[int, ...],
    baselines: tuple[str, ...],
    seed: int,
    tokens: int,
) -> tuple[TaskPredictor, ...]:
    equal = of_equals(hits[BESIDE])
    known = hits if equal is None else {**hits, EQUAL: equal}

    def over(name: str, other: str, size: int) -> Statistic | None:
        if other == EQUAL:
            return beyond_equals(hits[name], hits[BESIDE], totals, size, seed=seed, tokens=tokens)
        if other not in hits:
            return None
        return gain(hits[name], hits[other], totals, size, seed=seed, tokens=tokens)

    def at(name: str, size: int) -> RecallAt:
        compared = name not in (TOKEN, EQUAL, PREVIOUS, POPULARITY)
        others = baselines if size == 0 else baselines[:1]
        gains = [
            GainOver(over=other, gain=found)
            for other in others
            if compared and other != name and (found := over(name, other, size)) is not None
        ]
        return RecallAt(
            m=sizes[size],
            recall=recall(known[name], totals, size, seed=seed, tokens=tokens),
            gains=tuple(gains),
        )

    return tuple(
        TaskPredictor(predictor=name, sizes=tuple(at(name, size) for size in range(len(sizes))))
        for name in PREDICTORS
        if name in known
    )
