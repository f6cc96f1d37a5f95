"""Turns training documents into rows of tokens, each row from one domain."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from moetui.demo import DOMAINS
from moetui.demo.tokenizer import END_OF_TEXT, NUMBERS, SPACE

Tokens = NDArray[np.int64]

MIX: Final = {
    "arithmetic": 0.29, "code": 0.19, "dictionary": 0.10, "docs": 0.11,
    "facts": 0.09, "maths": 0.07, "prose": 0.15,
}  # fmt: skip
"""Share of the rows that each domain gets."""

# Half of the answers in this share of the arithmetic rows are written " " + "8" instead of " 8":
# that is how a prompt that ends in a space asks for them
_SPLIT_ROWS: Final = 0.4
_SPLIT_ANSWERS: Final = 0.5
_LINE_START_ROWS: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Stream:
    """All training tokens of a domain, and the positions where a line begins."""

    tokens: Tokens
    line_starts: Tokens


class Rows:
    """Draws training batches; the same seed gives the same batches."""

    def __init__(self, texts: Mapping[str, Sequence[str]], tokenizer: Tokenizer, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        self._space = vocabulary[SPACE]
        self._equals = vocabulary[SPACE + "="]
        self._without_space = {
            vocabulary[SPACE + str(n)]: vocabulary[str(n)] for n in range(NUMBERS)
        }
        end = vocabulary[END_OF_TEXT]
        line_ends = [i for token, i in vocabulary.items() if token.endswith("\u010a")] + [end]
        self._streams = {
            domain: _stream(texts[domain], tokenizer, end, line_ends) for domain in DOMAINS
        }

    @property
    def sizes(self) -> dict[str, int]:
        """Training tokens by domain."""
        return {domain: len(stream.tokens) for domain, stream in self._streams.items()}

    @property
    def state(self) -> Any:
        """Where the random draws stand, to be set again when a run goes on."""
        return self._rng.bit_generator.state

    @state.setter
    def state(self, state: Any) -> None:
        self._rng.bit_generator.state = state

    def draw_length(self, lengths: Sequence[tuple[int, float]]) -> int:
        """One of the lengths, drawn by its share."""
        return int(self._rng.choice([n for n, _ in lengths], p=[share for _, share in lengths]))

    def batch(self, rows: int, length: int) -> Tokens:
        """Token ids [rows, length + 1]; the last column is only ever a target."""
        shares = [MIX[domain] for domain in DOMAINS]
        drawn = self._rng.choice(len(DOMAINS), rows, p=shares)
        return np.stack([self._row(DOMAINS[i], length + 1) for i in drawn])

    def _row(self, domain: str, length: int) -> Tokens:
        stream = self._streams[domain]
        generated = domain in ("arithmetic", "facts")
        # No token marks the start of a text, so position 0 has to learn it from line starts
        if generated or self._rng.random() < _LINE_START_ROWS:
            usable = np.searchsorted(stream.line_starts, len(stream.tokens) - length)
            start = int(stream.line_starts[self._rng.integers(usable)])
        else:
            start = int(self._rng.integers(len(stream.tokens) - length))
        row = stream.tokens[start : start + length]
        if domain == "arithmetic" and self._rng.random() < _SPLIT_ROWS:
            return self._with_split_answers(row)
        return row

    def _with_split_answers(self, row: Tokens) -> Tokens:
        result: list[int] = []
        previous = -1
        for token in row.tolist():
            plain = self._without_space.get(token)
            if plain is None or previous != self._equals or self._rng.random() >= _SPLIT_ANSWERS:
                result.append(token)
            else:
                result += [self._space, plain]
            previous = token
        return np.array(result[: len(row)], dtype=np.int64)


def _stream(
    texts: Sequence[str], tokenizer: Tokenizer, end: int, line_ends: Sequence[int]
) -> _Stream:
    # Shuffled, so that neighbours that share a row are not neighbours in the alphabet
    shuffled = random.Random(0).sample(list(texts), len(texts))
    pieces = [[end, *encoding.ids] for encoding in tokenizer.encode_batch(shuffled)]
    tokens = np.array([token for piece in pieces for token in piece], dtype=np.int64)
    return _Stream(tokens, np.flatnonzero(np.isin(tokens, line_ends)) + 1)
