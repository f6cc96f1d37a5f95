"""Corpora: the bundled one or the user's, in two disjoint halves, and samples of them.

Nothing here holds a corpus: it is read as a stream, and a sample of n documents needs memory for
n documents, whatever it is drawn from.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from moetui.demo import Document, Split
from moetui.suites.corpus_files import (
    MAX_CHARACTERS,
    UNLABELLED,
    CorpusError,
    checked,
    documents,
    of_paragraphs,
)
from moetui.suites.results import digest

__all__ = [
    "BUNDLED",
    "MAX_CHARACTERS",
    "UNLABELLED",
    "Corpus",
    "CorpusError",
    "Document",
    "Sample",
    "Split",
    "open_corpus",
    "sample",
]

BUNDLED = "bundled"
"""The name of the corpus that is part of the package."""

_NEIGHBOURS = (
    "documents are paragraphs of one text: neighbours are alike, so intervals are too narrow, and "
    "calibration and evaluation share their author and subject"
)


@dataclass(frozen=True)
class Corpus:
    """One half of a corpus, read anew by every iteration.

    name: for results. caveat: what a reader of results must know of the documents as such. split:
    which half. read: all documents of the source. holds: whether a document is of this half.
    """

    name: str
    caveat: str | None
    split: Split
    read: Callable[[], Iterator[Document]]
    holds: Callable[[Document], bool]

    def __iter__(self) -> Iterator[Document]:
        """The documents of this half, those without text left out. Raises CorpusError."""
        return (found for found in self.read() if found.text.strip() and self.holds(found))


@dataclass(frozen=True)
class Sample:
    """Documents drawn from a corpus, each text once, in the order of the corpus.

    available: documents with text in that half of the corpus, repeated ones counted. digest: over
    ids and texts. name, caveat: of the corpus, and what was left out.
    """

    documents: tuple[Document, ...]
    available: int
    digest: str
    name: str
    caveat: str | None


def open_corpus(named: str | Path | None, split: Split) -> Corpus:
    """The half `split` of the corpus `named`: a file, a folder, or the bundled one (None).

    A user's corpus is halved by a hash of every document's text, so that the same text is always
    on the same side, whatever file or run it comes from. Raises CorpusError where the corpus is
    missing or of a kind that cannot be read; what is wrong inside shows when it is read.
    """
    if named is None or str(named) == BUNDLED:
        from moetui.demo import corpus

        return Corpus(
            name=f"moetui demo corpus, {split} split",
            caveat=None,
            split=split,
            read=lambda: corpus(split),
            holds=lambda _: True,
        )
    path = checked(named)
    return Corpus(
        name=f"{path.resolve().name}, {split} half",
        caveat=_NEIGHBOURS if of_paragraphs(path) else None,
        split=split,
        read=lambda: documents(path),
        holds=lambda found: _half(found.text) == split,
    )


def sample(corpus: Corpus, n: int, *, seed: int, max_characters: int) -> Sample:
    """`n` (≥ 1) documents drawn at random, all of them where there are fewer; one pass.

    Drawn are the n texts of lowest hash under the seed as key: every set of n different texts is
    as likely, and the choice depends neither on names nor on the order of reading. Texts are cut
    to `max_characters`; one that is met again, so cut, is left out. Raises CorpusError where the
    corpus cannot be read or has no document in this half.
    """
    lowest = _Lowest(n, blake2b(str(seed).encode()).digest())
    available = elsewhere = empty = 0
    for found in corpus.read():
        if not found.text.strip():
            empty += 1
        elif not corpus.holds(found):
            elsewhere += 1
        else:
            available += 1
            lowest.offer(Document(found.id, found.domain, found.text[:max_characters]))
    if not available:
        raise _nothing(corpus, elsewhere)
    drawn = lowest.documents()
    notes = [
        corpus.caveat,
        f"{empty:,} documents without text left out" if empty else None,
        f"{lowest.repeats:,} repeats of a sampled text left out" if lowest.repeats else None,
    ]
    return Sample(
        documents=drawn,
        available=available,
        digest=digest([(found.id, found.text) for found in drawn]),
        name=corpus.name,
        caveat="; ".join(note for note in notes if note) or None,
    )


class _Lowest:
    """The documents whose texts hash lowest among all that were offered."""

    def __init__(self, n: int, key: bytes) -> None:
        self._n, self._key = n, key
        self._kept: list[tuple[int, int, Document]] = []  # the highest hash first
        self._repeats: dict[int, int] = {}
        self._offered = 0

    def offer(self, found: Document) -> None:
        """Keep `found` if its text is new and among the lowest so far."""
        self._offered += 1
        text = found.text.strip().encode()
        negative = -int.from_bytes(blake2b(text, key=self._key, digest_size=16).digest(), "big")
        if negative in self._repeats:
            self._repeats[negative] += 1
            return
        entry = (negative, self._offered, found)
        if len(self._kept) < self._n:
            heapq.heappush(self._kept, entry)
            self._repeats[negative] = 0
        elif negative > self._kept[0][0]:
            del self._repeats[heapq.heapreplace(self._kept, entry)[0]]
            self._repeats[negative] = 0

    @property
    def repeats(self) -> int:
        """How often texts that were kept were offered again: kept since they were first."""
        return sum(self._repeats.values())

    def documents(self) -> tuple[Document, ...]:
        """What was kept, in the order in which it was offered."""
        return tuple(found for _, _, found in sorted(self._kept, key=lambda entry: entry[1]))


def _half(text: str) -> Split:
    """The side of a text: seedless, and the same for ever."""
    hashed = blake2b(text.strip().encode(), digest_size=8, person=b"moetui-half")
    return "calibration" if hashed.digest()[0] & 1 else "evaluation"


def _nothing(corpus: Corpus, elsewhere: int) -> CorpusError:
    if not elsewhere:
        return CorpusError(
            f"corpus {corpus.name}: there is no document with text in it", "give another corpus"
        )
    return CorpusError(
        f"corpus {corpus.name}: none of its {elsewhere:,} documents is in that half",
        "give more documents: half of them calibrate, half evaluate, by a hash of their text",
    )
