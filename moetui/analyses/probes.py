"""Can the operation be read from the last token, and from its routing alone?

The seed's probe is trained and scored on the same few prompts. Beside it stand linear probes that
are scored on wordings and numbers they never saw, what remembering wordings reaches (the control
task), and what needs no model at all: the tokens of the prompt and a fixed answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from moetui.analyses.one_thread import one_thread
from moetui.analyses.probe_features import (
    DEPTHS,
    ProbeFeatures,
    chosen_experts,
    layer_at,
    router_logits,
    token_counts,
)
from moetui.analyses.probe_fit import (
    PERMUTATIONS,
    Chance,
    Items,
    Labels,
    Predictions,
    accuracy,
    against_controls,
    chances,
    controls,
    gain,
    operand_folds,
    predict,
    seen,
    unseen,
)
from moetui.analyses.seed_probe import DEFINITION, SeedProbe, seed_probe
from moetui.analyses.task_prompts import TASKS, Task, TaskPrompt
from moetui.stats import Statistic, benjamini_hochberg
from moetui.stats.minimum import PROBE, enough, warning
from moetui.trace import ModelInfo

Numbers = NDArray[np.float64]

RESIDUAL = "residual stream"
CHOSEN = "chosen experts"
LOGITS = "router logits"
EMBEDDING = "embedding (layer 0)"
TOKENS = "bag of tokens"


class WordingScore(msgspec.Struct, frozen=True, kw_only=True):
    """How many of the n prompts of one wording were recognised, wording and numbers unseen."""

    template: str
    task: Task
    right: int
    n: int


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of features, at one layer where they are of a layer.

    depth: as asked for; layer: the one that was read there. width: how many features.
    unseen: accuracy on templates and operands that the probe never saw, q over all probes that
    are of a layer; without_symbol: the same over prompts that hold no operator symbol; seen:
    operands held out, wordings seen, with the control task as null; selectivity: seen less
    control. gain: unseen less that of the bag of tokens (None for that itself). predicted: for
    each prompt of the set, by a probe that saw neither its template nor its operands.
    not_converged of fits reached the limit of iterations.
    """

    features: str
    depth: float | None
    layer: int | None
    width: int
    unseen: Statistic
    without_symbol: Statistic | None
    seen: Statistic
    selectivity: Statistic
    gain: Statistic | None
    by_wording: tuple[WordingScore, ...]
    predicted: tuple[Task, ...]
    fits: int
    not_converged: int


class Probes(msgspec.Struct, frozen=True, kw_only=True, tag="probes"):
    """The seed's probes and the corrected ones, baselines among them.

    prompts: the larger set, in the order of every `predicted`. most_frequent: what always giving
    the commonest operation reaches. no_routing: why routing was not probed, None where it was.
    verdict: "measured", or "inconclusive" with the reason. warnings: sizes below the minimum.
    """

    seed_definition: str
    seed: tuple[SeedProbe, ...]
    prompts: tuple[TaskPrompt, ...]
    most_frequent: Statistic
    probes: tuple[Probe, ...]
    no_routing: str | None
    verdict: str
    reason: str | None
    warnings: tuple[str, ...]

    def probe(self, features: str, depth: float | None = None) -> Probe | None:
        """The probe of these features at this depth; None where there is none."""
        found = (p for p in self.probes if (p.features, p.depth) == (features, depth))
        return next(found, None)


def probes(
    info: ModelInfo,
    seed_items: Sequence[TaskPrompt],
    seed_features: ProbeFeatures,
    items: Sequence[TaskPrompt],
    features: ProbeFeatures,
    *,
    depths: Sequence[float] = DEPTHS,
    seed: int,
) -> Probes:
    """All probes of one model from the features of the seed's prompts and of the larger set, both
    read at `depths`.

    Below 100 prompts a class or 5 templates a warning; below 10 prompts a class, 2 templates or
    2 pairs of operands inconclusive, without the corrected probes.
    """
    coded = coded_items(items)
    reason = too_few(coded)
    # By layer; where two depths are one layer, it goes by the first.
    asked = {layer_at(d, info.num_layers): d for d in sorted(depths, reverse=True)}
    with one_thread():
        found = () if reason else _all_probes(items, coded, features, asked, seed)
    return Probes(
        seed_definition=DEFINITION,
        seed=tuple(
            seed_probe(
                seed_features.residual[:, index].astype(float),
                [item.task for item in seed_items],
                depth=asked[layer],
                layer=layer,
                seed=seed,
            )
            for index, layer in enumerate(seed_features.layers.tolist())
        ),
        prompts=tuple(items),
        most_frequent=most_frequent(coded, seed=seed),
        probes=found,
        no_routing=None if info.is_moe else _why_no_routing(info),
        verdict="inconclusive" if reason else "measured",
        reason=reason,
        warnings=warnings_of(coded),
    )


def coded_items(items: Sequence[TaskPrompt]) -> Items:
    """The prompts as integers."""
    templates = list(dict.fromkeys(item.template for item in items))
    operands = list(dict.fromkeys(item.operands for item in items))
    return Items(
        labels=np.array([TASKS.index(item.task) for item in items], np.int64),
        templates=np.array([templates.index(item.template) for item in items], np.int64),
        operands=np.array([operands.index(item.operands) for item in items], np.int64),
        classes=len(TASKS),
    )


def _all_probes(
    items: Sequence[TaskPrompt],
    coded: Items,
    features: ProbeFeatures,
    asked: dict[int, float],
    seed: int,
) -> tuple[Probe, ...]:
    folds = operand_folds(coded, seed=seed)
    tokens = token_counts(features).astype(float)
    baseline = predict(tokens, coded.labels, unseen(coded, folds))
    read = _Reading(items, coded, folds, baseline, seed)
    found = [
        read.probe(TOKENS, tokens, predicted=baseline),
        read.probe(EMBEDDING, features.embedding),
    ]
    at = [(asked[layer], layer) for layer in features.layers.tolist()]
    for index, place in enumerate(at):
        found.append(read.probe(RESIDUAL, features.residual[:, index], place))
    for index, layer in enumerate(features.routing_layers.tolist()):
        place = (at[index][0], layer)
        found.append(read.probe(LOGITS, router_logits(features, index), place))
        found.append(read.probe(CHOSEN, chosen_experts(features, index), place))
    return _adjusted(found)


def _adjusted(found: Sequence[Probe]) -> tuple[Probe, ...]:
    """With q over the probes of the model at all layers; baselines are no tests."""
    tests = [probe for probe in found if probe.depth is not None]
    p = [probe.unseen.p for probe in tests if probe.unseen.p is not None]
    q = iter(benjamini_hochberg(p, permutations=PERMUTATIONS).tolist())
    return tuple(
        replace(probe, unseen=replace(probe.unseen, q=next(q)))
        if probe.depth is not None and probe.unseen.p is not None
        else probe
        for probe in found
    )


class _Reading:
    """What all probes of one set of prompts have in common."""

    def __init__(
        self,
        items: Sequence[TaskPrompt],
        coded: Items,
        folds: Labels,
        baseline: Predictions,
        seed: int,
    ) -> None:
        self._items, self._coded, self._folds = items, coded, folds
        self._baseline, self._seed = baseline, seed
        self._without_symbol = np.array([not item.symbol for item in items])

    def probe(
        self,
        name: str,
        features: NDArray[np.floating],
        place: tuple[float, int] | None = None,
        *,
        predicted: Predictions | None = None,
    ) -> Probe:
        """The probe of `features` [n, width]; place: depth and layer; predicted: where that has
        been made already."""
        coded, folds, seed = self._coded, self._folds, self._seed
        X = np.asarray(features, float)
        found = predicted or predict(X, coded.labels, unseen(coded, folds))
        familiar = predict(X, coded.labels, seen(folds))
        reached = controls(X, coded, folds, seed=seed)
        chance, of_words = chances(X, coded, unseen(coded, folds), self._without_symbol, seed=seed)
        seen_accuracy, selectivity = against_controls(coded, familiar.labels, reached, seed=seed)
        return Probe(
            features=name,
            depth=None if place is None else place[0],
            layer=None if place is None else place[1],
            width=X.shape[1],
            unseen=accuracy(coded, found.labels, chance, seed=seed),
            without_symbol=self._of_words(found.labels, of_words),
            seen=seen_accuracy,
            selectivity=selectivity,
            gain=None
            if predicted is self._baseline
            else gain(coded, found.labels, self._baseline.labels, seed=seed),
            by_wording=self._by_wording(found.labels),
            predicted=tuple(TASKS[label] for label in found.labels),
            fits=found.fits + familiar.fits + reached.fits,
            not_converged=found.not_converged + familiar.not_converged + reached.not_converged,
        )

    def _of_words(self, predicted: Labels, chance: Chance) -> Statistic | None:
        keep = self._without_symbol
        if not keep.any() or keep.all():
            return None
        return accuracy(self._coded.chosen(keep), predicted[keep], chance, seed=self._seed)

    def _by_wording(self, predicted: Labels) -> tuple[WordingScore, ...]:
        hits: dict[tuple[str, Task], list[bool]] = {}
        for item, right in zip(self._items, predicted == self._coded.labels, strict=True):
            hits.setdefault((item.template, item.task), []).append(bool(right))
        return tuple(
            WordingScore(template=template, task=task, right=sum(right), n=len(right))
            for (template, task), right in hits.items()
        )


def most_frequent(coded: Items, *, seed: int) -> Statistic:
    """What sklearn's DummyClassifier reaches: the commonest label, whatever the prompt."""
    counts = np.bincount(coded.labels, minlength=coded.classes)
    size = int(counts.sum())
    return Statistic(
        value=float(counts.max() / size) if size else None,
        n_tokens=size,
        seed=seed,
        caveat="the commonest operation, always: no estimate, and no interval",
    )


def _why_no_routing(info: ModelInfo) -> str:
    return info.routing_error or f"no router: {info.name} is a dense model"


def _sizes(coded: Items) -> dict[str, float]:
    smallest = int(np.bincount(coded.labels, minlength=coded.classes).min())
    return {"items_per_class": smallest, "templates": len(np.unique(coded.templates))}


def too_few(coded: Items) -> str | None:
    """Why nothing can be said of so few prompts, None where something can."""
    sizes, operands = _sizes(coded), len(np.unique(coded.operands))
    if sizes["templates"] < 2 or operands < 2:
        return "one template, or one pair of operands: nothing can be held out"
    if enough(PROBE, **sizes) == "inconclusive":
        return warning(PROBE, **sizes)
    return None


def warnings_of(coded: Items) -> tuple[str, ...]:
    """Sizes below the minimum of a probe."""
    told = warning(PROBE, **_sizes(coded))
    return () if told is None else (told,)
