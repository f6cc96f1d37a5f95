"""The part of a model that says what single experts added to the logits of a later router.

Σ weight · output is what a block's routed experts put out; from there to the stream leads what
`moetui.model.sources` follows (one number, a norm), from the stream to the logits the router's
frozen norm. All of that is linear, so it holds for every expert alone, but not where the sum is
projected before it is added. It is tried once on a few tokens: the experts of every layer must
add up to its routed part.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import mlx.core as mx
import numpy as np

from moetui.model.edits import NONE, Edits
from moetui.model.readings import effective_weights, outputs_of
from moetui.model.records import PassRecord, Want
from moetui.model.source_reading import Ids, SourceReading
from moetui.model.sources import ROUTED
from moetui.trace import NO_EXPERT, ExpertSources

_WANT = Want(expert_outputs=True)


class ExpertReading(SourceReading):
    """What `moetui.model.Model` says of single experts; how it runs is the model's own affair."""

    @cached_property
    def expert_sources_error(self) -> str | None:
        """Why `expert_sources` cannot be asked of this architecture, None where it can."""
        if (why := self._unsplit_error()) is not None:
            return why
        if ROUTED not in self.info.part_names:
            return (
                "single experts cannot be told apart in this architecture's stream: what they add "
                "is projected, or mixed with another part, before it is added"
            )
        found = self._expert_sources(self._probe_ids(), self.info.moe_layers[-1], NONE)
        missed = self._missed(found.completeness)
        return missed and f"the experts of a layer miss what the layer added by {missed}"

    def expert_sources(self, text_or_ids: str | Sequence[int] | Ids, layer: int) -> ExpertSources:
        """What the chosen experts of earlier layers added to the logits of the router of decoder
        layer `layer`, by one forward over `text_or_ids`.

        Raises UsageError for an empty prompt, ids outside the vocabulary, or a layer that does
        not route; ModelError where `expert_sources_error` says why.
        """
        ids = self.ids(text_or_ids)
        self._check_source(layer, self.expert_sources_error)
        return self._expert_sources(ids, layer, self.edits(len(ids)))

    def _expert_sources(self, ids: Ids, layer: int, edits: Edits) -> ExpertSources:
        record = self.pass_record(ids, _WANT, edits)
        earlier = [at for at in self.architecture.sites if at < layer]
        E = self.architecture.sites[layer].num_experts
        k = max((self._used(record, at) for at in earlier), default=0)
        routed = self._added_by(record, layer, ROUTED, earlier)
        whole = self._router_logits(record, layer)
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
