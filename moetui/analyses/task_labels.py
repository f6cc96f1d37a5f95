"""Scores of every task at every prompt: what the right ones are worth beyond permuted labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.task_words import Prompt
from moetui.stats import Statistic, document_intervals, joined, permutation_p, widened
from moetui.stats.permutation import Tail

Numbers = NDArray[np.float64]

PERMUTATIONS = 2999
NO_WORD = "a task has no word that is a single token and not said by the prompt"
NULL = (
    "null: tasks permuted among the wordings of a template (where each prompt has numbers of "
    "its own: among prompts)"
)


@dataclass(frozen=True, eq=False)
class Labels:
    """The tasks of P prompts.

    own: int [P], index of each prompt's task. permuted: int8 [m, P], the tasks of clusters dealt
    out anew within each template. clusters, templates: int [P], the document that each prompt
    belongs to, and its template, whose clusters are alike.
    """

    own: NDArray[np.intp]
    permuted: NDArray[np.int8]
    clusters: NDArray[np.intp]
    templates: NDArray[np.intp]
    seed: int

    @property
    def documents(self) -> int:
        """Number of clusters."""
        return int(self.clusters.max()) + 1

    @cached_property
    def shares(self) -> list[NDArray[np.float32]]:
        """For every task, float32 [m, P]: 1/P where a permutation gives a prompt that task."""
        P = len(self.own)
        tasks = range(int(self.own.max()) + 1)
        return [(self.permuted == task).astype(np.float32) / P for task in tasks]


def labels(prompts: Sequence[Prompt], tasks: Sequence[str], *, seed: int) -> Labels:
    """Tasks are permuted among the clusters of a template, all prompts of a cluster together.

    Raises ValueError where prompts of one cluster set several tasks.
    """
    own = np.array([tasks.index(prompt.task) for prompt in prompts], np.intp)
    clusters = _numbered([prompt.cluster for prompt in prompts])
    templates = _numbered([prompt.template for prompt in prompts])
    _, first = np.unique(clusters, return_index=True)
    if (own[first][clusters] != own).any():
        raise ValueError("a cluster of prompts sets one task")
    rng = np.random.default_rng(seed)
    dealt = np.tile(own[first].astype(np.int8), (PERMUTATIONS, 1))
    for template in np.unique(templates):
        members = np.flatnonzero(templates[first] == template)
        dealt[:, members] = rng.permuted(dealt[:, members], axis=1)
    return Labels(own, dealt[:, clusters], clusters, templates, seed)


def own_scores(scores: Numbers, of: Labels) -> Numbers:
    """[P, ...]: of scores [P, ..., tasks] those of each prompt's own task."""
    index = of.own.reshape(-1, *[1] * (scores.ndim - 1))
    own: Numbers = np.take_along_axis(scores, index, axis=-1)[..., 0]
    return own


def mean_of_own(
    scores: Numbers,
    of: Labels,
    *,
    caveat: str | None = None,
    tested: bool = True,
    low: float | None = None,
    high: float | None = None,
) -> tuple[Statistic, ...]:
    """For each of L columns of scores [P, L, tasks]: the mean over prompts of their own task's,
    with an interval over clusters, and the same under permuted labels (one-sided, greater).
    low, high: least and largest possible score."""
    found = cluster_means(own_scores(scores, of), of, caveat=caveat, low=low, high=high)
    null = null_means(scores, of) if tested else None
    return tuple(
        _with_null(
            found[layer],
            None if null is None else null[:, layer],
            of,
            "greater",
        )
        for layer in range(scores.shape[1])
    )


def null_means(scores: Numbers, of: Labels) -> Numbers:
    """[m, L]: means of scores [P, L, tasks] of the tasks that each permutation gives."""
    return sum(
        (share @ scores[..., task] for task, share in enumerate(of.shares)),
        start=np.zeros((len(of.permuted), scores.shape[1])),
    )


def median_of_own(scores: Numbers, of: Labels, *, caveat: str | None = None) -> list[Statistic]:
    """As `mean_of_own` for the median, of which less is better (ranks)."""
    own = own_scores(scores, of)
    found = document_intervals(_median(own, of.clusters), of.documents, seed=of.seed)
    told = []
    for layer in range(scores.shape[1]):
        of_layer = scores[:, layer]
        null = np.median(
            np.take_along_axis(of_layer[None], of.permuted[..., None].astype(np.intp), -1)[..., 0],
            axis=1,
        )
        told.append(
            _with_null(
                found.statistic((layer,), n_tokens=len(own), caveat=caveat), null, of, "less"
            )
        )
    return told


def cluster_means(
    values: Numbers,
    of: Labels,
    *,
    caveat: str | None = None,
    low: float | None = None,
    high: float | None = None,
) -> tuple[Statistic, ...]:
    """Means over prompts of values [P, L], with intervals over clusters, widened where those of a
    template are alike. low, high: least and largest possible value."""
    sums = np.zeros((of.documents, values.shape[1]))
    np.add.at(sums, of.clusters, values)
    sizes = np.bincount(of.clusters, minlength=of.documents).astype(float)
    _, first = np.unique(of.clusters, return_index=True)

    def estimate(weights: Numbers) -> Numbers:
        with np.errstate(invalid="ignore", divide="ignore"):
            means: Numbers = (weights @ sums) / (weights @ sizes)[..., None]
        return np.moveaxis(means, -1, 0)

    found = document_intervals(estimate, of.documents, seed=of.seed)
    return tuple(
        widened(
            found.statistic((layer,), n_tokens=len(of.own), caveat=caveat),
            sums[:, layer],
            sizes,
            of.templates[first],
            name="templates",
            low=low,
            high=high,
        )
        for layer in range(values.shape[1])
    )


def adjusted(found: Sequence[Statistic]) -> tuple[Statistic, ...]:
    """The same with q by Benjamini and Hochberg over the family."""
    from scipy.stats import false_discovery_control

    known = [one.p for one in found if one.p is not None]
    if len(known) != len(found) or not known:
        return tuple(found)
    q = false_discovery_control(known)
    return tuple(
        msgspec.structs.replace(one, q=float(value)) for one, value in zip(found, q, strict=True)
    )


def _with_null(found: Statistic, null: Numbers | None, of: Labels, tail: Tail) -> Statistic:
    if found.value is None or (null is not None and not np.isfinite(null).all()):
        return Statistic(n_tokens=found.n_tokens, n_documents=found.n_documents, caveat=NO_WORD)
    if null is None:
        return found
    low, high = np.quantile(null, [0.025, 0.975])
    return msgspec.structs.replace(
        found,
        null_mean=float(null.mean()),
        null_low=float(low),
        null_high=float(high),
        p=permutation_p(found.value, null, tail=tail),
        seed=of.seed,
        caveat=joined(found.caveat, NULL),
    )


def _median(values: Numbers, clusters: NDArray[np.intp]) -> Callable[[Numbers], Numbers]:
    """Weighted medians of values [P, L] by how often each prompt's cluster was drawn."""
    order = np.argsort(values, axis=0, kind="stable")

    def estimate(weights: Numbers) -> Numbers:
        by_prompt = weights[..., clusters]
        medians = []
        for layer in range(values.shape[1]):
            rows = order[:, layer]
            below = np.cumsum(by_prompt[..., rows], axis=-1)
            half = below[..., -1:] / 2
            lower = np.argmax(below >= half, axis=-1)
            upper = np.argmax(below > half, axis=-1)
            ordered = values[rows, layer]
            medians.append((ordered[lower] + ordered[upper]) / 2)
        return np.stack(medians)

    return estimate


def _numbered(keys: Sequence[object]) -> NDArray[np.intp]:
    known: dict[object, int] = {}
    return np.array([known.setdefault(key, len(known)) for key in keys], np.intp)
