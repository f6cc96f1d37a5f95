"""Which documents a result rests on."""

from __future__ import annotations

import msgspec


class CorpusUsed(msgspec.Struct, frozen=True, kw_only=True):
    """What a result has to say of the documents that it rests on.

    corpus: its name; sampled of the available documents with text. digest: SHA-256 over the
    sampled ids and texts. caveat: of the corpus as such, and what was left out.
    """

    corpus: str
    sampled: int
    available: int
    digest: str
    caveat: str | None
