"""Builds the demo tokenizer: byte-level BPE in which every number below 1,000 is one token.

As in released OLMoE checkpoints a number with and without a leading space is one token each, two
different ids, so that "the same token in several contexts" has to compare ids and not text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from moetui.demo.arithmetic import NUMBER_WORDS, TASK_WORDS
from moetui.demo.facts import CAPITALS

VOCABULARY: Final = 4096
END_OF_TEXT: Final = "<|endoftext|>"
NUMBERS: Final = 1000
SPACE: Final = "\u0120"  # how byte-level BPE writes a leading space

REQUIRED: Final = (*dict.fromkeys(chain(*TASK_WORDS.values())), "def")
"""Words that are single tokens, with and without a leading space."""

# Single tokens after a space: the answers that the model can give should read as words
_ANSWERS: Final = (*NUMBER_WORDS, *" ".join(chain(*CAPITALS.items())).split())

_PIECES: Final = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{N}{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Often enough that BPE merges a required word to the end, whatever the training text holds
_REQUIRED_COUNT: Final = 20_000


def train(texts: Iterable[str]) -> Tokenizer:
    """A tokenizer of :data:`VOCABULARY` tokens: merges learned from ``texts``, and the numbers.

    Words and numbers are trained apart: BPE never sees a digit, and the number tokens with their
    merges are then put before the learned merges.
    """
    added = _number_tokens()
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = _splitter()
    learner.train_from_iterator(
        chain(_without_digits(texts), _required_lines()),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY - len([t for t in added if len(t) > 1]),
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=16,
            show_progress=False,
        ),
    )
    learned: dict[str, Any] = json.loads(learner.to_str())["model"]
    vocabulary: dict[str, int] = learned["vocab"]
    for token in added:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [*_number_merges(), *(tuple(pair) for pair in learned["merges"])]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = _splitter()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the two tokenizer files that Transformers and mlx-lm read."""
    folder.mkdir(parents=True, exist_ok=True)
    compact = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(compact + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings, indent=2) + "\n", encoding="utf-8"
    )


def _splitter() -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _without_digits(texts: Iterable[str]) -> Iterator[str]:
    return (re.sub(r"\d", "", text) for text in texts)


def _required_lines() -> Iterator[str]:
    for word in REQUIRED:
        yield f"{word}\n {word}\n" * _REQUIRED_COUNT
    for word in _ANSWERS:
        yield f" {word}\n" * _REQUIRED_COUNT


def _number_tokens() -> list[str]:
    plain = [str(number) for number in range(NUMBERS)]
    return plain + [SPACE + number for number in plain]


def _number_merges() -> list[tuple[str, str]]:
    """Merges that turn any 1-3 digits without leading zeros, and a space before, into one token.

    BPE applies merges by rank, so "721" first becomes "7", "21" because 21 ranks before 72: a
    number of three digits needs the merges of both splits.
    """
    merges = [(str(n // 10), str(n % 10)) for n in range(10, 100)]
    for number in range(100, NUMBERS):
        digits = str(number)
        merges.append((digits[:2], digits[2]))
        if digits[1] != "0":
            merges.append((digits[0], digits[1:]))
    return merges + [(SPACE, str(number)) for number in range(NUMBERS)]
