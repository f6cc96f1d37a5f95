"""What a token's identity foretells of its experts: a table of how often it had each of them.

A token that the table has seldom seen is given what is popular: its row counts so and so many
tokens more that have the experts in the shares in which all tokens have them. How many is chosen
as the penalties of the other predictors are: by what recalls the most of documents left out. So
where the token says nothing, the table says what popularity does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.analyses.expert_ranks import Numbers, ranks, recalled

PRIORS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 1e6)


class TokenTable:
    """Fitted to tokens [n] with targets [n, E] of documents [n], and experts [n, k] to recall.

    popularity: float64 [E], the share of tokens that has each expert, whatever the token. prior:
    how many tokens of popular experts each row counts besides its own.
    """

    def __init__(
        self, tokens: ArrayLike, targets: Numbers, documents: ArrayLike, experts: ArrayLike
    ) -> None:
        self._known, self._row = np.unique(np.asarray(tokens), return_inverse=True)
        self._documents = np.asarray(documents)
        self._targets = targets
        self.popularity: Numbers = targets.mean(axis=0)
        self._sums, self._counts = _summed(self._row, targets, len(self._known))
        self._others = self._without_own()
        k = np.asarray(experts).shape[1]
        reached = [
            recalled(ranks(self._smoothed(*self._others, prior), experts), (k,)).sum()
            for prior in PRIORS
        ]
        self.prior = PRIORS[int(np.argmax(reached))]

    def scores(self, tokens: ArrayLike) -> Numbers:
        """float64 [n, E], of other documents' tokens [n]."""
        asked = np.asarray(tokens)
        at = np.minimum(np.searchsorted(self._known, asked), len(self._known) - 1)
        seen = self._known[at] == asked
        sums = np.where(seen[:, None], self._sums[at], 0.0)
        return self._smoothed(sums, np.where(seen, self._counts[at], 0.0), self.prior)

    def left_out(self) -> Numbers:
        """float64 [n, E], of the tokens it was fitted to, each without its own document: what it
        would have said of that document, had it not seen it."""
        return self._smoothed(*self._others, self.prior)

    def _without_own(self) -> tuple[Numbers, Numbers]:
        """Sums [n, E] and counts [n] of every token's row, less those of its own document."""
        both = np.stack([self._documents, self._row])
        pair = np.unique(both, axis=1, return_inverse=True)[1].reshape(-1)
        sums, counts = _summed(pair, self._targets, int(pair.max(initial=-1)) + 1)
        return self._sums[self._row] - sums[pair], self._counts[self._row] - counts[pair]

    def _smoothed(self, sums: Numbers, counts: Numbers, prior: float) -> Numbers:
        scores: Numbers = (sums + prior * self.popularity) / (counts + prior)[:, None]
        return scores


def _summed(groups: NDArray[np.intp], targets: Numbers, n: int) -> tuple[Numbers, Numbers]:
    """Sums [n, E] of targets by group, and sizes [n]."""
    sums = np.zeros((n, targets.shape[1]))
    np.add.at(sums, groups, targets)
    return sums, np.bincount(groups, minlength=n).astype(float)
