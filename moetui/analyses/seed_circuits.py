"""The seed's circuits: experts of neighbouring layers matched by correlated weights.

Reproduced as published: profiles are mixing weights over all positions of the prompts together,
correlations are Pearson's, matching is greedy. The seed gives no null; beside it stands what the
same rule says of layers whose positions were shuffled against one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.expert_paths import Place
from moetui.stats import Statistic, permutation_test
from moetui.stats.permutation import PERMUTATIONS
from moetui.trace import Trace

Numbers = NDArray[np.float64]

PROMPTS: tuple[str, ...] = (
    "127 * 89 = ",
    "456 + 789 = ",
    "def fibonacci(n):",
    "import numpy as np",
    "The capital of France is",
    "A synonym for happy is",
)
# An expert without so much spread of its weight has no correlation.
_CONSTANT = 1e-10
# A pipeline covers at least this share of the layers.
COVERAGE = 0.3

DEFINITION = (
    "per pair of neighbouring layers experts are matched greedily by the Pearson correlation of "
    "their mixing weights over all positions of the prompts, above `correlation` only; alignment "
    "= mean correlation of the matched; consistency = mean alignment; a pipeline follows the best "
    "correlation from an expert of the first layer on, while it reaches `correlation`, through at "
    f"least {COVERAGE:.0%} of the layers"
)
NULL = "the positions of every layer shuffled, all experts of a layer together"


class Pipeline(msgspec.Struct, frozen=True, kw_only=True):
    """A chain by the seed's rule. consistency: mean correlation of its links. coverage: share of
    the layers."""

    places: tuple[Place, ...]
    consistency: float
    coverage: float


class Alignment(msgspec.Struct, frozen=True, kw_only=True):
    """Two neighbouring layers: mean correlation of the `matched` pairs, 0 without any."""

    source_layer: int
    target_layer: int
    alignment: float
    matched: int


class SeedCircuits(msgspec.Struct, frozen=True, kw_only=True, tag="seed_circuits"):
    """By the seed's rule on the seed's prompts, n_tokens of the statistics being positions.

    consistency, pipelines (how many) with the null's mean, band and p. found: the pipelines,
    those of largest coverage and consistency first.
    """

    definition: str
    null: str
    prompts: tuple[str, ...]
    correlation: float
    consistency: Statistic
    pipelines: Statistic
    alignments: tuple[Alignment, ...]
    found: tuple[Pipeline, ...]


def weight_profiles(traces: Sequence[Trace], experts: int) -> Numbers:
    """[L, T, E]: the mixing weight of every expert at every position, 0 where not chosen."""
    rows = []
    for trace in traces:
        ids = trace.expert_ids.astype(np.int64)
        profile = np.zeros((*ids.shape[:2], experts + 1))
        weights = np.nan_to_num(trace.expert_weights)
        np.put_along_axis(profile, np.where(ids < 0, experts, ids), weights, axis=-1)
        rows.append(profile[..., :experts])
    return np.moveaxis(np.concatenate(rows), 1, 0)


def seed_circuits(
    profiles: Numbers,
    layers: Sequence[int],
    prompts: Sequence[str],
    *,
    correlation: float = 0.3,
    seed: int,
) -> SeedCircuits:
    """The seed's numbers for profiles [L, T, E] of `layers`, two at least."""
    scaled = _standardised(profiles)
    tables = list(_correlations(scaled))
    alignments = [_matched(table, correlation) for table in tables]
    found = list(_pipelines(tables, layers, correlation))
    rng = np.random.default_rng(seed)
    null = np.array([_shuffled(scaled, correlation, rng) for _ in range(PERMUTATIONS)])

    def against(observed: float, draws: Numbers) -> Statistic:
        return msgspec.structs.replace(
            permutation_test(observed, draws),
            n_tokens=profiles.shape[1],
            n_documents=len(prompts),
            seed=seed,
            caveat="as published: no interval; null = positions of every layer shuffled",
        )

    return SeedCircuits(
        definition=DEFINITION,
        null=NULL,
        prompts=tuple(prompts),
        correlation=correlation,
        consistency=against(_mean([mean for mean, _ in alignments]), null[:, 0]),
        pipelines=against(float(len(found)), null[:, 1]),
        alignments=tuple(
            Alignment(source_layer=a, target_layer=b, alignment=mean, matched=matched)
            for a, b, (mean, matched) in zip(layers[:-1], layers[1:], alignments, strict=True)
        ),
        found=tuple(sorted(found, key=lambda one: (-one.coverage, -one.consistency))),
    )


def _standardised(profiles: Numbers) -> Numbers:
    """[L, T, E] of mean 0 and length 1 over positions; all 0 for experts without spread."""
    centred = profiles - profiles.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    spread = profiles.std(axis=1, keepdims=True) >= _CONSTANT
    return np.where(spread, centred / np.where(lengths > 0, lengths, 1.0), 0.0)


def _correlations(scaled: Numbers) -> Iterator[Numbers]:
    """[E, E] of every two neighbouring layers."""
    for before, after in pairwise(scaled):
        yield before.T @ after


def _matched(table: Numbers, least: float) -> tuple[float, int]:
    """Mean correlation of the greedily matched pairs above `least`, and how many there are."""
    rows, columns = np.nonzero(table > least)
    order = np.argsort(-table[rows, columns], kind="stable")
    taken_rows, taken_columns, kept = set[int](), set[int](), []
    for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if i not in taken_rows and j not in taken_columns:
            taken_rows.add(i)
            taken_columns.add(j)
            kept.append(float(table[i, j]))
    return max(0.0, _mean(kept)), len(kept)


def _pipelines(
    tables: Sequence[Numbers], layers: Sequence[int], least: float
) -> Iterator[Pipeline]:
    for start in range(tables[0].shape[0]):
        chain, links = [start], []
        for table in tables:
            best = int(table[chain[-1]].argmax())
            if table[chain[-1], best] < least:
                break
            links.append(float(table[chain[-1], best]))
            chain.append(best)
        coverage = len(chain) / len(layers)
        if coverage >= COVERAGE:
            yield Pipeline(
                places=tuple(
                    Place(layer=layer, expert=expert)
                    for layer, expert in zip(layers, chain, strict=False)
                ),
                consistency=_mean(links) if links else 1.0,
                coverage=coverage,
            )


def _shuffled(scaled: Numbers, least: float, rng: np.random.Generator) -> tuple[float, float]:
    """Consistency and pipelines of layers that were shuffled against one another."""
    moved = np.stack([layer[rng.permutation(len(layer))] for layer in scaled])
    tables = list(_correlations(moved))
    consistency = _mean([_matched(table, least)[0] for table in tables])
    needed = int(np.ceil(COVERAGE * len(scaled) - 1e-9)) - 1
    return consistency, float(_reaching(tables[:needed], least) if needed else len(tables[0]))


def _reaching(tables: Sequence[Numbers], least: float) -> int:
    """Experts of the first layer whose chain goes through all of `tables`."""
    at = np.arange(tables[0].shape[0])
    for table in tables:
        best = table[at].argmax(axis=1)
        at = best[table[at, best] >= least]
    return len(at)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
