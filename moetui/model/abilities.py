"""What can be changed in a model: found out on a few tokens when first asked for, and tried out.

No architecture is known by name. Where something cannot be changed, one sentence says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from moetui.errors import UsageError
from moetui.model.architecture import Architecture
from moetui.model.capture import Capture
from moetui.model.edits import NONE, Edits
from moetui.model.interventions import Interventions, LayerChanges
from moetui.model.merge import Merging
from moetui.model.part_points import PartPoints, find_part_points
from moetui.model.records import LayerRecord, PassRecord, Want
from moetui.model.reselect import Rehearsal, Reselection
from moetui.model.selection import Ranking, uncompiled
from moetui.model.taps import ModuleTap, Tap
from moetui.model.top_k import with_top_k
from moetui.model.validate import Shape

_TOKENS = 8
_ROUTING = Want(residuals=False)
# What mlx and model files raise when a pass is made to do what they were not written for.
_MISFITS = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, AssertionError)
# Compiled and uncompiled arithmetic round differently; another rule of weighting is far off.
_SAME_WEIGHTS = 1e-2


class Abilities:
    """What one model lets be changed; every answer costs a pass or two, once."""

    def __init__(
        self,
        network: nn.Module,
        architecture: Architecture,
        capture: Capture,
        *,
        hidden_size: int,
        routing_error: str | None,
    ) -> None:
        self._network, self._architecture, self.capture = network, architecture, capture
        self.sites = architecture.sites
        self.merging = Merging({layer: site.bank for layer, site in self.sites.items()})
        self._hidden_size, self._routing_error = hidden_size, routing_error
        self._tried: set[frozenset[tuple[int, int]]] = set()

    @cached_property
    def shape(self) -> Shape:
        """What interventions are held against."""
        sites = self.sites
        return Shape(
            num_layers=len(self._architecture.layers),
            hidden_size=self._hidden_size,
            experts={layer: site.num_experts for layer, site in sites.items()},
            banked={layer: site.bank_experts for layer, site in sites.items()},
            top_k={layer: _width(self._plain.layers[layer]) for layer in sites},
            routing_error=self._routing_error,
        )

    @cached_property
    def part_points(self) -> PartPoints:
        """Where residual parts can be changed."""
        return find_part_points(self._architecture, self.capture, self._run)

    def weighs_outputs(self, layer: int) -> bool:
        """Whether mixing weights are multiplied with expert outputs, not with their inputs."""
        return self._plain.layers[layer].weights is not None

    def mixes(self, layer: int) -> bool:
        """Whether weights can be changed in sight of the outputs that they are multiplied with:
        they all are of one bank, and their product is seen."""
        site = self.sites[layer]
        return layer in self._mixing and site.num_experts == site.bank_experts

    @cached_property
    def _mixing(self) -> set[int]:
        watched = _Mixing()
        self._run(_ROUTING, watched)
        return watched.layers

    def normalises(self, layer: int) -> bool:
        """Whether the mixing weights of a layer add up to the same for every token, so that
        they would for another number of experts too."""
        weights = self._plain.layers[layer].weights
        if weights is None:
            return False
        sums = np.array(weights.astype(mx.float32).sum(-1))
        return bool(np.ptp(sums) <= _SAME_WEIGHTS * np.abs(sums).max())

    def reselect(self, layer: int, barred: set[int], forced: set[int]) -> LayerChanges:
        """What changes the choice of experts in one layer."""
        hidden = self.capture.ranking is Ranking.REPLAYED
        return LayerChanges(
            reselection=Reselection(self.sites[layer].num_experts, barred, forced),
            rehearse=hidden,
        )

    @cached_property
    def reselection_error(self) -> str | None:
        """Why the choice of experts cannot be edited apart from weights; None where a pass showed
        that it can: with the most chosen expert barred in every layer nobody chooses it, and
        where a choice is rehearsed, rows that did not want it choose and weigh as before."""
        if not self.capture.ranking.watches_argpartition:
            return (
                "this architecture does not choose by one top-k of scores: its choice of experts "
                "cannot be edited apart from their weights"
            )
        k = self.shape.top_k
        choosing = [layer for layer, site in self.sites.items() if site.num_experts > k[layer]]
        most = {layer: _most_chosen(self._plain.layers[layer]) for layer in choosing}
        changes = {layer: self.reselect(layer, {expert}, set()) for layer, expert in most.items()}
        tried = Interventions((), self.capture, changes, ())
        record = self._run(_ROUTING, tried)
        for layer, barred in most.items():
            if not _reselects(record.layers[layer], tried.rehearsals.get(layer), barred):
                return f"the choice of experts in layer {layer} does not follow from its top-k"
        return None

    def use_top_k(self, wanted: Mapping[int, int]) -> Sequence[Tap]:
        """What makes layers use as many experts a token as `wanted` says. Raises UsageError
        where a pass does not show just that."""
        seen = self.shape.top_k
        wanted = {layer: k for layer, k in wanted.items() if k != seen[layer]}
        taps: list[Tap] = []
        for layer, k in wanted.items():
            taps += with_top_k(self.sites[layer], seen[layer], k)
            if self.capture.ranking is Ranking.REPLAYED:
                taps.append(ModuleTap(self.sites[layer].block, _uncompiled))
        case = frozenset(wanted.items())
        if wanted and case not in self._tried:
            self._try_top_k(taps, {**seen, **wanted})
            self._tried.add(case)
        return taps

    def _try_top_k(self, taps: Sequence[Tap], expected: Mapping[int, int]) -> None:
        hint = "Drop and Deselect work without another number of experts"
        try:
            record = self._run(_ROUTING, Interventions((), self.capture, {}, taps))
        except _MISFITS as error:
            raise UsageError(
                "this architecture does not run with that many experts a token", hint
            ) from error
        for layer, k in expected.items():
            if (used := _width(record.layers[layer])) != k:
                raise UsageError(
                    f"layer {layer} still uses {used} experts a token where {k} were asked for",
                    hint,
                )

    @cached_property
    def _plain(self) -> PassRecord:
        return self._run(_ROUTING, NONE)

    def _run(self, want: Want, edits: Edits) -> PassRecord:
        """One pass over the first few token ids, evaluated."""
        records: list[PassRecord] = []
        with self.capture.on(want, records.append, edits):
            self._network(mx.arange(_TOKENS)[None], cache=make_prompt_cache(self._network))
        mx.eval(records[0].logits)
        return records[0]


class _Mixing(Edits):
    """Notes the layers whose weights are seen to be multiplied with outputs."""

    def __init__(self) -> None:
        self.layers: set[int] = set()

    def mixing(self, layer: int, weights: mx.array, outputs: mx.array) -> mx.array:
        self.layers.add(layer)
        return weights


def _uncompiled(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A block that was compiled for any shape crashes or errs with one expert a token, if that
    axis was longer before (mlx 0.32 leaves sums over one entry out of the graph)."""
    with uncompiled():
        return call(*args, **kwargs)


def _width(layer: LayerRecord) -> int:
    return 0 if layer.indices is None else int(layer.indices.shape[-1])


def _most_chosen(layer: LayerRecord) -> int:
    return int(np.bincount(np.array(layer.indices).ravel()).argmax())


def _reselects(layer: LayerRecord, rehearsal: Rehearsal | None, barred: int) -> bool:
    """Whether no token chose `barred`, and all have as many experts as before."""
    assert layer.indices is not None
    chosen = np.array(layer.indices).reshape(-1, layer.indices.shape[-1])
    if (chosen == barred).any() or any(len(set(row)) < len(row) for row in chosen.tolist()):
        return False
    return rehearsal is None or _rehearses(layer, rehearsal)


def _rehearses(layer: LayerRecord, rehearsal: Rehearsal) -> bool:
    """Whether the rehearsal chose and weighed as the pass itself (or what it took from it)."""
    assert layer.indices is not None and layer.weights is not None
    order, other = mx.argsort(layer.indices, -1), mx.argsort(rehearsal.chosen, -1)
    same = mx.take_along_axis(layer.indices, order, -1) == mx.take_along_axis(
        rehearsal.chosen, other, -1
    )
    weights = mx.take_along_axis(layer.weights, order, -1)
    error = mx.abs(weights - mx.take_along_axis(rehearsal.given, other, -1)).max()
    return bool(same.all().item() and (error <= _SAME_WEIGHTS * mx.abs(weights).max()).item())
