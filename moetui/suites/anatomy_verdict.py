"""Measures and verdicts of `anatomy`: the two published claims, and what the weights show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from moetui.analyses.matrix_ranks import (
    COMMON_NULL,
    ROUTER_CENTRED,
    MatrixRanks,
    difference_name,
)
from moetui.analyses.weight_similarity import (
    ALIGNED,
    ALIGNED_NULL,
    STATIC,
    WeightSimilarity,
    mean_of_layers,
)
from moetui.stats import Statistic
from moetui.suites.moe_dynamics.merging_verdict import ALIGNED_MEAN, MERGEABLE
from moetui.suites.results import CellResult, Measure, Verdict, Verdicts
from moetui.suites.wording import number

GATE_DIFFERENCE = "effective rank of the gate's differences between experts, mean of layers"
ROUTER_RELATIVE = "effective rank of routers ÷ that of random matrices, mean of layers"
# The matrix that experts without a gate read by.
_GATES = ("gate_proj", "fc1")
# From this share of the energy on experts share their weights; up to that one they do not.
SHARED, APART = 0.5, 0.05
# Below this part of a random matrix's rank a router uses few directions.
LOW = 0.5

SEED_RULE = (
    "the seed's two claims: pseudo where the experts' gate matrices differ by one direction "
    "(effective rank of gate less mean expert at most 1 in more than half of the layers), native "
    "where no pair of experts has a weight cosine at the threshold; both or neither where both or "
    "neither hold"
)
CORRECTED_RULE = (
    f"pseudo: the experts have {SHARED:g} or more of the energy of some matrix in common beyond "
    "what experts of two layers have, or their routers, less their mean row, use a single "
    f"direction; native: at most {APART:g} of every matrix beyond that, aligned weight cosines at "
    f"most {APART:g} above pairs across layers, and routers that use at least {LOW:g} of the "
    "directions of random matrices of that shape; in between otherwise. Means over layers"
)
CLAIMED = {
    "pseudo": "the gates of experts differ by one direction",
    "native": "no two experts are alike in their weights",
    "both": "the two published claims hold at once: one of them is about differences between "
    "experts, the other about whole experts",
    "neither": "neither published claim holds",
    "models differ": "the models are not alike",
}
FOUND = {
    "pseudo": "experts share their weights, or routers use a single direction",
    "native": "experts share no weights and routers use many directions",
    "in between": "experts share something, or routers use fewer directions than by chance",
    "models differ": "the models are not alike",
}
INCONCLUSIVE = "inconclusive"

Judge = Callable[[MatrixRanks, WeightSimilarity], str]


def measures(model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
    """Of one model; a number that is missing is left out."""
    found: list[Measure] = []
    for cell in cells:
        one = cell.result
        if isinstance(one, MatrixRanks):
            found += _rank_measures(model, one)
        elif isinstance(one, WeightSimilarity):
            found += _weight_measures(model, one)
    return tuple(found)


def conclude(cells: Sequence[CellResult]) -> Verdicts:
    """Both verdicts over all models of the run."""
    return Verdicts(
        seed=_verdict("seed rule", SEED_RULE, cells, seed_outcome),
        corrected=_verdict("corrected", CORRECTED_RULE, cells, corrected_outcome),
        why_they_differ=(
            "the two published texts contradict each other because a rank of differences says "
            "nothing without what a random matrix has, and the cosine of whole experts nothing "
            "without the order of their neurons; the corrected rule puts each beside its null"
        ),
    )


def seed_outcome(ranks: MatrixRanks, weights: WeightSimilarity) -> str:
    """The seed's claims on one model."""
    pairs = sum(layer.pairs for layer in weights.layers)
    if not pairs:
        return INCONCLUSIVE
    native = not any(layer.mergeable for layer in weights.layers)
    difference = _gate_ranks(ranks)
    pseudo = bool(difference) and sum(rank <= 1 for rank in difference) > len(difference) / 2
    if native and pseudo:
        return "both"
    return "native" if native else "pseudo" if pseudo else "neither"


def corrected_outcome(ranks: MatrixRanks, weights: WeightSimilarity) -> str:
    """What the weights of one model show."""
    beyond = [share - (null or 0.0) for _, share, null in _common(ranks)]
    lift = _mean(_lifts(weights))
    routers = ranks.of(ROUTER_CENTRED)
    relative = _mean([one.relative for one in routers])
    directions = _mean([one.rank.value for one in routers])
    if not beyond or relative is None or directions is None:
        return INCONCLUSIVE
    if max(beyond) >= SHARED or directions <= 1:
        return "pseudo"
    if lift is None:
        return INCONCLUSIVE
    apart = max(beyond) <= APART and lift <= APART
    return "native" if apart and relative >= LOW else "in between"


def _verdict(
    label: Literal["seed rule", "corrected"], rule: str, cells: Sequence[CellResult], judge: Judge
) -> Verdict:
    outcomes, told, evidence = [], [], []
    models = dict.fromkeys(cell.model for cell in cells)
    for model in models:
        mine = [cell.result for cell in cells if cell.model == model]
        ranks = next((one for one in mine if isinstance(one, MatrixRanks)), None)
        weights = next((one for one in mine if isinstance(one, WeightSimilarity)), None)
        if ranks is None or weights is None:
            outcomes.append(INCONCLUSIVE)
            told.append(_reason(model, cells))
            continue
        outcomes.append(judge(ranks, weights))
        told.append((_claims if label == "seed rule" else _told)(model, ranks, weights))
        evidence += [
            one
            for one in measures(model, [cell for cell in cells if cell.model == model])
            if label.startswith(one.label)
        ]
    alike = list(dict.fromkeys(outcomes))
    outcome = INCONCLUSIVE if INCONCLUSIVE in alike or not alike else alike[0]
    if len(alike) > 1 and outcome != INCONCLUSIVE:
        outcome = "models differ"
    words = CLAIMED if label == "seed rule" else FOUND
    said = [words[outcome]] if outcome in words else []
    return Verdict(
        label=label,
        outcome=outcome,
        statement="; ".join([*said, *told]) or "nothing was measured",
        rule=rule,
        evidence=tuple(evidence),
    )


def _claims(model: str, ranks: MatrixRanks, weights: WeightSimilarity) -> str:
    pairs = sum(layer.pairs for layer in weights.layers)
    alike = sum(layer.mergeable for layer in weights.layers)
    return (
        f"{model}: gates of experts differ by rank {_shown(_gate_ranks(ranks))}, {alike:,} of "
        f"{pairs:,} pairs at {weights.threshold:g}"
    )


def _told(model: str, ranks: MatrixRanks, weights: WeightSimilarity) -> str:
    common = ", ".join(
        f"{name} {number(share)} (experts of two layers {number(null)})"
        for name, share, null in _common(ranks)
    )
    routers = ranks.of(ROUTER_CENTRED)
    aligned = [one.mean for one in weights.of(ALIGNED)]
    return (
        f"{model}: routers have effective rank {_shown([r.rank.value for r in routers])} (random "
        f"matrices {_shown([r.rank.null_mean for r in routers])}); in common of experts' energy: "
        f"{common or 'unknown'}; aligned weight cosine {_shown([one.value for one in aligned])} "
        f"(across layers {_shown([one.null_mean for one in aligned])})"
    )


def _common(ranks: MatrixRanks) -> list[tuple[str, float, float | None]]:
    """By matrix, means over layers: what experts have in common, and those of two layers."""
    found = []
    for name in dict.fromkeys(one.what for one in ranks.common):
        shares = [one.share for one in ranks.shares(name)]
        if (value := _mean([share.value for share in shares])) is not None:
            found.append((name, value, _mean([share.null_mean for share in shares])))
    return found


def _lifts(weights: WeightSimilarity) -> list[float]:
    """How far aligned cosines are above those of pairs across layers, layer by layer."""
    return [
        one.mean.value - one.mean.null_mean
        for one in weights.of(ALIGNED)
        if one.mean.value is not None and one.mean.null_mean is not None
    ]


def _gate_ranks(ranks: MatrixRanks) -> list[float]:
    return [
        one.rank.value
        for name in _GATES
        for one in ranks.of(difference_name(name))
        if one.rank.value is not None
    ]


def _rank_measures(model: str, ranks: MatrixRanks) -> Iterator[Measure]:
    yield from _measure(model, "seed", GATE_DIFFERENCE, _gate_ranks(ranks))
    routers = [one.relative for one in ranks.of(ROUTER_CENTRED)]
    yield from _measure(model, "corrected", ROUTER_RELATIVE, routers)
    for name in dict.fromkeys(one.what for one in ranks.common):
        relative = [one.relative for one in ranks.of(name)]
        title = f"{name}: effective rank ÷ that of random matrices, mean of layers"
        yield from _measure(model, "corrected", title, relative)
        shares = [one.share for one in ranks.shares(name)]
        title = f"{name}: energy in common, mean of layers"
        yield from _beside(model, title, shares, COMMON_NULL)


def _weight_measures(model: str, weights: WeightSimilarity) -> Iterator[Measure]:
    shares = [layer.mergeable / layer.pairs for layer in weights.layers if layer.pairs]
    yield from _measure(model, "seed", MERGEABLE, shares)
    aligned = [one.mean for one in weights.of(ALIGNED)]
    yield from _beside(model, ALIGNED_MEAN, aligned, ALIGNED_NULL)


def _measure(
    model: str, label: Literal["seed", "corrected"], name: str, layers: Sequence[float | None]
) -> Iterator[Measure]:
    """The mean over layers, which are its units; nothing where one of them is missing."""
    known = [value for value in layers if value is not None]
    if known and len(known) == len(layers):
        statistic = Statistic(value=sum(known) / len(known), caveat=STATIC)
        yield Measure(model=model, label=label, name=name, statistic=statistic, units=tuple(known))


def _beside(model: str, name: str, layers: Sequence[Statistic], null: str) -> Iterator[Measure]:
    """The same of numbers that have a null in their layer, beside its mean."""
    statistic = mean_of_layers(layers, null)
    if statistic is not None:
        units = tuple(one.value for one in layers if one.value is not None)
        yield Measure(model=model, label="corrected", name=name, statistic=statistic, units=units)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _shown(values: Sequence[float | None]) -> str:
    return number(_mean(values))


def _reason(model: str, cells: Sequence[CellResult]) -> str:
    told = dict.fromkeys(c.reason for c in cells if c.model == model and c.reason is not None)
    return f"{model}: {'; '.join(told) or 'its weights were not read'}"
