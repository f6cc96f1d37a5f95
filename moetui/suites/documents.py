"""The documents that an analysis reads: a sample of one half of a corpus, a part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from moetui.analyses.corpus_used import CorpusUsed
from moetui.suites.corpus import MAX_CHARACTERS, Sample, Split, open_corpus, sample

_T = TypeVar("_T")
# Documents of one part: what is lost at most when a run is cut off.
_IN_A_PART = 25
# Characters kept of a document for each token that is asked for.
_CHARACTERS_A_TOKEN = 16


class Documents:
    """A sample of `documents` documents, each cut to about `tokens` tokens; drawn, in one pass
    over the corpus, when first asked for."""

    def __init__(
        self, corpus: str | Path | None, split: Split, *, documents: int, tokens: int
    ) -> None:
        self._corpus, self._split = corpus, split
        self._documents = documents
        self._characters = min(MAX_CHARACTERS, tokens * _CHARACTERS_A_TOKEN)
        self.sample = lru_cache(maxsize=4)(self._drawn)

    @property
    def empty(self) -> bool:
        """Whether no document was asked for."""
        return not self._documents

    def texts(self, seed: int) -> tuple[str, ...]:
        """The texts; none where no document was asked for."""
        if self.empty:
            return ()
        return tuple(found.text for found in self.sample(seed).documents)

    def used(self, seed: int) -> CorpusUsed | None:
        """For the result; None where no document was asked for."""
        if self.empty:
            return None
        drawn = self.sample(seed)
        return CorpusUsed(
            corpus=drawn.name,
            sampled=len(drawn.documents),
            available=drawn.available,
            digest=drawn.digest,
            caveat=drawn.caveat,
        )

    def _drawn(self, seed: int) -> Sample:
        corpus = open_corpus(self._corpus, self._split)
        return sample(corpus, self._documents, seed=seed, max_characters=self._characters)


def in_parts(documents: Sequence[_T]) -> Iterator[tuple[str, tuple[_T, ...]]]:
    """Name and documents of every part, in order."""
    for start in range(0, len(documents), _IN_A_PART):
        some = tuple(documents[start : start + _IN_A_PART])
        yield f"documents {start + 1}-{start + len(some)}", some


def some_of(documents: Sequence[_T], limit: int | None, seed: int | Sequence[int]) -> list[_T]:
    """`limit` of the documents at random, in their order; all of them for None or where there are
    no more. The first ones of a corpus are of one kind: corpora are sorted by domain or source."""
    if limit is None or limit >= len(documents):
        return list(documents)
    rows = np.random.default_rng(seed).choice(len(documents), limit, replace=False)
    return [documents[row] for row in np.sort(rows).tolist()]
