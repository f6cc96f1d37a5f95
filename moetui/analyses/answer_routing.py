"""Do wrong answers route otherwise than right ones? Problems of one kind, compared within kinds.

Hard problems are asked otherwise, answered at other lengths and wrong more often: so right and
wrong are compared only among problems of the same operation, wording and size. And a pair of
numbers is asked in many ways, all of which may be hard: so pairs, not answers, are witnesses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.decoded import Sequences
from moetui.analyses.routing_sets import members, shared
from moetui.analyses.task_prompts import TaskPrompt
from moetui.stats import (
    Statistic,
    Strata,
    document_intervals,
    permutation_test,
    ratio_of_sums,
)
from moetui.stats.minimum import ANSWERS, enough, warning
from moetui.trace.types import ExpertIds, Ints

Numbers = NDArray[np.float64]
AnswerVerdict = Literal["differ", "no difference found", "inconclusive"]

LEVEL, PERMUTATIONS = 0.05, 9999
DEFINITION = (
    "consistency: overlap of an answer's experts from token to token; strangeness: share of a "
    "token's experts that other problems' rows of the same token id do not choose. Both over the "
    "answer's tokens; the difference is that within problems of the same operation, wording and "
    "size (both operands below ten or not), so it need not be that of the two means; p by turning "
    "round what whole pairs of numbers add to it, all answers about a pair together, two-sided"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class AnswerRouting:
    """One problem as it was answered. ids [T], experts [T, L, k]: prompt and answer; start: the
    first row of the answer."""

    item: TaskPrompt
    right: bool
    ids: Ints
    experts: ExpertIds
    start: int


class AnswerDifference(msgspec.Struct, frozen=True, kw_only=True):
    """One number of right and of wrong answers, problems being the documents.

    difference: wrong − right within kinds of problems (each weighing as much as it tells), with
    an interval and the p of a sign flip, both over pairs of numbers; right and wrong are plain
    means.
    """

    what: str
    right: Statistic
    wrong: Statistic
    difference: Statistic


class AnswersRouting(msgspec.Struct, frozen=True, kw_only=True, tag="answers_routing"):
    """Right against wrong answers: how many there are, what differs, and the verdict with its
    reason where it is inconclusive."""

    definition: str
    right: int
    wrong: int
    differences: tuple[AnswerDifference, ...]
    verdict: AnswerVerdict
    reason: str | None
    warnings: tuple[str, ...]


def answers_routing(
    answers: Sequence[AnswerRouting], num_experts: int, *, seed: int
) -> AnswersRouting:
    """Of all answers that have two tokens or more."""
    kept = [one for one in answers if len(one.ids) >= one.start + 2]
    right = sum(one.right for one in kept)
    telling = _telling(kept)
    sizes = {
        "items_right": sum(one.right for one in telling),
        "items_wrong": sum(not one.right for one in telling),
    }
    told = warning(ANSWERS, **sizes)
    # Both kinds are needed in full: "needs ≥ 100 each, else inconclusive".
    reason = None if enough(ANSWERS, **sizes) == "ok" else told
    found = _differences(kept, num_experts, seed) if min(sizes.values()) > 1 else ()
    p = [one.difference.p for one in found if one.difference.p is not None]
    verdict: AnswerVerdict = "inconclusive"
    if reason is None and p:
        verdict = "differ" if min(p) <= LEVEL / len(p) else "no difference found"
    return AnswersRouting(
        definition=DEFINITION,
        right=right,
        wrong=len(kept) - right,
        differences=found,
        verdict=verdict,
        reason=reason,
        warnings=() if told is None else (told,),
    )


def _differences(
    answers: Sequence[AnswerRouting], num_experts: int, seed: int
) -> tuple[AnswerDifference, ...]:
    table = Sequences.of([(one.ids, one.experts, one.start + 1) for one in answers], num_experts)
    right = np.array([one.right for one in answers])
    kinds = np.unique([_kind(one) for one in answers], return_inverse=True)[1]
    pairs = np.unique([one.item.operands for one in answers], return_inverse=True)[1]
    both = shared(table.sets[table.follows], table.sets[table.follows - 1]) / table.sizes
    steps = table.sums(np.ones(len(table.follows)))
    consistency = table.sums(both.mean(axis=1)) / steps
    return (
        _difference("consistency", consistency, right, kinds, pairs, seed),
        _difference("strangeness", _strangeness(table, answers), right, kinds, pairs, seed),
    )


def _strangeness(table: Sequences, answers: Sequence[AnswerRouting]) -> Numbers:
    """[D]: 1 − the mean share of other problems' rows of the same token that chose an expert,
    over the answer's tokens that other problems have too; NaN where there is none."""
    chosen = members(table.experts, table.num_experts).astype(float)
    T, L, E = chosen.shape
    flat = chosen.reshape(T, L * E)
    strata = Strata.of(table.token)
    # Rows of the same token in the same problem are not other problems'.
    own = Strata.of(table.token * (table.count + 1) + table.sequence)
    others = strata.spread(strata.sums(flat)) - own.spread(own.sums(flat))
    ones = np.ones((T, 1))
    n = (strata.spread(strata.sums(ones)) - own.spread(own.sums(ones)))[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        usual = (flat * others).sum(axis=1) / (n * table.sizes.sum())
    starts = np.array([one.start for one in answers])
    begin = np.searchsorted(table.sequence, np.arange(table.count))
    answered = np.arange(T) - begin[table.sequence] >= starts[table.sequence]
    known = answered & (n > 0)
    sums = np.bincount(table.sequence[known], usual[known], minlength=table.count)
    counts = np.bincount(table.sequence[known], minlength=table.count)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(counts > 0, 1 - sums / np.maximum(counts, 1), np.nan), float)


def _kind(one: AnswerRouting) -> str:
    """Problems that are alike: one operation in one wording, small or large."""
    return f"{one.item.task} {one.item.template} {_small(one.item)}"


def _telling(answers: Sequence[AnswerRouting]) -> list[AnswerRouting]:
    """Those of a kind that has right and wrong answers: within the others nothing can differ."""
    seen: dict[str, set[bool]] = {}
    for one in answers:
        seen.setdefault(_kind(one), set()).add(one.right)
    return [one for one in answers if len(seen[_kind(one)]) == 2]


def _difference(
    what: str,
    values: Numbers,
    right: NDArray[np.bool_],
    kinds: NDArray[np.int64],
    pairs: NDArray[np.int64],
    seed: int,
) -> AnswerDifference:
    """pairs: [D], the pair of numbers that an answer is about: answers of one are no independent
    witnesses, so that interval and p are over pairs."""
    known = np.isfinite(values)
    value, good, kind = values[known], right[known], kinds[known]
    if good.all() or not good.any():
        nothing = Statistic(n_documents=int(known.sum()), caveat="answers of one kind only")
        return AnswerDifference(what=what, right=nothing, wrong=nothing, difference=nothing)

    about = pairs[known]

    def over_pairs(
        rows: NDArray[np.bool_], over: Numbers, under: Numbers, caveat: str | None = None
    ) -> Statistic:
        of = np.unique(about[rows], return_inverse=True)[1]
        sums = (np.bincount(of, one[rows]) for one in (over, under))
        found = document_intervals(ratio_of_sums(*sums), int(of.max()) + 1, seed=seed)
        return found.statistic(caveat=caveat)

    strata = Strata.of(kind)

    def centred(column: Numbers) -> Numbers:
        sums = strata.sums(column[:, None]) / strata.sizes[:, None]
        return np.asarray(column - strata.spread(sums)[:, 0], float)

    wrong, spread = centred((~good).astype(float)), centred(value)
    weight = float((wrong**2).sum())
    ones = np.ones(len(value))
    right_mean, wrong_mean = over_pairs(good, value, ones), over_pairs(~good, value, ones)
    if not weight:
        nothing = Statistic(n_documents=len(value), caveat="no kind has right and wrong answers")
        return AnswerDifference(what=what, right=right_mean, wrong=wrong_mean, difference=nothing)
    # What each pair of numbers adds: without a difference, as likely with the other sign. Compared
    # with the others of its kind, since a mean that holds the answer itself follows it, which
    # makes the null too narrow where there are few pairs.
    same = strata.spread(strata.sizes[:, None].astype(float))[:, 0]
    added = np.bincount(about, wrong * spread * same / np.maximum(same - 1, 1)) / weight
    tested = permutation_test(
        float(wrong @ spread) / weight,
        lambda rng: float(rng.choice((-1.0, 1.0), len(added)) @ added),
        tail="two-sided",
        permutations=PERMUTATIONS,
        seed=seed,
    )
    telling = wrong != 0
    found = over_pairs(
        telling,
        wrong * spread,
        wrong**2,
        f"{int(telling.sum())} answers of kinds that have right and wrong ones; within kinds, "
        "whose means are taken as given; interval and p over pairs of numbers",
    )
    return AnswerDifference(
        what=what,
        right=right_mean,
        wrong=wrong_mean,
        difference=msgspec.structs.replace(
            found,
            null_mean=tested.null_mean,
            null_low=tested.null_low,
            null_high=tested.null_high,
            p=tested.p,
        ),
    )


def _small(item: TaskPrompt) -> str:
    return "small" if all(int(number) < 10 for number in item.operands.split(",")) else "large"
