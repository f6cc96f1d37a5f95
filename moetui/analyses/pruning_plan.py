"""Plans of experts to drop, and what each costs as a whole, measured with all of them gone.

Which experts a plan drops is decided on calibration documents; ΔNLL is measured on evaluation
documents. That single experts cost nothing does not say that all of them together do, and a plan
is called safe only where the equivalence test of the whole plan says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from moetui.analyses.ablation import MARGIN, few_draws, nll_change
from moetui.analyses.expert_groups import prunes
from moetui.analyses.expert_load import chosen_counts
from moetui.analyses.expert_removal import MEANING as REMOVAL_MEANING
from moetui.analyses.expert_removal import Mode, removal
from moetui.analyses.routed import RoutedDocument
from moetui.stats import EquivalenceTest, Statistic, equivalent, joined, permutation_p
from moetui.trace import Forward, Intervention, ModelInfo

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Kind = Literal["cold", "score"]
PruneMode = Literal["remove"] | Mode

MEANING: Mapping[str, str] = {
    "remove": "as in a checkpoint without them: their rows of the router are gone too, and where "
    "its softmax is over all experts the weights of the others are those of one without these",
    **REMOVAL_MEANING,
}

UNUSED = "no evaluation token uses any of them: exactly 0, which bounds nothing beyond these texts"
CLAIM = "nothing is claimed safe without the equivalence test"
SAFE = (
    "the 95 % interval of ΔNLL of the whole plan, on documents that did not choose it, lies within "
    "the margin (two one-sided tests at level 0.025): that text only, and no task was tried"
)
RECOMMENDED = (
    "the largest plan that is safe; those of a kind are tried by size up to the first that is not "
    "safe, each at level 0.025, and there are two kinds, so that a false one is recommended in 5 % "
    "of runs at most"
)


class LayerPruning(msgspec.Struct, frozen=True, kw_only=True):
    """The experts of a decoder layer to drop, and how many stay."""

    layer: int
    drop: tuple[int, ...]
    keep: int


class PlannedPruning(msgspec.Struct, frozen=True, kw_only=True):
    """A plan before it is measured. rules: names of those that choose it, name: the first of them;
    by: each of them in words; layers: those that lose an expert; spared: super experts and experts
    of which too few would be left, which the rule would have dropped; controls: the same number of
    random experts of the same layers (none of them super), drawn anew each."""

    kind: Kind
    name: str
    rules: tuple[str, ...]
    by: tuple[str, ...]
    layers: tuple[LayerPruning, ...]
    spared: tuple[tuple[int, int], ...]
    controls: tuple[tuple[LayerPruning, ...], ...]


class PruningPlan(msgspec.Struct, frozen=True, kw_only=True, tag="pruning"):
    """Experts to drop, what that saves and what it costs.

    kind, name: the rule that chose them, on calibration documents: those that are cold, or the
    lowest by a score. rules: names of all rules that choose these very experts, by: the same in
    words. mode: how they are removed, and what that means. layers: decoder layers that lose
    experts. spared: (layer, expert) that the rule would have dropped, kept as super experts or
    because too few would be left. experts, of_experts: how many are dropped, and how many there
    are; bytes_saved: in the checkpoint as it is stored, of bytes_of_experts; both None where its
    files do not tell.
    delta_nll: of the whole plan on evaluation documents, nats a predicted token, interval over
    documents; its null is the band of `controls` random plans that drop as many of each layer, and
    p how many of these cost as little. equivalence: whether that is as good as none. safe,
    recommended: as `SAFE` and `RECOMMENDED` say; nothing is claimed safe without the test.
    """

    kind: Kind
    name: str
    rules: tuple[str, ...]
    by: tuple[str, ...]
    mode: PruneMode
    mode_meaning: str
    layers: tuple[LayerPruning, ...]
    spared: tuple[tuple[int, int], ...]
    experts: int
    of_experts: int
    bytes_saved: int | None
    bytes_of_experts: int | None
    controls: int
    delta_nll: Statistic
    equivalence: EquivalenceTest
    safe: bool
    recommended: bool = False


class PruningPlans(msgspec.Struct, frozen=True, kw_only=True, tag="pruning_plans"):
    """All plans of a model, each measured as a whole. empty: names of the rules that drop nobody.

    recommended: name of the plan that `RECOMMENDED` speaks of, None for none.
    """

    n_documents: int
    margin: float
    plans: tuple[PruningPlan, ...]
    empty: tuple[str, ...]
    recommended: str | None


@dataclass(frozen=True, eq=False, kw_only=True)
class PrunedDocuments:
    """D documents under every plan and its controls. before: [D], nats untouched; tokens: [D];
    after: [D, P]; controls: [D, P, C]. error: why the model refused, None where it did not."""

    planned: tuple[PlannedPruning, ...]
    mode: PruneMode
    before: Array
    tokens: Array
    after: Array
    controls: Array
    error: str | None = None


def planned_pruning(
    kind: Kind,
    name: str,
    by: str,
    candidates: Sequence[Sequence[int]],
    protected: Flags,
    info: ModelInfo,
    *,
    least: Sequence[int],
    controls: int,
    seed: int,
) -> PlannedPruning:
    """A plan that drops the candidates of every routing layer.

    candidates: [L], experts in the order in which they would be dropped; protected: [L, E], super
    experts; least: [L], how many experts must stay. controls: how many random plans of that size.
    """
    kept: list[tuple[int, int]] = []
    layers: list[LayerPruning] = []
    pools: list[list[int]] = []
    for row, (layer, E) in enumerate(zip(info.moe_layers, info.experts_by_layer, strict=True)):
        allowed = [e for e in candidates[row] if not protected[row, e]][: E - least[row]]
        kept += [(layer, e) for e in candidates[row] if e not in allowed]
        if allowed:
            drop = tuple(sorted(allowed))
            layers.append(LayerPruning(layer=layer, drop=drop, keep=E - len(drop)))
            pools.append([e for e in range(E) if not protected[row, e]])
    rng = np.random.default_rng(seed)
    return PlannedPruning(
        kind=kind,
        name=name,
        rules=(name,),
        by=(by,),
        layers=tuple(layers),
        spared=tuple(kept),
        controls=tuple(
            tuple(_drawn(layer, pool, rng) for layer, pool in zip(layers, pools, strict=True))
            for _ in range(controls if layers else 0)
        ),
    )


def prune(
    model: Forward,
    documents: Sequence[RoutedDocument],
    planned: tuple[PlannedPruning, ...],
    mode: PruneMode,
    *,
    step: Callable[[], None] = lambda: None,
) -> PrunedDocuments:
    """Every plan, and each of its controls, on every document.

    Raises UsageError where the model refuses the mode.
    """
    C = max((len(plan.controls) for plan in planned), default=0)
    changes = [
        [_Change(layers, _gone(model, layers, mode), mode) for layers in (p.layers, *p.controls)]
        for p in planned
    ]
    after = np.zeros((len(documents), len(planned)))
    controls = np.full((*after.shape, C), np.nan)
    before = np.array([one.nll.sum(dtype=float) for one in documents])
    for d, one in enumerate(documents):
        counts = chosen_counts(one.experts, model.info.num_experts)
        for p, (plan, *drawn) in enumerate(changes):
            after[d, p] = plan.nats(model, one, counts)
            for c, control in enumerate(drawn):
                controls[d, p, c] = control.nats(model, one, counts)
        step()
    return PrunedDocuments(
        planned=planned,
        mode=mode,
        before=before,
        tokens=np.array([float(len(one.nll)) for one in documents]),
        after=after,
        controls=controls,
    )


def unpruned(error: str, mode: PruneMode) -> PrunedDocuments:
    """What a model leaves that refuses."""
    none = np.zeros(0)
    return PrunedDocuments(
        planned=(), mode=mode, before=none, tokens=none, after=np.zeros((0, 0)),
        controls=np.zeros((0, 0, 0)), error=error,
    )  # fmt: skip


def pruning_plans(
    parts: Sequence[PrunedDocuments], info: ModelInfo, *, margin: float = MARGIN, seed: int
) -> PruningPlans:
    """Every plan that drops anybody, smallest first; parts: at least one, of the same plans."""
    first = parts[0]
    before, tokens, after, controls = (
        np.concatenate([part.before for part in parts]),
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.after for part in parts]),
        np.concatenate([part.controls for part in parts]),
    )
    plans = []
    for p, plan in enumerate(first.planned):
        if not plan.layers:
            continue
        cost = nll_change(before, after[:, p], tokens, seed=seed)
        if (after[:, p] == before).all():
            cost = msgspec.structs.replace(cost, caveat=joined(UNUSED, cost.caveat))
        draws = [
            float((controls[:, p, c] - before).sum() / tokens.sum())
            for c in range(len(plan.controls))
        ]
        plans.append(_plan(plan, first.mode, info, cost, draws, margin))
    plans.sort(key=lambda plan: plan.experts)
    best = _recommended(plans)
    return PruningPlans(
        n_documents=len(tokens),
        margin=margin,
        plans=tuple(msgspec.structs.replace(plan, recommended=plan.name == best) for plan in plans),
        empty=tuple(name for plan in first.planned if not plan.layers for name in plan.rules),
        recommended=best,
    )


def _recommended(plans: Sequence[PruningPlan]) -> str | None:
    """plans: by size."""
    kinds = dict.fromkeys(plan.kind for plan in plans)
    safe = [
        plan
        for kind in kinds
        for plan in takewhile(lambda plan: plan.safe, (p for p in plans if p.kind == kind))
    ]
    return max(safe, key=lambda plan: plan.experts).name if safe else None


def _drawn(layer: LayerPruning, pool: Sequence[int], rng: np.random.Generator) -> LayerPruning:
    drawn = rng.choice(pool, len(layer.drop), replace=False)
    return msgspec.structs.replace(layer, drop=tuple(np.sort(drawn).tolist()))


def _gone(
    model: Forward, layers: Sequence[LayerPruning], mode: PruneMode
) -> tuple[Intervention, ...]:
    """All of these experts removed at once."""
    if mode == "remove":
        return tuple(one for at in layers for one in prunes(model, at.layer, at.drop))
    return tuple(removal(mode, at.drop, at.layer) for at in layers)


@dataclass(frozen=True, eq=False)
class _Change:
    """What a plan drops, and the interventions that do it."""

    layers: Sequence[LayerPruning]
    interventions: tuple[Intervention, ...]
    mode: PruneMode

    def nats(self, model: Forward, one: RoutedDocument, counts: NDArray[np.int64]) -> float:
        """Of a document with all of these experts gone."""
        if len(one.ids) < 2 or not (self._reweighs(model) or self._used(model, counts)):
            return float(one.nll.sum(dtype=float))
        return float(model.nll(one.ids, self.interventions).sum(dtype=float))

    def _reweighs(self, model: Forward) -> bool:
        """Whether a token's weights can change that uses none of these experts: those of a
        softmax over fewer experts do."""
        return self.mode == "remove" and bool(self.layers) and model.info.shift_invariant

    def _used(self, model: Forward, counts: NDArray[np.int64]) -> bool:
        """Whether any token does; without, a pass would give the same again."""
        rows = {layer: row for row, layer in enumerate(model.info.moe_layers)}
        return any(counts[rows[at.layer], list(at.drop)].any() for at in self.layers)


def _plan(
    plan: PlannedPruning,
    mode: PruneMode,
    info: ModelInfo,
    cost: Statistic,
    draws: Sequence[float],
    margin: float,
) -> PruningPlan:
    sizes = dict(zip(info.moe_layers, info.expert_bytes, strict=False))
    test = equivalent(cost, margin)
    if draws and cost.value is not None:
        low, high = np.quantile(draws, [0.025, 0.975]).tolist()
        cost = msgspec.structs.replace(
            cost,
            null_mean=float(np.mean(draws)),
            null_low=low,
            null_high=high,
            p=permutation_p(cost.value, draws, tail="less"),
            caveat=joined(cost.caveat, few_draws(len(draws))),
        )
    all_bytes = zip(info.expert_bytes, info.experts_by_layer, strict=False)
    return PruningPlan(
        kind=plan.kind,
        name=plan.name,
        rules=plan.rules,
        by=plan.by,
        mode=mode,
        mode_meaning=MEANING[mode],
        layers=plan.layers,
        spared=plan.spared,
        experts=sum(len(layer.drop) for layer in plan.layers),
        of_experts=sum(info.experts_by_layer),
        bytes_saved=sum(len(layer.drop) * sizes[layer.layer] for layer in plan.layers)
        if sizes
        else None,
        bytes_of_experts=sum(size * E for size, E in all_bytes) if sizes else None,
        controls=len(draws),
        delta_nll=cost,
        equivalence=test,
        safe=test.outcome == "equivalent",
    )
