"""What it costs to keep only some experts in memory: hits, bytes fetched and waiting, by policy.

Every layer that routes has a cache of its own, of as many experts each. A run over documents says
which experts every token asked for; the caches of `moetui.stats.cache` say what would have been
there, and the size of an expert in the checkpoint says what the rest costs. Caches stay warm from
one document to the next; an interval over documents takes their misses as their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.stats import (
    CacheUse,
    Statistic,
    belady,
    document_intervals,
    lfu,
    lru,
    lru_with_prefetch,
    ratio_of_sums,
)
from moetui.trace.types import ExpertIds

Numbers = NDArray[np.float64]

LRU, TOKEN, EQUAL = "LRU", "token identity", "probe of equal tokens"
# What is foretold by the token alone, the most telling first.
_BY_TOKEN = (f"{LRU} + {EQUAL}", f"{LRU} + {TOKEN}")
POLICIES: Mapping[str, Callable[[NDArray[np.int16], int], CacheUse]] = {
    LRU: lru,
    "LFU": lfu,
    "Belady": belady,
}
DEFINITION = (
    "one cache a layer, empty at first and warm between documents, whose order is drawn at random. "
    "LRU: what was used last stays; LFU: what was used most often; Belady: what is used again "
    "soonest, which knows the future and bounds all policies that fetch on demand; LRU + "
    "predictor: before a layer after the probe's begins, the k experts that are foretold of it are "
    "fetched; over the token's: hit rate less that of such a cache that knows the token alone. Hit "
    "rate: share of the experts asked for that are there when their layer begins. Bytes a token: "
    "all that is fetched, foretold experts that nobody asked for included. Stall: time that "
    "fetching after a layer has begun takes at the given bandwidth, as if everything foretold had "
    "arrived by then; at worst: the same of all that is fetched, as if nothing had"
)
NO_BYTES = "the files of the checkpoint do not tell what one expert takes"


class OffloadRow(msgspec.Struct, frozen=True, kw_only=True):
    """One policy with one size of cache.

    capacity: experts in memory in each layer. memory_bytes: of all these. hit_rate: over all
    layers. over_lru: hit rate less that of LRU, paired by document; None for LRU. over_token: less
    that of LRU with what the token alone foretells, by a probe of equal tokens where there is one,
    else by the table; None for policies that fetch nothing ahead, and for these two.
    bytes_per_token, stall_ms, stall_ms_at_worst (milliseconds a token): see the plan's definition;
    without a value where the size of an expert is unknown.
    """

    policy: str
    capacity: int
    memory_bytes: int | None
    hit_rate: Statistic
    over_lru: Statistic | None
    over_token: Statistic | None
    bytes_per_token: Statistic
    stall_ms: Statistic
    stall_ms_at_worst: Statistic


class OffloadPlan(msgspec.Struct, frozen=True, kw_only=True, tag="offload_plan"):
    """What a model would do with only some of its experts in memory.

    model, digest: of which checkpoint. layers: decoder layers that route; expert_bytes: what one
    expert of each takes in the checkpoint (empty where its files do not tell); num_experts: of
    the largest layer; top_k: of a token. all_bytes: all experts of all layers. bandwidth: bytes a
    second at which experts are fetched. probe_layer: whose stream the probe reads; layers up to
    it are not prefetched. documents, tokens: what the caches were run over. rows: by capacity,
    then policy.
    """

    model: str
    digest: str
    definition: str
    layers: tuple[int, ...]
    num_experts: int
    top_k: int
    expert_bytes: tuple[int, ...]
    all_bytes: int | None
    bandwidth: float
    probe_layer: int
    documents: int
    tokens: int
    rows: tuple[OffloadRow, ...]


@dataclass(frozen=True, eq=False)
class Requests:
    """What tokens asked for, in order. experts: int16 [n, L, k]; documents: [n], 0 … D - 1 in
    blocks. ahead: predictor → layer (of L) → int16 [n, m], what was foretold of it."""

    experts: ExpertIds
    documents: NDArray[np.int64]
    ahead: Mapping[str, Mapping[int, NDArray[np.int16]]]


def capacities(shares: Sequence[float], top_k: int, num_experts: int) -> tuple[int, ...]:
    """Experts of a layer in memory for shares of them, at least those of a token, each once."""
    sizes = {min(num_experts, max(top_k, round(share * num_experts))) for share in shares}
    return tuple(sorted(sizes))


def offload_rows(
    requests: Requests,
    expert_bytes: Sequence[int],
    sizes: Sequence[int],
    *,
    layer_experts: Sequence[int],
    bandwidth: float,
    seed: int,
) -> tuple[OffloadRow, ...]:
    """Every policy with every capacity of `sizes`. expert_bytes: [L], empty where unknown;
    layer_experts: [L], how many a layer has."""
    rows: list[OffloadRow] = []
    judge = _Judge(requests, tuple(expert_bytes), tuple(layer_experts), bandwidth, seed)
    for capacity in sizes:
        plain = {name: _run(policy, requests, capacity) for name, policy in POLICIES.items()}
        ahead = {
            f"{LRU} + {name}": _prefetched(requests, foretold, plain[LRU], capacity)
            for name, foretold in requests.ahead.items()
        }
        base = judge.hits(plain[LRU])
        token = next((ahead[name] for name in _BY_TOKEN if name in ahead), None)
        known = None if token is None else judge.hits(token)
        for name, used in (plain | ahead).items():
            over = known if name in ahead and name not in _BY_TOKEN else None
            rows.append(judge.row(name, used, capacity, None if name == LRU else base, over))
    return tuple(rows)


def _run(
    policy: Callable[[NDArray[np.int16], int], CacheUse], requests: Requests, capacity: int
) -> list[CacheUse]:
    return [
        policy(requests.experts[:, layer], capacity) for layer in range(requests.experts.shape[1])
    ]


def _prefetched(
    requests: Requests,
    foretold: Mapping[int, NDArray[np.int16]],
    plain: Sequence[CacheUse],
    capacity: int,
) -> list[CacheUse]:
    """LRU, and into the layers of which something was foretold that is fetched ahead."""
    found: list[CacheUse] = list(plain)
    for layer, ahead in foretold.items():
        found[layer] = lru_with_prefetch(requests.experts[:, layer], ahead, capacity)
    return found


class _Judge:
    """From what caches did to statistics over documents."""

    def __init__(
        self,
        requests: Requests,
        expert_bytes: tuple[int, ...],
        layer_experts: tuple[int, ...],
        bandwidth: float,
        seed: int,
    ) -> None:
        self._documents, self._bytes = requests.documents, expert_bytes
        self._D = int(requests.documents.max(initial=-1)) + 1
        self._tokens = self._by_document(np.ones(len(requests.documents)))
        wanted = (requests.experts >= 0).sum(axis=(1, 2))
        self._wanted = self._by_document(wanted)
        self._experts, self._bandwidth, self._seed = layer_experts, bandwidth, seed

    def hits(self, used: Sequence[CacheUse]) -> Numbers:
        """[D], experts that were there."""
        missed = np.sum([one.misses_by_token for one in used], axis=0)
        return self._wanted - self._by_document(missed)

    def row(
        self,
        name: str,
        used: Sequence[CacheUse],
        capacity: int,
        base: Numbers | None,
        known: Numbers | None,
    ) -> OffloadRow:
        """The statistics of one policy, and its hits less those of LRU [D] and of LRU with what
        the token foretells [D], where it is compared with these."""
        hits = self.hits(used)
        fetched = self._weighed([one.loads_by_token for one in used])
        late = self._weighed([one.misses_by_token for one in used])
        slow = 1e3 / self._bandwidth
        return OffloadRow(
            policy=name,
            capacity=capacity,
            memory_bytes=self._memory(capacity),
            hit_rate=self._ratio(hits, self._wanted),
            over_lru=None if base is None else self._ratio(hits - base, self._wanted),
            over_token=None if known is None else self._ratio(hits - known, self._wanted),
            bytes_per_token=self._ratio(fetched, self._tokens),
            stall_ms=self._ratio(None if late is None else late * slow, self._tokens),
            stall_ms_at_worst=self._ratio(
                None if fetched is None else fetched * slow, self._tokens
            ),
        )

    def _memory(self, capacity: int) -> int | None:
        """Bytes of so many experts of every layer, or all that it has."""
        if not self._bytes:
            return None
        pairs = zip(self._bytes, self._experts, strict=True)
        return sum(size * min(capacity, experts) for size, experts in pairs)

    def _weighed(self, loads: Sequence[Sequence[int]]) -> Numbers | None:
        """[D], bytes of what was loaded for the tokens of each document, over all layers."""
        if not self._bytes:
            return None
        by_token = np.asarray(self._bytes, float) @ np.asarray(loads, float)
        return self._by_document(by_token)

    def _by_document(self, by_token: NDArray[np.generic]) -> Numbers:
        weights = np.asarray(by_token, float)
        sums: Numbers = np.bincount(self._documents, weights, minlength=self._D).astype(float)
        return sums

    def _ratio(self, sums: Numbers | None, sizes: Numbers) -> Statistic:
        tokens = int(self._tokens.sum())
        if sums is None or not sizes.sum():
            reason = NO_BYTES if sums is None else "no expert was asked for"
            return Statistic(n_tokens=tokens, n_documents=self._D, caveat=reason)
        found = document_intervals(ratio_of_sums(sums, sizes), self._D, seed=self._seed)
        return found.statistic(n_tokens=tokens)
