"""Whether what attention does foretells which experts a token gets, beyond the token itself.

A router reads the stream that attention has just written to, so its choice is a function of it;
what is asked is how much of the choice a linear reading finds in each thing that can be seen, and
whether that is more than the token's identity says by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import msgspec
import numpy as np

from moetui.analyses.attention_features import attention_features
from moetui.analyses.corpus_used import CorpusUsed
from moetui.analyses.expert_ranks import (
    Hits,
    Numbers,
    Ranks,
    beyond_equals,
    by_document,
    gain,
    multi_hot,
    of_equals,
    ranks,
    recall,
    recalled,
    together,
)
from moetui.analyses.one_thread import one_thread
from moetui.analyses.repeated_tokens import Repeated
from moetui.analyses.ridge import Predictor, Sample
from moetui.analyses.token_table import TokenTable
from moetui.stats import Statistic, movable_share
from moetui.trace import Forward
from moetui.trace.types import ExpertIds, Floats, Ints

Feature = Literal["router input", "attention output", "residual before", "attention pattern"]
FEATURES: tuple[Feature, ...] = (
    "router input", "attention output", "residual before", "attention pattern",
)  # fmt: skip
TOKEN, POPULARITY = "token identity", "popularity"
DEFINITION = (
    "recall@k: share of a token's k experts that are among the k foretold. Ridge regression on "
    "which experts a token has, fitted to the calibration documents (penalty by grouped "
    "cross-validation over whole documents of these), judged on the evaluation documents. Router "
    "input: what the router itself reads, so it is the most that a linear reading can find. "
    "Attention output: what attention (or the mixer in its place) added to the stream in this "
    "layer. Residual before: the "
    "stream as it enters the layer. Attention pattern: the real probabilities of every head, "
    "binned relative to the token. Token identity: a table of the calibration documents, backed "
    "off to popularity as far as documents left out ask for it, which is all it says of tokens "
    "that it has not seen; popularity: the k most frequent experts, for every token"
)
GAIN = (
    "gain over token identity: recall@k less that of the table, paired by document. Added to it: "
    "recall@k of the features and the table's scores together, less that of the table. A table of "
    "few documents is not all that a token says: features that carry the token alone recall more "
    "of seldom seen ones. So equal tokens: what features and table recall together where the "
    "features are exchanged among all tokens of one id, in both halves, and fitted anew, which "
    "leaves them whatever they tell of the token; beyond these: the gain of the features alone, or "
    "with the table, over that, beside what the exchanged ones gain. At layer 0 the stream before "
    "is the token's embedding, and tells nothing beyond it. Beyond token and document: of tokens "
    "that a document has twice, recall@k of features and table together less that where their "
    "predictions change places among equal tokens of the document, which is 0 wherever experts "
    "follow from the two, however they do"
)
NULL = (
    "null: features exchanged among the tokens of each document, in both halves, and fitted anew; "
    "what is left is what the document as a whole says of its experts"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadTokens:
    """Some tokens of one document at R layers: n of them, those of `rows`.

    ids: int32 [n]; experts: int16 [n, R, k]. router_input, attention_output, residual_before:
    float32 [n, R, H]; attention_pattern: float32 [n, R, F], None where attention cannot be read.
    """

    id: str
    rows: Ints
    ids: Ints
    experts: ExpertIds
    router_input: Floats
    attention_output: Floats
    residual_before: Floats
    attention_pattern: Floats | None

    def feature(self, name: Feature) -> Floats | None:
        """The features of that name, [n, R, …]."""
        found = {
            "router input": self.router_input,
            "attention output": self.attention_output,
            "residual before": self.residual_before,
            "attention pattern": self.attention_pattern,
        }
        return found[name]


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that foretells experts, at one layer or over layers.

    predictor: name. recall: recall@k. gain: over token identity; added: to token identity, by
    predictor and table together. equal_tokens: recall@k of these two where features are exchanged
    among equal tokens; gain_beyond, added_beyond: recall@k of the predictor, and of predictor and
    table, less that. beyond_both: of the two together, beyond token and document, by tokens that a
    document has twice. All None for the baselines, those of exchanged features without draws.
    penalty: of the ridge regression, in units of a feature's variance; None over several layers
    and for the baselines.
    """

    predictor: str
    recall: Statistic
    gain: Statistic | None = None
    added: Statistic | None = None
    equal_tokens: Statistic | None = None
    gain_beyond: Statistic | None = None
    added_beyond: Statistic | None = None
    beyond_both: Statistic | None = None
    penalty: float | None = None


class LayerPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """Every predictor at one decoder layer; layer None: over all of `AttentionRouting.layers`."""

    layer: int | None
    predictors: tuple[Predicted, ...]


class AttentionRouting(msgspec.Struct, frozen=True, kw_only=True, tag="attention_routing"):
    """What foretells the experts of a token, beside its identity.

    k: experts that are foretold, as many as a token uses. chance: recall@k of k experts drawn at
    random. fit_corpus, corpus: where the documents are from that the predictors were fitted to and
    judged on; fit_documents, documents: how many; sampled: at most so many tokens of each.
    coverage: share of the judged tokens whose identity the table knows; movable: that have an equal
    among them to change features with. shuffles: draws of each null. missing: predictor → why it is
    not there.
    """

    definition: str
    gain_definition: str
    null: str
    fit_corpus: CorpusUsed | None = None
    corpus: CorpusUsed | None = None
    k: int
    chance: float
    layers: tuple[LayerPrediction, ...]
    mean: LayerPrediction
    fit_documents: int
    documents: int
    tokens: int
    sampled: int
    coverage: float
    movable: float
    shuffles: int
    missing: dict[str, str]


def read_tokens(
    model: Forward, name: str, ids: Ints, layers: Sequence[int], rows: Ints
) -> ReadTokens:
    """`rows` of one pass over `ids` at the routers of the decoder layers `layers`."""
    readable = model.info.attention_error is None
    trace = model.trace(ids, lens=0, streams=True, attention=readable)
    streams, at = trace.streams, [trace.layers.tolist().index(layer) for layer in layers]
    assert streams is not None
    here = list(layers)
    before = streams.entering[rows][:, here]
    pattern = None
    if trace.attention is not None and np.isfinite(trace.attention[here]).any(axis=(1, 2, 3)).all():
        each = [attention_features(trace.attention[layer], rows) for layer in layers]
        pattern = np.stack(each, axis=1)
    return ReadTokens(
        id=name,
        rows=np.asarray(rows, np.int32),
        ids=trace.token_ids[rows],
        experts=trace.expert_ids[rows][:, at],
        router_input=streams.router_input[rows][:, at],
        attention_output=streams.at_router[rows][:, here] - before,
        residual_before=before,
        attention_pattern=pattern,
    )


def attention_routing(
    fit: Sequence[ReadTokens],
    judge: Sequence[ReadTokens],
    layers: Sequence[int],
    *,
    num_experts: int,
    no_pattern: str | None,
    sampled: int,
    shuffles: int,
    seed: int,
) -> AttentionRouting:
    """Predictors fitted to the documents `fit`, judged on `judge`, at decoder layers `layers`.

    no_pattern: why attention could not be read, if so. Raises ValueError for no documents.
    """
    missing = _missing([*fit, *judge], no_pattern)
    names = [name for name in FEATURES if name not in missing]
    k = judge[0].experts.shape[2]
    with one_thread():
        work = [
            _Layer(fit, judge, row, num_experts, names, shuffles=shuffles, seed=seed)
            for row in range(len(layers))
        ]
    tokens = sum(len(one.ids) for one in judge)
    found = tuple(
        LayerPrediction(
            layer=layer,
            predictors=_predicted(one.hits, one.totals, one.repeated, one.penalties, seed, tokens),
        )
        for layer, one in zip(layers, work, strict=True)
    )
    pooled = {name: together([one.hits[name] for one in work]) for name in work[0].hits}
    totals = np.sum([one.totals for one in work], axis=0)
    repeated = {
        name: Repeated.over([one.repeated[name] for one in work]) for name in work[0].repeated
    }
    return AttentionRouting(
        definition=DEFINITION,
        gain_definition=GAIN,
        null=NULL,
        k=k,
        chance=k / num_experts,
        layers=found,
        mean=LayerPrediction(
            layer=None, predictors=_predicted(pooled, totals, repeated, {}, seed, tokens)
        ),
        fit_documents=len(fit),
        documents=len(judge),
        tokens=tokens,
        sampled=sampled,
        coverage=float(np.isin(_joined(judge, "ids"), _joined(fit, "ids")).mean()),
        movable=movable_share(_joined(judge, "ids")),
        shuffles=shuffles,
        missing=missing,
    )


def documents_of(some: Sequence[ReadTokens]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """int64 [n], the number of each token's document."""
    return np.repeat(np.arange(len(some)), [len(one.ids) for one in some])


def _missing(some: Sequence[ReadTokens], no_pattern: str | None) -> dict[str, str]:
    """Features that some layer does not have, and why."""
    found: dict[str, str] = {}
    output, pattern = FEATURES[1], FEATURES[3]
    added = np.max([np.abs(one.attention_output).max(axis=(0, 2)) for one in some], axis=0)
    if not added.all():
        found[output] = "one of the layers adds nothing to the stream before its router"
    if any(one.attention_pattern is None for one in some):
        found[pattern] = no_pattern or "one of the layers has no attention over the tokens"
    return found


def _joined(some: Sequence[ReadTokens], name: Literal["ids", "experts"]) -> Ints:
    whole: Ints = np.concatenate([one.ids if name == "ids" else one.experts for one in some])
    return whole


class _Sizes(TypedDict):
    seed: int
    tokens: int


class _Layer:
    """All predictors at one layer. hits: by name, the additions to the table under `_added`;
    totals: [D]; repeated, of these additions, and penalties: by name."""

    def __init__(
        self,
        fit: Sequence[ReadTokens],
        judge: Sequence[ReadTokens],
        row: int,
        E: int,
        names: Sequence[Feature],
        *,
        shuffles: int,
        seed: int,
    ) -> None:
        self._documents, self._D = documents_of(judge), len(judge)
        learnt, asked = (np.concatenate([d.experts[:, row] for d in side]) for side in (fit, judge))
        self._k = asked.shape[1]
        targets, documents = multi_hot(learnt, E), documents_of(fit)
        known_ids, asked_ids = _joined(fit, "ids"), _joined(judge, "ids")
        table = TokenTable(known_ids, targets, documents, learnt)
        known = table.scores(asked_ids)
        popular = np.tile(table.popularity, (len(asked), 1))
        self.totals: Numbers = by_document((asked >= 0).sum(axis=1), self._documents, self._D)
        self.hits: dict[str, Hits] = {
            POPULARITY: self._hits(ranks(popular, asked)),
            TOKEN: self._hits(ranks(known, asked)),
        }
        self.penalties: dict[str, float] = {}
        self.repeated: dict[str, Repeated] = {}
        left = Sample(experts=learnt, known=table.left_out(), documents=documents, tokens=known_ids)
        right = Sample(experts=asked, known=known, documents=self._documents, tokens=asked_ids)
        for name in names:
            predictor = Predictor(
                _features(fit, name, row), _features(judge, name, row), documents, [learnt],
                E=E, size=self._k,
            )  # fmt: skip
            told = predictor.told(left, right, sizes=(self._k,), shuffles=shuffles, seed=seed)
            self.hits[name] = self._hits(told.alone, told.null, told.equal)
            self.hits[_added(name)] = self._hits(told.beside, told.null_beside, told.equal_beside)
            self.penalties[name] = predictor.penalty
            self.repeated[name] = Repeated.of(told.scores_beside, asked, self._documents, asked_ids)

    def _hits(
        self, places: Ranks, null: Numbers | None = None, equal: Numbers | None = None
    ) -> Hits:
        found = recalled(places, (self._k,))
        return Hits(hits=by_document(found, self._documents, self._D), null=null, equal=equal)


def _features(some: Sequence[ReadTokens], name: Feature, row: int) -> Numbers:
    found = [one.feature(name) for one in some]
    return np.concatenate([one[:, row] for one in found if one is not None]).astype(float)


def _added(name: str) -> str:
    return f"{name} and {TOKEN}"


def _predicted(
    hits: dict[str, Hits],
    totals: Numbers,
    repeated: dict[str, Repeated],
    penalties: dict[str, float],
    seed: int,
    tokens: int,
) -> tuple[Predicted, ...]:
    """Features first, then the baselines."""
    made = [
        _feature(name, hits, totals, repeated[name], penalties.get(name), seed, tokens)
        for name in FEATURES
        if name in hits
    ]
    plain = [
        Predicted(predictor=name, recall=recall(hits[name], totals, 0, seed=seed, tokens=tokens))
        for name in (TOKEN, POPULARITY)
    ]
    return (*made, *plain)


def _feature(
    name: str,
    hits: dict[str, Hits],
    totals: Numbers,
    repeated: Repeated,
    penalty: float | None,
    seed: int,
    tokens: int,
) -> Predicted:
    alone, beside, table = hits[name], hits[_added(name)], hits[TOKEN]
    equal = of_equals(beside)
    sizes: _Sizes = {"seed": seed, "tokens": tokens}
    return Predicted(
        predictor=name,
        recall=recall(alone, totals, 0, **sizes),
        gain=gain(alone, table, totals, 0, **sizes),
        added=gain(beside, table, totals, 0, **sizes),
        equal_tokens=None if equal is None else recall(equal, totals, 0, **sizes),
        gain_beyond=beyond_equals(alone, beside, totals, 0, **sizes),
        added_beyond=beyond_equals(beside, beside, totals, 0, **sizes),
        beyond_both=repeated.lost(seed=seed),
        penalty=penalty,
    )
