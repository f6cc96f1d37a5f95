"""Prompts whose wording and numbers do not give the operation away, with exact answers."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from moetui.analyses.task_prompts import (
    SEED_PROMPTS,
    TASK_WORDS,
    TASKS,
    TEMPLATES,
    answer,
    crossed_prompts,
    operand_pairs,
    problems,
)
from moetui.errors import UsageError


def test_the_seeds_prompts_are_those_that_it_lists() -> None:
    listed = {
        "addition": ["5 + 3 = ", "12 + 7 = ", "45 + 23 = "],
        "subtraction": ["10 - 4 = ", "25 - 8 = ", "100 - 37 = "],
        "multiplication": ["6 * 7 = ", "8 * 9 = ", "12 * 11 = "],
        "division": ["20 / 4 = ", "36 / 6 = ", "100 / 5 = "],
    }
    by_task = {task: [p.prompt for p in SEED_PROMPTS if p.task == task] for task in TASKS}
    assert by_task == listed
    answers = [8, 19, 68, 6, 17, 63, 42, 72, 132, 5, 6, 20]
    assert [p.answer for p in SEED_PROMPTS] == answers


def test_the_words_of_a_template_that_tell_its_operations_apart_are_in_no_other() -> None:
    words = {t.name: set().union(*(t.operator_words(task) for task in TASKS)) for t in TEMPLATES}
    for first, second in combinations(words, 2):
        assert not words[first] & words[second], (first, second)


def test_no_operator_word_is_the_beginning_of_one_in_another_template() -> None:
    # "divide" and "divided" may share a token.
    words = {t.name: set().union(*(t.operator_words(task) for task in TASKS)) for t in TEMPLATES}
    for first, second in combinations(words, 2):
        for one in words[first]:
            for other in words[second]:
                short, long = sorted((one, other), key=len)
                assert len(short) < 3 or not long.startswith(short), (one, other)


def test_every_operation_has_words_of_its_own_in_every_template() -> None:
    for template in TEMPLATES:
        for task in TASKS:
            others = [template.operator_words(other) for other in TASKS if other != task]
            assert template.operator_words(task) - set().union(*others), (template.name, task)


def test_templates_differ_in_the_order_of_words_not_by_a_space() -> None:
    closed = [template.texts["addition"].replace(" ", "") for template in TEMPLATES]
    assert len(set(closed)) == len(TEMPLATES) >= 5


def test_crossed_prompts_ask_every_operation_of_every_pair_in_every_template() -> None:
    prompts = crossed_prompts(20, seed=3)
    assert len(prompts) == len(TEMPLATES) * 4 * 20
    assert set(Counter(p.task for p in prompts).values()) == {len(TEMPLATES) * 20}
    cells = Counter((p.template, p.operands) for p in prompts)
    assert set(cells.values()) == {4} and len(cells) == len(TEMPLATES) * 20
    assert len({p.prompt for p in prompts}) == len(prompts)


def test_answers_are_exact_whole_numbers() -> None:
    signs = {"addition": "+", "subtraction": "-", "multiplication": "*", "division": "/"}
    for p in (*crossed_prompts(30, seed=0), *problems(100, seed=0)):
        a, b = p.operands.split(",")
        assert eval(f"{a} {signs[p.task]} {b}") == p.answer >= 0
        assert a in p.prompt and b in p.prompt
    with pytest.raises(ValueError, match="no whole number"):
        answer("division", 7, 2)
    with pytest.raises(ValueError, match="no whole number"):
        answer("division", 7, 0)


def test_only_the_template_with_symbols_has_them() -> None:
    symbols = {s for words in TASK_WORDS.values() for s in words if not s.isalpha()}
    for p in crossed_prompts(3, seed=0):
        assert p.symbol == bool(symbols & set(p.prompt.split()))


def test_the_same_seed_gives_the_same_prompts_and_another_seed_others() -> None:
    assert crossed_prompts(20, seed=1) == crossed_prompts(20, seed=1)
    assert operand_pairs(20, seed=1) != operand_pairs(20, seed=2)
    assert problems(50, seed=1) == problems(50, seed=1) != problems(50, seed=2)


def test_problems_are_all_different_and_as_many_of_each_operation() -> None:
    asked = problems(50, seed=0)
    assert len({p.prompt for p in asked}) == 200
    assert set(Counter(p.task for p in asked).values()) == {50}


@pytest.mark.parametrize("seed", range(40))
def test_no_number_is_in_two_pairs_of_operands(seed: int) -> None:
    numbers = [number for pair in operand_pairs(30, seed=seed) for number in pair]
    assert len(set(numbers)) == 60


@pytest.mark.parametrize("count", [0, 31])
def test_more_pairs_than_there_are_is_refused(count: int) -> None:
    with pytest.raises(UsageError) as refused:
        operand_pairs(count, seed=0)
    assert "30" in refused.value.hint


def test_more_problems_than_there_are_is_refused() -> None:
    with pytest.raises(UsageError):
        problems(101, seed=0)
