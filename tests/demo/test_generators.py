"""The generated sheets: right answers, a fixed tenth set aside, the same sheet for a seed."""

from __future__ import annotations

import random
import re
from fractions import Fraction
from itertools import product

import pytest

from moetui.demo import arithmetic
from moetui.demo.arithmetic import OPERATIONS, TASK_WORDS, Problem, in_words, sheet

SHEETS = [sheet(0, number).text for number in range(60)]
EQUATION = re.compile(r"(?<![\d+] )\b(\d+) ?([-+*/×÷]) ?(\d+) ?= ?(-?\d+)\b")


def test_every_equation_in_the_sheets_is_right():
    equations = [found for text in SHEETS for found in EQUATION.findall(text)]
    assert len(equations) > 1000
    for a, sign, b, answer in equations:
        left, right = Fraction(a), Fraction(b)
        result = {
            "+": left + right,
            "-": left - right,
            "*": left * right,
            "×": left * right,
            "/": left / right if right else None,
            "÷": left / right if right else None,
        }[sign]
        assert result == int(answer), f"{a} {sign} {b} = {answer}"


def test_about_a_tenth_of_the_problems_is_set_aside_and_none_with_one_digit():
    pairs = list(product(range(10, 100), repeat=2))
    for operation in OPERATIONS:
        share = sum(Problem(a, operation, b).held_out for a, b in pairs) / len(pairs)
        assert 0.08 < share < 0.12
        assert not any(Problem(a, operation, b).held_out for a in range(10) for b in range(10))


def test_a_sum_or_product_set_aside_is_so_in_both_orders():
    for a, b in product(range(0, 200, 7), range(10, 100, 3)):
        assert Problem(a, "+", b).held_out == Problem(b, "+", a).held_out
        assert Problem(a, "*", b).held_out == Problem(b, "*", a).held_out


def test_problems_drawn_for_the_sheets_are_never_set_aside():
    rng = random.Random(1)
    assert not any(arithmetic.draw(rng).held_out for _ in range(5_000))


def test_a_sheet_depends_on_its_seed_and_number_alone():
    assert sheet(0, 5) == sheet(0, 5)
    assert len({sheet(seed, number).text for seed in (0, 1) for number in (5, 6)}) == 4


@pytest.fixture(scope="module")
def tokens_of_the_sheets(tokenizer):
    texts = SHEETS + [sheet(0, number).text for number in range(60, 600)]
    return {token for encoding in tokenizer.encode_batch(texts) for token in encoding.ids}


@pytest.mark.parametrize("word", sorted({w for words in TASK_WORDS.values() for w in words}))
def test_each_task_word_occurs_with_and_without_a_leading_space(
    tokenizer, tokens_of_the_sheets, word
):
    for form in (word, f" {word}"):
        (token,) = tokenizer.encode(form).ids
        assert token in tokens_of_the_sheets, form


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (45, "forty-five"),
        (107, "one hundred and seven"),
        (999, "nine hundred and ninety-nine"),
        (1665, "one thousand six hundred and sixty-five"),
    ],
)
def test_numbers_are_spelt_as_in_english(number, words):
    assert in_words(number) == words
