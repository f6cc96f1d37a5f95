"""Carrying out interventions inside the model's own forward pass.

Each point of a pass applies those that concern it in the order given: logits, then the choice of
experts, then their ids, then the weights of those ids. What changes parameters or the number of
experts is in place while a pass runs and undone after it, whatever happens inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial

import mlx.core as mx

from moetui.model.capture import Capture
from moetui.model.edits import Edits
from moetui.model.part_points import PartPoint, change_output
from moetui.model.parts import PartChange, changed
from moetui.model.reselect import Rehearsal, Reselection
from moetui.model.reweigh import reweighed
from moetui.model.taps import Tap
from moetui.model.validate import validate_rows
from moetui.trace.interventions import Intervention, Part, Reweigh, describe

Change = Callable[[mx.array], mx.array]
_BANNED = -1e9


@dataclass(eq=False)
class LayerChanges:
    """What is done in one decoder layer, each point in the order given.

    rehearse: the block's top-k is hidden in `mx.compile`. mute_outputs: dropped experts are
    silenced at the bank, whose outputs no weight multiplies. reweighs: each with whether the
    model's weights add up to the same whatever their number. parts: by part, where its changes
    are made; None for a difference of the stream.
    """

    logits: list[Change] = field(default_factory=list)
    reselection: Reselection | None = None
    rehearse: bool = False
    ids: list[mx.array] = field(default_factory=list)
    drops: list[tuple[mx.array, bool]] = field(default_factory=list)
    mute_outputs: bool = False
    reweighs: list[tuple[Reweigh, bool]] = field(default_factory=list)
    parts: dict[Part, tuple[PartPoint | None, list[PartChange]]] = field(default_factory=dict)


class Interventions(Edits):
    """Interventions that fit a model, ready for its passes over one sequence of tokens.

    given: as the caller named them. layers: by decoder layer. taps: whatever else is in place
    while a pass runs: other parameters, other numbers of experts.
    """

    def __init__(
        self,
        given: Sequence[Intervention],
        capture: Capture,
        layers: Mapping[int, LayerChanges],
        taps: Sequence[Tap],
    ) -> None:
        self.given = tuple(given)
        self.described = tuple(map(describe, given))
        self._capture, self._layers, self._taps = capture, layers, taps
        self.needs_residuals = any("experts" in one.parts for one in layers.values())
        # Rows of the sequence that the passes before this one read, and those with this one.
        self._start = self._read = 0
        # By layer, of the pass under way: its rehearsal, and bool [..., 1]: rows chosen anew.
        self.rehearsals: dict[int, Rehearsal] = {}
        self.anew: dict[int, mx.array] = {}

    def for_sequence(self, prompt_tokens: int) -> Interventions:
        """The same for the passes of a new sequence. Raises UsageError where a patch names rows
        that its prompt lacks."""
        validate_rows(self.given, prompt_tokens)
        fresh = copy(self)
        fresh.rehearsals, fresh.anew = {}, {}
        return fresh

    def taps(self) -> Sequence[Tap]:
        """Those given, and those on the modules whose outputs are changed parts."""
        return [*self._taps, *self._part_taps()]

    def entering(self, layer: int, h: mx.array) -> mx.array:
        """The embedding, changed."""
        if layer == 0:
            self._start, self._read = self._read, self._read + h.shape[-2]
        _, changes = self._of(layer).parts.get("embedding", _UNCHANGED)
        return self._changed(changes, h)

    def leaving(self, layer: int, at_router: mx.array | None, h: mx.array) -> mx.array:
        """The stream with what the experts added to it changed, where no module puts it out."""
        point, changes = self._of(layer).parts.get("experts", _UNCHANGED)
        return h if point is not None else self._changed(changes, h, before=at_router)

    def before_block(self, layer: int, block: Callable[[], object]) -> None:
        """Rehearse the block where its choice is changed out of sight."""
        changes = self._of(layer)
        if changes.rehearse and changes.reselection is not None:
            rehearsal = Rehearsal(self, changes.reselection)
            with self._capture.aside(rehearsal):
                block()
            self.rehearsals[layer] = rehearsal

    def logits(self, layer: int, logits: mx.array) -> mx.array:
        """Router logits with experts banned and numbers added."""
        for change in self._of(layer).logits:
            logits = change(logits)
        return logits

    def ranked(self, layer: int, operand: mx.array, kth: int) -> mx.array:
        """What top-k shall rank, so that experts are deselected or forced."""
        reselection = self._of(layer).reselection
        return operand if reselection is None else reselection.ranked(operand, kth)

    def indices(self, layer: int, indices: mx.array) -> mx.array:
        """Expert ids as rehearsed, where a rehearsal chose others, and remapped."""
        changes = self._of(layer)
        if changes.rehearse and changes.reselection is not None:
            self.anew[layer] = anew = changes.reselection.concerns(indices)
            indices = mx.where(anew, self.rehearsals[layer].chosen, indices)
        for table in changes.ids:
            indices = table[indices].astype(indices.dtype)
        return indices

    def weights(self, layer: int, weights: mx.array, indices: mx.array) -> mx.array:
        """Weights as rehearsed, where a rehearsal chose others, 0 for dropped experts."""
        if self._of(layer).rehearse:
            weights = mx.where(self.anew[layer], self.rehearsals[layer].given, weights)
        for dropped, renormalise in self._of(layer).drops:
            weights = _without(weights, dropped[indices], renormalise=renormalise)
        return weights

    def mixing(self, layer: int, weights: mx.array, outputs: mx.array) -> mx.array:
        """Weights of fewer or more experts, scaled to the mixture that the usual number makes."""
        for one, normalised in self._of(layer).reweighs:
            weights = reweighed(weights, outputs, one, normalised=normalised)
        return weights

    def outputs(self, layer: int, outputs: mx.array, indices: mx.array) -> mx.array:
        """Outputs of dropped experts at 0 where no weight is multiplied with them."""
        changes = self._of(layer)
        if changes.mute_outputs:
            for dropped, _ in changes.drops:
                nothing = mx.array(0, outputs.dtype)
                outputs = mx.where(dropped[indices][..., None], nothing, outputs)
        return outputs

    def _of(self, layer: int) -> LayerChanges:
        return self._layers.get(layer, _NOTHING)

    def _part_taps(self) -> Iterator[Tap]:
        for one in self._layers.values():
            for point, changes in one.parts.values():
                if point is not None:
                    change = partial(self._changed, changes, unit=point.unit)
                    yield change_output(point.module, change)

    def _changed(
        self,
        changes: Sequence[PartChange],
        after: mx.array,
        *,
        before: mx.array | None = None,
        unit: float = 1.0,
    ) -> mx.array:
        return changed(changes, after, start=self._start, before=before, unit=unit)


_NOTHING = LayerChanges()
_UNCHANGED: tuple[PartPoint | None, list[PartChange]] = (None, [])


def banned(experts: mx.array, logits: mx.array) -> mx.array:
    """Logits [..., E] in which the `experts`, bool [E], lose: -1e9, finite in half precision."""
    lowest = max(_BANNED, mx.finfo(logits.dtype).min)
    return mx.where(experts, mx.array(lowest, logits.dtype), logits)


def _without(weights: mx.array, dropped: mx.array, *, renormalise: bool) -> mx.array:
    """Mixing weights [..., k] with those of the slots `dropped` at 0."""
    nothing = mx.array(0, weights.dtype)
    kept = mx.where(dropped, nothing, weights)
    if not renormalise:
        return kept
    whole = weights.astype(mx.float32).sum(-1, keepdims=True)
    rest = kept.astype(mx.float32).sum(-1, keepdims=True)
    growth = mx.where(rest == 0, 1, whole / mx.where(rest == 0, 1, rest))
    grown = (kept.astype(mx.float32) * growth).astype(weights.dtype)
    return mx.where(dropped.any(-1, keepdims=True), grown, weights)
