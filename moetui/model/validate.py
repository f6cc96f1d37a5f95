"""Interventions against a model, before anything runs: one clear line for what does not fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from moetui.errors import UsageError
from moetui.trace.interventions import (
    AddLogits,
    AddToPart,
    Ban,
    Deselect,
    Drop,
    Force,
    Intervention,
    Layers,
    Merge,
    Part,
    PatchPart,
    Remap,
    Reweigh,
    ScalePart,
    TopK,
)


@dataclass(frozen=True)
class Shape:
    """What interventions are held against: decoder layers, hidden size, and for every layer that
    routes how many experts its router chooses among, how many of those its bank holds, and how
    many a token uses. routing_error: why the routing of a model that has some cannot be read."""

    num_layers: int
    hidden_size: int
    experts: Mapping[int, int]
    banked: Mapping[int, int]
    top_k: Mapping[int, int]
    routing_error: str | None = None

    def routing(self, layers: Layers) -> tuple[int, ...]:
        """The layers that an intervention in the routing concerns. Raises UsageError."""
        if not self.experts:
            raise UsageError(
                self.routing_error or "the model has no experts",
                "its residual parts can be changed: ScalePart, AddToPart, PatchPart",
            )
        if layers is None:
            return tuple(self.experts)
        strange = [layer for layer in _ints(layers, "layers") if layer not in self.experts]
        if strange:
            raise UsageError(
                f"layer {strange[0]} does not route",
                f"layers that route: {_listed(self.experts)}",
            )
        return tuple(layers)

    def decoder(self, layers: Layers) -> tuple[int, ...]:
        """The decoder layers that a change of residual parts concerns. Raises UsageError."""
        if layers is None:
            return tuple(range(self.num_layers))
        for layer in _ints(layers, "layers"):
            if not 0 <= layer < self.num_layers:
                raise UsageError(
                    f"there is no layer {layer}", f"layers count from 0 to {self.num_layers - 1}"
                )
        return tuple(layers)


def validate(interventions: Sequence[Intervention], shape: Shape) -> None:
    """Raises UsageError for the first intervention that `shape` has no place for."""
    for intervention in interventions:
        _validate_one(intervention, shape)
    if shape.experts:
        _validate_bans(interventions, shape)
        _validate_selection(interventions, shape)


def validate_rows(interventions: Sequence[Intervention], prompt_tokens: int) -> None:
    """Raises UsageError where a patch names a row that a prompt of that length does not have."""
    for intervention in interventions:
        if isinstance(intervention, PatchPart) and intervention.rows:
            last = max(intervention.rows)
            if last >= prompt_tokens:
                raise UsageError(
                    f"PatchPart changes row {last} of a prompt of {prompt_tokens} tokens",
                    "rows count from 0, up to the last token of the prompt",
                )


def _validate_one(intervention: Intervention, shape: Shape) -> None:
    match intervention:
        case Drop() | Deselect() | Ban() | Force():
            _check_experts(intervention, shape)
        case TopK(k=k, layers=layers):
            _check_top_k(k, shape, shape.routing(layers))
        case Reweigh(keep=keep, native=native, match=match, layers=layers):
            _check_reweigh(keep, native, match, shape.routing(layers))
        case Remap(source=source, target=target, layers=layers):
            _check_ids((source, target), "Remap", shape.experts, shape.routing(layers))
        case Merge():
            _check_merge(intervention, shape)
        case AddLogits(delta=delta, layers=layers):
            _check_delta(delta, shape, shape.routing(layers))
        case ScalePart(part=part, factor=factor, layers=layers):
            _check_part(part, layers, shape)
            _check_finite([factor], "the factor of ScalePart")
        case AddToPart(part=part, vector=vector, layers=layers):
            _check_part(part, layers, shape)
            _check_array(vector, (shape.hidden_size,), "the vector of AddToPart")
        case PatchPart():
            _check_patch(intervention, shape)
        case _:
            raise UsageError(
                f"{type(intervention).__name__} is not an intervention",
                "moetui.Drop, Deselect, Ban, Force, TopK, Reweigh, Remap, Merge, AddLogits, "
                "ScalePart, AddToPart, PatchPart",
            )


def _ints(values: Iterable[int], what: str) -> tuple[int, ...]:
    """`values` as they are, if they are whole numbers in a row."""
    is_sequence = isinstance(values, tuple | list)
    if not is_sequence or not all(isinstance(v, int | np.integer) for v in values):
        raise UsageError(f"{what} must be numbers in a tuple, not {values!r}", f"{what}=(5,)")
    return tuple(values)


def _check_experts(intervention: Drop | Deselect | Ban | Force, shape: Shape) -> None:
    layers = shape.routing(intervention.layers)
    _check_ids(intervention.experts, type(intervention).__name__, shape.experts, layers)


def _check_ids(
    ids: Sequence[int], what: str, counts: Mapping[int, int], layers: Sequence[int]
) -> None:
    for expert in _ints(ids, "experts"):
        for layer in layers:
            if not 0 <= expert < counts[layer]:
                raise UsageError(
                    f"{what}: layer {layer} has no expert {expert}",
                    f"its experts count from 0 to {counts[layer] - 1}",
                )


def _check_top_k(k: int, shape: Shape, layers: tuple[int, ...]) -> None:
    for layer in layers:
        if type(k) is not int or not 1 <= k <= shape.experts[layer]:
            raise UsageError(
                f"TopK: {k!r} experts of layer {layer}, which has {shape.experts[layer]}",
                f"k from 1 to {shape.experts[layer]}",
            )


def _check_reweigh(keep: int, native: int, match: str, layers: tuple[int, ...]) -> None:
    if layers and (type(keep) is not int or type(native) is not int or min(keep, native) < 1):
        raise UsageError(
            f"Reweigh keeps {keep!r} experts beside {native!r}", "both are numbers from 1 on"
        )
    if match not in ("each", "sum", "norm"):
        raise UsageError(f"Reweigh matches no {match!r}", "each, sum or norm")


def _check_merge(merge: Merge, shape: Shape) -> None:
    _check_ids(merge.experts, "Merge", shape.banked, shape.routing(merge.layers))
    if len(set(merge.experts)) != len(merge.experts):
        raise UsageError("Merge names an expert twice", "give every expert once")
    if merge.frequencies is None:
        return
    if len(merge.frequencies) != len(merge.experts):
        raise UsageError(
            f"Merge has {len(merge.frequencies)} frequencies for {len(merge.experts)} experts",
            "give one for each expert, or None for equal ones",
        )
    _check_finite(merge.frequencies, "the frequencies of Merge")
    if min(merge.frequencies) < 0 or sum(merge.frequencies) <= 0:
        raise UsageError(
            "the frequencies of Merge are negative or all 0", "give how often each expert is used"
        )


def _check_delta(delta: Sequence[float], shape: Shape, layers: tuple[int, ...]) -> None:
    for layer in layers:
        if len(delta) != shape.experts[layer]:
            raise UsageError(
                f"AddLogits has {len(delta)} numbers for the {shape.experts[layer]} experts of "
                f"layer {layer}",
                "give one for each expert of the layer; 0 leaves a logit as it is",
            )
    _check_finite(delta, "the delta of AddLogits")


def _check_part(part: str, layers: Layers, shape: Shape) -> None:
    if part not in get_args(Part):
        raise UsageError(f"there is no part {part!r}", f"parts: {', '.join(get_args(Part))}")
    if part == "embedding" and layers is not None:
        raise UsageError(
            'the part "embedding" belongs to no layer', "leave layers out: it enters layer 0"
        )
    shape.decoder(layers)


def _check_patch(patch: PatchPart, shape: Shape) -> None:
    _check_part(patch.part, None, shape)
    shape.decoder((patch.layer,))
    if patch.part == "embedding" and patch.layer != 0:
        raise UsageError(
            f'the part "embedding" does not enter at layer {patch.layer}', "use layer=0"
        )
    rows = _ints(patch.rows, "rows")
    if len(set(rows)) != len(rows) or min(rows, default=0) < 0:
        raise UsageError(f"PatchPart: rows {rows} are negative or named twice", "count from 0")
    _check_array(patch.values, (len(rows), shape.hidden_size), "the values of PatchPart")


def _check_array(array: object, wanted: tuple[int, ...], what: str) -> None:
    values = np.asarray(array)
    if values.shape != wanted or values.dtype.kind not in "fiu":
        raise UsageError(
            f"{what}: shape {list(values.shape)}, not {list(wanted)}",
            "one number for each hidden unit, in the units of the residual stream",
        )
    _check_finite(values.ravel().tolist(), what)


def _check_finite(numbers: Iterable[float], what: str) -> None:
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        raise UsageError(f"{what} is not a finite number", "NaN and infinity spread to every token")


def _validate_bans(interventions: Sequence[Intervention], shape: Shape) -> None:
    """All of them together leave every layer an expert."""
    bans = [one for one in interventions if isinstance(one, Ban)]
    for layer, experts in shape.experts.items():
        banned = {e for ban in bans if layer in shape.routing(ban.layers) for e in ban.experts}
        if len(banned) == experts:
            raise UsageError(
                f"Ban leaves layer {layer} no expert", "use Drop to silence all of them"
            )


def _validate_selection(interventions: Sequence[Intervention], shape: Shape) -> None:
    """At most k experts are forced, and at least k can still be chosen, where all meet."""
    k = dict(shape.top_k)
    forced: dict[int, set[int]] = {layer: set() for layer in shape.experts}
    barred: dict[int, set[int]] = {layer: set() for layer in shape.experts}
    for intervention in interventions:
        match intervention:
            case TopK():
                k |= dict.fromkeys(shape.routing(intervention.layers), intervention.k)
            case Force():
                for layer in shape.routing(intervention.layers):
                    forced[layer] |= set(intervention.experts)
                    barred[layer] -= set(intervention.experts)
            case Deselect():
                for layer in shape.routing(intervention.layers):
                    barred[layer] |= set(intervention.experts)
                    forced[layer] -= set(intervention.experts)
            case _:
                pass
    for layer in shape.experts:
        if len(forced[layer]) > k[layer]:
            raise UsageError(
                f"Force: {len(forced[layer])} experts in layer {layer}, where a token uses "
                f"{k[layer]}",
                "force fewer, or use TopK to let a token use more",
            )
        if shape.experts[layer] - len(barred[layer]) < k[layer]:
            raise UsageError(
                f"Deselect leaves layer {layer} fewer experts than the {k[layer]} a token uses",
                "use Ban and Drop together, or TopK to use fewer",
            )


def _listed(layers: Iterable[int]) -> str:
    return ", ".join(str(layer) for layer in layers)
