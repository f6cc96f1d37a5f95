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
from moetui.model.capture import Capture
from moetui.model.decompose import Decomposition
from moetui.model.edits import NONE, Edits
from moetui.model.files import first_line
from moetui.model.lens import Lens
from moetui.model.readings import effective_weights, read
from moetui.model.records import SOURCES, LayerRecord, PassRecord, Want
from moetui.model.selection import Ranking, ranking_signs
from moetui.trace.shares import completeness

_TOKENS = 8
# Ten times what these readings reach in each precision: beyond that they do not hold.
_TOLERANCE = {mx.float32: 1e-4}
_HALF_TOLERANCE = 1e-2
_OTHER = "config.json may be of another model; copy or download the checkpoint again"


class _Shifted(Edits):
    """Adds 1 to all router logits."""

    def logits(self, layer: int, logits: mx.array) -> mx.array:
        return logits + 1


class _Silent(Edits):
    """The experts put out nothing."""

    def outputs(self, layer: int, outputs: mx.array, indices: mx.array) -> mx.array:
        return mx.zeros_like(outputs)


class _Beside(Edits):
    """Every block runs a second time without its experts; `outputs` are what it puts out then."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self.outputs_without: dict[int, mx.array] = {}

    def before_block(self, layer: int, block: Callable[[], object]) -> None:
        with self._capture.aside(_Silent()):
            output = block()
        if isinstance(output, mx.array):
            self.outputs_without[layer] = output


class Probe:
    """What a few tokens showed; see the attributes.

    architecture: the one given, without its sites where they could not be read.
    hidden_size, vocab_size, top_k, dtype: as seen in the pass. ranking_signs: see there.
    shift_invariant: adding 1 to all router logits left experts and weights as they were.
    weights_scale_input: the blocks multiply what their expert reads, not what it puts out.
    lens, decomposition: ready to use.
    routing_error, lens_error, decomposition_error, attention_error: one sentence where that cannot
    be read, None where it holds.
    """

    def __init__(self, network: nn.Module, architecture: Architecture, capture: Capture) -> None:
        self._network, self._capture = network, capture
        record = self._first_pass()
        assert record.logits is not None
        stream = record.layers[-1].leaving
        assert stream is not None
        self.hidden_size = int(stream.shape[-1])
        self.vocab_size = int(record.logits.shape[-1])
        self.dtype = str(stream.dtype).rpartition(".")[2]
        self._tolerance = _TOLERANCE.get(stream.dtype, _HALF_TOLERANCE)
        self.routing_error = _routing_error(architecture, record)
        if self.routing_error is not None:
            architecture = Architecture(architecture.layers, {})
        self.architecture = architecture
        routed = [record.layers[layer] for layer in architecture.sites]
        self.top_k = max((_width(layer.indices) for layer in routed), default=0)
        self.weights_scale_input = any(layer.weights is None for layer in routed)
        self.ranking_signs = self._find_ranking(routed) if routed else None
        self.attention_error = _attention_error(record)
        self.lens = Lens(network, architecture.layers)
        self.lens.set_tuples([layer.returns_tuple for layer in record.layers])
        self.lens_error = self._test_lens(record, stream)
        self.decomposition: Decomposition | None = None
        self.decomposition_error = self._test_decomposition(record) if routed else None
        self._capture.kept = self.decomposition.kept if self.decomposition else frozenset()
        self.shift_invariant = self._test_shift(routed) if routed else True

    def _pass(self, edits: Edits = NONE) -> PassRecord:
        records: list[PassRecord] = []
        ids = (mx.arange(_TOKENS) % embedding_rows(self._network))[None]
        with self._capture.on(Want(attention=True), records.append, edits):
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

    def _find_ranking(self, routed: list[LayerRecord]) -> list[int] | None:
        """The first way to see what top-k ranks that explains the experts of every token."""
        for ranking in (Ranking.SEEN, Ranking.REPLAYED, Ranking.LOGITS):
            self._capture.ranking = ranking
            try:
                if ranking is not Ranking.SEEN:
                    record = self._pass()
                    routed = [record.layers[layer] for layer in self.architecture.sites]
                signs = ranking_signs(routed)
            except (RuntimeError, ValueError):  # inside mx.compile stand placeholders
                continue
            if signs is not None:
                return signs
        self._capture.ranking = Ranking.HIDDEN
        return None

    def _test_lens(self, record: PassRecord, stream: mx.array) -> str | None:
        assert record.logits is not None
        try:
            own = record.logits[0].astype(mx.float32)
            lens = self.lens.logits(stream[0])
            scale = float(mx.abs(own).max())
            error = float(mx.abs(lens - own).max()) / (scale or 1.0)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as problem:
            return f"the logit lens cannot be read on this architecture ({problem})"
        if not error <= self._tolerance:
            return (
                "the logit lens cannot be read on this architecture: for the last layer it is not "
                "the model's own output"
            )
        return None

    def _test_decomposition(self, record: PassRecord) -> str | None:
        streams = {getattr(layer, name).shape for layer in record.layers for name in _STREAM}
        if len(streams) > 1 or not _joined(record):
            return (
                "the router logits cannot be split by source: this architecture's residual "
                "stream is not one sum per token"
            )
        try:
            beside = _Beside(self._capture)
            if any(site.shares_block for site in self.architecture.sites.values()):
                self._capture.kept = SOURCES
                record = self._pass(beside)
            decomposition = Decomposition(self.architecture, record, beside.outputs_without)
            host = read(record, self.architecture, decomposition, Want()).fetch()
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as problem:
            return f"the router logits of this architecture cannot be split by source ({problem})"
        worst = float(np.max(completeness(host["router_parts"], host["router_logits"])))
        if not worst <= self._tolerance:
            return f"the sources of the router logits miss them by {worst:.1e}"
        self.decomposition = decomposition
        return None

    def _test_shift(self, before: list[LayerRecord]) -> bool:
        """Whether logits + 1 route every token the same way with the same weights."""
        after = self._pass(_Shifted())
        pairs = zip(before, (after.layers[i] for i in self.architecture.sites), strict=True)
        return all(_same_routing(one, other, self._tolerance) for one, other in pairs)


_STREAM = ("entering", "at_router", "leaving")


def _routing_error(architecture: Architecture, record: PassRecord) -> str | None:
    """Why the routing of this model cannot be read, None where it can or there is none."""
    if architecture.separate_experts:
        return "this architecture keeps its experts as separate modules: its routing cannot be read"
    if not all(record.layers[layer].routed for layer in architecture.sites):
        return "this architecture's experts run in one fused step: its routing cannot be read"
    return None


def _attention_error(record: PassRecord) -> str | None:
    """Why there are no attention probabilities, None where some layer has them."""
    over_tokens = (a.shape[-2:] == (_TOKENS, _TOKENS) for r in record.layers for a in r.attention)
    if any(over_tokens):
        return None
    return "this architecture does not attend to the tokens themselves, one by one"


def _joined(record: PassRecord) -> bool:
    """Whether every layer receives the very stream that the one before it handed on."""
    pairs = zip(record.layers, record.layers[1:], strict=False)
    return all(after.entering is before.leaving for before, after in pairs)


def _width(indices: mx.array | None) -> int:
    return 0 if indices is None else int(indices.shape[-1])


def _same_routing(one: LayerRecord, other: LayerRecord, tolerance: float) -> bool:
    def by_expert(record: LayerRecord) -> tuple[mx.array, mx.array]:
        assert record.indices is not None
        order = mx.argsort(record.indices, axis=-1)
        ids = mx.take_along_axis(record.indices, order, -1)
        weights = effective_weights(record)
        assert weights is not None
        return ids, mx.take_along_axis(weights.reshape(order.shape), order, -1)

    (ids, weights), (other_ids, other_weights) = by_expert(one), by_expert(other)
    close = mx.abs(weights - other_weights).max() <= tolerance
    return bool(mx.array_equal(ids, other_ids).item() and close.item())
