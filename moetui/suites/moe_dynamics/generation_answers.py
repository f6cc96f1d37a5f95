"""Right and wrong answers of `generation`: are they routed otherwise?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from moetui.analyses.answer_routing import AnswerRouting, answers_routing
from moetui.analyses.decoded import decoded
from moetui.analyses.task_accuracy import answered
from moetui.analyses.task_prompts import TaskPrompt, crossed_prompts, problems
from moetui.suites.moe_dynamics.generation_parameters import TOKENS, Parameters
from moetui.suites.plan import Needs, Outcome, Part, Step
from moetui.suites.sanity import no_router
from moetui.trace import Forward, ModelInfo

ANSWERS = "generation_answers"
# Tokens of an answer; problems of a part.
ANSWER_TOKENS, PROBLEMS = 6, 25


class AnswerInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Problems of a part."""

    items: tuple[TaskPrompt, ...]
    new_tokens: int


@dataclass(frozen=True, eq=False)
class Answers:
    """The problems as they were answered."""

    answers: tuple[AnswerRouting, ...]


class AnswerAnalysis:
    """`generation_answers`: see `moetui.analyses.answer_routing`."""

    name = ANSWERS
    needs: tuple[str, ...] = ()
    partial_type: Any = Answers

    def __init__(self, own: Parameters) -> None:
        self._own = own

    def settings(self, *, seed: int) -> Any:
        """Nothing: all is in the parts."""
        return None

    def unfit(self, info: ModelInfo) -> str | None:
        """A model without routers, or no problems."""
        if not self._own.problems_per_task and not self._own.problem_pairs:
            return "no problem was to be asked (problems_per_task=0, problem_pairs=0)"
        return no_router(info)

    def parts(self, *, seed: int) -> tuple[Part, ...]:
        """Twenty-five problems each; an answer is written twice, once to be read as a number."""
        own = self._own
        items = (
            *(problems(own.problems_per_task, seed=seed) if own.problems_per_task else ()),
            *(crossed_prompts(own.problem_pairs, seed=seed) if own.problem_pairs else ()),
        )
        return tuple(
            Part(
                name=f"problems {start + 1}",
                inputs=AnswerInputs(
                    items=items[start : start + PROBLEMS], new_tokens=ANSWER_TOKENS
                ),
                tokens=2 * len(items[start : start + PROBLEMS]) * (TOKENS + ANSWER_TOKENS),
            )
            for start in range(0, len(items), PROBLEMS)
        )

    def read(self, model: Forward, part: Part, needs: Needs, *, seed: int, step: Step) -> Answers:
        """Every problem answered, and its answer routed."""
        asked: AnswerInputs = part.inputs
        found: list[AnswerRouting] = []
        for item in asked.items:
            text = decoded(model, item.prompt, item.task, item.prompt, asked.new_tokens)
            found.append(
                AnswerRouting(
                    item=item,
                    right=answered(model, item).exact,
                    ids=text.ids,
                    experts=text.experts,
                    start=text.prompt_tokens,
                )
            )
            step(len(found), len(asked.items))
        return Answers(tuple(found))

    def reduce(self, info: ModelInfo, partials: Sequence[Answers], *, seed: int) -> Outcome:
        """Right against wrong."""
        answers = [one for partial in partials for one in partial.answers]
        found = answers_routing(answers, info.num_experts, seed=seed)
        return Outcome(found, found.reason)
