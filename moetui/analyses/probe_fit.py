"""Linear probes scored on prompts that share neither wording nor numbers with their training.

A probe that has seen a wording may remember it: with a few words that mark a class, any labels
can be learned from them (the control task of arXiv 1909.03368). So a prompt is scored by a probe
that was trained without its template, whose words that name an operation are in no other, and
without its operands.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from moetui.stats import (
    Statistic,
    document_bootstrap,
    joined,
    permutation_p,
    rate,
    ratio_of_sums,
    widened,
)

Numbers = NDArray[np.float64]
Labels = NDArray[np.int64]
Split = tuple[NDArray[np.intp], NDArray[np.intp]]

OPERAND_GROUPS = 2
MAX_ITERATIONS = 300
PERMUTATIONS = 999
CONTROLS = 20

CHANCE = (
    "chance: least-squares probes on the same splits, trained anew with operations dealt out at "
    "random among the wordings of each template; p: of what is less, this accuracy or that of the "
    "least-squares probe"
)
CLUSTERS = "a wording (operation in a template) is one document"


@dataclass(frozen=True, eq=False)
class Items:
    """n prompts as integers: labels [n] (0 … K-1), templates [n], operands [n], K classes."""

    labels: Labels
    templates: Labels
    operands: Labels
    classes: int

    @property
    def wordings(self) -> Labels:
        """[n], the wording of each prompt: one operation in one template."""
        return self.templates * self.classes + self.labels

    def chosen(self, keep: NDArray[np.bool_]) -> Items:
        """The prompts of `keep`."""
        return Items(self.labels[keep], self.templates[keep], self.operands[keep], self.classes)


@dataclass(frozen=True, eq=False)
class Predictions:
    """labels: [n], each by a probe that did not see it. fits, not_converged: how many probes were
    trained, and how many of them reached the limit of iterations."""

    labels: Labels
    fits: int
    not_converged: int


@dataclass(frozen=True, eq=False)
class Chance:
    """Accuracy of a least-squares probe: as observed, and [m] where labels were dealt anew."""

    observed: float
    null: Numbers


@dataclass(frozen=True, eq=False)
class Controls:
    """accuracies: float64 [20], reached in the control task; right: float64 [n], in how many of
    them, as a share, each prompt was right; fits, not_converged: as above."""

    accuracies: Numbers
    right: Numbers
    fits: int
    not_converged: int


def linear_probe() -> Any:
    """The probe: standardised features, multinomial logistic regression with an L2 penalty."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS))


def fitted(features: Numbers, labels: Labels) -> tuple[Any, bool]:
    """A probe trained on features [n, width], and whether its training converged."""
    from sklearn.exceptions import ConvergenceWarning

    probe = linear_probe()
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always", ConvergenceWarning)
        probe.fit(features, labels)
    return probe, not any(issubclass(one.category, ConvergenceWarning) for one in raised)


def operand_folds(items: Items, *, seed: int, groups: int = OPERAND_GROUPS) -> Labels:
    """[n], the fold of each prompt: prompts with the same operands are in the same one."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = min(groups, len(np.unique(items.operands)))
    folds = StratifiedGroupKFold(groups, shuffle=True, random_state=seed)
    fold = np.zeros(len(items.labels), np.int64)
    for index, (_, test) in enumerate(folds.split(items.labels, items.labels, items.operands)):
        fold[test] = index
    return fold


def unseen(items: Items, folds: Labels) -> Iterator[Split]:
    """Train and test indices: the tested share neither template nor operands with the trained."""
    for template in np.unique(items.templates):
        for fold in np.unique(folds):
            same, held = items.templates == template, folds == fold
            yield np.flatnonzero(~same & ~held), np.flatnonzero(same & held)


def halves(items: Items, folds: Labels) -> Iterator[Split]:
    """Train on every other template and one fold of operands, test on all that shares neither."""
    other = items.templates % 2
    for half in (0, 1):
        for fold in np.unique(folds):
            mine, held = other == half, folds == fold
            yield np.flatnonzero(~mine & ~held), np.flatnonzero(mine & held)


def seen(folds: Labels) -> Iterator[Split]:
    """Train and test indices: operands are held out, every wording is in both."""
    for fold in np.unique(folds):
        yield np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)


def predict(features: Numbers, labels: Labels, splits: Iterable[Split]) -> Predictions:
    """Every prompt's label by a probe trained on the other side of its split."""
    found = np.full(len(labels), -1)
    fits = not_converged = 0
    for train, test in splits:
        probe, converged = fitted(features[train], labels[train])
        found[test] = probe.predict(features[test])
        fits += 1
        not_converged += not converged
    return Predictions(found, fits, not_converged)


def accuracy(
    items: Items, predicted: Labels, chance: Chance, *, seed: int, caveat: str | None = None
) -> Statistic:
    """Share of right predictions with an interval over wordings, and `chance` of the same prompts.

    Wordings are the unit, not prompts: a probe is right or wrong about a wording as a whole. The
    null is of another probe than the one reported, which may do worse than that: neither is called
    better than chance unless both are.
    """
    found = _share(items, predicted, seed)
    low, high = np.quantile(chance.null, [0.025, 0.975])
    return replace(
        found,
        null_mean=float(chance.null.mean()),
        null_low=float(low),
        null_high=float(high),
        p=permutation_p(min(chance.observed, found.value or 0.0), chance.null),
        caveat=joined(caveat, CLUSTERS, found.caveat, CHANCE),
    )


def chances(
    features: Numbers,
    items: Items,
    splits: Iterable[Split],
    keep: NDArray[np.bool_],
    *,
    seed: int,
) -> tuple[Chance, Chance]:
    """Chance in `splits`, over all prompts and over those of `keep` [n].

    Every dealing is a new training, because probes of different templates share what they were
    trained on: dealing among finished predictions calls 4 % of nothing significant at 1 %.
    Least squares has a closed form for all dealings at once; the probes reported have not.
    """
    rng = np.random.default_rng(seed)
    templates, of = np.unique(items.templates, return_inverse=True)
    dealt = rng.permuted(
        np.tile(np.arange(items.classes), (PERMUTATIONS, len(templates), 1)), axis=2
    )
    labels = np.concatenate([items.labels[None], dealt[:, of, items.labels]])
    targets = np.eye(items.classes)[labels]
    right = np.zeros(labels.shape, bool)
    for train, test in splits:
        weights = _least_squares(features[train], features[test])
        told = np.einsum("sn,mnk->msk", weights, targets[:, train], optimize=True)
        right[:, test] = told.argmax(axis=-1) == labels[:, test]
    every, chosen = right.mean(axis=1), right[:, keep].mean(axis=1) if keep.any() else None
    whole = Chance(float(every[0]), every[1:])
    return whole, whole if chosen is None else Chance(float(chosen[0]), chosen[1:])


def _least_squares(train: Numbers, test: Numbers) -> Numbers:
    """[tested, trained]: how much each training target weighs in each prediction of a ridge
    regression on standardised features, penalty: as much as a feature's whole sum of squares."""
    centre, spread = train.mean(axis=0), train.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0) * np.sqrt(train.shape[1])
    known, asked = (train - centre) / scale, (test - centre) / scale
    gram = known @ known.T + np.eye(len(train))
    # The mean of the targets is the intercept.
    mean = np.full((len(train), len(train)), 1 / len(train))
    centred = np.eye(len(train)) - mean
    weights: Numbers = np.linalg.solve(gram, known @ asked.T).T @ centred + mean[:1]
    return weights


def gain(items: Items, predicted: Labels, baseline: Labels, *, seed: int) -> Statistic:
    """Accuracy less that of a baseline on the same prompts, interval over wordings."""
    right = (predicted == items.labels).astype(float) - (baseline == items.labels)
    found = mean_over_wordings(items, right, seed=seed, low=-1, high=1)
    return replace(found, caveat=joined(CLUSTERS, found.caveat))


def controls(features: Numbers, items: Items, folds: Labels, *, seed: int) -> Controls:
    """What a probe reaches in the control task.

    Every wording is given a random label, each label once in every template as in truth; what a
    probe reaches here it reaches by remembering wordings.
    """
    rng = np.random.default_rng(seed)
    templates, of = np.unique(items.templates, return_inverse=True)
    reached, share = np.zeros(CONTROLS), np.zeros(len(items.labels))
    fits = not_converged = 0
    for draw in range(CONTROLS):
        dealt = rng.permuted(np.tile(np.arange(items.classes), (len(templates), 1)), axis=1)
        labels = dealt[of, items.labels]
        found = predict(features, labels, seen(folds))
        right = found.labels == labels
        reached[draw] = right.mean()
        share += right / CONTROLS
        fits += found.fits
        not_converged += found.not_converged
    return Controls(reached, share, fits, not_converged)


def against_controls(
    items: Items, predicted: Labels, reached: Controls, *, seed: int
) -> tuple[Statistic, Statistic]:
    """Accuracy where wordings were seen with the control task as null, and the selectivity."""
    found = _share(items, predicted, seed)
    assert found.value is not None
    low, high = (float(q) for q in np.quantile(reached.accuracies, [0.025, 0.975]))
    told = f"null = control task, {CONTROLS} draws of a random label for every wording"
    seen_accuracy = replace(
        found,
        null_mean=float(reached.accuracies.mean()),
        null_low=low,
        null_high=high,
        p=permutation_p(found.value, reached.accuracies),
        caveat=joined(CLUSTERS, found.caveat, told),
    )
    more = (predicted == items.labels) - reached.right
    selectivity = mean_over_wordings(items, more, seed=seed, low=-1, high=1)
    told = f"accuracy − control accuracy, mean of {CONTROLS} draws, prompt by prompt"
    return seen_accuracy, replace(selectivity, caveat=joined(told, CLUSTERS, selectivity.caveat))


def mean_over_wordings(
    items: Items, values: Numbers, *, seed: int, low: float | None = None, high: float | None = None
) -> Statistic:
    """Mean of values [n] with an interval over wordings, widened where those of a template are
    alike; low, high: least and largest possible value."""
    sums, sizes = by_wording(items, values)
    found = document_bootstrap(
        ratio_of_sums(sums, sizes), len(sums), seed=seed, n_tokens=len(values)
    )
    return _of_templates(found, items, values, low, high)


def by_wording(items: Items, values: NDArray[Any]) -> tuple[Numbers, Numbers]:
    """Sums of values [n] by wording, and how many prompts each has."""
    _, of = np.unique(items.wordings, return_inverse=True)
    sums: Numbers = np.bincount(of, values.astype(float)).astype(float)
    return sums, np.bincount(of).astype(float)


def _share(items: Items, predicted: Labels, seed: int) -> Statistic:
    """Share of right predictions, see `accuracy`."""
    right = (predicted == items.labels).astype(float)
    found = rate(*by_wording(items, right), seed=seed)
    return _of_templates(found, items, right, 0, 1)


def _of_templates(
    found: Statistic, items: Items, values: Numbers, low: float | None, high: float | None
) -> Statistic:
    templates = np.unique(items.wordings) // items.classes
    sums, sizes = by_wording(items, values)
    return widened(found, sums, sizes, templates, name="templates", low=low, high=high)
