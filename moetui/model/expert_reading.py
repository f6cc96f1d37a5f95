"""The part of a model that says what single experts added to the logits of a later router.

Σ weight · output is what a block's routed experts put out; from there to the stream leads what
`moetui.model.sources` follows (one number, a norm), from the stream to the logits the router's
frozen norm. All of that is linear, so it holds for every expert alone, but not where the sum is
projected before it is added. It is tried once on a few tokens: the experts of every layer must
add up to its routed part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from moetui.errors import ModelError, UsageError
from moetui.model.architecture import Architecture
from moetui.model.decompose import Decomposition
from moetui.model.edits import NONE, Edits
from moetui.model.readings import effective_weights, outputs_of
from moetui.model.records import PassRecord, Want
from moetui.model.sources import ROUTED
from moetui.trace import NO_EXPERT, ExpertSources, ModelInfo

Ids = NDArray[np.int32]

_TOKENS = 8
_WANT = Want(expert_outputs=True)
# Of completeness: ten times what is reached in each precision.
_TOLERANCE, _HALF_TOLERANCE = 1e-4, 1e-2


class ExpertReading(ABC):
    """What `moetui.model.Model` says of single experts; how it runs is the model's own affair."""

    info: ModelInfo
    architecture: Architecture
    _decomposition: Decomposition | None

    @abstractmethod
    def ids(self, text_or_ids: str | Sequence[int] | Ids) -> Ids:
        """Token ids of a prompt, checked."""

    @abstractmethod
    def edits(self, prompt_tokens: int) -> Edits:
        """What the interventions in force make of a pass."""

    @abstractmethod
    def pass_record(self, ids: Ids, want: Want, edits: Edits) -> PassRecord:
        """One pass over `ids` from an empty cache, not evaluated."""

    @cached_property
    def expert_sources_error(self) -> str | None:
        """Why `expert_sources` cannot be asked of this architecture, None where it can."""
        if self._decomposition is None:
            why = self.info.routing_error or self.info.decomposition_error
            return why or "the model has no router"
        if ROUTED not in self.info.part_names:
            return (
                "single experts cannot be told apart in this architecture's stream: what they add "
                "is projected, or mixed with another part, before it is added"
            )
        last = self.info.moe_layers[-1]
        ids = np.arange(_TOKENS, dtype=np.int32) % self.info.vocab_size
        worst = float(self._expert_sources(ids, last, NONE).completeness.max(initial=0.0))
        if worst <= (_TOLERANCE if self.info.dtype == "float32" else _HALF_TOLERANCE):
            return None
        return f"the experts of a layer miss what the layer added by {worst:.1e} of the logits"

    def expert_sources(self, text_or_ids: str | Sequence[int] | Ids, layer: int) -> ExpertSources:
        """What the chosen experts of earlier layers added to the logits of the router of decoder
        layer `layer`, by one forward over `text_or_ids`.

        Raises UsageError for an empty prompt, ids outside the vocabulary, or a layer that does
        not route; ModelError where `expert_sources_error` says why.
        """
        ids = self.ids(text_or_ids)
        if layer not in self.info.moe_layers:
            raise UsageError(
                f"layer {layer} does not route",
                f"the routing layers are {', '.join(map(str, self.info.moe_layers)) or 'none'}",
            )
        if self.expert_sources_error is not None:
            raise ModelError(self.expert_sources_error, "the shares of whole layers are there")
        return self._expert_sources(ids, layer, self.edits(len(ids)))

    def _expert_sources(self, ids: Ids, layer: int, edits: Edits) -> ExpertSources:
        assert self._decomposition is not None
        record = self.pass_record(ids, _WANT, edits)
        site, names = self.architecture.sites[layer], self._decomposition.source_names
        earlier = [at for at in self.architecture.sites if at < layer]
        E, k = site.num_experts, max((self._used(record, at) for at in earlier), default=0)
        sources = self._decomposition.read_sources(record, (layer,)).logits[:, 0, :, :E]
        routed = sources[:, mx.array([names.index((ROUTED, at)) for at in earlier], mx.int32)]
        logits = record.layers[layer].logits
        assert logits is not None
        whole = logits.astype(mx.float32).reshape(len(ids), -1)[:, :E]
        mx.eval(whole, routed)
        chosen = np.full((len(ids), len(earlier), k), NO_EXPERT, np.int16)
        added = np.zeros((*chosen.shape, E), np.float32)
        for row, at in enumerate(earlier):
            slots = self._used(record, at)
            chosen[:, row, :slots] = np.array(record.layers[at].indices).reshape(len(ids), slots)
            added[:, row, :slots] = np.array(self._added(record, layer, at)[..., :E])
        return ExpertSources(
            layer=layer,
            layers=np.array(earlier, np.int32),
            router_logits=np.array(whole),
            expert_ids=chosen,
            logits=added,
            routed=np.array(routed),
        )

    def _used(self, record: PassRecord, layer: int) -> int:
        """How many experts a token uses in a layer."""
        indices = record.layers[layer].indices
        assert indices is not None
        return int(indices.shape[-1])

    def _added(self, record: PassRecord, layer: int, earlier: int) -> mx.array:
        """[T, k, E]: what the experts chosen in `earlier` put into the logits at `layer`."""
        assert self._decomposition is not None
        seen, slots = record.layers[earlier], self._used(record, earlier)
        outputs = outputs_of(self.architecture.sites[earlier], seen, slots)
        # Weights that scale what the expert reads are in its output already.
        if seen.weights is not None:
            weights = effective_weights(seen)
            assert weights is not None
            outputs = outputs * weights.astype(mx.float32).reshape(-1, slots, 1)
        return self._decomposition.read_experts(record, layer, earlier, outputs)
