"""The self-test at load: a few tokens show what can be read from this model, and what cannot.

No architecture is trusted by name. The decomposition must add up to the router's own logits, the
lens of the last layer must be the model's own output; where that fails, one sentence says so and
the panes that need it stay empty.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from moetui.errors import ModelError
from moetui.model.architecture import Architecture, embedding_rows
from moetui.model.capture import Capture, LayerRecord, PassRecord, Want
from moetui.model.decompose import Decomposition
from moetui.model.files import first_line
from moetui.model.lens import Lens
from moetui.model.readings import ranking_signs, read
from moetui.trace.shares import completeness

_TOKENS = 8
# Ten times what these readings reach in each precision: beyond that they do not hold.
_TOLERANCE = {mx.float32: 1e-4}
_HALF_TOLERANCE = 1e-2
_OTHER = "config.json may be of another model; copy or download the checkpoint again"


class Probe:
    """What a few tokens showed; see the attributes.

    hidden_size, vocab_size, top_k, dtype: as seen in the pass. ranking_signs: see there.
    shift_invariant: adding 1 to all router logits left experts and weights as they were.
    lens, decomposition: ready to use.
    lens_error, decomposition_error: one sentence where they failed, None where they hold.
    """

    def __init__(self, network: nn.Module, architecture: Architecture, capture: Capture) -> None:
        self._network, self._architecture, self._capture = network, architecture, capture
        record = self._first_pass()
        assert record.logits is not None
        stream = record.layers[-1].leaving
        assert stream is not None
        self.hidden_size = int(stream.shape[-1])
        self.vocab_size = int(record.logits.shape[-1])
        self.dtype = str(stream.dtype).rpartition(".")[2]
        self._tolerance = _TOLERANCE.get(stream.dtype, _HALF_TOLERANCE)
        routed = [record.layers[layer] for layer in architecture.sites]
        self.top_k = max((_width(layer.indices) for layer in routed), default=0)
        self.ranking_signs = self._look_at_selection(routed) if routed else None
        self.lens = Lens(network, architecture.layers)
        self.lens.set_tuples([layer.returns_tuple for layer in record.layers])
        self.lens_error = self._test_lens(record, stream)
        self.decomposition: Decomposition | None = None
        self.decomposition_error = self._test_decomposition(record) if routed else None
        self.shift_invariant = self._test_shift(routed) if routed else True

    def _pass(self, edit: Callable[[int, mx.array], mx.array] | None = None) -> PassRecord:
        records: list[PassRecord] = []
        ids = (mx.arange(_TOKENS) % embedding_rows(self._network))[None]
        with self._capture.on(Want(), records.append, edit):
            self._network(ids, cache=make_prompt_cache(self._network))
        return records[0]

    def _first_pass(self) -> PassRecord:
        try:
            record = self._pass()
            mx.eval(record.logits)
        except Exception as error:  # an architecture that does not fit raises anything
            raise ModelError(
                f"the model does not run here: {first_line(error)}",
                "`moetui trace -m demo -p hi` shows whether moetui itself works on this machine",
            ) from error
        if record.logits is None or not record.layers:
            raise ModelError("the model has no layers", _OTHER)
        best = record.logits.astype(mx.float32).max(axis=-1)
        if not mx.isfinite(best).all() or mx.isnan(record.logits).any():
            raise ModelError("the model computes NaN or infinite logits", _OTHER)
        return record

    def _look_at_selection(self, routed: list[LayerRecord]) -> list[int] | None:
        """How to read top-k; None where it is inside `mx.compile`, which shows placeholders."""
        try:
            signs = ranking_signs(routed, self._architecture.num_experts)
        except (RuntimeError, ValueError):
            signs = None
        self._capture.sees_selection = signs is not None
        return signs

    def _test_lens(self, record: PassRecord, stream: mx.array) -> str | None:
        assert record.logits is not None
        try:
            own = record.logits[0].astype(mx.float32)
            lens = self.lens.logits(stream[0])
            scale = float(mx.abs(own).max())
            error = float(mx.abs(lens - own).max()) / (scale or 1.0)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as problem:
            return f"the logit lens does not work on this architecture ({problem})"
        if not error <= self._tolerance:
            return f"the lens of the last layer misses the model's own logits by {error:.1e}"
        return None

    def _test_decomposition(self, record: PassRecord) -> str | None:
        try:
            decomposition = Decomposition(self._architecture, record)
            host = read(record, self._architecture, decomposition, Want()).fetch()
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as problem:
            return f"the router logits of this architecture cannot be split by source ({problem})"
        worst = float(np.max(completeness(host["router_parts"], host["router_logits"])))
        if not worst <= self._tolerance:
            return f"the sources of the router logits miss them by {worst:.1e}"
        self.decomposition = decomposition
        return None

    def _test_shift(self, before: list[LayerRecord]) -> bool:
        """Whether logits + 1 route every token the same way with the same weights."""
        after = self._pass(lambda layer, logits: logits + 1)
        pairs = zip(
            before, (after.layers[layer] for layer in self._architecture.sites), strict=True
        )
        return all(_same_routing(one, other, self._tolerance) for one, other in pairs)


def _width(indices: mx.array | None) -> int:
    return 0 if indices is None else int(indices.shape[-1])


def _same_routing(one: LayerRecord, other: LayerRecord, tolerance: float) -> bool:
    def by_expert(record: LayerRecord) -> tuple[mx.array, mx.array]:
        assert record.indices is not None and record.weights is not None
        order = mx.argsort(record.indices, axis=-1)
        return (
            mx.take_along_axis(record.indices, order, -1),
            mx.take_along_axis(record.weights.astype(mx.float32), order, -1),
        )

    (ids, weights), (other_ids, other_weights) = by_expert(one), by_expert(other)
    close = mx.abs(weights - other_weights).max() <= tolerance
    return bool(mx.array_equal(ids, other_ids).item() and close.item())
