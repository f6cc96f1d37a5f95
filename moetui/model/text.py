"""Tokens as readable text, without guessing: bytes that are no character stay visible as such."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from moetui.trace import TokenKind

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenTexts:
    """Readable text and kind of every token of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = set(tokenizer.all_special_ids)
        # "Ġ" is how byte-level vocabularies write a space.
        self._byte_of = _byte_alphabet() if "Ġ" in tokenizer.get_vocab() else None
        self._ids: dict[str, int] | None = None
        self._read = lru_cache(maxsize=None)(self._lookup)

    def text(self, token_id: int) -> str:
        """What the token stands for; part of a character as \\xNN escapes."""
        return self._read(token_id)[0]

    def kind(self, token_id: int) -> TokenKind:
        """ "text", "special" (a control token) or "bytes" (part of a character)."""
        return self._read(token_id)[1]

    def token_id(self, text: str, vocabulary: int) -> int | None:
        """The lowest of `vocabulary` ids whose token reads exactly as `text`, None without one.

        Asked of the vocabulary and not of the tokenizer's rules: those may put a space before the
        first word, or split a word that is a token inside a sentence.
        """
        if self._ids is None:
            read = [self._read(token_id) for token_id in range(vocabulary)]
            backwards = range(vocabulary - 1, -1, -1)
            self._ids = {read[i][0]: i for i in backwards if read[i][1] == "text"}
        return self._ids.get(text)

    def _lookup(self, token_id: int) -> tuple[str, TokenKind]:
        piece = self._tokenizer.convert_ids_to_tokens(token_id)
        if piece is None:  # a row of the embedding that the vocabulary does not use
            return f"<unused {token_id}>", "special"
        if token_id in self._special:
            return piece, "special"
        if self._byte_of is not None:
            if not all(char in self._byte_of for char in piece):
                return piece, "text"  # an added token, stored as it reads
            return _decoded(bytes(self._byte_of[char] for char in piece))
        if byte := _BYTE_TOKEN.fullmatch(piece):
            return _decoded(bytes([int(byte[1], 16)]))
        return piece.replace("▁", " "), "text"


def _decoded(raw: bytes) -> tuple[str, TokenKind]:
    try:
        return raw.decode(), "text"
    except UnicodeDecodeError:
        return raw.decode(errors="backslashreplace"), "bytes"


def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level BPE writes for the 256 bytes (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + n): byte for n, byte in enumerate(others)}
