"""Do a model's layers name the task in words? The seed's reading beside a corrected one.

Seed: at the end of each prompt the largest probability, through the logit lens, of any of the
task's words; its mean over the prompts. It has no null: a word of the wrong task may be as likely,
and a word that the prompt itself says (`+`) is repeated by a model that copies.

Corrected: all surface forms of the words, those left out that the prompt's template says; their
log-odds against 200 random tokens of the same frequency; permuted tasks as the null; on a set of
prompts that asks every operation of the same operands in the same wording; the lens raw and tuned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.task_labels import (
    Labels,
    adjusted,
    cluster_means,
    labels,
    mean_of_own,
    median_of_own,
    null_means,
    own_scores,
)
from moetui.analyses.task_words import Prompt, TaskWords
from moetui.analyses.vocabulary_reading import LensScores, VocabularyRows
from moetui.stats import Statistic, finite, joined, permutation_p

Numbers = NDArray[np.float64]
LensName = Literal["raw", "tuned"]
# By layer; None where no form of the task's words is left.
Values = tuple[float | None, ...]

SEED_DEFINITION = (
    "largest probability, by the logit lens (the model's own norm and head) at the last token, of "
    "any of the task's words exactly as given, where it is a single token; mean over prompts"
)
CORRECTED_DEFINITION = (
    "words in all forms that are one token (space before, capitals), less those that the prompt's "
    "template says; log-odds = ln(mean probability of a form / mean probability of 200 random "
    "tokens as frequent in calibration text); specificity = log-odds of the prompt's own task less "
    "the mean over all tasks, and less what the same words have over all prompts of the template"
)
# Digits kept of the rows: they are for tables and pairing, statistics are made before.
_DIGITS = 6


class LensAlignment(msgspec.Struct, frozen=True, kw_only=True):
    """One lens at one layer, for the words of each prompt's own task that it does not say.

    probability: of any of them. log_odds, specificity: nats, see `CORRECTED_DEFINITION`.
    median_rank: of the likeliest of them, 0 = top. kl: KL(model ‖ layer) in nats.
    """

    lens: LensName
    probability: Statistic
    log_odds: Statistic
    specificity: Statistic
    median_rank: Statistic
    kl: Statistic


class LensMean(msgspec.Struct, frozen=True, kw_only=True):
    """One lens, mean over the layers read, so that no layer is picked for its result."""

    lens: LensName
    probability: Statistic
    log_odds: Statistic
    specificity: Statistic


class LayerAlignment(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: the seed's score, and the corrected ones of each lens. depth: layer / layers."""

    layer: int
    depth: float
    seed: Statistic
    lenses: tuple[LensAlignment, ...]


class PromptRow(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt: values by layer. probability, log_odds, specificity: raw lens, unsaid words;
    tuned_specificity is empty without a tuned lens."""

    prompt: str
    task: str
    template: str
    cluster: str
    seed: Values
    probability: Values
    log_odds: Values
    specificity: Values
    tuned_probability: Values
    tuned_specificity: Values


class PromptSetAlignment(msgspec.Struct, frozen=True, kw_only=True):
    """A set of prompts.

    peak_layer, peak: where the seed's score is largest, and the score there, whose null is the
    largest of the layers too. said: template →
    words left out of the corrected scores because the template says them.
    """

    name: str
    layers: tuple[LayerAlignment, ...]
    means: tuple[LensMean, ...]
    peak_layer: int
    peak: Statistic
    said: dict[str, tuple[str, ...]]
    prompts: tuple[PromptRow, ...]


class VocabularyAlignment(msgspec.Struct, frozen=True, kw_only=True, tag="vocabulary_alignment"):
    """The words of a model's tasks through its lens; sets: the seed's prompts, then the larger
    one, where there is one. routers: whether the model has any. tuned_reason: why there is no
    tuned lens, None where there is."""

    seed_definition: str
    definition: str
    routers: bool
    words: tuple[TaskWords, ...]
    sets: tuple[PromptSetAlignment, ...]
    tuned_reason: str | None


def prompt_set_alignment(
    name: str,
    prompts: Sequence[Prompt],
    tasks: Sequence[str],
    rows: VocabularyRows,
    said: dict[str, tuple[str, ...]],
    *,
    num_layers: int,
    seed: int,
) -> PromptSetAlignment:
    """The statistics of one set of prompts, in the order in which they were read."""
    of = labels(prompts, tasks, seed=seed)
    scores = mean_of_own(rows.seed, of, caveat="as published, no correction", low=0, high=1)
    lenses: list[tuple[LensName, LensScores]] = [("raw", rows.raw)]
    if rows.tuned is not None:
        lenses.append(("tuned", rows.tuned))
    by_lens = [_lens(lens, found, of) for lens, found in lenses]
    best = int(np.argmax(own_scores(rows.seed, of).mean(0)))
    return PromptSetAlignment(
        name=name,
        layers=tuple(
            LayerAlignment(
                layer=int(layer),
                depth=round(int(layer) / num_layers, 4),
                seed=scores[at],
                lenses=tuple(found[at] for found in by_lens),
            )
            for at, layer in enumerate(rows.layers)
        ),
        means=tuple(_mean(lens, found, of) for lens, found in lenses),
        peak_layer=int(rows.layers[best]),
        peak=_peak(scores[best], null_means(rows.seed, of).max(1)),
        said=said,
        prompts=tuple(_rows(prompts, rows, of)),
    )


def _peak(best: Statistic, null: Numbers) -> Statistic:
    """The largest of the layers, against the largest of the layers in every permutation [m]: one
    that was picked for its size is no better than chance because it beats the chance of one."""
    if best.value is None or best.p is None:
        return best
    low, high = np.quantile(null, [0.025, 0.975])
    return msgspec.structs.replace(
        best,
        null_mean=float(null.mean()),
        null_low=float(low),
        null_high=float(high),
        p=permutation_p(best.value, null),
        caveat=joined("largest of the layers, as in every permutation", best.caveat),
    )


def specificities(log_odds: Numbers, templates: NDArray[np.intp]) -> Numbers:
    """[P, M, tasks]: log-odds less their mean over the tasks, and less the mean that the words of
    a task then have over all prompts of the template.

    What words have everywhere moves no mean over prompts that ask every task equally often, but it
    differs from task to task, and would pass for uncertainty in a bootstrap.
    """
    centred = log_odds - log_odds.mean(-1, keepdims=True)
    own: Numbers = centred.copy()
    for template in np.unique(templates):
        rows = templates == template
        own[rows] -= centred[rows].mean(0)
    return own


def _lens(lens: LensName, scores: LensScores, of: Labels) -> list[LensAlignment]:
    probability = adjusted(mean_of_own(scores.probability, of, low=0, high=1))
    log_odds = adjusted(mean_of_own(scores.log_odds, of))
    specificity = adjusted(mean_of_own(specificities(scores.log_odds, of.templates), of))
    ranks = adjusted(median_of_own(scores.rank, of))
    kl = cluster_means(scores.kl, of, low=0)
    return [
        LensAlignment(
            lens=lens,
            probability=probability[at],
            log_odds=log_odds[at],
            specificity=specificity[at],
            median_rank=ranks[at],
            kl=kl[at],
        )
        for at in range(scores.kl.shape[1])
    ]


def _mean(lens: LensName, scores: LensScores, of: Labels) -> LensMean:
    def over_layers(
        values: Numbers, low: float | None = None, high: float | None = None
    ) -> Statistic:
        means = values.mean(1, keepdims=True)
        return mean_of_own(means, of, caveat="mean over layers", low=low, high=high)[0]

    return LensMean(
        lens=lens,
        probability=over_layers(scores.probability, 0, 1),
        log_odds=over_layers(scores.log_odds),
        specificity=over_layers(specificities(scores.log_odds, of.templates)),
    )


def _rows(prompts: Sequence[Prompt], rows: VocabularyRows, of: Labels) -> list[PromptRow]:
    seed = own_scores(rows.seed, of)
    probability, log_odds, specificity = _own(rows.raw, of)
    empty = np.empty((len(prompts), 0))
    tuned_probability, _, tuned_specificity = (
        (empty, empty, empty) if rows.tuned is None else _own(rows.tuned, of)
    )
    return [
        PromptRow(
            prompt=prompt.text,
            task=prompt.task,
            template=prompt.template,
            cluster=prompt.cluster,
            seed=_rounded(seed[at]),
            probability=_rounded(probability[at]),
            log_odds=_rounded(log_odds[at]),
            specificity=_rounded(specificity[at]),
            tuned_probability=_rounded(tuned_probability[at]),
            tuned_specificity=_rounded(tuned_specificity[at]),
        )
        for at, prompt in enumerate(prompts)
    ]


def _own(scores: LensScores, of: Labels) -> tuple[Numbers, Numbers, Numbers]:
    return (
        own_scores(scores.probability, of),
        own_scores(scores.log_odds, of),
        own_scores(specificities(scores.log_odds, of.templates), of),
    )


def _rounded(values: Numbers) -> Values:
    known = (finite(value) for value in values.tolist())
    return tuple(None if value is None else float(f"{value:.{_DIGITS}g}") for value in known)
