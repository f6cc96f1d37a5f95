"""What single experts are worth: ΔNLL and KL without each, beside the same without others.

How they are removed and which others stand beside them: `moetui.analyses.expert_removal`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.ablation import MARGIN, few_draws, nll_change, unmatched
from moetui.analyses.expert_removal import (
    MEANING,
    AblatedDocuments,
    LayerAblations,
    Mode,
    Role,
    Target,
    jobs,
)
from moetui.stats import (
    EquivalenceTest,
    Statistic,
    document_intervals,
    equivalent,
    joined,
    permutation_p,
    ratio_of_sums,
)

Array = NDArray[np.float64]

UNUSED = "no evaluation token uses it: the logits are the same bit for bit"


class ControlChange(msgspec.Struct, frozen=True, kw_only=True):
    """What removing a control expert costs. load: f_e on calibration documents."""

    expert: int
    load: float
    delta_nll: Statistic


class DomainChange(msgspec.Struct, frozen=True, kw_only=True):
    """What removing an expert costs in one domain."""

    domain: str
    delta_nll: Statistic


class ExpertAblation(msgspec.Struct, frozen=True, kw_only=True):
    """An expert removed. role: why it; load: f_e on calibration documents; used: evaluation tokens
    that use it.

    delta_nll: nats a predicted token, interval over documents; its null is the band of the random
    controls, p how many of them cost as much. matched: the same number beside the band of the
    controls of like frequency. kl: mean KL(untouched ‖ changed) a token, on some documents, beside
    the random controls. equivalence: whether ΔNLL is as good as none.
    """

    layer: int
    expert: int
    role: Role
    mode: Mode
    load: float
    used: int
    delta_nll: Statistic
    matched: Statistic
    kl: Statistic
    equivalence: EquivalenceTest
    domains: tuple[DomainChange, ...]
    random_controls: tuple[ControlChange, ...]
    matched_controls: tuple[ControlChange, ...]


class ExpertAblations(msgspec.Struct, frozen=True, kw_only=True, tag="expert_ablations"):
    """Experts removed one at a time on n_documents evaluation documents.

    meaning: of each mode. coldest, hottest, random: ΔNLL without the coldest and the hottest
    expert of a layer and without a random one (mean over layers, of the first mode), with
    intervals over documents. kl_documents: how many documents KL was measured on.
    """

    n_documents: int
    n_tokens: int
    kl_documents: int
    margin: float
    meaning: dict[str, str]
    ablations: tuple[ExpertAblation, ...]
    coldest: Statistic
    hottest: Statistic
    random: Statistic


def expert_ablations(
    found: AblatedDocuments, *, margin: float = MARGIN, seed: int
) -> ExpertAblations:
    """What the removals cost, each beside its controls."""
    changes = _Changes(found, seed)
    first = found.modes[0]

    def mean_of(pick: Callable[[LayerAblations], Sequence[int]]) -> Statistic:
        columns = [
            np.mean([changes.column(first, at.layer, e) for e in pick(at)], axis=0)
            for at in found.layers
            if pick(at)
        ]
        return changes.cost(np.mean(columns, axis=0)) if columns else Statistic(caveat="none asked")

    def targets(role: Role) -> Callable[[LayerAblations], Sequence[int]]:
        return lambda at: [t.expert for t in at.targets if t.role == role][:1]

    def random(at: LayerAblations) -> Sequence[int]:
        return sorted({e for target in at.targets for e in target.controls.random})

    return ExpertAblations(
        n_documents=len(found.tokens),
        n_tokens=int(found.tokens.sum()),
        kl_documents=int((~np.isnan(found.kl[:, :1])).sum()),
        margin=margin,
        meaning={mode: MEANING[mode] for mode in found.modes},
        ablations=tuple(
            _ablation(changes, mode, layer, target, margin)
            for mode in found.modes
            for layer in found.layers
            for target in layer.targets
        ),
        coldest=mean_of(targets("coldest")),
        hottest=mean_of(targets("hottest")),
        random=mean_of(random),
    )


class _Changes:
    """The costs of all removals, each estimated once: an expert may be control of several."""

    def __init__(self, found: AblatedDocuments, seed: int) -> None:
        self.found, self._seed = found, seed
        work = jobs(found.modes, found.layers)
        self._index = {(mode, at.layer, expert): j for j, (mode, at, expert) in enumerate(work)}
        self.of = cache(self._of)

    def column(self, mode: Mode, layer: int, expert: int) -> Array:
        """[D], nats with the expert removed."""
        nats: Array = self.found.after[:, self._index[mode, layer, expert]]
        return nats

    def used(self, mode: Mode, layer: int, expert: int) -> int:
        """Tokens that use it."""
        return int(self.found.used[:, self._index[mode, layer, expert]].sum())

    def _of(self, mode: Mode, layer: int, expert: int) -> Statistic:
        """ΔNLL a token with the expert removed."""
        cost = self.cost(self.column(mode, layer, expert))
        if self.used(mode, layer, expert):
            return cost
        return msgspec.structs.replace(cost, caveat=joined(UNUSED, cost.caveat))

    def cost(self, after: Array, rows: NDArray[np.bool_] | None = None) -> Statistic:
        """ΔNLL a token, of all documents or some."""
        at = slice(None) if rows is None else rows
        before, tokens = self.found.before[at], self.found.tokens[at]
        return nll_change(before, after[at], tokens, seed=self._seed)

    def kl(self, mode: Mode, layer: int, expert: int) -> Statistic:
        """Mean KL a token, on the documents that it was measured on."""
        sums = self.found.kl[:, self._index[mode, layer, expert]]
        asked = ~np.isnan(sums)
        if not asked.any():
            return Statistic(caveat="KL was not asked for")
        tokens = self.found.kl_tokens[asked]
        intervals = document_intervals(
            ratio_of_sums(sums[asked], tokens), len(tokens), seed=self._seed
        )
        return intervals.statistic(n_tokens=int(tokens.sum()))


def _ablation(
    changes: _Changes, mode: Mode, at: LayerAblations, target: Target, margin: float
) -> ExpertAblation:
    found, expert = changes.found, target.expert
    cost, after = changes.of(mode, at.layer, expert), changes.column(mode, at.layer, expert)

    def control(one: int) -> ControlChange:
        delta = changes.of(mode, at.layer, one)
        return ControlChange(expert=one, load=at.load[one], delta_nll=delta)

    random = tuple(control(one) for one in target.controls.random)
    matched = tuple(control(one) for one in target.controls.matched)
    kls = [changes.kl(mode, at.layer, one) for one in target.controls.random]
    few = target.controls.shortfall
    names = tuple(dict.fromkeys(found.domains))
    rows = {name: np.array([domain == name for domain in found.domains]) for name in names}
    return ExpertAblation(
        layer=at.layer,
        expert=expert,
        role=target.role,
        mode=mode,
        load=at.load[expert],
        used=changes.used(mode, at.layer, expert),
        delta_nll=_beside(cost, [one.delta_nll for one in random], few),
        matched=_beside(
            cost,
            [one.delta_nll for one in matched],
            joined(few, unmatched(at.load[expert], [one.load for one in matched])),
        ),
        kl=_beside(changes.kl(mode, at.layer, expert), kls, None),
        equivalence=equivalent(cost, margin),
        domains=tuple(
            DomainChange(domain=name, delta_nll=changes.cost(after, rows[name])) for name in names
        ),
        random_controls=random,
        matched_controls=matched,
    )


def _beside(value: Statistic, draws: Sequence[Statistic], few: str | None) -> Statistic:
    """`value` beside the band of the same change made to other experts."""
    known = [one.value for one in draws if one.value is not None]
    if value.value is None or not known:
        return value
    low, high = np.quantile(known, [0.025, 0.975]).tolist()
    return msgspec.structs.replace(
        value,
        null_mean=float(np.mean(known)),
        null_low=low,
        null_high=high,
        p=permutation_p(value.value, known),
        caveat=joined(value.caveat, few, few_draws(len(known))),
    )
