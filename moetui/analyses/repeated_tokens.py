"""What a prediction tells that token and document do not: by tokens that a document has twice.

Where experts follow from a token and its document, by a sum or in any other way, what is said of
one such token is as true of its equal in that document. So the two change predictions, and what is
lost is neither the token's nor the document's. Nothing is fitted anew, and nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.expert_ranks import Hits, Numbers, by_document, first, gain, multi_hot
from moetui.stats import Statistic


@dataclass(frozen=True, eq=False)
class Repeated:
    """Of the tokens that their document has twice: experts recalled by their own predictions, and
    by those of their equals in the document (mean over these), hits [D, 1] each; totals: [D],
    experts that they have. tokens: how many of them there are."""

    own: Hits
    equals: Hits
    totals: Numbers
    tokens: int

    @classmethod
    def of(
        cls,
        scores: Numbers,
        experts: NDArray[np.int16],
        documents: NDArray[np.int64],
        tokens: NDArray[np.int32],
    ) -> Repeated:
        """Of tokens [n] of documents [n] (0 … D − 1) that have experts [n, k], among the first k by
        scores [n, E]. Only what scores owe to more than the token may differ among equals."""
        D, E = int(documents.max()) + 1, scores.shape[1]
        said, had = multi_hot(first(scores, experts.shape[1]), E), multi_hot(experts, E)
        _, group, sizes = np.unique(
            np.stack([documents, tokens]), axis=1, return_inverse=True, return_counts=True
        )
        group = group.reshape(-1)
        others = by_document(said, group, len(sizes))[group] - said
        twice = sizes[group] > 1
        usual = others[twice] / (sizes[group][twice] - 1)[:, None]

        def hits(by: Numbers) -> Hits:
            recalled = by_document((by * had[twice]).sum(axis=1), documents[twice], D)
            # Thirds do not add up to the whole numbers that they are parts of.
            return Hits(hits=recalled.round(9)[:, None])

        return cls(
            own=hits(said[twice]),
            equals=hits(usual),
            totals=by_document(had[twice].sum(axis=1), documents[twice], D),
            tokens=int(twice.sum()),
        )

    @classmethod
    def over(cls, layers: Sequence[Repeated]) -> Repeated:
        """Those of several layers, of the same tokens, as one."""
        return cls(
            own=Hits(hits=np.sum([one.own.hits for one in layers], axis=0)),
            equals=Hits(hits=np.sum([one.equals.hits for one in layers], axis=0)),
            totals=np.sum([one.totals for one in layers], axis=0),
            tokens=layers[0].tokens,
        )

    def lost(self, *, seed: int) -> Statistic:
        """recall@k of a token's own predictions less that of its equals', paired by document;
        null_mean is the 0 of experts that follow from token and document."""
        found = gain(self.own, self.equals, self.totals, 0, seed=seed, tokens=self.tokens)
        if found.value is None:
            return found
        return msgspec.structs.replace(found, null_mean=0.0)
