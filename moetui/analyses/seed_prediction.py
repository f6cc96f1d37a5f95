"""Prediction of experts as the published experiments score it, with what their scores leave out.

They fit a linear map to a few prompts and score it on the same prompts: by whether the foretold
top expert is the top expert, by whether any of the k foretold experts is among the k used, and by
the share of the used ones that would have been fetched. Beside each stands what a constant answer
reaches on the same prompts, and the published kind of correlation has its null.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.analyses.expert_ranks import Numbers, multi_hot, ranks
from moetui.analyses.one_thread import one_thread
from moetui.stats import Statistic, permutation_test

DEFINITION = (
    "as published: a linear map, fitted by least squares to the prompts' last tokens and scored "
    "on the same tokens. Accuracy: the foretold top expert is the top expert. Any overlap: one of "
    "the k experts foretold is among the k used. Fetched: share of the k used that are foretold. "
    "Constant: the same scores for always naming the k most frequent experts of these prompts. "
    "With more features than prompts the map meets every target exactly: all k used experts then "
    "score 1, and the vanishing penalty of the fit decides which of them is the top one"
)
AS_PUBLISHED = "as published: scored on the prompts that it was fitted to; no interval, no null"
CORRELATION_NULL = (
    "largest |r| over features, experts and layers; null: the same where features are exchanged "
    "among prompts"
)
_RIDGE = 1e-9


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """Shares, means over the prompts."""

    accuracy: float
    any_overlap: float
    fetched: float


class LayerScores(msgspec.Struct, frozen=True, kw_only=True):
    """One decoder layer, or (layer None) the mean over layers. constant: see DEFINITION."""

    layer: int | None
    fitted: Scores
    constant: Scores


class SeedPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """The published scores. by_prompt: of the fitted map, means over layers. chance_overlap: any
    overlap of k experts drawn at random.

    correlation: the largest |r| of a feature and "the expert is used", where features are few
    enough to be looked at one by one; None else.
    """

    definition: str
    prompts: int
    features: int
    layers: tuple[LayerScores, ...]
    mean: LayerScores
    by_prompt: tuple[Scores, ...]
    chance_overlap: float
    correlation: Statistic | None = None


def seed_prediction(
    features: Sequence[ArrayLike],
    experts: Sequence[ArrayLike],
    layers: Sequence[int],
    *,
    num_experts: int,
    correlate: bool,
    seed: int,
) -> SeedPrediction:
    """Scores at each of `layers`: features [P, F] and experts [P, k], best first, of P prompts.

    Raises ValueError for no layers or no prompts.
    """
    if not layers or not len(np.asarray(experts[0])):
        raise ValueError("a prediction needs layers and prompts")
    x = [np.asarray(one, float) for one in features]
    chosen = [np.asarray(one) for one in experts]
    hot = [multi_hot(used, num_experts) for used in chosen]
    with one_thread():
        fitted = [
            _by_prompt(_least_squares(at, y), used)
            for at, y, used in zip(x, hot, chosen, strict=True)
        ]
        correlation = _correlation(x, hot, seed) if correlate else None
    constant = [
        _by_prompt(np.tile(y.mean(axis=0), (len(y), 1)), used)
        for y, used in zip(hot, chosen, strict=True)
    ]
    each = np.mean(fitted, axis=0)
    return SeedPrediction(
        definition=DEFINITION,
        prompts=len(chosen[0]),
        features=x[0].shape[1],
        layers=tuple(
            _layer(layer, one, other)
            for layer, one, other in zip(layers, fitted, constant, strict=True)
        ),
        mean=_layer(None, each, np.mean(constant, axis=0)),
        by_prompt=tuple(map(_scores, each)),
        chance_overlap=chance_overlap(num_experts, int(chosen[0].shape[1])),
        correlation=correlation,
    )


def chance_overlap(E: int, k: int) -> float:
    """Chance that two sets of k of E experts drawn at random have one in common."""
    return 1 - comb(E - k, k) / comb(E, k)


def _layer(layer: int | None, fitted: Numbers, constant: Numbers) -> LayerScores:
    """From [P, 3] each."""
    return LayerScores(
        layer=layer, fitted=_scores(fitted.mean(axis=0)), constant=_scores(constant.mean(axis=0))
    )


def _scores(values: Numbers) -> Scores:
    accuracy, any_overlap, fetched = values.tolist()
    return Scores(accuracy=accuracy, any_overlap=any_overlap, fetched=fetched)


def _by_prompt(told: Numbers, used: NDArray[np.int16]) -> Numbers:
    """[P, 3]: top expert foretold, any of k foretold, share of k foretold."""
    places = ranks(told, used)
    wanted = np.maximum((used >= 0).sum(axis=1), 1)
    inside = (places < int(wanted.max(initial=1))).sum(axis=1)
    return np.stack([places[:, 0] == 0, inside > 0, inside / wanted], axis=1).astype(float)


def _least_squares(features: Numbers, targets: Numbers) -> Numbers:
    """What the map says of the prompts that it was fitted to, by their kernel: features may be
    more than prompts."""
    x = _standard(features)
    kernel, mean = x @ x.T, targets.mean(axis=0)
    small = _RIDGE * max(float(np.trace(kernel)), 1.0) * np.eye(len(x))
    told: Numbers = kernel @ np.linalg.solve(kernel + small, targets - mean) + mean
    return told


def _correlation(
    features: Sequence[Numbers], targets: Sequence[Numbers], seed: int
) -> Statistic | None:
    x, y = [_standard(one) for one in features], [_standard(one) for one in targets]
    P = len(x[0])

    def largest(order: NDArray[np.intp]) -> float:
        return max(float(np.abs(a[order].T @ b).max()) / P for a, b in zip(x, y, strict=True))

    if P < 3:
        return None
    found = permutation_test(
        largest(np.arange(P)), lambda rng: largest(rng.permutation(P)), seed=seed
    )
    return msgspec.structs.replace(found, n_documents=P, caveat=CORRELATION_NULL)


def _standard(values: Numbers) -> Numbers:
    """Columns of mean 0 and variance 1; 0 where they do not vary."""
    centred = values - values.mean(axis=0)
    spread = values.std(axis=0)
    scaled: Numbers = centred / np.where(spread > 1e-12, spread, np.inf)
    return scaled


class SeedAttention(msgspec.Struct, frozen=True, kw_only=True, tag="seed_attention"):
    """Six features of attention (means over heads: entropy, largest, self, first position, token
    before, distance), a layer at a time."""

    scores: SeedPrediction


class SeedTask(msgspec.Struct, frozen=True, kw_only=True, tag="seed_task"):
    """The stream that leaves the decoder layer `probe_layer`, and the experts of later layers."""

    probe_layer: int
    scores: SeedPrediction
