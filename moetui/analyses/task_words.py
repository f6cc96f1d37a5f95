"""Words that name a task, as single tokens of a model, and random tokens that are as frequent.

A word counts in every form that is one token: with and without a leading space, in lower case,
capitalised and in capitals. Where the prompt itself says the word, reading it back through the
lens is copying; so words are told apart by whether their template says them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.task_prompts import TaskPrompt
from moetui.trace import Forward

Ids = NDArray[np.int32]

# Random tokens that stand against the words of each task.
REFERENCES = 200
# From how many times its share of neighbours in frequency each word's references are drawn.
_POOL = 5
# Words with so many first letters in common are forms of one word: divide, divided, division.
_STEM = 4
# Shorter ones ("a", "is") begin many words without being forms of them.
_SHORTEST = 3


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One text and the task that it sets.

    template: prompts with equal wording but for task and operands. cluster: prompts that share
    it are not independent: all numbers in one wording (a task in a template) are one observation
    of what that wording does. It is the document of every interval, and moves as a whole.
    """

    text: str
    task: str
    template: str
    cluster: str


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """One way to write a word that is a single token. plain: the word as it was given."""

    word: str
    text: str
    token_id: int
    plain: bool


class TaskWords(msgspec.Struct, frozen=True, kw_only=True):
    """The forms of one task's words; missing: words of which no form is a single token."""

    task: str
    forms: tuple[Form, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Lexicon:
    """All that is looked up at once, as columns of one readout.

    tasks: their words, in order. token_ids: int32 [W], forms and references of every task, each
    once. forms, references: for each task the columns of its forms and references.
    """

    tasks: tuple[TaskWords, ...]
    token_ids: Ids
    forms: tuple[NDArray[np.intp], ...]
    references: tuple[NDArray[np.intp], ...]

    def plain(self, task: int) -> NDArray[np.intp]:
        """Columns of the words exactly as given."""
        return self._columns(task, [form.plain for form in self.tasks[task].forms])

    def unsaid(self, task: int, said: Iterable[str]) -> NDArray[np.intp]:
        """Columns of the forms whose words are not among `said`."""
        spoken = set(said)
        return self._columns(task, [form.word not in spoken for form in self.tasks[task].forms])

    def _columns(self, task: int, kept: Sequence[bool]) -> NDArray[np.intp]:
        columns: NDArray[np.intp] = self.forms[task][np.array(kept, bool)]
        return columns


def of_wordings(prompts: Sequence[TaskPrompt]) -> tuple[Prompt, ...]:
    """Problems as prompts; those of one wording are a cluster."""
    return tuple(_prompt(one, f"{one.template}: {one.task}") for one in prompts)


def of_operands(prompts: Sequence[TaskPrompt]) -> tuple[Prompt, ...]:
    """Problems as prompts, each with its own operands a cluster of its own."""
    return tuple(_prompt(one, f"{one.operands}: {one.task}") for one in prompts)


def _prompt(one: TaskPrompt, cluster: str) -> Prompt:
    return Prompt(text=one.prompt, task=one.task, template=one.template, cluster=cluster)


def surface_forms(word: str) -> tuple[str, ...]:
    """The ways to write `word` that count, itself first."""
    cases = (word, word.capitalize(), word.upper())
    return tuple(dict.fromkeys([*cases, *(f" {case}" for case in cases)]))


def task_words(model: Forward, words: Mapping[str, Sequence[str]]) -> tuple[TaskWords, ...]:
    """The words of every task as tokens of `model`."""
    return tuple(_task_words(model, task, given) for task, given in words.items())


def lexicon(
    model: Forward, words: Mapping[str, Sequence[str]], counts: NDArray[np.int64], *, seed: int
) -> Lexicon:
    """Words and references of every task.

    counts: int64 [V], how often each token occurs in calibration text, which decides what is as
    frequent as a word.
    """
    tasks = task_words(model, words)
    rng = np.random.default_rng(seed)
    named = {form.token_id for task in tasks for form in task.forms}
    drawn = [_matched(model, task, counts, named, rng) for task in tasks]
    own = [[form.token_id for form in task.forms] for task in tasks]
    ids = sorted({token for some in (*own, *drawn) for token in some})
    column = {token: index for index, token in enumerate(ids)}

    def columns(tokens: Sequence[int]) -> NDArray[np.intp]:
        return np.array([column[token] for token in tokens], np.intp)

    return Lexicon(
        tasks=tasks,
        token_ids=np.array(ids, np.int32),
        forms=tuple(columns(some) for some in own),
        references=tuple(columns(some) for some in drawn),
    )


def said_words(
    prompts: Sequence[Prompt], words: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Template → words, of whatever task, that some prompt of the template says in some form."""
    texts: dict[str, list[str]] = {}
    for prompt in prompts:
        texts.setdefault(prompt.template, []).append(prompt.text)
    every = dict.fromkeys(word for given in words.values() for word in given)
    return {
        template: tuple(word for word in every if any(_says(text, word) for text in some))
        for template, some in texts.items()
    }


def _task_words(model: Forward, task: str, words: Sequence[str]) -> TaskWords:
    forms: dict[int, Form] = {}
    missing = []
    for word in words:
        found = [(text, model.token_id(text)) for text in surface_forms(word)]
        known = [(text, token) for text, token in found if token is not None]
        if not known:
            missing.append(word)
        for text, token in known:
            forms.setdefault(token, Form(word=word, text=text, token_id=token, plain=text == word))
    return TaskWords(task=task, forms=tuple(forms.values()), missing=tuple(missing))


def _matched(
    model: Forward,
    task: TaskWords,
    counts: NDArray[np.int64],
    named: set[int],
    rng: np.random.Generator,
) -> list[int]:
    """Random tokens, each form's share of them from its neighbours in frequency."""
    if not task.forms:
        return []
    shares = np.diff(np.linspace(0, REFERENCES, len(task.forms) + 1).astype(int))
    level = np.log1p(counts.astype(np.float64))
    order = rng.permutation(len(counts))  # equal counts in random order
    taken: set[int] = set()
    for form, share in zip(task.forms, shares.tolist(), strict=True):
        nearest = order[np.argsort(np.abs(level[order] - level[form.token_id]), kind="stable")]
        pool: list[int] = []
        for token in nearest.tolist():
            if len(pool) == _POOL * share:
                break
            if token not in named and token not in taken and _is_text(model, token):
                pool.append(token)
        taken.update(rng.permutation(pool)[:share].tolist())
    return sorted(taken)


def _is_text(model: Forward, token: int) -> bool:
    """Whether a token reads as text of its own: no control token, no unused row."""
    return model.token_id(model.token_text(token)) == token


def _says(text: str, word: str) -> bool:
    if not word.isalpha():
        return word in text
    return any(_related(spoken, word) for spoken in re.findall(r"[a-z]+", text.casefold()))


def _related(one: str, other: str) -> bool:
    shortest = min(len(one), len(other))
    begins_alike = one[:_STEM][:shortest] == other[:_STEM][:shortest]
    return begins_alike and shortest >= _SHORTEST
