"""Generates sheets of arithmetic, the part of the training text that has right answers.

One tenth of the problems with an operand of 10 or more never appears in any sheet, in either order
of its operands: those are the problems on which generalisation can be measured.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from typing import Final, Literal

from moetui.demo import Document

Operation = Literal["+", "-", "*", "/"]
OPERATIONS: Final[tuple[Operation, ...]] = ("+", "-", "*", "/")

TASK_WORDS: Final[dict[Operation, tuple[str, ...]]] = {
    "+": ("add", "plus", "sum", "addition", "+"),
    "-": ("subtract", "minus", "difference", "subtraction", "-"),
    "*": ("multiply", "times", "product", "multiplication", "*", "×"),
    "/": ("divide", "divided", "quotient", "division", "/", "÷"),
}
"""The words that name each operation; every one is a single token of the demo tokenizer."""

_SPOKEN: Final = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
_PRINTED: Final = {"+": "+", "-": "-", "*": "×", "/": "÷"}
_SENTENCES: Final[dict[Operation, tuple[str, ...]]] = {
    "+": (
        "add {a} and {b}: {c}",
        "sum of {a} and {b}: {c}",
        "The sum of {a} and {b} is {c}",
        "To add {a} and {b}, write {a} + {b} = {c}",
        "addition of {a} and {b} gives {c}",
        "By addition, {a} + {b} = {c}",
        "{a} plus {b} is {c}",
    ),
    "-": (
        "subtract {b} from {a}: {c}",
        "difference of {a} and {b}: {c}",
        "The difference of {a} and {b} is {c}",
        "To subtract {b} from {a}, write {a} - {b} = {c}",
        "subtraction of {b} from {a} gives {c}",
        "By subtraction, {a} - {b} = {c}",
        "{a} minus {b} is {c}",
    ),
    "*": (
        "multiply {a} by {b}: {c}",
        "product of {a} and {b}: {c}",
        "The product of {a} and {b} is {c}",
        "To multiply {a} by {b}, write {a} * {b} = {c}",
        "multiplication of {a} and {b} gives {c}",
        "By multiplication, {a} * {b} = {c}",
        "{a} times {b} is {c}",
    ),
    "/": (
        "divide {a} by {b}: {c}",
        "quotient of {a} and {b}: {c}",
        "The quotient of {a} and {b} is {c}",
        "To divide {a} by {b}, write {a} / {b} = {c}",
        "division of {a} by {b} gives {c}",
        "By division, {a} / {b} = {c}",
        "{a} divided by {b} is {c}",
    ),
}
_ONES: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)  # fmt: skip
_TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS: Final = (*_ONES, *_TENS, "hundred", "thousand")

_BLOCKS_PER_SHEET: Final = 9


@dataclass(frozen=True, slots=True)
class Problem:
    """Two whole numbers and an operation; division problems always come out even."""

    left: int
    operation: Operation
    right: int

    @property
    def answer(self) -> int:
        """The right answer."""
        match self.operation:
            case "+":
                return self.left + self.right
            case "-":
                return self.left - self.right
            case "*":
                return self.left * self.right
            case "/":
                return self.left // self.right

    @property
    def prompt(self) -> str:
        """The problem as it is asked, ``5 + 3 =``."""
        return f"{self.left} {self.operation} {self.right} ="

    @property
    def held_out(self) -> bool:
        """Whether the problem belongs to the tenth that no sheet contains."""
        if max(self.left, self.right) < 10:
            return False
        operands = [self.left, self.right]
        if self.operation in "+*":
            operands.sort()  # otherwise 12 + 3 in training would give away 3 + 12
        key = f"{operands[0]}{self.operation}{operands[1]}"
        return zlib.crc32(key.encode()) % 10 == 0


def draw(rng: random.Random) -> Problem:
    """A problem that may appear in a sheet; small numbers weigh most."""
    while True:
        problem = _draw_any(rng)
        if not problem.held_out:
            return problem


def _draw_any(rng: random.Random) -> Problem:
    size = rng.choices(("digit", "teens", "tens", "mixed", "hundreds"), (50, 16, 14, 16, 4))[0]
    if size in ("mixed", "hundreds"):
        a = rng.randrange(100, 1000)
        b = rng.randrange(100) if size == "mixed" else rng.randrange(100, 1000)
        return _sum_or_difference(rng, a, b)
    below = {"digit": 10, "teens": 21, "tens": 100}[size]
    operation = rng.choices(OPERATIONS, (32, 25, 24, 19))[0]
    if operation == "/":
        divisor = rng.randrange(1, min(below, 13))
        return Problem(divisor * rng.randrange(min(below, 21)), "/", divisor)
    if operation == "*" and size == "tens":
        return Problem(rng.randrange(13), "*", rng.randrange(100))
    if operation == "*":
        return Problem(rng.randrange(below), "*", rng.randrange(below))
    a, b = rng.randrange(below), rng.randrange(below)
    return Problem(a, "+", b) if operation == "+" else _difference(rng, a, b)


def _sum_or_difference(rng: random.Random, a: int, b: int) -> Problem:
    if rng.random() < 0.35:
        return _difference(rng, a, b)
    return Problem(b, "+", a) if rng.random() < 0.2 else Problem(a, "+", b)


def _difference(rng: random.Random, a: int, b: int) -> Problem:
    """``a - b``, mostly turned round where it would be negative."""
    if a < b and rng.random() < 0.85:
        a, b = b, a
    return Problem(a, "-", b)


def in_words(number: int) -> str:
    """A whole number from 0 to 999,999 as English words."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens = _TENS[number // 10 - 2]
        return tens + (f"-{_ONES[number % 10]}" if number % 10 else "")
    if number < 1000:
        hundreds = f"{_ONES[number // 100]} hundred"
        return hundreds + (f" and {in_words(number % 100)}" if number % 100 else "")
    thousands = f"{in_words(number // 1000)} thousand"
    return thousands + (f" {in_words(number % 1000)}" if number % 1000 else "")


def _signed_words(number: int) -> str:
    return f"minus {in_words(-number)}" if number < 0 else in_words(number)


def _equation(rng: random.Random) -> str:
    problem = draw(rng)
    return f"{problem.prompt} {problem.answer}"


def _tight_equation(rng: random.Random) -> str:
    p = draw(rng)
    sign = p.operation if rng.random() < 0.7 else _PRINTED[p.operation]
    return f"{p.left}{sign}{p.right}={p.answer}"


def _printed_equation(rng: random.Random) -> str:
    p = draw(rng)
    return f"{p.left} {_PRINTED[p.operation]} {p.right} = {p.answer}"


def _question(rng: random.Random) -> str:
    p = draw(rng)
    return f"What is {p.left} {p.operation} {p.right}? {p.answer}"


def _spoken_question(rng: random.Random) -> str:
    p = draw(rng)
    question = f"What is {in_words(p.left)} {_SPOKEN[p.operation]} {in_words(p.right)}?"
    return f"{question} {_signed_words(p.answer) if rng.random() < 0.5 else p.answer}"


def _sentence(rng: random.Random) -> str:
    p = draw(rng)
    template = rng.choice(_SENTENCES[p.operation])
    return template.format(a=p.left, b=p.right, c=p.answer)


def _labelled(rng: random.Random) -> str:
    """An equation with the operation's name before or after it, so each word opens some line."""
    p = draw(rng)
    word = rng.choice(TASK_WORDS[p.operation])
    if rng.random() < 0.5:
        return f"{word} : {p.prompt} {p.answer}"
    return f"{p.prompt} {p.answer} ({word})"


def _instruction(rng: random.Random) -> str:
    if rng.random() < 0.3:
        total = [10 * rng.randrange(1, 34) for _ in range(3)]
        return f"Calculate the sum: {total[0]} + {total[1]} + {total[2]} = {sum(total)}"
    p = draw(rng)
    asked = f"{p.left} {p.operation} {p.right}"
    return rng.choice(
        (
            f"In Python, compute {asked}: {p.answer}",
            f"Calculate {asked} and explain: the answer is {p.answer}",
            f"Calculate: {asked} = {p.answer}",
            f"print({asked})  # {p.answer}",
        )
    )


def _comparison(rng: random.Random) -> str:
    low, high = sorted(rng.sample(range(1000), 2))
    return rng.choice(
        (f"{low} < {high}", f"{high} > {low}", f"{low} is less than {high}", f"{high} != {low}")
    )


def _progression(rng: random.Random) -> str:
    first, step = rng.randrange(900), rng.choice((1, 1, 2, 3, 5, 10))
    return ", ".join(str(first + i * step) for i in range(6) if first + i * step < 1000)


def _mention(rng: random.Random) -> str:
    """A number in a line without any problem, so that numbers also occur out of sums."""
    number = rng.randrange(1000)
    parity = "odd" if number % 2 else "even"
    return rng.choice(
        (
            f"The number is {number}",
            f"the number {number} is {parity}",
            f"{in_words(number)} = {number}",
            f"{number} is {in_words(number)}",
            f"the value is {number}",
            f"room {number}",
            f"x = {number}",
        )
    )


_STYLES: Final = (
    (_equation, 58),
    (_tight_equation, 6),
    (_printed_equation, 4),
    (_question, 5),
    (_spoken_question, 6),
    (_sentence, 8),
    (_labelled, 4),
    (_instruction, 3),
    (_comparison, 2),
    (_progression, 2),
    (_mention, 2),
)


def sheet(seed: int, number: int) -> Document:
    """The sheet with this number: blocks of two to eight lines, each block in one style.

    The same ``seed`` and ``number`` always give the same sheet.
    """
    rng = random.Random(f"arithmetic {seed} {number}")
    lines: list[str] = []
    for _ in range(_BLOCKS_PER_SHEET):
        (style,) = rng.choices([s for s, _ in _STYLES], [weight for _, weight in _STYLES])
        lines += [style(rng) for _ in range(rng.randint(2, 8))]
    return Document(f"arithmetic/{number}", "arithmetic", "\n".join(lines) + "\n")
