"""Arithmetic prompts with one right answer each: the seed's twelve, and sets as large as needed.

In a generated set everything that could give the operation away is either in no other template or
the same for all four operations: the words that tell the operations apart in one template occur in
no other one, and `crossed_prompts` asks all four operations of every pair of operands, so that
neither a template's frame nor the numbers say which operation it is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product
from typing import Literal, get_args

import msgspec

from moetui.errors import UsageError

Task = Literal["addition", "subtraction", "multiplication", "division"]
TASKS: tuple[Task, ...] = get_args(Task)

# Of the seed: the surface forms that count as naming the operation.
TASK_WORDS: dict[Task, tuple[str, ...]] = {
    "addition": ("add", "plus", "sum", "addition", "+"),
    "subtraction": ("subtract", "minus", "difference", "subtraction", "-"),
    "multiplication": ("multiply", "times", "product", "multiplication", "*", "×"),
    "division": ("divide", "divided", "quotient", "division", "/", "÷"),
}

SYMBOLS: dict[Task, str] = {
    "addition": "+",
    "subtraction": "-",
    "multiplication": "*",
    "division": "/",
}

# `operand_pairs`: b is one of DIVISORS, a is b times one of QUOTIENTS, no number occurs twice.
DIVISORS, QUOTIENTS = range(2, 41), range(2, 13)
MAX_PAIRS = 30


class TaskPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """One problem.

    task: the operation. template: id of the wording. operands: id of the pair, `20,4` for
    20 and 4 in that order, the same whatever is asked of it. answer: the right whole number.
    symbol: whether the operator stands in it as a symbol.
    """

    prompt: str
    task: Task
    template: str
    operands: str
    answer: int
    symbol: bool


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """One wording for each operation; {a} and {b} are the operands."""

    name: str
    texts: dict[Task, str]
    symbol: bool = False

    def operator_words(self, task: Task) -> frozenset[str]:
        """The words, in lower case, of this wording that not all four operations share."""
        return frozenset(_words(self.texts[task]) - self.frame())

    def frame(self) -> set[str]:
        """The words that all four operations have in this template."""
        return set.intersection(*(_words(text) for text in self.texts.values()))


def _wordings(name: str, add: str, subtract: str, multiply: str, divide: str) -> Template:
    texts = dict(zip(TASKS, (add, subtract, multiply, divide), strict=True))
    return Template(name=name, texts=texts, symbol=name == "symbol")


TEMPLATES: tuple[Template, ...] = (
    _wordings("symbol", "{a} + {b} =", "{a} - {b} =", "{a} * {b} =", "{a} / {b} ="),
    _wordings(
        "question",
        "What is {a} plus {b}?",
        "What is {a} minus {b}?",
        "What is {a} times {b}?",
        "What is {a} over {b}?",
    ),
    _wordings(
        "imperative",
        "Add {b} to {a}:",
        "Subtract {b} from {a}:",
        "Multiply {a} by {b}:",
        "Divide {a} by {b}:",
    ),
    _wordings(
        "noun first",
        "The sum of {a} and {b} is",
        "The difference of {a} and {b} is",
        "The product of {a} and {b} is",
        "The quotient of {a} and {b} is",
    ),
    _wordings(
        "noun last",
        "Given {a} and {b}, the total is",
        "Given {a} and {b}, the gap is",
        "Given {a} and {b}, the area is",
        "Given {a} and {b}, the ratio is",
    ),
    _wordings(
        "comparison",
        "{b} more than {a} equals",
        "{b} fewer than {a} equals",
        "{b} lots of {a} equals",
        "one of {b} shares of {a} equals",
    ),
    _wordings(
        "story",
        "Ann has {a} coins, finds {b}, and now holds",
        "Ann has {a} coins, loses {b}, and now holds",
        "Ann has {a} coins in every bag, fills {b} bags, and now holds",
        "Ann has {a} coins, splits them among {b} friends, and everyone now holds",
    ),
)

# The seed's prompts, as it gives them: each ends in a space.
_SEED: tuple[tuple[int, Task, int], ...] = (
    (5, "addition", 3),
    (12, "addition", 7),
    (45, "addition", 23),
    (10, "subtraction", 4),
    (25, "subtraction", 8),
    (100, "subtraction", 37),
    (6, "multiplication", 7),
    (8, "multiplication", 9),
    (12, "multiplication", 11),
    (20, "division", 4),
    (36, "division", 6),
    (100, "division", 5),
)


def answer(task: Task, a: int, b: int) -> int:
    """The exact result. Raises ValueError where it is no whole number."""
    match task:
        case "addition":
            return a + b
        case "subtraction":
            return a - b
        case "multiplication":
            return a * b
        case "division":
            if b == 0 or a % b:
                raise ValueError(f"{a} / {b} is no whole number")
            return a // b


SEED_PROMPTS: tuple[TaskPrompt, ...] = tuple(
    TaskPrompt(
        prompt=f"{a} {SYMBOLS[task]} {b} = ",
        task=task,
        template="seed",
        operands=f"{a},{b}",
        answer=answer(task, a, b),
        symbol=True,
    )
    for a, task, b in _SEED
)


def ask(template: Template, task: Task, a: int, b: int) -> TaskPrompt:
    """One problem in one wording. Raises ValueError where the result is no whole number."""
    return TaskPrompt(
        prompt=template.texts[task].format(a=a, b=b),
        task=task,
        template=template.name,
        operands=f"{a},{b}",
        answer=answer(task, a, b),
        symbol=template.symbol,
    )


def crossed_prompts(
    pairs: int = 20, *, seed: int, templates: Sequence[Template] = TEMPLATES
) -> tuple[TaskPrompt, ...]:
    """Every template × operation × pair of operands: templates · 4 · pairs prompts, in that order.

    The first operand is a multiple of the second, so that every operation of every pair has a
    whole result and none is negative. Raises UsageError where there are not so many pairs.
    """
    chosen = operand_pairs(pairs, seed=seed)
    return tuple(
        ask(template, task, a, b) for template, task, (a, b) in product(templates, TASKS, chosen)
    )


def operand_pairs(count: int, *, seed: int) -> tuple[tuple[int, int], ...]:
    """`count` pairs (a, b) with a / b from 2 to 12 and b from 2 to 40, in random order.

    No number occurs in two pairs, so pairs that are held out hold no number that was seen.
    Raises UsageError unless 1 ≤ count ≤ 30.
    """
    if not 1 <= count <= MAX_PAIRS:
        raise UsageError(f"{count} pairs of operands", f"there are 1 to {MAX_PAIRS}")
    rng = random.Random(seed)
    chosen = _apart(rng)
    while len(chosen) < count:  # never seen below 30, but nothing proves it
        chosen = _apart(rng)
    return tuple(chosen[:count])


def _apart(rng: random.Random) -> list[tuple[int, int]]:
    """Pairs without a common number, taken greedily in random order."""
    every = [(b * quotient, b) for b, quotient in product(DIVISORS, QUOTIENTS)]
    rng.shuffle(every)
    chosen: list[tuple[int, int]] = []
    used: set[int] = set()
    for pair in every:
        if not used & set(pair):
            chosen.append(pair)
            used |= set(pair)
    return chosen


def problems(per_task: int = 50, *, seed: int) -> tuple[TaskPrompt, ...]:
    """4 · per_task different problems written with symbols, `5 + 3 =`, a task after the other.

    Half of each task (rounded up) is from the tables below ten, the rest goes up to 20 (for
    division: divisor up to 12, quotient up to 20), so that a small model is not at 0 and a large
    one need not be at 1. Nothing is negative. Raises UsageError unless 1 ≤ per_task ≤ 100.
    """
    if not 1 <= per_task <= 100:
        raise UsageError(f"{per_task} problems a task", "there are 1 to 100")
    rng = random.Random(seed)
    asked: list[TaskPrompt] = []
    for task in TASKS:
        small, large = _operands(task)
        easy = min(len(small), (per_task + 1) // 2)
        chosen = rng.sample(small, easy) + rng.sample(large, per_task - easy)
        asked += [ask(TEMPLATES[0], task, a, b) for a, b in chosen]
    return tuple(asked)


def _operands(task: Task) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """All pairs of the tables below ten, and all others of numbers up to 20."""
    if task == "division":
        every = [(b * q, b) for b in range(1, 13) for q in range(21)]
        small = [(a, b) for a, b in every if b < 10 and a // b < 10]
    else:
        every = [(a, b) for a, b in product(range(21), repeat=2) if task != "subtraction" or a >= b]
        small = [(a, b) for a, b in every if a < 10 and b < 10]
    return small, sorted(set(every) - set(small))


def _words(text: str) -> set[str]:
    bare = text.format(a="", b="")
    return {word.strip(",.:?").casefold() for word in bare.split()} - {""}
