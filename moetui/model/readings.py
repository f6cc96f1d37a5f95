"""From the lazy references of one pass to numpy: what a Trace of its rows is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from moetui.model.architecture import Architecture
from moetui.model.capture import LayerRecord, PassRecord, Want
from moetui.model.decompose import Decomposition
from moetui.trace import NO_EXPERT, Streams

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class LazyReadings:
    """Everything wanted of one pass, in the graph, not evaluated; `fields` by their names."""

    fields: dict[str, mx.array]
    rows: int

    def arrays(self) -> list[mx.array]:
        """What has to be evaluated."""
        return list(self.fields.values())

    def fetch(self) -> dict[str, Array]:
        """Evaluate once and bring everything to host memory, experts in order."""
        mx.eval(*self.fields.values())
        host = {name: np.array(array) for name, array in self.fields.items()}
        return _in_order(host)


def read(
    record: PassRecord,
    architecture: Architecture,
    decomposition: Decomposition | None,
    want: Want,
    *,
    signs: Sequence[int] | None = None,
    streams: bool = False,
) -> LazyReadings:
    """The readings of one pass over a batch of one. Layers that differ are padded to the widest.

    signs: what to multiply the operand of top-k with so that larger is better, a layer each
    (see `ranking_signs`); None where top-k is hidden.
    """
    assert record.logits is not None
    sites = list(architecture.sites.values())
    fields = {"logits": record.logits[0, -1].astype(mx.float32)}
    rows = record.logits.shape[1]
    if sites:
        layers = [record.layers[site.layer] for site in sites]
        E = architecture.num_experts
        k = max(layer.indices.shape[-1] for layer in layers if layer.indices is not None)
        fields["router_logits"] = _stack([r.logits for r in layers], E, mx.nan)
        fields["expert_ids"] = _stack([r.indices for r in layers], k, NO_EXPERT, mx.int32)
        fields["expert_weights"] = _stack([r.weights for r in layers], k, mx.nan)
        if signs is not None:
            scores = [
                None if r.ranked is None else r.ranked * sign
                for r, sign in zip(layers, signs, strict=True)
            ]
            fields["selection_scores"] = _stack(scores, E, mx.nan)
        if want.expert_outputs:
            fields["expert_outputs"] = mx.stack(
                [r.expert_outputs.astype(mx.float32).reshape(rows, k, -1) for r in layers
                 if r.expert_outputs is not None], axis=1,
            )  # fmt: skip
        if decomposition is not None and want.residuals:
            parts = decomposition.read(record)
            fields["router_parts"], fields["seed_parts"] = parts.parts, parts.seed_parts
    if want.attention:
        seen = [layer.attention[0] for layer in record.layers if layer.attention is not None]
        if seen:
            fields["attention"] = mx.stack(seen)
    if streams:
        fields.update(_streams(record, sites_of=[site.layer for site in sites]))
    return LazyReadings(fields, rows)


def make_streams(host: dict[str, Array]) -> Streams | None:
    """Take the residual streams out of `host`, None when they were not read."""
    names = ("entering", "at_router", "leaving", "router_input")
    if "entering" not in host:
        return None
    return Streams(**{name: host.pop(name) for name in names})


def _streams(record: PassRecord, sites_of: list[int]) -> dict[str, mx.array]:
    def stacked(name: str, layers: list[int]) -> mx.array:
        arrays = [getattr(record.layers[index], name) for index in layers]
        flat = [a.astype(mx.float32).reshape(-1, a.shape[-1]) for a in arrays]
        return mx.stack(flat, axis=1)

    every = list(range(len(record.layers)))
    streams = {name: stacked(name, every) for name in ("entering", "at_router", "leaving")}
    rows, _, H = streams["entering"].shape
    streams["router_input"] = (
        stacked("router_input", sites_of) if sites_of else mx.zeros((rows, 0, H))
    )
    return streams


def _stack(
    arrays: list[mx.array | None], width: int, pad: float, dtype: mx.Dtype = mx.float32
) -> mx.array:
    """[T, L, width] from one [..., ≤ width] array a layer."""
    flat = []
    for array in arrays:
        if array is None:
            raise ValueError("a layer routed without being seen")
        rows = array.astype(dtype).reshape(-1, array.shape[-1])[:, :width]
        missing = width - rows.shape[-1]
        flat.append(mx.pad(rows, [(0, 0), (0, missing)], constant_values=pad) if missing else rows)
    return mx.stack(flat, axis=1)


def _in_order(host: dict[str, Array]) -> dict[str, Array]:
    """Experts by selection score, best first; equal scores by id. Weights and outputs follow."""
    if "expert_ids" not in host:
        return host
    ids, scores = host["expert_ids"], host.get("selection_scores")
    # Where top-k is hidden, the mixing weight is the best evidence of the model's preference.
    key = host["expert_weights"] if scores is None else _of_selected(scores, ids)
    key = np.where(ids == NO_EXPERT, -np.inf, key)
    order = np.lexsort((ids, -key), axis=-1)
    host["expert_ids"] = np.take_along_axis(ids, order, -1).astype(np.int16)
    host["expert_weights"] = np.take_along_axis(host["expert_weights"], order, -1)
    if "expert_outputs" in host:
        host["expert_outputs"] = np.take_along_axis(
            host["expert_outputs"], order[..., None], axis=-2
        )
    return host


def _of_selected(scores: Array, ids: Array) -> Array:
    selected: Array = np.take_along_axis(scores, np.maximum(ids, 0).astype(np.int64), -1)
    return selected


def ranking_signs(layers: Sequence[LayerRecord], experts: int) -> list[int] | None:
    """1 where a layer's top-k is taken of the scores, -1 where of their negative.

    `argpartition` is called either way; the selected experts of a pass tell which. None when
    some layer's selection is not the best by either reading, or was not seen.
    """
    signs = []
    for layer in layers:
        if layer.ranked is None or layer.indices is None:
            return None
        ids = np.array(layer.indices).reshape(-1, layer.indices.shape[-1]).astype(np.int64)
        ranked = np.array(layer.ranked.astype(mx.float32))
        scores = ranked.reshape(len(ids), -1)[:, :experts]
        fitting = [sign for sign in (1, -1) if _selects(sign * scores, ids)]
        if not fitting:
            return None
        signs.append(fitting[0])
    return signs


def _selects(scores: Array, ids: Array) -> bool:
    """Whether in every row the `ids` are the best of `scores`."""
    selected = np.take_along_axis(scores, ids, -1).min(-1)
    others = scores.copy()
    np.put_along_axis(others, ids, -np.inf, -1)
    return bool((others.max(-1) <= selected).all())
