"""Changing what a part adds to the residual stream.

"embedding" is the stream as it enters layer 0, "experts" what a layer adds after the stream was
seen at the router: a difference of the stream, changed where the layer hands it on. "attention",
what a layer adds before, is changed at the module whose output it is (`part_points`).
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from moetui.trace.interventions import AddToPart, PatchPart, ScalePart

PartChange = ScalePart | AddToPart | PatchPart


def changes_nothing(change: PartChange) -> bool:
    """Whether `change` alone shows that it leaves every value as it is."""
    match change:
        case ScalePart():
            return change.factor == 1
        case AddToPart():
            return not np.any(change.vector)
        case PatchPart():
            return not change.rows


def changed(
    changes: Sequence[PartChange],
    after: mx.array,
    *,
    start: int,
    before: mx.array | None = None,
    unit: float = 1.0,
) -> mx.array:
    """`after` [..., T, H], rows `start`, `start` + 1, … of a sequence, with its part changed.

    The part is `unit` · `after`, or `after` - `before` where that is given.
    """
    for change in changes:
        match change:
            case ScalePart():
                after = _scaled(change.factor, before, after)
            case AddToPart():
                after = after + mx.array(np.asarray(change.vector) / unit).astype(after.dtype)
            case PatchPart():
                after = _patched(change, before, after, start, unit)
    return after


def _scaled(factor: float, before: mx.array | None, after: mx.array) -> mx.array:
    if before is None:
        return after * factor
    base = before.astype(mx.float32)
    return (base + factor * (after.astype(mx.float32) - base)).astype(after.dtype)


def _patched(
    patch: PatchPart, before: mx.array | None, after: mx.array, start: int, unit: float
) -> mx.array:
    at = np.asarray(patch.rows) - start
    here = (at >= 0) & (at < after.shape[-2])
    if not here.any():
        return after
    rows = mx.array(at[here])
    values = mx.array(np.asarray(patch.values)[here] / unit).astype(after.dtype)
    if before is not None:
        values = before[..., rows, :] + values
    patched = mx.array(after)
    patched[..., rows, :] = values
    return patched
