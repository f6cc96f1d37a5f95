"""From interventions as data to what a pass does: validated, and placed where they take hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import mlx.core as mx
import numpy as np

from moetui.errors import UsageError
from moetui.model.abilities import Abilities
from moetui.model.edits import NONE, Edits
from moetui.model.interventions import Change, Interventions, LayerChanges, banned
from moetui.model.parts import PartChange, changes_nothing
from moetui.model.taps import Tap
from moetui.model.validate import validate
from moetui.trace.interventions import (
    AddLogits,
    AddToPart,
    Ban,
    Deselect,
    Drop,
    Experts,
    Force,
    Intervention,
    Layers,
    Merge,
    PatchPart,
    Remap,
    Reweigh,
    ScalePart,
    TopK,
)


class Intervening:
    """The interventions in force on one model: those of the `with` blocks around a call."""

    def __init__(self, abilities: Abilities) -> None:
        self._abilities = abilities
        # Of the innermost block; they include the blocks around it.
        self._in_force: Interventions | None = None

    @contextmanager
    def block(self, interventions: Sequence[Intervention]) -> Iterator[None]:
        """`interventions` are in force inside, after those that are already."""
        outer = self._in_force
        self._in_force = self._with(interventions)
        try:
            yield
        finally:
            self._in_force = outer

    def edits(self, prompt_tokens: int, interventions: Sequence[Intervention]) -> Edits:
        """What changes the passes over one sequence: what is in force, then `interventions`."""
        combined = self._with(interventions)
        return NONE if combined is None else combined.for_sequence(prompt_tokens)

    def _with(self, interventions: Sequence[Intervention]) -> Interventions | None:
        if not interventions:
            return self._in_force
        given = () if self._in_force is None else self._in_force.given
        return prepare((*given, *interventions), self._abilities)


def prepare(given: Sequence[Intervention], abilities: Abilities) -> Interventions:
    """What carries out `given`. Raises UsageError for the first that does not fit the model."""
    validate(given, abilities.shape)
    layers: dict[int, LayerChanges] = defaultdict(LayerChanges)
    layers |= _reselections(given, abilities)
    for one in given:
        if isinstance(one, Ban | AddLogits):
            _place_logits(one, layers, abilities)
        elif isinstance(one, Remap):
            _place_remap(one, layers, abilities)
        elif isinstance(one, Drop):
            _place_drop(one, layers, abilities)
        elif isinstance(one, Reweigh):
            _place_reweigh(one, layers, abilities)
        elif isinstance(one, ScalePart | AddToPart | PatchPart) and not changes_nothing(one):
            _place_part(one, layers, abilities)
    return Interventions(given, abilities.capture, dict(layers), _taps(given, abilities))


def _reselections(given: Sequence[Intervention], abilities: Abilities) -> dict[int, LayerChanges]:
    """Of an expert that is deselected and forced in the same layer, the later counts."""
    barred: dict[int, set[int]] = defaultdict(set)
    forced: dict[int, set[int]] = defaultdict(set)
    for one in given:
        if isinstance(one, Deselect | Force):
            into, out_of = (barred, forced) if isinstance(one, Deselect) else (forced, barred)
            for layer in abilities.shape.routing(one.layers):
                into[layer] |= set(one.experts)
                out_of[layer] -= set(one.experts)
    concerned = [layer for layer in barred.keys() | forced.keys() if barred[layer] | forced[layer]]
    if concerned and abilities.reselection_error is not None:
        raise UsageError(
            abilities.reselection_error,
            "use Ban, which edits the router's logits and with them the weights",
        )
    return {layer: abilities.reselect(layer, barred[layer], forced[layer]) for layer in concerned}


def _place_logits(
    one: Ban | AddLogits, layers: dict[int, LayerChanges], abilities: Abilities
) -> None:
    for layer in abilities.shape.routing(one.layers):
        change: Change
        if isinstance(one, Ban):
            change = partial(banned, _mask(one.experts, layer, abilities))
        else:
            change = partial(_plus, mx.array(one.delta))
        layers[layer].logits.append(change)


def _place_remap(remap: Remap, layers: dict[int, LayerChanges], abilities: Abilities) -> None:
    for layer in abilities.shape.routing(remap.layers):
        table = np.arange(abilities.shape.experts[layer], dtype=np.int32)
        table[remap.source] = remap.target
        layers[layer].ids.append(mx.array(table))


def _place_drop(drop: Drop, layers: dict[int, LayerChanges], abilities: Abilities) -> None:
    for layer in abilities.shape.routing(drop.layers):
        changes = layers[layer]
        changes.drops.append((_mask(drop.experts, layer, abilities), drop.renormalise))
        changes.mute_outputs = not abilities.weighs_outputs(layer)
        if changes.mute_outputs and drop.renormalise and abilities.shape.top_k[layer] > 1:
            raise UsageError(
                f"Drop cannot renormalise in layer {layer}: its weights scale what experts read",
                "use renormalise=False",
            )


def _place_reweigh(reweigh: Reweigh, layers: dict[int, LayerChanges], abilities: Abilities) -> None:
    for layer in abilities.shape.routing(reweigh.layers):
        if not abilities.mixes(layer):
            raise UsageError(
                f"Reweigh cannot act in layer {layer}: weights are not seen there to be multiplied "
                "with what the experts of one bank put out",
                "use TopK, which makes a token use another number of experts",
            )
        layers[layer].reweighs.append((reweigh, abilities.normalises(layer)))


def _place_part(change: PartChange, layers: dict[int, LayerChanges], abilities: Abilities) -> None:
    points = abilities.part_points.of(change.part)
    for layer in _layers_of_part(change, abilities):
        parts = layers[layer].parts
        _, changes = parts.setdefault(change.part, (points.get(layer), []))
        changes.append(change)


def _layers_of_part(change: PartChange, abilities: Abilities) -> Iterator[int]:
    """The layers in which a part is changed. Raises UsageError where that is impossible."""
    points = abilities.part_points
    if not points.one_stream:
        raise UsageError(
            "this architecture's residual stream is not one vector per token: its parts cannot "
            "be changed",
            "interventions in the routing can be made",
        )
    if change.part == "embedding":
        yield 0
        return
    where = list(_where_added(change, abilities))
    if not where:
        raise UsageError(
            f'no layer of this architecture adds the part "{change.part}" on its own',
            "the other parts can be changed",
        )
    yield from where


def _where_added(change: PartChange, abilities: Abilities) -> Iterator[int]:
    points = abilities.part_points
    known = points.of(change.part)
    absent = points.no_attention if change.part == "attention" else points.no_experts
    layers: Layers = (change.layer,) if isinstance(change, PatchPart) else change.layers
    for layer in abilities.shape.decoder(layers):
        if layer in known:
            yield layer
        elif layers is not None or layer not in absent:
            why = "has none" if layer in absent else "does not add it on its own"
            raise UsageError(
                f'the part "{change.part}" cannot be changed in layer {layer}, which {why}',
                f"layers where it can: {', '.join(map(str, sorted(known))) or 'none'}",
            )


def _taps(given: Sequence[Intervention], abilities: Abilities) -> list[Tap]:
    wanted: dict[int, int] = {}
    for one in given:
        if isinstance(one, TopK):
            wanted |= dict.fromkeys(abilities.shape.routing(one.layers), one.k)
    merges = [one for one in given if isinstance(one, Merge)]
    return [*abilities.use_top_k(wanted), *abilities.merging.swaps(merges)]


def _mask(experts: Experts, layer: int, abilities: Abilities) -> mx.array:
    """bool [E]: which experts of a layer are meant."""
    return mx.array([e in experts for e in range(abilities.shape.experts[layer])])


def _plus(delta: mx.array, logits: mx.array) -> mx.array:
    return logits + delta.astype(logits.dtype)
