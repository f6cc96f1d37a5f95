"""Does the model answer arithmetic? Greedy continuations, right when the whole number is right.

The seed looks for the answer anywhere in what the model wrote: "5" is in "152". Here the number
with which the continuation begins has to be the answer, and 12 is not 127.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from moetui.analyses.task_prompts import TASKS, Task, TaskPrompt
from moetui.stats import (
    MIN_DOCUMENTS,
    PairedAccuracy,
    Statistic,
    joined,
    mcnemar,
    permutation_p,
    wilson,
)
from moetui.stats.minimum import ACCURACY_PAIRS, enough, warning
from moetui.trace import Forward

PERMUTATIONS = 9999
# At which two models are said to differ.
LEVEL = 0.05
# Tokens that the seed's prompts are continued by; the others end with their number.
SEED_TOKENS = 10
MAX_TOKENS = 16

SEED_DEFINITION = (
    f"the answer's digits occur anywhere in the {SEED_TOKENS} greedy tokens after the prompt; the "
    "seed gives no rule of its own, this is the usual one"
)
EXACT_DEFINITION = "the greedy continuation begins with the right whole number, complete"
CHANCE = "chance = the model's own answers dealt out anew among the problems of each operation"

_MOST_DIGITS = 18
# A whole number, thousands separated or not; a fraction or a decimal is none.
_NUMBER = re.compile(r"\s*([-−]?)\s?(\d{1,3}(?:,\d{3})+(?!\d)|\d++)(?:\.(\d++))?+(?! ?/ ?\d)")


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """One problem and what the model wrote.

    text: the continuation. number: the whole number that it begins with, None where there is
    none. exact: number is the answer. contained: the answer's digits occur in the text.
    """

    prompt: str
    task: Task
    template: str
    operands: str
    answer: int
    text: str
    number: int | None
    exact: bool
    contained: bool


class TaskShare(msgspec.Struct, frozen=True, kw_only=True):
    """The accuracy in one operation."""

    task: Task
    accuracy: Statistic


class TaskAccuracy(msgspec.Struct, frozen=True, kw_only=True, tag="task_accuracy"):
    """How many problems a model solves.

    seed: by the seed's rule on the seed's prompts; seed_exact: exact on the same answers.
    accuracy: exact on the larger set, with a Wilson interval; by_task: its operations. seed_items
    and items: every answer, so that two models can be compared item by item. verdict: "measured",
    or "inconclusive" with the reason. warnings: sizes below the minimum.
    """

    seed_definition: str
    definition: str
    seed: Statistic
    seed_exact: Statistic
    accuracy: Statistic
    by_task: tuple[TaskShare, ...]
    seed_items: tuple[Answered, ...]
    items: tuple[Answered, ...]
    verdict: str
    reason: str | None
    warnings: tuple[str, ...]


class AccuracyComparison(msgspec.Struct, frozen=True, kw_only=True, tag="accuracy_comparison"):
    """Two models on the same problems.

    items: how many both were given. paired: who solved which, with the exact McNemar test; None
    without a common problem. verdict: "differ", "no difference found" (which is no proof that
    there is none), or "inconclusive" with the reason. warnings: sizes below the minimum.
    """

    items: int
    paired: PairedAccuracy | None
    verdict: str
    reason: str | None
    warnings: tuple[str, ...]


def whole_number(text: str) -> int | None:
    """The whole number with which `text` begins, spaces apart; None where it begins otherwise.

    1,728 and −12 are numbers, 12.0 is 12; 12.5 and 12/5 are no whole numbers. Nor is what has
    more than 18 digits: no problem has such an answer, and results hold 64-bit numbers.
    """
    found = _NUMBER.match(text)
    if found is None:
        return None
    sign, digits, decimals = found.groups()
    digits = digits.replace(",", "")
    if len(digits) > _MOST_DIGITS or (decimals and decimals.strip("0")):
        return None
    return int(digits) * (-1 if sign else 1)


def settled(text: str) -> bool:
    """Whether nothing that follows `text` can change which whole number it begins with."""
    begun = text.lstrip()
    if not begun or re.fullmatch(r"[-−]\s?", begun):
        return False
    after = re.sub(r"^[-−]?\s?[\d,.]*", "", begun)
    # A slash may still make a fraction of it.
    return bool(after) and re.fullmatch(r" ?/? ?", after) is None


def answered(
    model: Forward, item: TaskPrompt, *, max_tokens: int = MAX_TOKENS, to_the_end: bool = False
) -> Answered:
    """The model's greedy answer to one problem, of at most `max_tokens` tokens.

    to_the_end: generate as many; otherwise generation ends with its number.
    """
    until = (lambda text: False) if to_the_end else settled
    text = model.continuation(item.prompt, max_tokens, until=until)
    number = whole_number(text)
    return Answered(
        prompt=item.prompt,
        task=item.task,
        template=item.template,
        operands=item.operands,
        answer=item.answer,
        text=text,
        number=number,
        exact=number == item.answer,
        contained=str(item.answer) in text,
    )


def task_accuracy(
    seed_items: Sequence[Answered], items: Sequence[Answered], *, seed: int
) -> TaskAccuracy:
    """Accuracy by the seed's rule and exactly, from the answers to the seed's and other problems.

    Fewer than 155 items are warned of; fewer than 16 are inconclusive.
    """
    reason = _too_few(len(items))
    warned = _warnings(len(items))
    return TaskAccuracy(
        seed_definition=SEED_DEFINITION,
        definition=EXACT_DEFINITION,
        seed=_accuracy(seed_items, lambda item: item.contained, seed),
        seed_exact=_accuracy(seed_items, lambda item: item.exact, seed),
        accuracy=_accuracy(items, lambda item: item.exact, seed),
        by_task=tuple(
            TaskShare(task=task, accuracy=_accuracy(chosen, lambda item: item.exact, seed))
            for task in TASKS
            if (chosen := [item for item in items if item.task == task])
        ),
        seed_items=tuple(seed_items),
        items=tuple(items),
        verdict="measured" if reason is None else "inconclusive",
        reason=reason,
        warnings=warned,
    )


def paired_accuracy(first: TaskAccuracy, second: TaskAccuracy) -> AccuracyComparison:
    """Two models' exact answers to the same problems of the larger set, item by item.

    Problems that only one of them was given are left out. Fewer than 16 in common are
    inconclusive.
    """
    other = {item.prompt: item.exact for item in second.items}
    pairs = [(item.exact, other[item.prompt]) for item in first.items if item.prompt in other]
    found = mcnemar([a for a, _ in pairs], [b for _, b in pairs]) if pairs else None
    reason = _too_few(len(pairs))
    verdict = "inconclusive"
    if reason is None and found is not None:
        p = found.difference.p
        verdict = "differ" if p is not None and p <= LEVEL else "no difference found"
    return AccuracyComparison(
        items=len(pairs),
        paired=found,
        verdict=verdict,
        reason=reason,
        warnings=_warnings(len(pairs)),
    )


def _accuracy(items: Sequence[Answered], right: Callable[[Answered], bool], seed: int) -> Statistic:
    n, hits = len(items), sum(right(item) for item in items)
    if not n:
        return Statistic(n_documents=0, seed=seed, caveat="no problems")
    few = n < MIN_DOCUMENTS
    low, high = wilson(hits, n)
    found = Statistic(
        value=hits / n,
        ci_low=None if few else low,
        ci_high=None if few else high,
        n_documents=n,
        n_effective=float(n),
        seed=seed,
        caveat=f"{hits} of {n}: too few for an interval" if few else "Wilson interval",
    )
    return found if few else _against_chance(found, items, seed)


def _against_chance(found: Statistic, items: Sequence[Answered], seed: int) -> Statistic:
    """With the null of `CHANCE`; no number is no answer, dealt out like the others."""
    rng = np.random.default_rng(seed)
    hits = np.zeros(PERMUTATIONS)
    for task in TASKS:
        chosen = [item for item in items if item.task == task]
        if not chosen:
            continue
        answers = np.array([item.answer for item in chosen])
        # Right answers are never negative, so a missing number matches none.
        given = np.array([-1 if item.number is None else item.number for item in chosen])
        order = rng.permuted(np.tile(np.arange(len(chosen)), (PERMUTATIONS, 1)), axis=1)
        hits += (given[order] == answers).sum(axis=1)
    null = hits / len(items)
    low, high = np.quantile(null, [0.025, 0.975])
    assert found.value is not None
    return msgspec.structs.replace(
        found,
        null_mean=float(null.mean()),
        null_low=float(low),
        null_high=float(high),
        p=permutation_p(found.value, null),
        caveat=joined(found.caveat, CHANCE),
    )


def _too_few(n: int) -> str | None:
    if enough(ACCURACY_PAIRS, paired_items=n) == "inconclusive":
        return warning(ACCURACY_PAIRS, paired_items=n)
    return None


def _warnings(n: int) -> tuple[str, ...]:
    told = warning(ACCURACY_PAIRS, paired_items=n)
    return () if told is None else (told,)
