"""From the lazy references of one pass to numpy: what a Trace of its rows is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from moetui.model.architecture import Architecture
from moetui.model.capture import PassRecord, Want
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
    streams: bool = False,
) -> LazyReadings:
    """The readings of one pass over a batch of one. Layers that differ are padded to the widest."""
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
        if all(layer.ranked is not None for layer in layers):
            fields["ranked"] = _stack([r.ranked for r in layers], E, mx.nan)
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
    ids = host["expert_ids"]
    ranked = host.pop("ranked", None)
    scores = None if ranked is None else _as_scores(ranked, ids)
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
    if scores is not None:
        host["selection_scores"] = scores
    return host


def _of_selected(scores: Array, ids: Array) -> Array:
    selected: Array = np.take_along_axis(scores, np.maximum(ids, 0).astype(np.int64), -1)
    return selected


def _as_scores(ranked: Array, ids: Array) -> Array:
    """What top-k ranked, larger = better: `argpartition` is called on the scores or on their
    negative, and the selected experts tell which, layer by layer."""
    scores = ranked.copy()
    for layer in range(ids.shape[1]):
        if _misplaced(-scores[:, layer], ids[:, layer]) < _misplaced(
            scores[:, layer], ids[:, layer]
        ):
            scores[:, layer] *= -1
    return scores


def _misplaced(scores: Array, ids: Array) -> int:
    """Rows in which some unselected expert outranks a selected one."""
    ids = np.where(ids == NO_EXPERT, ids[:, :1], ids).astype(np.int64)
    selected = np.take_along_axis(scores, ids, -1).min(-1)
    others = scores.copy()
    np.put_along_axis(others, ids, -np.inf, -1)
    return int((np.nan_to_num(others, nan=-np.inf).max(-1) > selected).sum())
