"""The demo tokenizer: one token for a number or a task word, and any text comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from moetui.demo import checkpoint

# The task words of the virtual-expert analysis, written out here on their own
TASK_WORDS = (
    *("add", "plus", "sum", "addition", "+"),
    *("subtract", "minus", "difference", "subtraction", "-"),
    *("multiply", "times", "product", "multiplication", "*", "×"),
    *("divide", "divided", "quotient", "division", "/", "÷"),
)

HOSTILE = (
    "",
    " ",
    "\n\n\n   \t\r\n",
    "127 + 45 = ",
    "007 1000 1234567 3.14 1e-9 ² ½ ٣ 四",
    "naïve Žluťoučký 中文字 日本語 한국어 עברית",
    "👩‍👩‍👧‍👦 🏳️‍🌈 \U0001f9ff",
    "\u200b\u202e\ufeff zero width \u0301\u0301\u0301",
    "\x00\x01\x1b[31mred\x1b[0m\x7f",
    "it's they'll we've I'm he'd  ''' \"\"\"",
    "<|endoftext|> <|endoftext",
    "\ufffd\ud7ff\ue000\U0010ffff",
    "a" * 5_000,
)


@pytest.mark.parametrize("word", [*TASK_WORDS, "def", "127"])
def test_a_word_is_one_token_with_and_without_a_leading_space(tokenizer, word):
    bare, spaced = tokenizer.encode(word), tokenizer.encode(f" {word}")
    assert len(bare.ids) == len(spaced.ids) == 1
    assert bare.ids != spaced.ids


def test_every_number_below_a_thousand_is_one_token(tokenizer):
    for form in ("{}", " {}"):
        ids = [tokenizer.encode(form.format(number)).ids for number in range(1000)]
        assert {len(tokens) for tokens in ids} == {1}
        assert len({tokens[0] for tokens in ids}) == 1000


def test_a_number_keeps_its_token_in_every_context(tokenizer):
    spaced = tokenizer.encode(" 127").ids[0]
    for context in ("111 127", "abc 127", "The number 127", "= 127", "x = 127"):
        assert tokenizer.encode(context).ids[-1] == spaced


def test_a_prompt_may_end_in_a_space(tokenizer):
    plain, open_ended = tokenizer.encode("5 + 3 ="), tokenizer.encode("5 + 3 = ")
    assert open_ended.ids[:-1] == plain.ids
    assert tokenizer.decode(open_ended.ids) == "5 + 3 = "


def test_ids_fill_the_vocabulary_of_the_model(tokenizer):
    assert sorted(tokenizer.get_vocab().values()) == list(range(4096))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


SHARED = Tokenizer.from_file(str(checkpoint("demo") / "tokenizer.json"))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_text_comes_back(text):
    assert SHARED.decode(SHARED.encode(text).ids, skip_special_tokens=False) == text
