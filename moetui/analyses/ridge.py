"""Ridge regression on which experts a token gets, in closed form, alone or beside known scores.

Features are standardised on the tokens that fit, intercepts are free. The penalty is chosen by
grouped cross-validation over whole documents of the calibration half, never on those that judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.analyses.expert_ranks import (
    Numbers,
    Ranks,
    by_document,
    multi_hot,
    ranks,
    recalled,
)
from moetui.stats import token_stratified_shuffle, within_document_shuffle

# Penalties a token, in units of a feature's variance, and the folds that choose among them.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 5
# Beside features of thousands of directions the known scores are few, and hardly penalised.
_KNOWN_PENALTY = 1e-6


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """n tokens at one layer: their experts [n, k] (of E; below 0: padding), what is known of them
    besides [n, E], the number of each one's document [n], and its token id [n]. rows: [n], which of
    the tokens each is, where features were exchanged; None where they were not."""

    experts: NDArray[np.int16]
    known: Numbers
    documents: NDArray[np.int64]
    tokens: NDArray[np.int32]
    rows: NDArray[np.intp] | None = None

    def within_documents(self, rng: np.random.Generator) -> Sample:
        """Features exchanged among the tokens of each document."""
        return self._taken(within_document_shuffle(self.documents, rng))

    def among_equals(self, rng: np.random.Generator) -> Sample:
        """Features exchanged among the tokens of each id, of all documents: of what they told, that
        is left which is the same wherever the token stands. A token that occurs once keeps its
        own."""
        return self._taken(token_stratified_shuffle(self.tokens, rng))

    def _taken(self, order: NDArray[np.intp]) -> Sample:
        """An exchange of features, written as its counterpart, all else exchanged: so what was
        computed of the features alone stays true."""
        return Sample(
            experts=self.experts[order],
            known=self.known[order],
            documents=self.documents[order],
            tokens=self.tokens[order],
            rows=order,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Told:
    """What is said of n judged tokens: scores [n, E] and places [n, k] of their experts by the
    features alone; the same by features and known scores together (beside). null, null_beside:
    [shuffles, sizes], experts recalled by either where the features were exchanged within
    documents. equal, equal_beside: [shuffles, D, sizes], those of each document where they were
    exchanged among equal tokens; scores_equal: [n, E], what one such draw says by both, None
    without draws."""

    scores: Numbers
    scores_beside: Numbers
    alone: Ranks
    beside: Ranks
    null: Numbers
    null_beside: Numbers
    equal: Numbers
    equal_beside: Numbers
    scores_equal: Numbers | None


class Ridge:
    """The features of a sample, prepared for any number of targets."""

    def __init__(self, features: ArrayLike) -> None:
        x = np.asarray(features, float)
        self._centre, spread = x.mean(axis=0), x.std(axis=0)
        # Where a feature does not vary, rounding is all that is left of it.
        steady = spread <= 1e-7 * np.maximum(1.0, np.abs(self._centre))
        self._scale = np.where(steady, np.inf, spread)
        self.x = self.standardised(x)
        self._gram = self.x.T @ self.x

    def standardised(self, features: ArrayLike) -> Numbers:
        """Other rows in the units of those that fit."""
        x: Numbers = (np.asarray(features, float) - self._centre) / self._scale
        return x

    def factor(self, penalty: float) -> Factor:
        """Ready to solve with `penalty` a token."""
        from scipy.linalg import cho_factor

        n = len(self.x)
        return Factor(self.x, cho_factor(self._gram + penalty * n * np.eye(len(self._gram))))


class Factor:
    """Solves for targets [n, M]; see `Ridge`."""

    def __init__(self, x: Numbers, cholesky: object) -> None:
        self._x, self._cholesky = x, cholesky

    def weights(self, targets: Numbers) -> Numbers:
        """[F, M], for targets that are centred or not: the features are."""
        from scipy.linalg import cho_solve

        solved: Numbers = cho_solve(self._cholesky, self._x.T @ targets)
        return solved

    def both(self, known: Numbers, targets: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Weights [F, E] of the features alone, and of features [F, E] and known scores [E, E]
        together. The latter by elimination: the features' own system is solved once."""
        s, y = known - known.mean(axis=0), targets - targets.mean(axis=0)
        E = y.shape[1]
        solved = self.weights(np.concatenate([s, y], axis=1))
        of_known, alone = solved[:, :E], solved[:, E:]
        rest = s - self._x @ of_known
        small = _KNOWN_PENALTY * len(s) * np.eye(E)
        weights: Numbers = np.linalg.solve(s.T @ rest + small, rest.T @ y)
        return alone, alone - of_known @ weights, weights


class Predictor:
    """Features [n, F] of the documents [n] that fit, and of the tokens that are judged [m, F],
    prepared for the experts of any number of layers. penalty: chosen for `experts`, a layer each
    ([n, k] of E), by recall@`size`."""

    def __init__(
        self,
        fit: ArrayLike,
        judge: ArrayLike,
        documents: NDArray[np.int64],
        experts: Sequence[NDArray[np.int16]],
        *,
        E: int,
        size: int,
    ) -> None:
        self.penalty = _chosen_penalty(np.asarray(fit, float), documents, experts, E, size)
        ridge = Ridge(fit)
        self._factor, self._asked = ridge.factor(self.penalty), ridge.standardised(judge)

    def told(
        self, fit: Sample, judge: Sample, *, sizes: tuple[int, ...], shuffles: int, seed: int
    ) -> Told:
        """Fitted to one layer's experts and judged on others'; then `shuffles` times where the
        features of tokens are exchanged within their documents, on both sides, and as often among
        equal tokens."""
        alone, beside = self._scores(fit, judge)
        nulls = np.zeros((2, shuffles, len(sizes)))
        rng = np.random.default_rng([seed, 8])
        for draw in range(shuffles):
            left, right = fit.within_documents(rng), judge.within_documents(rng)
            for row, scores in enumerate(self._scores(left, right)):
                nulls[row, draw] = recalled(ranks(scores, right.experts), sizes).sum(axis=0)
        equal, said = self._of_equals(fit, judge, sizes, shuffles, seed)
        return Told(
            scores=alone,
            scores_beside=beside,
            alone=ranks(alone, judge.experts),
            beside=ranks(beside, judge.experts),
            null=nulls[0],
            null_beside=nulls[1],
            equal=equal[0],
            equal_beside=equal[1],
            scores_equal=said,
        )

    def _of_equals(
        self, fit: Sample, judge: Sample, sizes: tuple[int, ...], shuffles: int, seed: int
    ) -> tuple[Numbers, Numbers | None]:
        """[2, shuffles, D, sizes] and [n, E]: see `Told.equal` and `Told.scores_equal`."""
        D = int(judge.documents.max()) + 1
        hits, said = np.zeros((2, shuffles, D, len(sizes))), None
        rng = np.random.default_rng([seed, 10])
        for draw in range(shuffles):
            left, right = fit.among_equals(rng), judge.among_equals(rng)
            both = self._scores(left, right)
            for row, scores in enumerate(both):
                found = recalled(ranks(scores, right.experts), sizes)
                hits[row, draw] = by_document(found, right.documents, D)
            if said is None:
                said = np.empty_like(both[1])
                said[right.rows] = both[1]
        return hits, said

    def _scores(self, fit: Sample, judge: Sample) -> tuple[Numbers, Numbers]:
        """Scores [m, E] of the judged tokens, by the features and by both."""
        targets = multi_hot(fit.experts, fit.known.shape[1])
        alone, features, known = self._factor.both(fit.known, targets)
        mean, asked = targets.mean(axis=0), self._asked
        beside = asked @ features + (judge.known - fit.known.mean(axis=0)) @ known
        return asked @ alone + mean, beside + mean


def _chosen_penalty(
    features: Numbers,
    documents: NDArray[np.int64],
    experts: Sequence[NDArray[np.int16]],
    E: int,
    size: int,
) -> float:
    """The penalty whose predictions of held-out documents recall the most, the first of equals;
    the middle one where there are fewer documents than folds."""
    from sklearn.model_selection import GroupKFold

    if len(np.unique(documents)) < FOLDS:
        return PENALTIES[len(PENALTIES) // 2]
    targets = np.concatenate([multi_hot(one, E) for one in experts], axis=1)
    reached = np.zeros(len(PENALTIES))
    for fit, held in GroupKFold(FOLDS).split(features, groups=documents):
        ridge, mean = Ridge(features[fit]), targets[fit].mean(axis=0)
        asked = ridge.standardised(features[held])
        for index, penalty in enumerate(PENALTIES):
            told = asked @ ridge.factor(penalty).weights(targets[fit]) + mean
            for layer, one in enumerate(experts):
                scores = told[:, layer * E : (layer + 1) * E]
                reached[index] += recalled(ranks(scores, one[held]), [size]).sum()
    return PENALTIES[int(reached.argmax())]
