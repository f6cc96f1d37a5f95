"""Measures and verdicts of `merging`: the seed's rule on weights, the other on held-out text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from moetui.analyses.ablation import MARGIN
from moetui.analyses.merge_front import OUTPUTS, REAP, FrontPoint, MergeFront
from moetui.analyses.merged_pairs import MergedPair, MergedPairs
from moetui.analyses.output_similarity import OutputSimilarity
from moetui.analyses.weight_similarity import (
    ALIGNED,
    ALIGNED_NULL,
    WeightSimilarity,
    mean_of_layers,
)
from moetui.stats import Statistic
from moetui.stats.minimum import ABLATION
from moetui.suites.results import CellResult, Measure, Verdict, Verdicts
from moetui.suites.wording import interval, number

MERGEABLE = "share of pairs with a weight cosine at the threshold"
SIMILAR = "ΔNLL of merging the pair of most similar outputs, mean of the layers asked for"
SEEDS = "ΔNLL of merging the pair of most similar weights (seed), mean of the layers asked for"
OUTPUT_MEAN = "output cosine of two experts, mean of pairs and layers"
ALIGNED_MEAN = "weight cosine of two experts, aligned, mean of pairs and layers"

SEED_RULE = (
    "pairs of experts whose weight cosine reaches the threshold are mergeable: native (orthogonal "
    "experts) where none is, mergeable from half of the pairs on, partly in between"
)
CORRECTED_RULE = (
    "in every layer asked for the pair of most similar outputs on calibration documents is merged "
    "and judged on evaluation documents. mergeable: in more than half of the layers ΔNLL is "
    f"equivalent to 0 (95 % interval within ±{MARGIN:g} nats a token) and the loss of a token "
    "moves less, up or down, than with any of the random pairs of about the same load (p ≤ 0.05); "
    "no better than random pairs: equivalent in more than half, but not below the random ones in "
    "more than half; not mergeable: wholly beyond the "
    f"margin in more than half; else unclear. Inconclusive below a tenth of {ABLATION}, or where "
    "hardly any document uses the pair"
)
SAID = {
    "native": "no two experts are alike in their weights",
    "mergeable": "at least half of the pairs are alike in their weights",
    "partly": "some pairs are alike in their weights",
}
FOUND = {
    "mergeable": "the most similar pair merges without loss, which random pairs do not",
    "no better than random pairs": "the most similar pair merges without loss, but changes no less "
    "than random pairs of about its load: that it is similar is not shown to matter",
    "not mergeable": "even the most similar pair cannot be merged without loss",
    "unclear": "the layers do not agree, or their intervals are too wide",
    "models differ": "the models do not give the same answer",
}
INCONCLUSIVE = "inconclusive"
_ENOUGH_CONTROLS = 0.05


def measures(model: str, cells: Sequence[CellResult]) -> tuple[Measure, ...]:
    """Of one model, from all its results; a number that is missing is left out."""
    found: list[Measure] = []
    for cell in cells:
        one = cell.result
        if isinstance(one, WeightSimilarity):
            found += _weight_measures(model, one)
        elif isinstance(one, OutputSimilarity):
            found.append(_measure(model, "corrected", OUTPUT_MEAN, one.mean))
        elif isinstance(one, MergedPairs):
            found.append(_measure(model, "seed", SEEDS, one.seed_mean))
            found.append(_measure(model, "corrected", SIMILAR, one.mean))
        elif isinstance(one, MergeFront):
            found += [
                _measure(model, "corrected", point_name(point), point.change)
                for point in one.points
            ]
    return tuple(found)


def point_name(point: FrontPoint) -> str:
    """What ΔNLL of a removal is called."""
    return f"ΔNLL of {point.method}, {point.share:g} of the experts"


def conclude(cells: Sequence[CellResult]) -> Verdicts:
    """Both verdicts over all models of the run."""
    seed = _seed(cells)
    corrected = _corrected(cells)
    return Verdicts(seed=seed, corrected=corrected, why_they_differ=_why(cells))


def seed_outcome(share: float) -> str:
    """The seed's rule on the share of pairs at the threshold."""
    if share <= 0:
        return "native"
    return "mergeable" if share >= 0.5 else "partly"


def corrected_outcome(pairs: Sequence[MergedPair]) -> str:
    """The rule on the most similar pairs of the layers."""
    judged = [pair for pair in pairs if pair.equivalence.outcome != INCONCLUSIVE]
    if not judged:
        return INCONCLUSIVE
    half = len(judged) / 2
    same = sum(pair.equivalence.outcome == "equivalent" for pair in judged)
    worse = sum(_above(pair.change) for pair in judged)
    better = sum(
        pair.equivalence.outcome == "equivalent" and _beats_random(pair) for pair in judged
    )
    if better > half:
        return "mergeable"
    if same > half:
        return "no better than random pairs"
    return "not mergeable" if worse > half else "unclear"


def _above(change: Statistic) -> bool:
    return change.ci_low is not None and change.ci_low >= MARGIN


def _beats_random(pair: MergedPair) -> bool:
    return pair.moved.p is not None and pair.moved.p <= _ENOUGH_CONTROLS


def _seed(cells: Sequence[CellResult]) -> Verdict:
    found = [(c.model, c.result) for c in cells if isinstance(c.result, WeightSimilarity)]
    evidence = tuple(one for model, result in found for one in _mergeable(model, result))
    shares = [one.statistic.value for one in evidence if one.statistic.value is not None]
    outcomes = list(dict.fromkeys(map(seed_outcome, shares)))
    outcome = _together(outcomes)
    told = SAID.get(outcome, FOUND.get(outcome, _reasons(cells) or "no weights were compared"))
    numbers = ", ".join(
        f"{model}: {sum(x.mergeable for x in result.layers):,} of "
        f"{sum(x.pairs for x in result.layers):,} pairs at {result.threshold:g}"
        for model, result in found
    )
    return Verdict(
        label="seed rule",
        outcome=outcome,
        statement=f"{told} ({numbers})" if numbers else told,
        rule=SEED_RULE,
        evidence=evidence,
    )


def _corrected(cells: Sequence[CellResult]) -> Verdict:
    found = [(c.model, c.result) for c in cells if isinstance(c.result, MergedPairs)]
    models = dict.fromkeys(c.model for c in cells)
    outcomes = [corrected_outcome(result.of("similar")) for _, result in found]
    missing = [model for model in models if model not in dict(found)]
    outcome = INCONCLUSIVE if missing else _together(list(dict.fromkeys(outcomes)))
    told = [FOUND[outcome]] if outcome in FOUND else [_why_inconclusive(cells, found)]
    told += [_told(model, result) for model, result in found]
    told += [_front_told(c.model, c.result) for c in cells if isinstance(c.result, MergeFront)]
    evidence = [_measure(m, "corrected", SIMILAR, result.mean) for m, result in found]
    evidence += [
        _measure(m, "corrected", f"ΔNLL of the pair, layer {pair.layer}", pair.change)
        for m, result in found
        for pair in result.of("similar")
    ]
    return Verdict(
        label="corrected",
        outcome=outcome,
        statement="; ".join(one for one in told if one),
        rule=CORRECTED_RULE,
        evidence=tuple(evidence),
    )


def _together(outcomes: Sequence[str]) -> str:
    if not outcomes:
        return INCONCLUSIVE
    if INCONCLUSIVE in outcomes:
        return INCONCLUSIVE
    return outcomes[0] if len(outcomes) == 1 else "models differ"


def _told(model: str, result: MergedPairs) -> str:
    """Every layer's pair in numbers."""
    layers = [
        f"layer {pair.layer} E{pair.experts[0]}+E{pair.experts[1]} (output cosine "
        f"{number(pair.similarity)}) {_signed(pair.change)}" + _random_told(pair)
        for pair in result.of("similar")
    ]
    return f"{model}, ΔNLL: {'; '.join(layers)}"


def _random_told(pair: MergedPair) -> str:
    if pair.moved.null_mean is None or pair.beside.null_mean is None:
        return ""
    return (
        f", random pairs {number(pair.beside.null_mean)} [{number(pair.beside.null_low)}, "
        f"{number(pair.beside.null_high)}]; |Δ| of a token {number(pair.moved.value)}, random "
        f"pairs {number(pair.moved.null_mean)} [{number(pair.moved.null_low)}, "
        f"{number(pair.moved.null_high)}]"
    )


def _front_told(model: str, front: MergeFront) -> str:
    """Merging against REAP at the size nearest a quarter."""
    both = [
        (merge, prune)
        for merge in front.points
        if merge.method == OUTPUTS
        and (prune := front.at(REAP, merge.share)) is not None
        and merge.against_reap is not None
    ]
    if not both:
        return ""
    merge, prune = min(both, key=lambda pair: abs(pair[0].share - 0.25))
    assert merge.against_reap is not None
    return (
        f"{model}: with {merge.share:g} of the experts of layers "
        f"{', '.join(map(str, front.layers))} removed, merging costs {_signed(merge.change)} and "
        f"REAP pruning {_signed(prune.change)} nats a token; difference "
        f"{_signed(merge.against_reap)}"
    )


def _why_inconclusive(cells: Sequence[CellResult], found: Sequence[tuple[str, MergedPairs]]) -> str:
    own = [
        f"{model}, layer {pair.layer}: {pair.equivalence.reason}"
        for model, result in found
        for pair in result.of("similar")
        if pair.equivalence.reason
    ]
    return "; ".join([*own, _reasons(cells)]) or "no pair was merged"


def _why(cells: Sequence[CellResult]) -> str:
    found = [c.result for c in cells if isinstance(c.result, WeightSimilarity)]
    lift = ""
    if found:
        raw, aligned = (
            _mean([s.mean.value for one in found for s in one.of(what)])
            for what in (found[0].layers[0].similarities[0].what, ALIGNED)
        )
        null = _mean([s.mean.null_mean for one in found for s in one.of(ALIGNED)])
        lift = (
            f": here its mean is {number(raw)} as they lie and {number(aligned)} aligned, where "
            f"pairs across layers reach {number(null)}"
        )
    return (
        "the cosine of weights as they lie is near 0 for experts that compute the same with their "
        f"neurons in another order, and says nothing of what a merge costs{lift}; the corrected "
        "rule merges experts and reads held-out text"
    )


def _weight_measures(model: str, result: WeightSimilarity) -> Iterator[Measure]:
    yield from _mergeable(model, result)
    aligned = mean_of_layers([one.mean for one in result.of(ALIGNED)], ALIGNED_NULL)
    if aligned is not None:
        yield _measure(model, "corrected", ALIGNED_MEAN, aligned)


def _mergeable(model: str, result: WeightSimilarity) -> Iterator[Measure]:
    pairs = sum(layer.pairs for layer in result.layers)
    if pairs:
        share = sum(layer.mergeable for layer in result.layers) / pairs
        caveat = f"of {pairs:,} pairs; as published: no interval, no null"
        yield _measure(model, "seed", MERGEABLE, Statistic(value=share, caveat=caveat))


def _measure(
    model: str, label: Literal["seed", "corrected"], name: str, statistic: Statistic
) -> Measure:
    return Measure(model=model, label=label, name=name, statistic=statistic)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _signed(statistic: Statistic) -> str:
    sign = "+" if (statistic.value or 0) > 0 else ""
    return f"{sign}{number(statistic.value)} {interval(statistic)}"


def _reasons(cells: Sequence[CellResult]) -> str:
    told = dict.fromkeys(f"{c.model}: {c.reason}" for c in cells if c.reason is not None)
    return "; ".join(told)
