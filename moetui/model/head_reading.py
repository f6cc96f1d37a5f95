"""The part of a model that says what single attention heads added to a router's logits.

Attention puts out W_o x, with x its heads side by side, as the output projection really received
them (a gate or a norm on a head is inside); W_o[:, head] x[head] is one head of it. From there to
the stream and to the logits leads the same as for whole layers, all of it linear while the norms'
scales are frozen. The output projection is the matrix whose output *is* what attention hands on;
how many heads there are is read from the kernel's own query. That a block of x is one head and
nothing else is tried once: heads put out NaN, and just their blocks must turn to NaN. Then the
heads of every layer must add up to its attention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from moetui.model.architecture import weight_matrix
from moetui.model.edits import NONE, Edits
from moetui.model.records import LayerRecord, PassRecord, Want
from moetui.model.source_reading import Ids, SourceReading
from moetui.model.sources import ATTENTION
from moetui.model.taps import FunctionTap, ModuleTap, Tap
from moetui.trace import HeadSources

_WANT = Want(heads=True)


class HeadReading(SourceReading):
    """What `moetui.model.Model` says of single heads; how it runs is the model's own affair."""

    @cached_property
    def head_sources_error(self) -> str | None:
        """Why `head_sources` cannot be asked of this architecture, None where it can."""
        if (why := self._unsplit_error()) is not None:
            return why
        if ATTENTION not in self.info.part_names:
            return (
                "single heads cannot be told apart in this architecture's stream: what attention "
                "puts out is mixed with something else before it is added"
            )
        if not self._heads:
            return "no layer of this architecture projects the outputs of attention heads"
        found = self._head_sources(self._probe_ids(), self.info.moe_layers[-1], NONE)
        missed = self._missed(found.completeness)
        return missed and f"the heads of a layer miss what its attention added by {missed}"

    def head_sources(self, text_or_ids: str | Sequence[int] | Ids, layer: int) -> HeadSources:
        """What the attention heads of the layers before the router of decoder layer `layer`, its
        own layer's included, added to its logits, by one forward over `text_or_ids`.

        Raises UsageError for an empty prompt, ids outside the vocabulary, or a layer that does
        not route; ModelError where `head_sources_error` says why.
        """
        ids = self.ids(text_or_ids)
        self._check_source(layer, self.head_sources_error)
        return self._head_sources(ids, layer, self.edits(len(ids)))

    def _head_sources(self, ids: Ids, layer: int, edits: Edits) -> HeadSources:
        assert self._decomposition is not None
        record = self.pass_record(ids, _WANT, edits)
        layers = self._decomposition.mixing(record, layer)
        attention = self._added_by(record, layer, ATTENTION, layers)
        whole = self._router_logits(record, layer)
        mx.eval(whole, attention)
        added = np.zeros(
            (len(ids), len(layers), 1 + max(self._heads.values()), whole.shape[-1]), np.float32
        )
        heads = np.zeros(len(layers), np.int32)
        for row, at in enumerate(layers):
            # Where an intervention changes what attention hands on, that is no projection of heads.
            if at in self._heads and record.layers[at].projected is not None:
                heads[row] = self._heads[at]
                found = self._by_head(record, layer, at)[..., : whole.shape[-1]]
                added[:, row, 1 : 1 + heads[row]] = np.array(found[:, 1:])
                added[:, row, 0] = np.array(found[:, 0])
            else:
                added[:, row, 0] = np.array(attention[:, row])
        return HeadSources(
            layer=layer,
            layers=np.array(layers, np.int32),
            heads=heads,
            router_logits=np.array(whole),
            logits=added,
            attention=np.array(attention),
        )

    def _by_head(self, record: PassRecord, layer: int, earlier: int) -> mx.array:
        """[T, 1 + heads, E]: what the projection's bias and every head of `earlier` put into the
        logits at `layer`."""
        assert self._decomposition is not None
        heads, projected = self._heads[earlier], record.layers[earlier].projected
        assert projected is not None
        projection, x = projected
        W = weight_matrix(projection)
        blocks = W.reshape(len(W), heads, -1).transpose(1, 2, 0)
        x = x.astype(mx.float32).reshape(-1, heads, blocks.shape[1]).swapaxes(0, 1)
        bias = mx.array(projection.get("bias", mx.zeros(len(W)))).astype(mx.float32)

        def terms(rows: slice) -> mx.array:
            outputs = x[:, rows] @ blocks
            constant = mx.broadcast_to(bias, (1, *outputs.shape[1:]))
            return mx.concatenate([constant, outputs])

        return self._decomposition.read_attention(record, layer, earlier, terms, 1 + heads)

    @cached_property
    def _heads(self) -> Mapping[int, int]:
        """By layer, how many heads its attention projects; layers that project none are absent."""
        ids = self._probe_ids()
        record = self.pass_record(ids, _WANT, NONE)
        plain = {i: one for i, seen in enumerate(record.layers) if (one := _projected(seen))}
        bits = max((one.heads - 1 for one in plain.values()), default=0).bit_length()
        found = {layer: one.heads for layer, one in plain.items()}
        for bit in range(max(bits, 1)):
            for value in (0, 1):
                marks = _Marks(plain, bit, value)
                self.pass_record(ids, Want(residuals=False), marks)
                mx.eval(*marks.read.values())
                found = {i: heads for i, heads in found.items() if marks.stay_apart(i)}
        return found


@dataclass(frozen=True, eq=False)
class _Projection:
    """The matrix that puts out what attention hands on, `output` in the pass that found it."""

    matrix: nn.Module
    heads: int
    output: mx.array


def _projected(seen: LayerRecord) -> _Projection | None:
    """The output projection of one attention over heads, None where there is none."""
    if seen.projected is None or seen.mixed is None or len(seen.attended) != 1:
        return None
    matrix, x = seen.projected
    heads = seen.attended[0]
    return _Projection(matrix, heads, seen.mixed) if x.shape[-1] % heads == 0 else None


class _Marks(Edits):
    """The heads whose number has `value` at one bit put out NaN, in all layers at once: every
    output projection notes what it reads and puts out what it did in a pass without that.

    read: by layer, the input of its output projection [..., heads · d].
    """

    def __init__(self, projections: Mapping[int, _Projection], bit: int, value: int) -> None:
        self._projections, self._bit, self._value = projections, bit, value
        self._layer: int | None = None
        self.read: dict[int, mx.array] = {}

    def taps(self) -> Sequence[Tap]:
        """The attention kernel, and every output projection."""
        kernel = FunctionTap(mx.fast, "scaled_dot_product_attention", self._around_attention)
        matrices = (
            ModuleTap(one.matrix, partial(self._around_projection, layer))
            for layer, one in self._projections.items()
        )
        return (kernel, *matrices)

    def entering(self, layer: int, h: mx.array) -> mx.array:
        self._layer = layer if layer in self._projections else None
        return h

    def stay_apart(self, layer: int) -> bool:
        """Whether the blocks of the marked heads are NaN throughout, and no others anywhere."""
        heads = self._projections[layer].heads
        read = np.array(self.read[layer].astype(mx.float32))
        nan = np.isnan(read.reshape(-1, heads, read.shape[-1] // heads))
        return bool((nan == self._marked(heads)[:, None]).all())

    def _marked(self, heads: int) -> NDArray[np.bool_]:
        marked: NDArray[np.bool_] = (np.arange(heads) >> self._bit & 1) == self._value
        return marked

    def _around_attention(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        if self._layer is None:
            return output
        self._layer = None  # attention that a layer runs later is not the one that it projects
        marked = mx.array(self._marked(output.shape[1]))[:, None, None]
        return mx.where(marked, mx.array(mx.nan, output.dtype), output)

    def _around_projection(self, layer: int, call: Callable[..., Any], x: mx.array) -> mx.array:
        self.read[layer] = x
        return self._projections[layer].output
