"""What a token's identity foretells of its experts: a table of how often it had each of them.

A token that the table has seldom seen is given what is popular: its row counts PRIOR tokens that
have the experts in the shares in which all tokens have them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.analyses.expert_ranks import Numbers

PRIOR = 1.0


class TokenTable:
    """Fitted to tokens [n] with targets [n, E] of documents [n].

    popularity: float64 [E], the share of tokens that has each expert, whatever the token.
    """

    def __init__(self, tokens: ArrayLike, targets: Numbers, documents: ArrayLike) -> None:
        self._known, self._row = np.unique(np.asarray(tokens), return_inverse=True)
        self._documents = np.asarray(documents)
        self._targets = targets
        self.popularity: Numbers = targets.mean(axis=0)
        self._sums, self._counts = _summed(self._row, targets, len(self._known))

    def scores(self, tokens: ArrayLike) -> Numbers:
        """float64 [n, E], of other documents' tokens [n]."""
        asked = np.asarray(tokens)
        at = np.minimum(np.searchsorted(self._known, asked), len(self._known) - 1)
        seen = self._known[at] == asked
        return self._smoothed(
            np.where(seen[:, None], self._sums[at], 0.0), np.where(seen, self._counts[at], 0.0)
        )

    def left_out(self) -> Numbers:
        """float64 [n, E], of the tokens it was fitted to, each without its own document: what it
        would have said of that document, had it not seen it."""
        pair = np.unique(np.stack([self._documents, self._row]), axis=1, return_inverse=True)[
            1
        ].reshape(-1)
        sums, counts = _summed(pair, self._targets, int(pair.max(initial=-1)) + 1)
        return self._smoothed(
            self._sums[self._row] - sums[pair], self._counts[self._row] - counts[pair]
        )

    def coverage(self, tokens: ArrayLike) -> float:
        """Share of tokens [n] that it has seen."""
        return float(np.isin(np.asarray(tokens), self._known).mean())

    def _smoothed(self, sums: Numbers, counts: Numbers) -> Numbers:
        scores: Numbers = (sums + PRIOR * self.popularity) / (counts + PRIOR)[:, None]
        return scores


def _summed(groups: NDArray[np.intp], targets: Numbers, n: int) -> tuple[Numbers, Numbers]:
    """Sums [n, E] of targets by group, and sizes [n]."""
    sums = np.zeros((n, targets.shape[1]))
    np.add.at(sums, groups, targets)
    return sums, np.bincount(groups, minlength=n).astype(float)
