"""Which experts a cache of a given size would have had ready: LRU, LFU and Belady's optimum.

One token asks for all its experts at once. Hits are those that the cache holds when the token
begins. All that it asks for is then loaded, since it cannot be computed otherwise, and room is
made for it: of the experts that the token does not ask for, those of the lowest priority leave,
and none leaves sooner than it must. The policies differ in the priority alone, which never
depends on the size of the cache, so a larger one holds all that a smaller one does and never hits
less (Mattson and others, IBM Systems Journal 9, 1970).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np

# Expert, place in the sequence -> what to keep: the larger stays.
_Priority = Callable[[int], tuple[float, ...]]


class CacheUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a cache of `capacity` experts did, empty at first.

    accesses: experts asked for, a token's repeated ones once; hits + misses = accesses.
    misses_by_token: [T], experts that were loaded for each token.
    """

    policy: str
    capacity: int
    accesses: int
    hits: int
    misses: int
    misses_by_token: tuple[int, ...]

    @property
    def loads_by_token(self) -> tuple[int, ...]:
        """[T], experts that were loaded for each token, wanted or not."""
        return self.misses_by_token

    @property
    def hit_rate(self) -> float | None:
        """hits / accesses, None where nothing was asked for. A description of one sequence."""
        return self.hits / self.accesses if self.accesses else None


class PrefetchUse(CacheUse, frozen=True, kw_only=True):
    """The same of a cache into which experts are loaded ahead.

    ahead_by_token: [T], experts that were loaded before their token began. Misses are what was
    still loaded when it had begun.
    """

    ahead_by_token: tuple[int, ...]

    @property
    def loads_by_token(self) -> tuple[int, ...]:
        """[T], experts that were loaded for each token, wanted or not."""
        pairs = zip(self.ahead_by_token, self.misses_by_token, strict=True)
        return tuple(ahead + missed for ahead, missed in pairs)


def lru(requests: Iterable[Iterable[int]], capacity: int) -> CacheUse:
    """Keep what was used last. requests: the experts of every token (ids below 0 are padding).

    Among the experts of one token the one listed first stays longest. Raises ValueError where the
    capacity is less than one token asks for.
    """
    wanted = _requests(requests, capacity)
    last: dict[int, tuple[float, ...]] = {}

    def note(token: int) -> None:
        last.update({e: (token, -place) for place, e in enumerate(wanted[token])})

    return _simulate("lru", wanted, capacity, note, lambda expert: last[expert])


def lfu(requests: Iterable[Iterable[int]], capacity: int) -> CacheUse:
    """Keep what was used most often since the start (evicted or not), then what was used last.

    requests and errors as in `lru`.
    """
    wanted = _requests(requests, capacity)
    used: dict[int, tuple[float, ...]] = {}

    def note(token: int) -> None:
        for place, expert in enumerate(wanted[token]):
            times = used[expert][0] if expert in used else 0
            used[expert] = (times + 1, token, -place)

    return _simulate("lfu", wanted, capacity, note, lambda expert: used[expert])


def belady(requests: Iterable[Iterable[int]], capacity: int) -> CacheUse:
    """Keep what is used again soonest: the most hits that any cache of these rules can have.

    It knows the future, so it is no policy but the bound of all. requests and errors as in `lru`.
    """
    wanted = _requests(requests, capacity)
    following = _next_use(wanted)
    soon: dict[int, tuple[float, ...]] = {}

    def note(token: int) -> None:
        soon.update({e: (-following[token][place],) for place, e in enumerate(wanted[token])})

    return _simulate("belady", wanted, capacity, note, lambda expert: soon[expert])


def lru_with_prefetch(
    requests: Iterable[Iterable[int]], ahead: Iterable[Iterable[int]], capacity: int
) -> PrefetchUse:
    """Keep what was used last, and load what is foretold before every token begins.

    ahead: the experts foretold of every token, the surest first; those that the cache cannot hold
    are left out. Room is made for them as for those asked for, and what was loaded and not used
    counts as used when it last was, so it leaves first. requests and errors as in `lru`; also a
    ValueError where the two are not of the same tokens.
    """
    wanted = _requests(requests, capacity)
    told = [tuple(dict.fromkeys(int(e) for e in row if e >= 0))[:capacity] for row in ahead]
    if len(told) != len(wanted):
        raise ValueError("requests and what is foretold are of the same tokens")
    held: set[int] = set()
    last: dict[int, tuple[float, ...]] = {}
    missed, loaded = [], []

    def priority(expert: int) -> tuple[float, ...]:
        return last.get(expert, (-1.0,))

    for token, (experts, foretold) in enumerate(zip(wanted, told, strict=True)):
        loaded.append(len(set(foretold) - held))
        held = _with(held, set(foretold), capacity, priority)
        missed.append(len(set(experts) - held))
        held = _with(held, set(experts), capacity, priority)
        last.update({e: (token, -place) for place, e in enumerate(experts)})
    accesses, misses = sum(map(len, wanted)), sum(missed)
    return PrefetchUse(
        policy="lru with prefetch",
        capacity=capacity,
        accesses=accesses,
        hits=accesses - misses,
        misses=misses,
        misses_by_token=tuple(missed),
        ahead_by_token=tuple(loaded),
    )


def _with(held: set[int], now: set[int], capacity: int, priority: _Priority) -> set[int]:
    """What the cache holds when `now` has been loaded: the others of the highest priority stay."""
    others, room = held - now, capacity - len(now)
    if len(others) > room:
        # Experts of equal priority (never used again) leave by number, so that runs repeat.
        others = set(sorted(others, key=lambda e: (priority(e), -e), reverse=True)[:room])
    return now | others


def _simulate(
    policy: str,
    wanted: Sequence[tuple[int, ...]],
    capacity: int,
    note: Callable[[int], None],
    priority: _Priority,
) -> CacheUse:
    held: set[int] = set()
    missed: list[int] = []
    for token, experts in enumerate(wanted):
        now = set(experts)
        missed.append(len(now - held))
        held = _with(held, now, capacity, priority)
        note(token)
    accesses, misses = sum(map(len, wanted)), sum(missed)
    return CacheUse(
        policy=policy,
        capacity=capacity,
        accesses=accesses,
        hits=accesses - misses,
        misses=misses,
        misses_by_token=tuple(missed),
    )


def _requests(requests: Iterable[Iterable[int]], capacity: int) -> list[tuple[int, ...]]:
    """Each token's experts once, in order, without padding."""
    rows = (row.tolist() if isinstance(row, np.ndarray) else row for row in requests)
    wanted = [tuple(dict.fromkeys(int(e) for e in row if e >= 0)) for row in rows]
    most = max(map(len, wanted), default=0)
    if capacity < max(most, 1):
        raise ValueError(f"a cache of {capacity} cannot hold the {most} experts of one token")
    return wanted


def _next_use(wanted: Sequence[tuple[int, ...]]) -> list[list[float]]:
    """For every request the next token that asks for the same expert, ∞ where none does."""
    seen: dict[int, float] = {}
    found: list[list[float]] = []
    for token in range(len(wanted) - 1, -1, -1):
        found.append([seen.get(expert, float("inf")) for expert in wanted[token]])
        seen.update(dict.fromkeys(wanted[token], float(token)))
    return found[::-1]
