"""What the experts of one layer tell of those of another, learnt on some documents and scored on
others, and how much of it the document and the token tell already.

Mutual information of counts of k experts a token is too large by an amount that no formula gives;
scored on documents that it was not learnt on, it errs to the low side instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.edge_tests import Members, counted
from moetui.stats import Statistic, Strata, document_intervals, ratio_of_sums

Numbers = NDArray[np.float64]

# Added to observed and expected counts, so that pairs never seen together have a logarithm.
_HALF = 0.5


class Tokens(Protocol):
    """A table of tokens, as `edge_halves.Half`."""

    @property
    def document(self) -> NDArray[np.int64]:
        """[T], ascending from 0."""

    @property
    def token(self) -> NDArray[np.int64]:
        """[T]."""

    @property
    def members(self) -> Members:
        """int8 [T, L, E]."""


class LayerInformation(msgspec.Struct, frozen=True, kw_only=True):
    """Nats that a pair of experts of one token, one of each layer, has in common on average.

    held_out: mean logarithm of the lift learnt on calibration documents, over the pairs of the
    evaluation documents, with an interval over them. beyond_documents, beyond_tokens: less what
    the same score is on average after a shuffle within documents, or among equal tokens.
    mutual, mutual_tokens: plug-in mutual information of the evaluation documents less its mean
    under these two shuffles, with a permutation p; None where several pairs of layers are pooled.
    """

    held_out: Statistic
    beyond_documents: Statistic
    beyond_tokens: Statistic
    mutual: Statistic | None = None
    mutual_tokens: Statistic | None = None


def layer_information(
    calibration: Tokens, evaluation: Tokens, pairs: Sequence[tuple[int, int]], *, seed: int
) -> LayerInformation:
    """The mean over `pairs` of layers (rows of the L axis)."""
    learnt = counted(calibration.members, pairs)
    scores = np.log((learnt.joint + _HALF) / (learnt.independent + _HALF))
    documents, tokens = Strata.of(evaluation.document), Strata.of(evaluation.token)
    found, by_document, by_token = 0.0, 0.0, 0.0
    for score, (a, b) in zip(scores, pairs, strict=True):
        first, second = (evaluation.members[:, row].astype(float) for row in (a, b))
        wanted = first @ score / (first.sum(axis=1) * second.sum(axis=1))[:, None]
        found = found + (wanted * second).sum(axis=1)
        by_document = by_document + (wanted * _shuffled(documents, second)).sum(axis=1)
        by_token = by_token + (wanted * _shuffled(tokens, second)).sum(axis=1)
    n = np.bincount(evaluation.document).astype(float)

    def mean(values: Numbers | float) -> Statistic:
        sums = np.bincount(evaluation.document, np.asarray(values, float)) / len(pairs)
        intervals = document_intervals(ratio_of_sums(sums, n), len(n), seed=seed)
        return intervals.statistic(n_tokens=int(n.sum()))

    return LayerInformation(
        held_out=mean(found),
        beyond_documents=mean(np.asarray(found) - by_document),
        beyond_tokens=mean(np.asarray(found) - by_token),
    )


def _shuffled(strata: Strata, rows: Numbers) -> Numbers:
    """[T, E]: what stands in each row on average after a shuffle within strata."""
    return strata.spread(strata.sums(rows) / strata.sizes[:, None])
