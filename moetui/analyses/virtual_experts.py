"""How a virtual expert router would do in use: trained on some wordings, asked in others.

The seed routes by a linear map of the hidden state and tells its accuracy where it was trained.
Here half of the templates and half of the operands train it, and it is asked what shares neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from moetui.analyses.linear_route import fit_route
from moetui.analyses.one_thread import one_thread
from moetui.analyses.probe_fit import (
    CLUSTERS,
    Items,
    Split,
    accuracy,
    chances,
    gain,
    halves,
    mean_over_wordings,
    operand_folds,
    predict,
)
from moetui.analyses.probes import coded_items, most_frequent, too_few, warnings_of
from moetui.analyses.task_prompts import TASKS, Task, TaskPrompt
from moetui.stats import Statistic, joined

Numbers = NDArray[np.float64]

SPLIT = (
    "trained on every other template and half of the pairs of operands, asked in the other "
    "templates with the other pairs; both ways round"
)


class Routed(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt: its task, where it was routed, and the probability given to its own task."""

    prompt: str
    task: Task
    template: str
    routed: Task
    probability: float


class VirtualExperts(msgspec.Struct, frozen=True, kw_only=True, tag="virtual_experts"):
    """A virtual expert router at `layer` on wordings and numbers that it was not trained on.

    accuracy: share routed to their task; without_symbol: of prompts without an operator symbol.
    log_loss: mean −ln P(own task) in nats, ln 4 = 1.386 where nothing is known. Baselines on the
    same split: bag_of_tokens, a router that reads the prompt's tokens instead of the model, gain
    over it, and most_frequent. verdict: "measured", or "inconclusive" with the reason.
    """

    depth: float
    layer: int
    split: str
    accuracy: Statistic
    without_symbol: Statistic
    log_loss: Statistic
    bag_of_tokens: Statistic
    gain: Statistic
    most_frequent: Statistic
    routes: tuple[Routed, ...]
    verdict: str
    reason: str | None
    warnings: tuple[str, ...]


def virtual_experts(
    items: Sequence[TaskPrompt],
    hidden: NDArray[np.floating],
    tokens: NDArray[np.floating],
    *,
    depth: float,
    layer: int,
    seed: int,
) -> VirtualExperts:
    """hidden: [n, H], the residual stream of each prompt's last token at `layer`; tokens: [n, ids],
    how often each token id is in it.

    Below 100 prompts a class or 5 templates a warning, below a tenth of them inconclusive.
    """
    coded = coded_items(items)
    reason, nothing = too_few(coded), Statistic(caveat="not measured: too few prompts")
    found = VirtualExperts(
        depth=depth,
        layer=layer,
        split=SPLIT,
        accuracy=nothing,
        without_symbol=nothing,
        log_loss=nothing,
        bag_of_tokens=nothing,
        gain=nothing,
        most_frequent=most_frequent(coded, seed=seed),
        routes=(),
        verdict="inconclusive" if reason else "measured",
        reason=reason,
        warnings=warnings_of(coded),
    )
    if reason:
        return found
    with one_thread():
        return _measured(found, items, coded, np.asarray(hidden, float), tokens, seed)


def _measured(
    found: VirtualExperts,
    items: Sequence[TaskPrompt],
    coded: Items,
    hidden: Numbers,
    tokens: NDArray[np.floating],
    seed: int,
) -> VirtualExperts:
    splits = list(halves(coded, operand_folds(coded, seed=seed)))
    shares = _routed(hidden, items, splits)
    routed, counts = shares.argmax(axis=1), np.asarray(tokens, float)
    baseline = predict(counts, coded.labels, splits).labels
    words = np.array([not item.symbol for item in items])
    chance, of_words = chances(hidden, coded, splits, words, seed=seed)
    of_tokens, _ = chances(counts, coded, splits, words, seed=seed)
    own = shares[np.arange(len(items)), coded.labels]
    return replace(
        found,
        accuracy=accuracy(coded, routed, chance, seed=seed),
        without_symbol=accuracy(coded.chosen(words), routed[words], of_words, seed=seed)
        if words.any()
        else Statistic(caveat="every prompt holds an operator symbol"),
        log_loss=_log_loss(coded, own, seed),
        bag_of_tokens=accuracy(coded, baseline, of_tokens, seed=seed),
        gain=gain(coded, routed, baseline, seed=seed),
        routes=tuple(
            Routed(
                prompt=item.prompt,
                task=item.task,
                template=item.template,
                routed=TASKS[where],
                probability=float(probability),
            )
            for item, where, probability in zip(items, routed, own, strict=True)
        ),
    )


def _routed(hidden: Numbers, items: Sequence[TaskPrompt], splits: Iterable[Split]) -> Numbers:
    """[n, 4]: the probability of every task, by a router that did not see the prompt."""
    shares = np.zeros((len(items), len(TASKS)))
    for train, test in splits:
        route, _ = fit_route(hidden[train], [items[i].task for i in train])
        found = route.probabilities(hidden[test])
        for column, task in enumerate(route.tasks):
            shares[test, TASKS.index(cast(Task, task))] = found[:, column]
    return shares


def _log_loss(coded: Items, own: Numbers, seed: int) -> Statistic:
    losses = -np.log(np.maximum(own, np.finfo(float).tiny))
    found = mean_over_wordings(coded, losses, seed=seed, low=0)
    told = f"nats; {np.log(coded.classes):.3f} where nothing is known"
    return replace(found, caveat=joined(told, CLUSTERS, found.caveat))
