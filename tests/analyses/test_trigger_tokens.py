"""Trigger tokens: planted ones are found, and none where tokens and experts are independent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats

from moetui.analyses.trigger_tokens import (
    ABSENT,
    SAME_DOCUMENTS,
    RoutedTokens,
    TriggerTokens,
    _tail,
    trigger_tokens,
)

LAYERS, E, V = (2, 5), 8, 12
Rng = np.random.Generator


def documents(routed: Any, *, count: int = 60, length: int = 40, seed: int = 0) -> RoutedTokens:
    """`routed(rng, ids)` chooses experts [T, L, k] of a document."""
    rng = np.random.default_rng(seed)
    ids = [rng.choice(V, length, p=(weights := np.arange(1, V + 1)) / weights.sum())
           .astype(np.int32) for _ in range(count)]  # fmt: skip
    return RoutedTokens(
        ids=ids,
        experts=[routed(rng, one).astype(np.int16) for one in ids],
        layers=LAYERS,
        num_experts=E,
    )


def uniform(rng: Rng, ids: Any) -> Any:
    """Two different experts of a layer, whatever the token."""
    return rng.random((len(ids), 2, E)).argsort(axis=-1)[..., :2]


def planted(rng: Rng, ids: Any) -> Any:
    """Expert 3 of layer 5 is not used, but for most occurrences of token 4."""
    chosen = rng.random((len(ids), 2, E))
    chosen[:, 1, 3] = np.where((ids == 4) & (rng.random(len(ids)) < 0.8), -1, 2)
    return chosen.argsort(axis=-1)[..., :2]


def found(triggers: TriggerTokens) -> list[tuple[int, int, int]]:
    return [(e.layer, e.expert, t.token_id) for e in triggers.experts for t in e.tokens]


def test_a_planted_trigger_is_found_with_its_lift_and_nothing_else_of_that_expert() -> None:
    sample, others = documents(planted), documents(planted, seed=1)
    triggers = trigger_tokens(sample, lambda token: f"w{token}", judged=others, seed=0)
    (one,) = [e for e in triggers.experts if (e.layer, e.expert) == (5, 3)]
    (trigger,) = one.tokens
    assert (trigger.token_id, trigger.token, one.discovered) == (4, "w4", 1)
    hits = [
        (e[:, 1] == 3).any(axis=-1)[i == 4] for i, e in zip(sample.ids, sample.experts, strict=True)
    ]
    assert trigger.occurrences == sum(map(len, hits))
    assert trigger.hits == sum(h.sum() for h in hits)
    assert trigger.documents == sum(len(h) > 0 for h in hits)
    every = np.concatenate([(e[:, 1] == 3).any(axis=-1) for e in others.experts])
    of_token = every[np.concatenate(others.ids) == 4]
    assert trigger.lift.value == pytest.approx(of_token.mean() / every.mean())
    assert trigger.lift.ci_low is not None and trigger.lift.ci_low > 1 == trigger.lift.null_mean
    assert trigger.lift.n_tokens == len(of_token) and str(trigger.lift.caveat).startswith(
        "approximate"
    )
    assert trigger.lift.q is not None and trigger.lift.q < 1e-6


def rising(rng: Rng, ids: Any) -> Any:
    """Tokens 2, 4, 6 and 8 choose expert 3 of layer 5: the more often, the higher the number."""
    return taken(rng, ids, np.array([0, 0, 0.5, 0, 0.6, 0, 0.75, 0, 0.9, 0, 0, 0])[ids])


def falling(rng: Rng, ids: Any) -> Any:
    return taken(rng, ids, np.array([0, 0, 0.9, 0, 0.75, 0, 0.6, 0, 0.5, 0, 0, 0])[ids])


def taken(rng: Rng, ids: Any, chance: Any) -> Any:
    chosen = uniform(rng, ids)
    chosen[:, 1] = np.where((rng.random(len(ids)) < chance)[:, None], [3, 4], [5, 6])
    return chosen


def test_those_listed_are_chosen_where_they_were_found_and_ordered_by_the_lift_told() -> None:
    sample, others = documents(rising), documents(falling, seed=3)
    (one,) = trigger_tokens(sample, judged=others, only=[(5, 3)], top=3, seed=0).experts

    def share(of: RoutedTokens, token: int) -> float:
        here = np.concatenate(of.ids) == token
        return float((np.concatenate(of.experts)[here, 1] == 3).any(axis=-1).mean())

    found_first = sorted(range(V), key=lambda token: -share(sample, token))[:3]
    told_first = sorted(found_first, key=lambda token: -share(others, token))
    assert found_first == [8, 6, 4] and told_first == [4, 6, 8]
    assert [trigger.token_id for trigger in one.tokens] == told_first


def test_of_equal_lifts_the_more_frequent_token_comes_first_and_one_without_a_lift_last() -> None:
    def always(rng: Rng, ids: Any) -> Any:
        """Tokens 1, 4, 7 and 9 always choose expert 3, all others never."""
        chosen = uniform(rng, ids)
        chosen[:, 1] = np.where(np.isin(ids, [1, 4, 7, 9])[:, None], [3, 4], [5, 6])
        return chosen

    sample, others = documents(always), documents(always, seed=1)
    for ids in others.ids:
        ids[ids == 9] = 8
    (one,) = trigger_tokens(sample, judged=others, only=[(5, 3)], seed=0).experts
    counts = np.bincount(np.concatenate(others.ids), minlength=V)
    assert counts[7] > counts[4] > counts[1]
    assert [trigger.token_id for trigger in one.tokens] == [7, 4, 1, 9]
    assert one.tokens[-1].lift.value is None


def clustered(rng: Rng, ids: Any) -> Any:
    """A document sends every occurrence of a token to the same two experts."""
    of_token = rng.random((V, 2, E)).argsort(axis=-1)[..., :2]
    return of_token[ids]


def moody(rng: Rng, ids: Any) -> Any:
    """A document prefers some experts at all of its tokens: hot ones, and rare ones."""
    mood = 3 * rng.normal(size=(2, E)) + np.linspace(-2, 4, E)
    return (-mood - rng.gumbel(size=(len(ids), 2, E))).argsort(axis=-1)[..., :2]


@pytest.mark.parametrize("routed", [uniform, clustered, moody])
def test_independence_yields_no_triggers(routed: Any) -> None:
    runs = [trigger_tokens(documents(routed, seed=s), seed=0) for s in range(20)]
    assert all(run.tested == V * 2 * E for run in runs)
    # A false discovery rate of 0.05 under the whole null: in 5 % of the runs anything at all.
    assert sum(run.discovered > 0 for run in runs) <= 4


def test_a_token_of_documents_that_love_an_expert_is_no_trigger_of_it() -> None:
    def kinds(rng: Rng, ids: Any) -> Any:
        """In half of the documents token 0 is frequent, and expert 0 too, at other tokens alike."""
        liking = rng.random((len(ids), 2, E))
        if rng.random() < 0.5:
            ids[rng.random(len(ids)) < 0.2] = 0
            liking[:, :, 0] -= 0.6
        return liking.argsort(axis=-1)[..., :2]

    runs = [documents(kinds, seed=s) for s in range(10)]
    naive = [np.concatenate(r.ids) == 0 for r in runs]
    used = [np.concatenate(r.experts)[:, 0] == 0 for r in runs]
    lifts = [u.any(-1)[n].mean() / u.any(-1).mean() for u, n in zip(used, naive, strict=True)]
    assert min(lifts) > 1.1, "counted over tokens it looks like one"
    hits = [[f for f in found(trigger_tokens(r, seed=0)) if f[1:] == (0, 0)] for r in runs]
    assert sum(map(bool, hits)) <= 2


def test_p_is_the_tail_of_a_sum_of_coins() -> None:
    assert _tail(np.array([7.0]), np.full((10, 1), 0.3)) == pytest.approx(
        stats.binom.sf(6, 10, 0.3)
    )
    rng = np.random.default_rng(0)
    chance = rng.random((12, 1)) * 0.5
    thrown = (rng.random((200_000, 12)) < chance[:, 0]).sum(axis=1)
    assert _tail(np.array([5.4]), chance)[0] == pytest.approx((thrown >= 5).mean(), abs=0.005)
    assert _tail(np.array([1.0]), np.full((10, 1), 0.3)) == [1]


def test_only_what_is_asked_about_is_listed_and_the_tests_stay_the_same() -> None:
    sample = documents(planted)
    every = trigger_tokens(sample, seed=0)
    one = trigger_tokens(sample, only=[(5, 3)], seed=0)
    assert [(e.layer, e.expert) for e in one.experts] == [(5, 3)]
    assert one.experts[0] == next(e for e in every.experts if (e.layer, e.expert) == (5, 3))
    assert one.discovered == every.discovered and not one.held_out
    assert SAME_DOCUMENTS in str(one.experts[0].tokens[0].lift.caveat)


def test_what_cannot_be_judged_has_no_lift() -> None:
    sample = documents(planted)
    elsewhere = documents(planted, seed=1)
    for ids in elsewhere.ids:
        ids[ids == 4] = 5
    lift = trigger_tokens(sample, judged=elsewhere, only=[(5, 3)], seed=0).experts[0].tokens[0].lift
    assert lift.value is None and lift.caveat == ABSENT
    few = documents(planted, count=12, length=60)
    lift = trigger_tokens(few, only=[(5, 3)], seed=0).experts[0].tokens[0].lift
    assert (
        lift.value is not None
        and lift.ci_low is None
        and "of the documents, 20 needed" in str(lift.caveat)
    )


def test_nothing_is_tested_where_no_token_is_frequent() -> None:
    none = trigger_tokens(documents(planted), min_occurrences=10_000, seed=0)
    assert (none.tested, none.discovered, none.token_ids) == (0, 0, 0)
    assert len(none.experts) == 2 * E and not any(e.tokens for e in none.experts)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with np.errstate(all="raise"):
        yield
