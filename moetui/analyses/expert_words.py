"""Does an expert's weight go along with the words of the task?

Seed: over the prompts' last tokens, the probability of the task's words where an expert is among
the chosen ones; expert ids are summed across layers, although expert 3 of layer 2 and expert 3 of
layer 5 have nothing in common.

Corrected: for every expert of every layer on its own, Spearman's correlation over tokens of its
mixing weight with the log-odds of the prompt's task words at the same layer. Permuted are whole
wordings: the tokens of a prompt are not independent, nor are prompts that differ in their numbers
only (an expert that answers to the word "plus" would be found in each of them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial, prod

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from moetui.analyses.task_words import Lexicon, Prompt
from moetui.analyses.tuned_lens import leaving_streams
from moetui.analyses.vocabulary_reading import label_log_odds
from moetui.stats import Statistic, permutation_p
from moetui.trace import NO_EXPERT, Forward, Trace

Numbers = NDArray[np.float64]
Floats = NDArray[np.float32]

SEED_DEFINITION = (
    "mean over the prompts and layers at whose last token an expert id is chosen of the largest "
    "probability of the task's words; correlation of being chosen with that probability; ids are "
    "summed across layers"
)
DEFINITION = (
    "Spearman over tokens of an expert's mixing weight (0 where not chosen) with the log-odds of "
    "the task's unsaid words through the raw lens after the same layer"
)
NULL = (
    "null: words permuted among the wordings of a template, where those have as many tokens; all "
    "prompts of a wording together"
)
BY_PROMPT = "prompts permuted one by one: those of one wording count as independent, they are not"
LEVEL = 0.05
# Benjamini-Hochberg needs tests / level permutations; beyond so many the maximum over the family
# is compared instead, which needs no more than these.
MOST_PERMUTATIONS, FAMILY_PERMUTATIONS, FAMILY_LEVEL = 25_000, 999, 0.01
# How many experts are listed with their numbers, strongest first; discoveries always are.
LISTED = 200
_CELLS = 1 << 22  # permuted numbers held at once
# Sums of products that should be equal differ by less.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False, kw_only=True)
class ExpertRows:
    """The tokens of P prompts, T in all.

    weights: float32 [T, L, E], mixing weight, 0 where not chosen. log_odds: float32 [T, L], of
    the prompt's task words after each of the L routing layers. lengths: int64 [P]. layers: int64
    [L]. seed: float64 [P, L], the seed's probability at the last token.
    """

    weights: Floats
    log_odds: Floats
    lengths: NDArray[np.int64]
    layers: NDArray[np.int64]
    seed: Numbers


class SeedExpert(msgspec.Struct, frozen=True, kw_only=True):
    """An expert id, summed across layers. probability: where it is chosen; correlation: Pearson's,
    of being chosen with the probability, over prompts and layers."""

    expert: int
    chosen: int
    probability: Statistic
    correlation: Statistic


class ExpertWord(msgspec.Struct, frozen=True, kw_only=True):
    """One expert of one layer. rho: with p, and q within the family (see `ExpertWords.test`)."""

    layer: int
    expert: int
    rho: Statistic
    discovered: bool


class ExpertWords(msgspec.Struct, frozen=True, kw_only=True, tag="expert_words"):
    """Experts whose weight goes along with the words of the task.

    tests: experts × layers tested. arrangements: how many permutations there are. test: how the
    family is treated. discoveries: how many experts are significant; discoveries_by_prompt: how
    many would be if prompts that differ in their numbers only were independent; largest: the
    strongest |rho| against the largest of the whole family under permutation. experts: strongest
    first, at most 200 besides the discoveries. untested: experts whose weight, or layers whose
    log-odds, never vary.
    """

    seed_definition: str
    definition: str
    seed_experts: tuple[SeedExpert, ...]
    tests: int
    untested: int
    permutations: int
    arrangements: int
    test: str
    discoveries: Statistic
    discoveries_by_prompt: Statistic
    largest: Statistic
    experts: tuple[ExpertWord, ...]


def expert_rows(
    model: Forward, trace: Trace, task: int, words: Lexicon, spoken: Sequence[str]
) -> ExpertRows:
    """Every token of one prompt, from a trace with its streams. task: which of the lexicon's is
    the prompt's; spoken: words that its template says."""
    layers = trace.layers.tolist()
    read = model.read_words(leaving_streams(trace), words.token_ids, layers=layers)
    logprobs = read.logprobs.astype(np.float64)
    plain = np.exp(logprobs[-1][:, words.plain(task)])
    return ExpertRows(
        weights=dense_weights(trace),
        log_odds=label_log_odds(logprobs, words, task, spoken).astype(np.float32),
        lengths=np.array([len(trace)], np.int64),
        layers=np.array(layers, np.int64),
        seed=plain.max(-1, initial=0.0)[None],
    )


def joined_experts(parts: Sequence[ExpertRows]) -> ExpertRows:
    """The prompts of several parts, one after the other."""
    names = ("weights", "log_odds", "lengths", "seed")
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return ExpertRows(**whole, layers=parts[0].layers)


def dense_weights(trace: Trace) -> Floats:
    """float32 [T, L, E]: every expert's mixing weight, 0 where it was not chosen."""
    T, L, _ = trace.expert_ids.shape
    E = trace.model.num_experts
    ids = np.where(trace.expert_ids == NO_EXPERT, E, trace.expert_ids).astype(np.int64)
    dense = np.zeros((T, L, E + 1), np.float32)
    np.put_along_axis(dense, ids, np.nan_to_num(trace.expert_weights), axis=-1)
    return dense[..., :E]


def seed_experts(rows: ExpertRows) -> tuple[SeedExpert, ...]:
    """The seed's table, of the seed's prompts."""
    last = np.cumsum(rows.lengths) - 1
    chosen = rows.weights[last] > 0  # [P, L, E]
    probability = rows.seed
    found = []
    for expert in range(chosen.shape[-1]):
        with_it = chosen[..., expert]
        found.append(
            SeedExpert(
                expert=expert,
                chosen=int(with_it.sum()),
                probability=_described(
                    float(probability[with_it].mean()) if with_it.any() else None, rows
                ),
                correlation=_described(_pearson(with_it.ravel(), probability.ravel()), rows),
            )
        )
    return tuple(found)


def expert_words(
    prompts: Sequence[Prompt], rows: ExpertRows, seed_rows: ExpertRows | None, *, seed: int
) -> ExpertWords:
    """Every expert of every layer against the words of the prompts' tasks."""
    T, L, E = rows.weights.shape
    weights = _standardised(rows.weights.reshape(T, L * E)).reshape(T, L, E)
    words = _standardised(rows.log_odds)
    testable = np.any(weights, axis=0) & np.any(words, axis=0)[:, None]
    tests = int(testable.sum())
    m, by_maximum = _plan(tests)
    rho = np.einsum("tl,tle->le", words, weights)
    level = FAMILY_LEVEL if by_maximum else LEVEL

    def tested(clustered: Sequence[Prompt]) -> tuple[Numbers, Numbers, Numbers]:
        """p, q, and the largest |rho| of every permutation of whole clusters."""
        orders = _orders(clustered, rows.lengths, m, seed)
        extreme, largest = _permuted(words, weights, rho, rows.lengths, orders)
        p: Numbers = (1 + extreme) / (1 + m)
        return p, _by_maximum(rho, largest) if by_maximum else _adjusted(p, testable), largest

    p, q, largest = tested(prompts)
    found = testable & (q <= level)
    by_prompt = tested([replace(prompt, cluster=prompt.text) for prompt in prompts])[1]
    size = Statistic(n_tokens=T, n_documents=len(prompts), seed=seed, caveat=NULL)
    return ExpertWords(
        seed_definition=SEED_DEFINITION,
        definition=DEFINITION,
        seed_experts=() if seed_rows is None else seed_experts(seed_rows),
        tests=tests,
        untested=L * E - tests,
        permutations=m,
        arrangements=arrangements(prompts, rows.lengths.tolist()),
        test=(
            f"largest |rho| of all {tests:,} tests, family-wise p ≤ {FAMILY_LEVEL}"
            if by_maximum
            else f"Benjamini-Hochberg over {tests:,} experts × layers, q ≤ {LEVEL}"
        ),
        discoveries=replace(size, value=float(found.sum())),
        discoveries_by_prompt=replace(
            size, value=float((testable & (by_prompt <= level)).sum()), caveat=BY_PROMPT
        ),
        largest=_largest(np.abs(rho).max(initial=0.0), largest, size),
        experts=_listed(rho, p, q, found, rows.layers, size),
    )


def arrangements(prompts: Sequence[Prompt], lengths: Sequence[int]) -> int:
    """In how many ways words can be permuted: between clusters of equal template and lengths."""
    return prod(factorial(len(group)) for group in _exchangeable(prompts, lengths))


def _exchangeable(prompts: Sequence[Prompt], lengths: Sequence[int]) -> list[list[list[int]]]:
    """Groups of clusters, each cluster the indices of its prompts, that can change words."""
    clusters: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        clusters.setdefault(prompt.cluster, []).append(index)
    groups: dict[tuple[str, tuple[int, ...]], list[list[int]]] = {}
    for rows in clusters.values():
        key = prompts[rows[0]].template, tuple(lengths[row] for row in rows)
        groups.setdefault(key, []).append(rows)
    return list(groups.values())


def _plan(tests: int) -> tuple[int, bool]:
    """Permutations, and whether the maximum over the family decides."""
    if tests / LEVEL > MOST_PERMUTATIONS:
        return FAMILY_PERMUTATIONS, True
    return max(FAMILY_PERMUTATIONS, int(np.ceil(tests / LEVEL))), False


def _orders(
    prompts: Sequence[Prompt], lengths: NDArray[np.int64], m: int, seed: int
) -> NDArray[np.int32]:
    """int32 [m, P]: which prompt's words each prompt is given; whole clusters change them."""
    rng = np.random.default_rng(seed)
    orders = np.tile(np.arange(len(prompts), dtype=np.int32), (m, 1))
    for group in _exchangeable(prompts, lengths.tolist()):
        rows = np.array(group, np.int32)
        drawn = rng.permuted(np.tile(np.arange(len(rows)), (m, 1)), axis=1)
        for place, own in enumerate(rows):
            orders[:, own] = rows[drawn[:, place]]
    return orders


def _permuted(
    words: Numbers,
    weights: Numbers,
    rho: Numbers,
    lengths: NDArray[np.int64],
    orders: NDArray[np.int32],
) -> tuple[NDArray[np.int64], Numbers]:
    """How many permutations reach each |rho| [L, E], and the largest |rho| of each [m]."""
    T, L = words.shape
    starts = np.cumsum(lengths) - lengths
    prompt_of = np.repeat(np.arange(len(lengths)), lengths)
    offset = np.arange(T) - starts[prompt_of]
    extreme, largest = np.zeros(rho.shape, np.int64), np.zeros(len(orders))
    size = max(1, _CELLS // T)
    for begin in range(0, len(orders), size):
        batch = slice(begin, begin + size)
        tokens = starts[orders[batch]][:, prompt_of] + offset
        for layer in range(L):
            drawn = np.abs(words[:, layer][tokens] @ weights[:, layer])
            extreme[layer] += (drawn >= np.abs(rho[layer]) - _ROUNDING).sum(0)
            largest[batch] = np.maximum(largest[batch], drawn.max(-1))
    return extreme, largest


def _adjusted(p: Numbers, testable: NDArray[np.bool_]) -> Numbers:
    from scipy.stats import false_discovery_control

    q = np.ones(p.shape)
    if testable.any():
        q[testable] = false_discovery_control(p[testable])
    return q


def _by_maximum(rho: Numbers, largest: Numbers) -> Numbers:
    """Family-wise p of every |rho|: how often the largest of the family is as large."""
    ordered = np.sort(largest)
    above = len(ordered) - np.searchsorted(ordered, np.abs(rho) - _ROUNDING)
    p: Numbers = (1 + above) / (1 + len(ordered))
    return p


def _largest(value: float, null: Numbers, size: Statistic) -> Statistic:
    low, high = np.quantile(null, [0.025, 0.975])
    return replace(
        size,
        value=float(value),
        null_mean=float(null.mean()),
        null_low=float(low),
        null_high=float(high),
        p=permutation_p(float(value), null),
    )


def _listed(
    rho: Numbers,
    p: Numbers,
    q: Numbers,
    found: NDArray[np.bool_],
    layers: NDArray[np.int64],
    size: Statistic,
) -> tuple[ExpertWord, ...]:
    strongest = np.argsort(-np.abs(rho).ravel(), kind="stable")
    E = rho.shape[1]
    listed = []
    for rank, flat in enumerate(strongest.tolist()):
        row, expert = divmod(flat, E)
        if rank >= LISTED and not found[row, expert]:
            continue
        listed.append(
            ExpertWord(
                layer=int(layers[row]),
                expert=expert,
                rho=replace(
                    size,
                    value=float(rho[row, expert]),
                    p=float(p[row, expert]),
                    q=float(q[row, expert]),
                ),
                discovered=bool(found[row, expert]),
            )
        )
    return tuple(listed)


def _standardised(values: Floats) -> Numbers:
    """Ranks of each column, centred and of unit length; 0 where a column never varies or is not
    known everywhere."""
    from scipy.stats import rankdata

    ranks = np.nan_to_num(rankdata(values, axis=0))
    ranks -= ranks.mean(0)
    length = np.linalg.norm(ranks, axis=0)
    # Ranks are whole or half numbers: a shorter column does not vary.
    unit: Numbers = np.where(length > _ROUNDING, ranks / np.maximum(length, _ROUNDING), 0.0)
    return unit


def _pearson(one: NDArray[np.bool_], other: Numbers) -> float | None:
    if not one.any() or one.all() or np.ptp(other) == 0:
        return None
    return float(np.corrcoef(one.astype(float), other)[0, 1])


def _described(value: float | None, rows: ExpertRows) -> Statistic:
    return Statistic(
        value=value,
        n_documents=len(rows.lengths),
        caveat="as published: no interval, no null; ids summed across layers",
    )
