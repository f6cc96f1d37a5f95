"""Interventions: what a forward pass is made to do differently, as plain data.

Every one of them is a frozen description without mlx; `moetui.model` carries it out inside the
model's own forward and undoes it. Several compose: each point of the pass (residual parts,
router logits, selection, ids, weights) applies those that concern it in the order given.

`layers` are decoder layers (None: every layer that routes); `experts` are expert ids. One that
changes nothing (an expert that no token selects, a factor of 1) leaves the logits bit-identical.
A trace made with interventions shows what the pass then did: router logits as banned and added
to, but selection scores as the router made them, the experts that ran, the weights in force.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from moetui.trace.types import Floats

Layers = tuple[int, ...] | None
Experts = tuple[int, ...]

# The parts of the residual stream that can be changed: what enters layer 0, what a layer adds
# before its feed-forward part, and what its feed-forward part adds.
Part = Literal["embedding", "attention", "experts"]


class Drop(msgspec.Struct, frozen=True, kw_only=True, tag="drop"):
    """The experts keep their slot, their output counts nothing: mixing weight 0. A slot that was
    remapped to one of them counts nothing either.

    renormalise: the other weights of the token grow so that their sum stays what it was (where
    all its experts are dropped nothing is left to grow, and nothing is added). Where weights are
    multiplied with what experts read, they stay, and the output is silenced.
    """

    experts: Experts
    layers: Layers = None
    renormalise: bool = False


class Deselect(msgspec.Struct, frozen=True, kw_only=True, tag="deselect"):
    """The experts cannot be chosen: the next best by selection score is routed instead.

    Only the selection is edited, weights still come from the unmasked scores. Where an expert is
    both deselected and forced, the later counts.
    """

    experts: Experts
    layers: Layers = None


class Ban(msgspec.Struct, frozen=True, kw_only=True, tag="ban"):
    """The experts' router logits become -1e9: they lose, and softmax rescales every weight.

    The model goes on from there as it would: where fewer than k others are left, or a correction
    bias decides, a banned expert may still hold a slot, with weight 0 (a small one where the
    architecture caps its router logits).
    """

    experts: Experts
    layers: Layers = None


class Force(msgspec.Struct, frozen=True, kw_only=True, tag="force"):
    """The experts are chosen for every token, the best of the others fill the remaining slots.

    Only the selection is edited, weights come from the unmasked scores. At most k experts.
    """

    experts: Experts
    layers: Layers = None


class TopK(msgspec.Struct, frozen=True, kw_only=True, tag="top_k"):
    """Every token uses k experts, as a model configured with that k does."""

    k: int
    layers: Layers = None


class Reweigh(msgspec.Struct, frozen=True, kw_only=True, tag="reweigh"):
    """Of the experts that run for a token only the `keep` with the largest mixing weights count,
    the others get weight 0; what is left is measured by the mixture that the best `native` of
    them would make on the same input. It acts after everything else that changes weights.

    With TopK more experts than `native` can run. How a model weighs them then differs: some make
    the weights add up to the same whatever their number, and `native` experts would have had
    larger ones. match: what is taken from that mixture. "each": every expert has the weight that
    it has there (and further ones in proportion). "sum": the weights are scaled until they add up
    to as much as there. "norm": until Σ weight · output is as long as there.
    """

    keep: int
    native: int
    match: Literal["each", "sum", "norm"]
    layers: Layers = None


class Remap(msgspec.Struct, frozen=True, kw_only=True, tag="remap"):
    """The work of expert `source` is done by expert `target`, with the weight of `source`.

    Several follow one another: ids that the first put there are mapped on by the next.
    """

    source: int
    target: int
    layers: Layers = None


class Merge(msgspec.Struct, frozen=True, kw_only=True, tag="merge"):
    """Every expert of the group becomes the group's weighted mean.

    frequencies: the weight of each expert of the group (its load), None for equal ones. A
    quantised bank is averaged in float32 and quantised again. aligned: before that, the neurons
    of every expert are put into the order in which they lie closest to those of the one with the
    largest weight (the first of them): an expert with its neurons exchanged is the same expert.
    """

    experts: Experts
    layers: Layers = None
    frequencies: tuple[float, ...] | None = None
    aligned: bool = False


class AddLogits(msgspec.Struct, frozen=True, kw_only=True, tag="add_logits"):
    """Router logits + delta; delta: one number for each expert of the layer."""

    delta: tuple[float, ...]
    layers: Layers = None


class ScalePart(msgspec.Struct, frozen=True, kw_only=True, tag="scale_part"):
    """What a part adds to the residual stream, times `factor` (0 removes it).

    For "embedding" `layers` must be None; for the other parts None means every decoder layer.
    """

    part: Part
    factor: float
    layers: Layers = None


class AddToPart(msgspec.Struct, frozen=True, kw_only=True, tag="add_to_part"):
    """A vector is added to what a part adds to the residual stream.

    vector: float32 [H], in the units of the residual stream, the same for every token.
    """

    part: Part
    vector: Floats
    layers: Layers = None


class PatchPart(msgspec.Struct, frozen=True, kw_only=True, tag="patch_part"):
    """What a part adds to the residual stream at `layer` becomes what it was elsewhere.

    values: float32 [P, H], in the units of the residual stream (from a trace's `streams`:
    entering of layer 0, at_router - entering, or leaving - at_router). rows: the P rows of the
    prompt that it replaces, counted from 0; later rows and generated tokens are untouched.
    """

    part: Part
    layer: int
    values: Floats
    rows: tuple[int, ...]


Intervention = (
    Drop
    | Deselect
    | Ban
    | Force
    | TopK
    | Reweigh
    | Remap
    | Merge
    | AddLogits
    | ScalePart
    | AddToPart
    | PatchPart
)


def describe(intervention: Intervention) -> str:
    """One line that names an intervention and its settings; arrays by their shape and norm."""
    said = []
    for name in intervention.__struct_fields__:
        value = getattr(intervention, name)
        if isinstance(value, np.ndarray):
            value = f"{list(value.shape)} of norm {np.linalg.norm(value):.6g}"
        said.append(f"{name}={value}")
    return f"{type(intervention).__name__}({', '.join(said)})"
