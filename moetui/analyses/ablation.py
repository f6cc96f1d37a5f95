"""What a change of the model costs: nats a token on held-out documents, beside control changes.

Every change is an intervention in the model's own forward pass; a control is the same change made
to other experts of the same layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from moetui.stats import Statistic, document_intervals, ratio_of_sums
from moetui.stats.minimum import ABLATION, warned
from moetui.trace import Forward, Intervention
from moetui.trace.types import Floats, Ints

# Within so many nats a token a change counts as none.
MARGIN = 0.01

Documents = Sequence[Ints]


class Controls(msgspec.Struct, frozen=True, kw_only=True):
    """Experts of the same layer to which the same change is made.

    random: drawn from all others. matched: those whose load is nearest to the expert's own.
    wanted: how many of each were asked for; fewer where the layer has no more.
    """

    random: tuple[int, ...]
    matched: tuple[int, ...]
    wanted: int

    @property
    def shortfall(self) -> str | None:
        """What is said where there are fewer than were asked for."""
        least = min(len(self.random), len(self.matched))
        if least >= self.wanted:
            return None
        return (
            f"{least} control experts of each kind instead of {self.wanted}: the layer has no more"
        )


def controls(load: ArrayLike, expert: int, *, wanted: int, rng: np.random.Generator) -> Controls:
    """Control experts for `expert` of a layer with `load` f_e [E].

    Matched ones are nearest in log load (experts without hits count as half a hit of the rarest
    that has any); random ones are drawn without replacement, and may be matched ones too.
    """
    f = np.asarray(load, float)
    others = np.flatnonzero(np.arange(len(f)) != expert)
    floor = f[f > 0].min() / 2 if (f > 0).any() else 1.0
    distance = np.abs(np.log(np.maximum(f, floor)) - np.log(max(float(f[expert]), floor)))
    matched = others[np.argsort(distance[others], kind="stable")][:wanted]
    drawn = rng.choice(others, min(wanted, len(others)), replace=False)
    return Controls(
        random=tuple(int(e) for e in np.sort(drawn)),
        matched=tuple(int(e) for e in matched),
        wanted=wanted,
    )


def few_draws(number: int) -> str | None:
    """What a reader must know of a p by so few draws; None where it could reach 0.05."""
    least = 1 / (1 + number)
    return None if least <= 0.05 else f"{number} draws: p cannot be below {least:.2g}"


def unmatched(own: float, others: Sequence[float]) -> str | None:
    """What a reader must know of controls matched in frequency that are not near it: some are used
    more than twice, or less than half as often. None where all are near."""
    if not others or (own > 0 and max(others) <= 2 * own and min(others) >= own / 2):
        return None
    return (
        f"the nearest in frequency are not near: f_e {min(others):.3f} to {max(others):.3f}, "
        f"beside {own:.3f}"
    )


def nll_of(
    model: Forward,
    documents: Documents,
    interventions: Sequence[Intervention],
    step: Callable[[], None] = lambda: None,
) -> list[Floats]:
    """float32 [T - 1] of every document under the interventions; none for a single token."""
    found = []
    for ids in documents:
        found.append(model.nll(ids, interventions) if len(ids) > 1 else np.empty(0, np.float32))
        step()
    return found


def nll_sums(values: Sequence[Floats]) -> NDArray[np.float64]:
    """[D], nats of every document together."""
    return np.array([one.sum(dtype=float) for one in values])


def nll_change(before: ArrayLike, after: ArrayLike, tokens: ArrayLike, *, seed: int) -> Statistic:
    """ΔNLL in nats a predicted token, paired by document, with an interval over documents.

    before, after: [D], nats of every document together (`nll_sums`); tokens: [D], how many tokens
    were predicted. Below the minimum size the statistic says so.
    """
    n = np.asarray(tokens, float)
    size = int(n.sum())
    if not size:
        return Statistic(n_tokens=0, n_documents=len(n), caveat="no token was predicted")
    delta = np.asarray(after, float) - np.asarray(before, float)
    found = document_intervals(ratio_of_sums(delta, n), len(n), seed=seed)
    return warned(found.statistic(n_tokens=size), ABLATION, documents=len(n))
