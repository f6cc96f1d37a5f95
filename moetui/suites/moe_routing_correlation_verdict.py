"""Two verdicts on `moe_routing_correlation`: the seed's thresholds, and the same with evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from moetui.analyses.task_accuracy import TaskAccuracy, paired_accuracy
from moetui.analyses.vocabulary_alignment import (
    LayerAlignment,
    LensAlignment,
    PromptRow,
    PromptSetAlignment,
    VocabularyAlignment,
)
from moetui.stats import (
    Statistic,
    document_bootstrap,
    equivalent,
    joined,
    ratio_of_sums,
    widened,
)
from moetui.stats.equivalence import EquivalenceTest
from moetui.suites.moe_routing_correlation_measures import PEAK, larger_set, seed_set
from moetui.suites.results import CellResult, Measure, Verdict, Verdicts

HIGH, LOW = 0.10, 0.05
# Prompts of the larger set: a tenth of 100 for each of four operations.
FEWEST_PROMPTS = 40
LEVEL = 0.05

SEED_RULE = (
    "probability of task words at the peak layer: supported if above 10 % with routers and below "
    "10 % without; partial if 5 to 10 % with routers and below 10 % without; not separable if "
    "above 10 % in both; else rejected"
)
CORRECTED_RULE = (
    "probability of task words that the prompt does not say, raw lens, at the layer of the largest "
    "one, by 95 % intervals over wordings, widened where those of a template are alike: "
    "supported if above 10 % with routers (q ≤ .05 "
    "against permuted tasks), below 10 % without, and larger with routers prompt by prompt; "
    "partial the same from 5 %; not separable if above 10 % in both; rejected if below 5 % with "
    "routers and the difference within ±5 points (equivalence); else unclear; inconclusive with a "
    f"model of either kind missing, below {FEWEST_PROMPTS} prompts or without intervals"
)
STATEMENTS = {
    "supported": "with routers the middle layers name the task in words, without routers not",
    "partial": "with routers the middle layers name the task in words to a small part",
    "not separable": "the middle layers name the task in words with and without routers",
    "rejected": "routers do not make the middle layers name the task in words",
    "unclear": "the numbers lie between the answers",
}
INCONCLUSIVE = "inconclusive"


class _Side(msgspec.Struct, frozen=True):
    """A model and what its layers say."""

    model: str
    alignment: VocabularyAlignment


class _Pair(msgspec.Struct, frozen=True):
    """The model with routers and the one without that are compared; a reason where one lacks."""

    moe: _Side | None
    dense: _Side | None
    reason: str | None


def conclude(cells: Sequence[CellResult]) -> Verdicts:
    """Both verdicts over the models of the run."""
    pair = _pair(cells)
    seed = _seed_verdict(pair)
    corrected = _corrected_verdict(pair, cells)
    return Verdicts(seed=seed, corrected=corrected, why_they_differ=_why(pair))


def seed_outcome(moe: float, dense: float) -> str:
    """The seed's rule on the two peaks."""
    if moe > HIGH:
        return "supported" if dense < HIGH else "not separable"
    return "partial" if moe >= LOW and dense < HIGH else "rejected"


def corrected_outcome(moe: Statistic, dense: Statistic, test: EquivalenceTest) -> str:
    """The corrected rule on the two largest probabilities and their paired difference."""
    limits = (moe.ci_low, moe.ci_high, dense.ci_low, dense.ci_high, test.statistic.ci_low)
    if None in limits:
        return INCONCLUSIVE
    moe_low, moe_high, dense_low, dense_high, difference_low = (x or 0.0 for x in limits)
    if moe_low > HIGH and dense_low > HIGH:
        return "not separable"
    real = moe.q is not None and moe.q <= LEVEL and difference_low > 0
    if real and dense_high < HIGH and moe_low > LOW:
        return "supported" if moe_low > HIGH else "partial"
    if moe_high < LOW and test.outcome == "equivalent":
        return "rejected"
    return "unclear"


def _pair(cells: Sequence[CellResult]) -> _Pair:
    """Of each kind the model whose peak is largest: the seed compares one of each."""
    sides = [
        _Side(cell.model, cell.result)
        for cell in cells
        if isinstance(cell.result, VocabularyAlignment)
    ]

    def largest(moe: bool) -> _Side | None:
        kind = [side for side in sides if side.alignment.routers == moe]
        return max(kind, key=lambda s: seed_set(s.alignment).peak.value or 0.0, default=None)

    moe, dense = largest(True), largest(False)
    failed = [f"{c.model}: {c.reason}" for c in cells if c.status == "failed"]
    lacking = [name for name, side in (("with", moe), ("without", dense)) if side is None]
    reason = f"no model {' and none '.join(lacking)} routers was read" if lacking else None
    return _Pair(moe, dense, joined(reason, *dict.fromkeys(failed)) if lacking else None)


def _seed_verdict(pair: _Pair) -> Verdict:
    evidence = tuple(
        Measure(
            model=side.model,
            label="seed",
            name=PEAK,
            statistic=seed_set(side.alignment).peak,
        )
        for side in (pair.moe, pair.dense)
        if side is not None
    )
    values = [measure.statistic.value for measure in evidence]
    outcome = INCONCLUSIVE
    if pair.reason is None and len(values) == 2 and None not in values:
        outcome = seed_outcome(*(value or 0.0 for value in values))
    return _verdict("seed rule", outcome, SEED_RULE, evidence, pair.reason)


def _corrected_verdict(pair: _Pair, cells: Sequence[CellResult]) -> Verdict:
    if pair.moe is None or pair.dense is None:
        return _verdict("corrected", INCONCLUSIVE, CORRECTED_RULE, (), pair.reason)
    sets = larger_set(pair.moe.alignment), larger_set(pair.dense.alignment)
    moe, dense = sets
    if moe is None or dense is None:
        return _verdict("corrected", INCONCLUSIVE, CORRECTED_RULE, (), "no larger set of prompts")
    both = f"{pair.moe.model} − {pair.dense.model}"
    tops = _top(moe), _top(dense)
    indices = [found.layers.index(top) for found, top in zip(sets, tops, strict=True) if found]
    difference = _paired(moe, dense, lambda row, side: row.probability[indices[side]])
    test = equivalent(difference, LOW)
    specificity = _paired(moe, dense, lambda row, side: _mean(row.specificity))
    evidence = [
        *(
            _measure(side.model, f"{_NAME}, raw lens, largest layer", _raw(top).probability)
            for side, top in zip((pair.moe, pair.dense), tops, strict=True)
        ),
        _measure(both, f"difference of these (equivalent within ±{LOW:.0%}: {test.outcome})",
                 difference),
        *(
            _measure(side.model, f"{_ODDS}, {mean.lens} lens, mean over layers", mean.specificity)
            for side, found in zip((pair.moe, pair.dense), sets, strict=True) if found
            for mean in found.means
        ),
        _measure(both, f"difference of {_ODDS}, raw lens", specificity),
        *_accuracy(pair, cells, both),
    ]  # fmt: skip
    few = min(len(moe.prompts), len(dense.prompts)) < FEWEST_PROMPTS
    reason = f"fewer than {FEWEST_PROMPTS} prompts" if few else None
    outcome = INCONCLUSIVE
    if reason is None:
        outcome = corrected_outcome(_raw(tops[0]).probability, _raw(tops[1]).probability, test)
        reason = "an interval is missing" if outcome == INCONCLUSIVE else None
    return _verdict("corrected", outcome, CORRECTED_RULE, tuple(evidence), reason)


_NAME = "probability of unsaid task words"
_ODDS = "log-odds of own task words over other tasks'"


def _measure(model: str, name: str, statistic: Statistic) -> Measure:
    return Measure(model=model, label="corrected", name=name, statistic=statistic)


def _top(found: PromptSetAlignment) -> LayerAlignment:
    return max(found.layers, key=lambda layer: _raw(layer).probability.value or 0.0)


def _raw(layer: LayerAlignment) -> LensAlignment:
    return next(lens for lens in layer.lenses if lens.lens == "raw")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _paired(
    moe: PromptSetAlignment,
    dense: PromptSetAlignment,
    value: Callable[[PromptRow, int], float | None],
) -> Statistic:
    """Mean over the prompts of both of what `value` takes from a row (side 0 and 1), MoE − dense,
    with an interval over wordings, widened where those of a template are alike."""
    other = {row.prompt: row for row in dense.prompts}
    sums: dict[str, tuple[float, int]] = {}
    template = {row.cluster: row.template for row in moe.prompts}
    for row in moe.prompts:
        if row.prompt not in other:
            continue
        one, two = value(row, 0), value(other[row.prompt], 1)
        if one is not None and two is not None:
            total, size = sums.get(row.cluster, (0.0, 0))
            sums[row.cluster] = (total + one - two, size + 1)
    if not sums:
        return Statistic(caveat="no prompt was read in both models")
    totals, sizes = zip(*sums.values(), strict=True)
    found = document_bootstrap(
        ratio_of_sums(totals, sizes),
        len(sums),
        seed=moe.peak.seed or 0,
        n_tokens=sum(sizes),
        caveat="paired: prompt by prompt",
    )
    return widened(found, totals, sizes, [template[one] for one in sums], name="templates")


def _accuracy(pair: _Pair, cells: Sequence[CellResult], both: str) -> list[Measure]:
    """The difference in solved problems: what the seed found without asking whether it is real."""
    assert pair.moe is not None and pair.dense is not None
    found = {c.model: c.result for c in cells if isinstance(c.result, TaskAccuracy)}
    sides = found.get(pair.moe.model), found.get(pair.dense.model)
    if sides[0] is None or sides[1] is None:
        return []
    paired = paired_accuracy(sides[0], sides[1])
    if paired.paired is None:
        return []
    name = f"difference in task accuracy, whole numbers ({paired.verdict})"
    return [_measure(both, name, paired.paired.difference)]


def _verdict(
    label: str, outcome: str, rule: str, evidence: tuple[Measure, ...], reason: str | None
) -> Verdict:
    statement = STATEMENTS.get(outcome, f"inconclusive: {reason or 'a number is missing'}")
    return Verdict(label=label, outcome=outcome, statement=statement, rule=rule, evidence=evidence)


def _why(pair: _Pair) -> str:
    return (
        f"The seed's score{_told(pair, _seed_peak)} counts a word only as it is written there, "
        "counts operator symbols that the prompt itself says, and has no null; the corrected "
        f"probability{_told(pair, _corrected_peak)} counts every form of the words that the prompt "
        "does not say, on the same numbers in the same wording, against the words of the other "
        "operations; for either the lens is the model's own norm and head, where the seed's code "
        "took the embedding, which is another matrix where the two are not tied."
    )


def _told(pair: _Pair, number: Callable[[VocabularyAlignment], float | None]) -> str:
    """The numbers of both models in brackets."""
    sides = [side for side in (pair.moe, pair.dense) if side is not None]
    values = [(side.model, number(side.alignment)) for side in sides]
    told = ", ".join(f"{model} {value:.4f}" for model, value in values if value is not None)
    return f" ({told})" if told else ""


def _seed_peak(found: VocabularyAlignment) -> float | None:
    return seed_set(found).peak.value


def _corrected_peak(found: VocabularyAlignment) -> float | None:
    larger = larger_set(found)
    return None if larger is None else _raw(_top(larger)).probability.value
