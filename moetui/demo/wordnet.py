"""Reads the WordNet 3.0 database: meanings, their glosses and the relations between words."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_PARTS: Final = ("noun", "verb", "adj", "adv")


@dataclass(frozen=True, slots=True)
class Pointer:
    """A relation to another meaning: WordNet's ``symbol``, and the word numbers it joins.

    A word number of 0 stands for the meaning as a whole.
    """

    symbol: str
    target: tuple[str, str]
    source_word: int
    target_word: int


@dataclass(frozen=True, slots=True)
class Synset:
    """One meaning: its key (offset, part of speech), words, gloss, relations and word counts.

    ``counts`` says how often each word occurs in WordNet's own tagged texts.
    """

    key: tuple[str, str]
    words: tuple[str, ...]
    gloss: str
    pointers: tuple[Pointer, ...]
    counts: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Relations:
    """Pairs of single words: same meaning, opposite meaning, and kind of."""

    synonyms: tuple[tuple[str, str], ...]
    antonyms: tuple[tuple[str, str], ...]
    kinds: tuple[tuple[str, str], ...]


def read_synsets(root: Path) -> list[Synset]:
    """All meanings of the database in ``root``, in file order."""
    counts = _word_counts(root / "cntlist.rev")
    entries = []
    for part in _PARTS:
        with (root / f"data.{part}").open(encoding="utf-8") as lines:
            # The licence at the top of each file is indented
            entries += [_synset(line, counts) for line in lines if not line.startswith(" ")]
    return entries


def familiar(entry: Synset, at_least: int) -> bool:
    """Whether some word of the entry occurs ``at_least`` so often in the tagged texts."""
    return max(entry.counts) >= at_least


def relations(entries: list[Synset]) -> Relations:
    """The relations between frequent single words, in a fixed order."""
    by_key = {entry.key: entry for entry in entries}
    synonyms, antonyms, kinds = [], [], []
    for entry in entries:
        common = _common_words(entry, at_least=3)
        synonyms += [(a, b) for a in common for b in common if a != b]
        for pointer in entry.pointers:
            other = by_key.get(pointer.target)
            if other is None:
                continue
            if pointer.symbol == "!" and pointer.source_word and pointer.target_word:
                word = pointer.source_word - 1
                if entry.counts[word] >= 2:
                    antonyms.append((entry.words[word], other.words[pointer.target_word - 1]))
            elif pointer.symbol == "@" and entry.counts[0] >= 4 and " " not in entry.words[0]:
                kinds.append((entry.words[0], other.words[0]))
    return Relations(tuple(synonyms), tuple(antonyms), tuple(kinds))


def _common_words(entry: Synset, at_least: int) -> list[str]:
    pairs = zip(entry.words, entry.counts, strict=True)
    return [word for word, count in pairs if count >= at_least and " " not in word]


def _word_counts(path: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        sense, _, count = line.split()
        counts[sense.partition("%")[0].replace("_", " ")] += int(count)
    return counts


def _synset(line: str, counts: Counter[str]) -> Synset:
    """Parse one line of a data file; the format is wndb(5WN)."""
    data, _, gloss = line.partition(" | ")
    fields = data.split()
    number = int(fields[3], 16)
    # Adjectives carry their syntactic position in brackets: "galore(ip)"
    words = tuple(
        re.sub(r"\(.*\)", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * number : 2]
    )
    first = 4 + 2 * number
    return Synset(
        key=(fields[0], _part(fields[2])),
        words=words,
        gloss=gloss.strip(),
        pointers=tuple(
            _pointer(fields[first + 1 + 4 * i : first + 5 + 4 * i])
            for i in range(int(fields[first]))
        ),
        counts=tuple(counts[word.lower()] for word in words),
    )


def _part(letter: str) -> str:
    # Satellite adjectives ("s") live in the adjectives' file
    return "a" if letter == "s" else letter


def _pointer(fields: list[str]) -> Pointer:
    symbol, offset, part, words = fields
    return Pointer(symbol, (offset, _part(part)), int(words[:2], 16), int(words[2:], 16))
