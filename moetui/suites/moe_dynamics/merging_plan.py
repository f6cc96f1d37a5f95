"""What `merging` tries on a model: pairs and removals, decided by calibration documents alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moetui.analyses import merge_front
from moetui.analyses.expert_groups import (
    Group,
    control_pairs,
    groups_of,
    least,
    merges,
    prunes,
    random_groups,
)
from moetui.analyses.expert_scores import ranking
from moetui.analyses.merge_front import Removal
from moetui.analyses.merged_pairs import CONTROLS, Kind, Trial
from moetui.analyses.output_similarity import (
    ACTIVATION,
    OUTPUT,
    correlations,
    cosines,
)
from moetui.analyses.pair_similarity import most_similar
from moetui.analyses.weight_similarity import ALIGNED, RAW, ROUTER, LayerWeights
from moetui.suites.moe_dynamics.merging_similarity import (
    OUTPUTS,
    WEIGHTS,
    output_documents,
    weight_layers,
)
from moetui.suites.moe_dynamics.routing import CALIBRATION, routed
from moetui.suites.plan import Needs
from moetui.trace import Forward, Intervention

Numbers = NDArray[np.float64]

SIMILARITIES = (OUTPUT, ALIGNED, RAW, ROUTER, ACTIVATION)


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerKnown:
    """What calibration documents and weights say of one layer with E experts. similarity: [E, E]
    by name, NaN where a pair was not compared. load [E]; reap [E], None where unknown; bytes_each:
    of one expert in the checkpoint, in memory where its files do not tell; whole: every expert's
    weights were compared."""

    layer: int
    experts: int
    similarity: dict[str, Numbers]
    load: Numbers
    reap: Numbers | None
    bytes_each: int
    whole: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class Change:
    """Interventions, and the (layer, experts) that they concern."""

    interventions: tuple[Intervention, ...]
    concerns: tuple[tuple[int, Group], ...]
    on_controls: bool


def known(model: Forward, needs: Needs) -> list[LayerKnown]:
    """The layers asked for, ascending."""
    sums = output_documents(needs[OUTPUTS])
    documents = routed(needs[CALIBRATION])
    load = ranking(documents, model.info, "frequency")
    reap = ranking(documents, model.info, "reap")
    assert load is not None
    stored = model.info.expert_bytes
    found = []
    for index, weights in enumerate(weight_layers(needs[WEIGHTS])):
        row = model.info.moe_layers.index(weights.layer)
        E = weights.bank
        found.append(
            LayerKnown(
                layer=weights.layer,
                experts=E,
                similarity={
                    OUTPUT: cosines(sums, index),
                    ACTIVATION: correlations(sums, index),
                    **_placed(weights),
                },
                load=load[row, :E],
                reap=None if reap is None else reap[row, :E],
                bytes_each=stored[row] if stored else weights.bytes_each,
                whole=len(weights.experts) == E,
            )
        )
    return found


def pair_trials(
    layers: Sequence[LayerKnown], *, controls: int, seed_controls: int, seed: int
) -> tuple[list[Trial], list[Change]]:
    """Of every layer the most similar pair and the seed's, each with random pairs of about its
    own load, so many, that are merged as it is."""
    trials: list[Trial] = []
    changes: list[Change] = []
    chosen: tuple[tuple[Kind, str, int], ...] = (
        ("similar", OUTPUT, controls),
        ("seed", RAW, seed_controls),
    )
    for one in layers:
        for at, (kind, similarity, wanted) in enumerate(chosen):
            pair = most_similar(one.similarity[similarity])
            if pair is None:
                continue
            rng = np.random.default_rng([seed, one.layer, at])
            drawn = control_pairs(one.load, pair, wanted=wanted, rng=rng)
            mine = [Trial(kind=kind, layer=one.layer, experts=pair)]
            mine += [Trial(kind=CONTROLS[kind], layer=one.layer, experts=e) for e in drawn]
            trials += mine
            changes += [_pair_change(one, trial, aligned=kind != "seed") for trial in mine]
    return trials, changes


def similarities(layers: Sequence[LayerKnown], trials: Sequence[Trial]) -> Numbers:
    """[S, V]: every similarity of every pair that is tried."""
    by_layer = {one.layer: one for one in layers}
    rows = [
        [by_layer[t.layer].similarity[name][t.experts] for t in trials] for name in SIMILARITIES
    ]
    return np.asarray(rows, float).reshape(len(SIMILARITIES), len(trials))


def removals(
    model: Forward,
    layers: Sequence[LayerKnown],
    *,
    shares: Sequence[float],
    draws: int,
    seed: int,
) -> tuple[list[Removal], list[Change], list[str]]:
    """Every way at every size, and what cannot be tried."""
    found: list[Removal] = []
    changes: list[Change] = []
    refused: list[str] = []
    for share in shares:
        sizes = {one.layer: round(share * one.experts) for one in layers}
        left = min(one.experts - sizes[one.layer] for one in layers)
        if left < model.info.top_k or not min(sizes.values()):
            refused.append(
                f"{share:g} of the experts: a layer would keep {left}, and a token uses "
                f"{model.info.top_k}"
                if left < model.info.top_k
                else f"{share:g} of the experts is less than one of a layer"
            )
            continue
        ways = _ways(model, layers, sizes, refused)
        groups = {one.layer: groups_of(one.similarity[OUTPUT], sizes[one.layer]) for one in layers}
        for draw in range(draws):
            rng = np.random.default_rng([seed, draw, round(1000 * share)])
            ways.append((merge_front.RANDOM, draw, _random(layers, groups, rng)))
        for method, number, parts in ways:
            found.append(
                Removal(
                    method=method,
                    share=share,
                    removed=float(np.mean(list(sizes.values()))),
                    bytes=sum(sizes[one.layer] * one.bytes_each for one in layers),
                    draw=number,
                )
            )
            changes.append(
                Change(
                    interventions=tuple(i for made, _ in parts for i in made),
                    concerns=tuple(c for _, concerns in parts for c in concerns),
                    on_controls=number is not None,
                )
            )
    return found, changes, list(dict.fromkeys(refused))


_Made = tuple[list[Intervention], list[tuple[int, Group]]]
_Way = tuple[merge_front.Method, int | None, list[_Made]]


def _ways(
    model: Forward, layers: Sequence[LayerKnown], sizes: dict[int, int], refused: list[str]
) -> list[_Way]:
    """The ways that are not random, as far as this model allows them."""
    similar = [
        _merged(one, groups_of(one.similarity[OUTPUT], sizes[one.layer]), aligned=True)
        for one in layers
    ]
    ways: list[_Way] = [(merge_front.OUTPUTS, None, similar)]
    if all(one.whole for one in layers):
        seeds = [
            _merged(one, groups_of(one.similarity[RAW], sizes[one.layer]), aligned=False)
            for one in layers
        ]
        ways.append((merge_front.SEED, None, seeds))
    else:
        refused.append(f"{merge_front.SEED}: not all experts of a layer were compared (experts)")
    pruned = [
        _pruned(model, one, one.reap, sizes[one.layer]) for one in layers if one.reap is not None
    ]
    if len(pruned) == len(layers):
        ways.append((merge_front.REAP, None, pruned))
    else:
        refused.append(f"{merge_front.REAP}: the model does not show what its experts put out")
    by_load = [_pruned(model, one, one.load, sizes[one.layer]) for one in layers]
    return [*ways, (merge_front.FREQUENCY, None, by_load)]


def _merged(one: LayerKnown, groups: Sequence[Group], *, aligned: bool) -> _Made:
    made = merges(one.layer, groups, one.load if aligned else None, aligned=aligned)
    return made, [(one.layer, group) for group in groups]


def _pruned(model: Forward, one: LayerKnown, scores: Numbers, removed: int) -> _Made:
    experts = least(scores, removed)
    return prunes(model, one.layer, experts), [(one.layer, experts)]


def _random(
    layers: Sequence[LayerKnown], groups: dict[int, list[Group]], rng: np.random.Generator
) -> list[_Made]:
    return [
        _merged(one, random_groups(groups[one.layer], one.experts, rng), aligned=True)
        for one in layers
    ]


def _pair_change(one: LayerKnown, trial: Trial, *, aligned: bool) -> Change:
    made, concerns = _merged(one, [trial.experts], aligned=aligned)
    return Change(
        interventions=tuple(made),
        concerns=tuple(concerns),
        on_controls=trial.kind in CONTROLS.values(),
    )


def _placed(weights: LayerWeights) -> dict[str, Numbers]:
    """The cosines of the experts that were compared, at their own numbers."""
    placed = {}
    at = np.ix_(weights.experts, weights.experts)
    for name, values in ((RAW, weights.raw), (ALIGNED, weights.aligned), (ROUTER, weights.router)):
        whole = np.full((weights.bank, weights.bank), np.nan)
        whole[at] = values
        placed[name] = whole
    return placed
