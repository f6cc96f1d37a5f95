from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moetui.stats import belady, lfu, lru, lru_with_prefetch

POLICIES = (lru, lfu, belady)
SEQUENCES = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=3, unique=True), max_size=25)


def best_possible(requests, capacity):
    """The most hits by trying every choice of what to throw away when room is needed."""

    @cache
    def most(token, held):
        if token == len(requests):
            return 0
        now = frozenset(requests[token])
        others, room = held - now, capacity - len(now)
        keep = min(room, len(others))
        return len(now & held) + max(
            most(token + 1, now | frozenset(kept)) for kept in combinations(sorted(others), keep)
        )

    return most(0, frozenset())


def test_single_requests_by_hand():
    # The textbook sequence: three frames, 9 faults by optimum, 12 by LRU.
    pages = [7, 0, 1, 2, 0, 3, 0, 4, 2, 3, 0, 3, 2, 1, 2, 0, 1, 7, 0, 1]
    requests = [[page] for page in pages]
    assert (belady(requests, 3).misses, lru(requests, 3).misses) == (9, 12)
    assert lru(requests, 6).misses == len(set(pages))


def test_sets_by_hand():
    requests = [[0, 1], [0, 2], [0, 1], [3, 4], [0, 1]]
    found = lru(requests, 3)
    # 0,1 | 2 | none: all three fit | 3, 4 push out 2 and 1 (listed after 0) | 0 is there, 1 not
    assert found.misses_by_token == (2, 1, 0, 2, 1)
    assert (found.accesses, found.hits, found.misses) == (10, 4, 6)
    assert found.hit_rate == 0.4
    assert lfu([[0], [0], [1], [2], [0]], 2).misses_by_token == (1, 0, 1, 1, 0)
    assert lru([[0], [0], [1], [2], [0]], 2).misses_by_token == (1, 0, 1, 1, 1)


def test_padding_and_repeats_of_a_token_count_once():
    ids = np.array([[3, 1, -1], [1, 1, 3]])
    found = lru(ids, 3)
    assert (found.accesses, found.hits) == (4, 2)
    assert lru([], 2).hit_rate is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=2, unique=True), max_size=9))
def test_belady_has_the_most_hits_that_any_choice_can_have(requests):
    for capacity in (2, 3, 4):
        assert belady(requests, capacity).hits == best_possible(requests, capacity)


@given(SEQUENCES)
def test_no_policy_beats_belady_and_a_larger_cache_never_hits_less(requests):
    for policy in POLICIES:
        hits = [policy(requests, capacity).hits for capacity in range(3, 10)]
        assert hits == sorted(hits)
        bound = [belady(requests, capacity).hits for capacity in range(3, 10)]
        assert all(h <= b for h, b in zip(hits, bound, strict=True))


@given(SEQUENCES)
def test_a_cache_for_all_experts_misses_each_of_them_once(requests):
    distinct = len({e for row in requests for e in row})
    for policy in POLICIES:
        found = policy(requests, 8)
        assert found.misses == distinct == sum(found.misses_by_token)
        assert found.hits + found.misses == found.accesses == sum(map(len, requests))


def test_a_popular_expert_is_kept_by_lfu_and_a_recent_one_by_lru():
    rng = np.random.default_rng(0)
    popular = [[0] if rng.random() < 0.5 else [int(rng.integers(1, 20))] for _ in range(600)]
    assert lfu(popular, 2).hits > lru(popular, 2).hits
    drifting = [[t // 20 * 2 + int(rng.integers(0, 2))] for t in range(600)]
    assert lru(drifting, 2).hits > lfu(drifting, 2).hits


@pytest.mark.parametrize("policy", POLICIES)
def test_a_cache_that_cannot_hold_one_tokens_experts_is_refused(policy):
    with pytest.raises(ValueError, match="3 experts"):
        policy([[1], [1, 2, 3]], 2)


SETS = st.lists(st.integers(0, 7), max_size=4, unique=True)


@settings(max_examples=30, deadline=None)
@given(SEQUENCES)
def test_nothing_foretold_is_lru(requests):
    for capacity in (3, 5, 8):
        plain = lru(requests, capacity)
        found = lru_with_prefetch(requests, [[] for _ in requests], capacity)
        assert found.misses_by_token == plain.misses_by_token == found.loads_by_token
        assert plain.loads_by_token == plain.misses_by_token


@settings(max_examples=30, deadline=None)
@given(SEQUENCES)
def test_perfect_foresight_never_misses_and_moves_what_lru_moves(requests):
    for capacity in (3, 5, 8):
        found = lru_with_prefetch(requests, requests, capacity)
        assert found.misses == 0 and found.hits == found.accesses
        assert found.ahead_by_token == lru(requests, capacity).misses_by_token


@settings(max_examples=30, deadline=None)
@given(SEQUENCES)
def test_what_the_token_before_used_is_there_already(requests):
    ahead = [[], *requests[:-1]][: len(requests)]
    for capacity in (3, 5, 8):
        found = lru_with_prefetch(requests, ahead, capacity)
        assert sum(found.ahead_by_token) == 0
        assert found.misses_by_token == lru(requests, capacity).misses_by_token


PAIRS = st.lists(
    st.tuples(st.lists(st.integers(0, 7), min_size=1, max_size=3, unique=True), SETS), max_size=20
)


@settings(max_examples=40, deadline=None)
@given(PAIRS, st.integers(3, 8))
def test_prefetch_is_lru_over_what_was_loaded(pairs, capacity):
    """By an independent simulation: a list in order of use, what was never used at its front."""
    requests, ahead = [one for one, _ in pairs], [other for _, other in pairs]
    found = lru_with_prefetch(requests, ahead, capacity)
    held, used, loaded, missed = set(), [], [], []
    for wanted, foretold in pairs:
        for group, counts in ((set(foretold[:capacity]), loaded), (set(wanted), missed)):
            counts.append(len(group - held))
            others = held - group
            unused = sorted((e for e in others if e not in used), reverse=True)
            leaving = unused + [e for e in used if e in others]
            held = (held | group) - set(leaving[: max(0, len(others | group) - capacity)])
        for expert in reversed(wanted):
            used = [e for e in used if e != expert] + [expert]
    assert found.ahead_by_token == tuple(loaded) and found.misses_by_token == tuple(missed)
    assert found.loads_by_token == tuple(a + m for a, m in zip(loaded, missed, strict=True))


def test_a_wrong_guess_costs_a_load_and_the_room_of_an_expert():
    requests, ahead = [[0], [1], [0]], [[], [2], []]
    assert lru(requests, 2).misses_by_token == (1, 1, 0)
    found = lru_with_prefetch(requests, ahead, 2)
    # 2 comes beside 0, was never used and leaves for 1: nothing but a load is lost.
    assert (found.misses_by_token, found.ahead_by_token) == ((1, 1, 0), (0, 1, 0))
    found = lru_with_prefetch([[0, 1], [1, 2], [0, 1]], [[], [3], []], 3)
    assert found.misses_by_token == (2, 1, 0) and found.ahead_by_token == (0, 1, 0)


def test_what_does_not_fit_is_not_fetched():
    found = lru_with_prefetch([[0]], [[1, 2, 3]], 2)
    assert found.ahead_by_token == (2,) and found.misses == 1
    with pytest.raises(ValueError, match="same tokens"):
        lru_with_prefetch([[0]], [], 2)
