"""Accuracy counts whole numbers, and compares two models problem by problem."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

import moetui
from moetui.analyses.task_accuracy import (
    MAX_TOKENS,
    Answered,
    TaskAccuracy,
    answered,
    paired_accuracy,
    settled,
    task_accuracy,
    whole_number,
)
from moetui.analyses.task_prompts import SEED_PROMPTS, TaskPrompt, problems
from tests.fake_tasks import TaskForward


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (" 12", 12), ("12\n9 - 3 = 6", 12), ("127", 127), ("\n\n 8.", 8), ("-12", -12),
        (" −12", -12), ("1,728", 1728), ("12,13", 12), ("12.0", 12), ("12.5", None),
        ("12/5", None), ("", None), (" twelve", None), ("x = 12", None), ("1,2345", 1),
        ("007", 7), ("12 apples", 12), ("- 3", -3),
    ],
)  # fmt: skip
def test_the_number_is_the_whole_one_that_the_text_begins_with(
    text: str, number: int | None
) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize(
    "text", ["", " ", "1", "12", "12,", "12.", "-", "1,728", "12/", "12 ", "12 /"]
)
def test_a_number_that_may_go_on_is_not_settled(text: str) -> None:
    assert not settled(text)


@pytest.mark.parametrize("text", ["12\n", "12 a", "twelve", " x", "12;"])
def test_a_number_that_cannot_change_any_more_is_settled(text: str) -> None:
    assert settled(text)


def test_generation_ends_with_the_number_and_the_seeds_goes_on() -> None:
    model = TaskForward(writes=lambda prompt: "8\n9 - 3 = 6")
    item = SEED_PROMPTS[0]
    assert answered(model, item).text == "8\n"
    assert answered(model, item, max_tokens=10, to_the_end=True).text == "8\n9 - 3 = "
    assert len(answered(TaskForward(writes=lambda prompt: "1" * 99), item).text) == MAX_TOKENS


def test_a_number_that_only_contains_the_answer_is_wrong_and_right_by_the_seeds_rule() -> None:
    item = TaskPrompt(
        prompt="9 + 3 =", task="addition", template="symbol", operands="9,3", answer=12, symbol=True
    )
    said = answered(TaskForward(writes=lambda prompt: " 127 or so"), item)
    assert (said.number, said.exact, said.contained) == (127, False, True)


def test_accuracy_is_the_share_of_right_numbers_with_its_wilson_interval() -> None:
    items = problems(50, seed=0)
    wrong = {item.prompt for item in items[::4]}
    right = {item.prompt: str(item.answer + (item.prompt in wrong)) for item in items}
    found = _measured(lambda prompt: right.get(prompt, "?"), items)
    statistic = found.accuracy
    assert statistic.value == 0.75 and statistic.n_documents == 200
    expected = scipy_stats.binomtest(150, 200).proportion_ci(0.95, method="wilson")
    assert (statistic.ci_low, statistic.ci_high) == pytest.approx((expected.low, expected.high))
    assert statistic.p is not None and statistic.p < 0.001
    assert found.verdict == "measured" and not found.warnings
    assert [share.accuracy.n_documents for share in found.by_task] == [50] * 4


def test_chance_is_the_share_that_the_same_answers_would_hit_elsewhere() -> None:
    # Every answer is 6: right where the answer happens to be 6, dealt out anew as often.
    items = problems(50, seed=0)
    statistic = _measured(lambda prompt: "6", items).accuracy
    assert statistic.value == sum(item.answer == 6 for item in items) / 200 > 0
    assert statistic.null_mean == pytest.approx(statistic.value)
    assert statistic.p == 1.0


def test_the_seeds_twelve_get_both_rules_and_no_interval() -> None:
    items = problems(50, seed=0)
    found = _measured(lambda prompt: "100 37 6 19", items)  # contains 5 answers of the twelve
    contained = sum(str(item.answer) in "100 37 6 19"[:10] for item in SEED_PROMPTS)
    assert found.seed.value == contained / 12 > 0
    assert found.seed_exact.value == 0
    assert found.seed.ci_low is None and found.seed.n_documents == 12
    assert found.seed.caveat is not None and "12" in found.seed.caveat


@pytest.mark.parametrize(("per_task", "verdict"), [(3, "inconclusive"), (4, "measured")])
def test_few_problems_are_warned_of_and_fewer_are_no_finding(per_task: int, verdict: str) -> None:
    found = _measured(lambda prompt: "1", problems(per_task, seed=0))
    assert found.verdict == verdict and len(found.warnings) == 1
    assert (found.reason is None) == (verdict == "measured")


def test_two_models_are_compared_problem_by_problem() -> None:
    first, second = _outcomes([1] * 60 + [0] * 140), _outcomes([1] * 30 + [0] * 160 + [1] * 10)
    found = paired_accuracy(first, second)
    paired = found.paired
    assert paired is not None and found.items == 200
    cells = (paired.both, paired.only_first, paired.only_second, paired.neither)
    assert cells == (30, 30, 10, 130)
    assert paired.difference.value == pytest.approx(0.1)
    # The exact McNemar test, by its definition: a fair coin for each of the 40 that differ.
    tail = sum(scipy_stats.binom.pmf(np.arange(11), 40, 0.5)) * 2
    assert paired.difference.p == pytest.approx(tail)
    assert found.verdict == "differ" and not found.warnings


def test_equal_models_do_not_differ_and_problems_of_one_alone_are_left_out() -> None:
    first, few = _outcomes([1, 0] * 50), _outcomes([1, 0] * 20)
    found = paired_accuracy(first, few)
    assert found.paired is not None and found.items == 40
    assert found.paired.difference.value == 0 and found.paired.difference.p == 1.0
    assert found.verdict == "no difference found" and len(found.warnings) == 1
    assert paired_accuracy(first, _outcomes([1] * 15)).verdict == "inconclusive"
    nothing = paired_accuracy(first, _outcomes([]))
    assert nothing.paired is None and nothing.verdict == "inconclusive" and nothing.reason


def _measured(writes, items):  # type: ignore[no-untyped-def]
    model = TaskForward(writes=writes)
    seeds = [answered(model, item, max_tokens=10, to_the_end=True) for item in SEED_PROMPTS]
    return task_accuracy(seeds, [answered(model, item) for item in items], seed=0)


def _outcomes(right: list[int]) -> TaskAccuracy:
    items = [
        Answered(
            prompt=f"p{i}", task="addition", template="symbol", operands=f"{i},1", answer=1,
            text="", number=None, exact=bool(hit), contained=False,
        )
        for i, hit in enumerate(right)
    ]  # fmt: skip
    return task_accuracy([], items, seed=0)


@pytest.mark.parametrize("name", ["demo", "demo-dense"])
def test_one_digit_problems_are_all_solved_as_the_model_card_says(name: str) -> None:
    """The card's figures were measured with transformers and torch."""
    model = moetui.load(name)
    items = [i for i in problems(8, seed=1) if all(int(n) < 10 for n in i.operands.split(","))]
    assert len(items) >= 12
    assert [said.prompt for item in items if not (said := answered(model, item)).exact] == []


def test_the_first_prompts_of_the_card_are_continued_as_it_shows() -> None:
    model = moetui.load("demo")
    shown = {"5 + 3 = ": 8, "100 - 37 = ": 77, "12 * 11 = ": 140}
    asked = [item for item in SEED_PROMPTS if item.prompt in shown]
    assert {item.prompt: answered(model, item).number for item in asked} == shown


def test_more_digits_than_a_result_can_hold_are_no_answer() -> None:
    assert whole_number("9" * 18) == 10**18 - 1
    assert whole_number("9" * 19) is None and whole_number(" -" + "1" * 40) is None
    assert whole_number("1,000,000,000,000,000,000 is large") is None
