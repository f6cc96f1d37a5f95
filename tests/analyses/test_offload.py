"""Caches of experts turned into bytes and waiting, against counting by hand."""

from dataclasses import replace

import numpy as np
import pytest

from moetui.analyses.offload import (
    EQUAL,
    LRU,
    NO_BYTES,
    TOKEN,
    Requests,
    capacities,
    offload_rows,
)
from moetui.stats import belady, lfu, lru, lru_with_prefetch

E, K, L = 8, 2, 3
BYTES = (100, 100, 250)


def requests(seed=0, documents=25, T=12):
    rng = np.random.default_rng(seed)
    experts = np.argsort(rng.random((documents * T, L, E)), axis=-1)[:, :, :K].astype(np.int16)
    guess = experts.copy()
    guess[::3] = (guess[::3] + 1) % E
    return Requests(
        experts=experts,
        documents=np.repeat(np.arange(documents), T),
        ahead={
            "probe": {1: experts[:, 1], 2: guess[:, 2]},
            "token identity": {1: guess[:, 1], 2: guess[:, 2]},
        },
    )


def rows_of(given, sizes=(4,), expert_bytes=BYTES, bandwidth=1e6):
    found = offload_rows(
        given, expert_bytes, sizes, layer_experts=(E, E, E), bandwidth=bandwidth, seed=0
    )
    return {(row.policy, row.capacity): row for row in found}


@pytest.fixture(scope="module")
def given():
    return requests()


@pytest.fixture(scope="module")
def rows(given):
    return rows_of(given, (2, 4, 8))


@pytest.mark.parametrize(("name", "policy"), [("LRU", lru), ("LFU", lfu), ("Belady", belady)])
def test_hits_are_those_of_a_cache_in_every_layer(given, rows, name, policy):
    for capacity in (2, 4, 8):
        used = [policy(given.experts[:, layer], capacity) for layer in range(L)]
        row = rows[name, capacity]
        assert row.hit_rate.value == pytest.approx(
            sum(one.hits for one in used) / sum(one.accesses for one in used)
        )
        fetched = sum(one.misses * size for one, size in zip(used, BYTES, strict=True))
        tokens = len(given.documents)
        assert row.bytes_per_token.value == pytest.approx(fetched / tokens)
        # At 10⁶ bytes a second a byte takes a microsecond.
        assert row.stall_ms.value == pytest.approx(fetched / tokens / 1e3)
        assert row.stall_ms_at_worst.value == pytest.approx(row.stall_ms.value)
        assert row.memory_bytes == capacity * sum(BYTES)


def test_a_cache_of_all_experts_fetches_each_once(rows, given):
    assert rows[LRU, 8].bytes_per_token.value == pytest.approx(
        E * sum(BYTES) / len(given.documents)
    )
    assert rows[LRU, 8].hit_rate.value == pytest.approx(1 - E / (len(given.documents) * K))


def test_random_requests_hit_a_cache_in_proportion_to_its_size():
    many = requests(1, documents=60, T=30)
    found = rows_of(many, (2, 4, 6))
    # Of the others each is as likely to be there: after a token's own 2, c of E are held.
    for capacity in (2, 4, 6):
        assert found[LRU, capacity].hit_rate.value == pytest.approx(capacity / E, abs=0.02)


def test_what_is_foretold_is_fetched_ahead_in_later_layers_only(given, rows):
    plain = lru(given.experts[:, 0], 4)
    ahead = [
        lru_with_prefetch(given.experts[:, layer], given.ahead["probe"][layer], 4)
        for layer in (1, 2)
    ]
    assert ahead[0].misses == 0  # foretold without a mistake
    row, tokens = rows[f"{LRU} + probe", 4], len(given.documents)
    late = plain.misses * 100 + ahead[1].misses * 250
    early = sum(ahead[0].ahead_by_token) * 100 + sum(ahead[1].ahead_by_token) * 250
    assert row.stall_ms.value == pytest.approx(late / tokens / 1e3)
    assert row.bytes_per_token.value == pytest.approx((late + early) / tokens)
    assert row.stall_ms_at_worst.value == pytest.approx((late + early) / tokens / 1e3)
    hits = plain.hits + ahead[0].hits + ahead[1].hits
    assert row.hit_rate.value == pytest.approx(hits / given.experts.size)


def test_comparisons_are_paired_by_document(rows):
    probe, base, token = (rows[name, 4] for name in (f"{LRU} + probe", LRU, f"{LRU} + {TOKEN}"))
    assert base.over_lru is None and base.over_token is None and token.over_token is None
    assert probe.over_lru.value == pytest.approx(probe.hit_rate.value - base.hit_rate.value)
    assert probe.over_token.value == pytest.approx(probe.hit_rate.value - token.hit_rate.value)
    assert 0 < probe.over_token.ci_low < probe.over_token.value < probe.over_token.ci_high
    assert rows["Belady", 4].over_lru.ci_low > 0 and rows["Belady", 4].over_token is None


def test_what_is_foretold_is_held_against_the_most_telling_of_the_token(given):
    told = {**given.ahead, EQUAL: given.ahead["probe"]}
    found = rows_of(replace(given, ahead=told))
    probe, equal, table = (found[f"{LRU} + {name}", 4] for name in ("probe", EQUAL, TOKEN))
    assert probe.over_token.value == 0 < probe.hit_rate.value - table.hit_rate.value
    assert equal.over_token is None and table.over_token is None


def test_without_the_size_of_an_expert_only_hits_are_told(given):
    row = rows_of(given, expert_bytes=())[LRU, 4]
    assert row.hit_rate.value is not None and row.memory_bytes is None
    for missing in (row.bytes_per_token, row.stall_ms, row.stall_ms_at_worst):
        assert missing.value is None and missing.caveat == NO_BYTES


def test_padding_asks_for_nothing(given):
    padded = given.experts.copy()
    padded[:, 0, 1] = -1
    found = rows_of(Requests(padded, given.documents, {}))[LRU, 4]
    used = [lru(padded[:, layer], 4) for layer in range(L)]
    assert sum(one.accesses for one in used) == padded.size - len(padded)
    assert found.hit_rate.value == pytest.approx(
        sum(one.hits for one in used) / (padded.size - len(padded))
    )


def test_capacities_hold_a_token_and_no_more_than_all():
    assert capacities((0.25, 0.5, 1.0), 4, 16) == (4, 8, 16)
    assert capacities((0.01, 0.02), 4, 16) == (4,)
    assert capacities((0.5,), 1, 8) == (4,)
