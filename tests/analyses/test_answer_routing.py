"""Right against wrong answers: a difference of routing is found, one of difficulty is not."""

import numpy as np
import pytest

from moetui.analyses.answer_routing import AnswerRouting, answers_routing
from moetui.analyses.task_prompts import crossed_prompts, problems

E, L, K = 8, 2, 2


@pytest.fixture(autouse=True)
def fewer_permutations(monkeypatch):
    monkeypatch.setattr("moetui.analyses.answer_routing.PERMUTATIONS", 999)


def answers(n, choose, seed=0, wrong=0.5):
    """choose: (rng, wrong, hard) → experts [T, L, K]."""
    rng = np.random.default_rng(seed)
    found = []
    for item in problems(n // 4, seed=seed):
        hard = max(int(x) for x in item.operands.split(",")) >= 10
        right = rng.random() > (wrong if not callable(wrong) else wrong(hard))
        found.append(
            AnswerRouting(
                item=item, right=bool(right), ids=rng.integers(0, 5, 10).astype(np.int32),
                experts=choose(rng, not right, hard).astype(np.int16), start=4,
            )
        )  # fmt: skip
    return found


def routed(rng, stays):
    """Experts of ten tokens; each stays with probability `stays`."""
    experts = np.argsort(rng.random((10, L, E)), axis=-1)[..., :K]
    for t in range(1, 10):
        if rng.random() < stays:
            experts[t] = experts[t - 1]
    return experts


def test_wrong_answers_that_hold_on_to_their_experts_are_told_apart():
    found = answers_routing(
        answers(400, lambda rng, wrong, hard: routed(rng, 0.6 if wrong else 0.2)), E, seed=0
    )
    assert found.verdict == "differ"
    consistency = next(one for one in found.differences if one.what == "consistency")
    assert consistency.difference.ci_low > 0
    assert consistency.difference.p <= 0.002
    assert found.right + found.wrong == 400


def test_the_means_are_those_of_the_answers_own_steps():
    given = answers(400, lambda rng, wrong, hard: routed(rng, 0.4))
    found = answers_routing(given, E, seed=0)
    means = [
        np.mean(
            [
                len({*one.experts[t, layer]} & {*one.experts[t - 1, layer]}) / K
                for t in range(5, 10)
                for layer in range(L)
            ]
        )
        for one in given
        if one.right
    ]
    consistency = next(one for one in found.differences if one.what == "consistency")
    assert consistency.right.value == pytest.approx(np.mean(means))


def test_strangeness_is_what_other_problems_do_not_choose_at_the_same_token():
    given = answers(400, lambda rng, wrong, hard: routed(rng, 0.4))
    found = answers_routing(given, E, seed=0)
    values = []
    for d, one in enumerate(given):
        usual = []
        for t in range(4, 10):
            others = [
                other.experts[s]
                for o, other in enumerate(given)
                if o != d
                for s in np.flatnonzero(other.ids == one.ids[t])
            ]
            for layer in range(L):
                chosen = [len({*one.experts[t, layer]} & {*x[layer]}) / K for x in others]
                usual.append(np.mean(chosen))
        values.append(1 - np.mean(usual))
        if d == 3:
            break
    strange = next(one for one in found.differences if one.what == "strangeness")
    # The first four by hand; all are of one kind, so they lie near the reported means.
    from moetui.analyses.answer_routing import _strangeness
    from moetui.analyses.decoded import Sequences

    table = Sequences.of([(a.ids, a.experts, a.start + 1) for a in given], E)
    np.testing.assert_allclose(_strangeness(table, given)[:4], values)
    assert strange.right.value == pytest.approx(np.mean(values), abs=0.05)


def test_hard_problems_that_route_otherwise_are_no_difference_of_answers():
    found = answers_routing(
        answers(
            400,
            lambda rng, wrong, hard: routed(rng, 0.6 if hard else 0.2),
            wrong=lambda hard: 0.75 if hard else 0.3,
        ),
        E,
        seed=0,
    )
    consistency = next(one for one in found.differences if one.what == "consistency")
    # Wrong answers do hold on longer: they are mostly hard ones. Within kinds nothing is left.
    assert consistency.wrong.ci_low > consistency.right.ci_high
    assert consistency.difference.ci_low < 0 < consistency.difference.ci_high
    assert consistency.difference.p > 0.01
    assert found.verdict == "no difference found"


def test_the_difference_is_that_within_kinds_even_where_the_means_say_the_opposite():
    # Hard problems hold on longer, and are mostly wrong; of one kind, wrong ones hold on less.
    def choose(rng, wrong, hard):
        return routed(rng, (0.8 if hard else 0.2) - (0.15 if wrong else 0.0))

    given = answers(400, choose, wrong=lambda hard: 0.8 if hard else 0.25)
    found = answers_routing(given, E, seed=0)
    consistency = next(one for one in found.differences if one.what == "consistency")
    assert consistency.wrong.value > consistency.right.value
    assert consistency.difference.ci_high < 0
    assert consistency.difference.p <= 0.01


def test_fewer_than_a_hundred_of_each_are_inconclusive():
    found = answers_routing(
        answers(160, lambda rng, wrong, hard: routed(rng, 0.6 if wrong else 0.1)), E, seed=0
    )
    assert found.verdict == "inconclusive"
    assert "below the minimum size of 100 items right and 100 items wrong" in found.reason


def test_answers_about_the_same_numbers_are_one_witness():
    given = answers(400, lambda rng, wrong, hard: routed(rng, 0.4))
    found = answers_routing(given, E, seed=0)
    one = next(one for one in found.differences if one.what == "consistency")
    assert one.difference.n_documents == len({one.item.operands for one in given}) < 400
    assert "400 answers of kinds that have right and wrong ones" in one.difference.caveat


def clustered(seed):
    """Answers about 15 pairs of numbers; how often a pair is wrong, and how long its answers hold
    on to their experts, are drawn independently of each other."""
    rng = np.random.default_rng(seed)
    items = crossed_prompts(15, seed=seed)
    wrong = {operands: rng.beta(0.5, 0.5) for operands in {item.operands for item in items}}
    stays = {operands: rng.random() for operands in wrong}
    return [
        AnswerRouting(
            item=item, right=bool(rng.random() > wrong[item.operands]),
            ids=rng.integers(0, 5, 10).astype(np.int32),
            experts=routed(rng, stays[item.operands]).astype(np.int16), start=4,
        )
        for item in items
    ]  # fmt: skip


def test_pairs_of_numbers_that_differ_in_both_are_rarely_taken_for_a_difference_of_answers():
    # Expected are 2 of 40; more than 6 has a chance of 0.3 %.
    found = [answers_routing(clustered(seed), E, seed=0) for seed in range(40)]
    p = [one.difference.p for each in found for one in each.differences[:1]]
    assert len(p) == 40 and sum(value <= 0.05 for value in p) <= 6


def test_kinds_that_are_all_right_or_all_wrong_do_not_count_as_data():
    given = answers(
        400, lambda rng, wrong, hard: routed(rng, 0.4), wrong=lambda hard: 1.0 if hard else 0.0
    )
    found = answers_routing(given, E, seed=0)
    assert found.right > 0 and found.wrong > 0
    assert found.verdict == "inconclusive" and "0 items right" in str(found.reason)
