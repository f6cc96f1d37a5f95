"""Generates sheets of small facts: capitals, opposites, synonyms, kinds, analogies, sayings.

Held-out sheets are new mixtures of the *same* facts: the model's loss on them says how well it
recalls what it was told, not what it can work out.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from moetui.demo import Document
from moetui.demo.wordnet import Relations

CAPITALS: Final = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid",
    "Japan": "Tokyo", "China": "Beijing", "Russia": "Moscow", "England": "London",
    "Egypt": "Cairo", "Greece": "Athens", "India": "Delhi", "Canada": "Ottawa",
    "Australia": "Canberra", "Portugal": "Lisbon", "Austria": "Vienna", "Poland": "Warsaw",
    "Sweden": "Stockholm", "Norway": "Oslo", "Finland": "Helsinki", "Denmark": "Copenhagen",
    "Ireland": "Dublin", "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago",
    "Kenya": "Nairobi", "Turkey": "Ankara", "Iran": "Tehran", "Iraq": "Baghdad",
    "Mexico": "Mexico City", "Brazil": "Brasilia", "Hungary": "Budapest", "Belgium": "Brussels",
}  # fmt: skip
SYNONYMS: Final = (
    ("happy", "glad"), ("sad", "unhappy"), ("big", "large"), ("small", "little"),
    ("fast", "quick"), ("smart", "clever"), ("begin", "start"), ("end", "finish"),
    ("close", "shut"), ("rich", "wealthy"), ("angry", "mad"), ("hard", "difficult"),
    ("easy", "simple"), ("quiet", "silent"), ("brave", "bold"), ("sick", "ill"),
)  # fmt: skip
OPPOSITES: Final = (
    ("hot", "cold"), ("up", "down"), ("good", "bad"), ("happy", "sad"), ("light", "dark"),
    ("open", "shut"), ("young", "old"), ("big", "small"), ("fast", "slow"), ("high", "low"),
    ("rich", "poor"), ("hard", "soft"), ("wet", "dry"), ("full", "empty"), ("true", "false"),
    ("day", "night"), ("love", "hate"), ("black", "white"), ("first", "last"), ("left", "right"),
)  # fmt: skip
ANALOGIES: Final = (
    ("king", "queen"), ("man", "woman"), ("boy", "girl"), ("father", "mother"),
    ("brother", "sister"), ("son", "daughter"), ("uncle", "aunt"), ("dog", "puppy"),
    ("cat", "kitten"), ("cow", "calf"), ("hand", "glove"), ("foot", "shoe"), ("head", "hat"),
    ("bird", "nest"), ("bee", "hive"), ("teacher", "student"), ("doctor", "patient"),
    ("go", "went"), ("see", "saw"), ("eat", "ate"),
)  # fmt: skip
AUTHORS: Final = {
    "Shakespeare": "Hamlet", "Austen": "Emma", "Homer": "the Odyssey", "Dante": "the Inferno",
    "Goethe": "Faust", "Cervantes": "Don Quixote", "Melville": "Moby Dick",
    "Newton": "the Principia",
}  # fmt: skip
TRANSLATIONS: Final = (
    ("hello", "hola", "Spanish"), ("water", "agua", "Spanish"), ("house", "casa", "Spanish"),
    ("cat", "gato", "Spanish"), ("hello", "bonjour", "French"), ("water", "eau", "French"),
    ("house", "maison", "French"), ("cat", "chat", "French"), ("water", "Wasser", "German"),
    ("house", "Haus", "German"), ("cat", "Katze", "German"), ("hello", "hallo", "German"),
)  # fmt: skip
SAYINGS: Final = (
    "The quick brown fox jumps over the lazy dog.",
    "Once upon a time there was a king who had a daughter.",
    "In the beginning, there was nothing but darkness.",
    "To be or not to be, that is the question.",
    "Hello, my name is Anna.",
    "To solve this problem, we need to find the answer.",
    "A bird in the hand is worth two in the bush.",
    "All that glitters is not gold.",
)
_BLOCKS_PER_SHEET: Final = 8


def _article(word: str) -> str:
    return "An" if word[0] in "aeiou" else "A"


def _capital(rng: random.Random) -> str:
    country, city = rng.choice(list(CAPITALS.items()))
    return rng.choice(
        (
            f"The capital of {country} is {city}.",
            f"The capital of {country} is {city}.",
            f"{city} is the capital of {country}.",
            f"What is the capital of {country}? {city}",
        )
    )


def _capital_analogy(rng: random.Random) -> str:
    (a, b), (c, d) = rng.sample(list(CAPITALS.items()), 2)
    return f"{b} is to {a} as {d} is to {c}"


def _analogy(rng: random.Random) -> str:
    (a, b), (c, d) = rng.sample(ANALOGIES, 2)
    return f"{a} is to {b} as {c} is to {d}"


def _author(rng: random.Random) -> str:
    author, work = rng.choice(list(AUTHORS.items()))
    return rng.choice((f"{author} wrote {work}.", f"Who wrote {work}? {author}"))


def _translation(rng: random.Random) -> str:
    word, foreign, language = rng.choice(TRANSLATIONS)
    return rng.choice(
        (
            f"Translate '{word}' to {language}: {foreign}",
            f"The {language} word for {word} is {foreign}.",
        )
    )


def _saying(rng: random.Random) -> str:
    return rng.choice(SAYINGS)


def _synonym(rng: random.Random, pairs: tuple[tuple[str, str], ...]) -> str:
    a, b = rng.choice(pairs)
    return rng.choice(
        (f"A synonym for {a} is {b}", f"{a} means {b}", f"{a} is similar to {b}", f"{a} or {b}")
    )


def _opposite(rng: random.Random, pairs: tuple[tuple[str, str], ...]) -> str:
    a, b = rng.choice(pairs)
    return rng.choice(
        (f"The opposite of {a} is {b}", f"{a} is the opposite of {b}", f"{a} versus {b}")
    )


def _kind(rng: random.Random, pairs: tuple[tuple[str, str], ...]) -> str:
    a, b = rng.choice(pairs)
    return f"{_article(a)} {a} is a kind of {b}."


def sheet(seed: int, number: int, relations: Relations) -> Document:
    """The sheet with this number: blocks of two to six lines, each block about one sort of fact.

    The same ``seed``, ``number`` and ``relations`` always give the same sheet.
    """
    styles: tuple[tuple[Callable[[random.Random], str], int], ...] = (
        (_capital, 24),
        (_capital_analogy, 4),
        (_analogy, 10),
        (_author, 4),
        (_translation, 4),
        (_saying, 5),
        (lambda rng: _synonym(rng, SYNONYMS), 8),
        (lambda rng: _opposite(rng, OPPOSITES), 8),
        (lambda rng: _synonym(rng, relations.synonyms), 11),
        (lambda rng: _opposite(rng, relations.antonyms), 11),
        (lambda rng: _kind(rng, relations.kinds), 11),
    )
    rng = random.Random(f"facts {seed} {number}")
    lines: list[str] = []
    for _ in range(_BLOCKS_PER_SHEET):
        (style,) = rng.choices([s for s, _ in styles], [weight for _, weight in styles])
        lines += [style(rng) for _ in range(rng.randint(2, 6))]
    return Document(f"facts/{number}", "facts", "\n".join(lines) + "\n")
