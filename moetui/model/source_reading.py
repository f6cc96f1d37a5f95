"""What is needed to say what a single source, an expert or a head, added to a router's logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from moetui.errors import ModelError, UsageError
from moetui.model.architecture import Architecture
from moetui.model.decompose import Decomposition
from moetui.model.edits import Edits
from moetui.model.records import PassRecord, Want
from moetui.trace import ModelInfo
from moetui.trace.types import Floats

Ids = NDArray[np.int32]

# Of completeness: ten times what is reached in each precision.
_TOLERANCE, _HALF_TOLERANCE = 1e-4, 1e-2
_TOKENS = 8


class SourceReading(ABC):
    """What `moetui.model.Model` lends to the readings of single sources."""

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

    def _unsplit_error(self) -> str | None:
        """Why the router's logits cannot be split at all, None where they can."""
        if self._decomposition is not None:
            return None
        why = self.info.routing_error or self.info.decomposition_error
        return why or "the model has no router"

    def _probe_ids(self) -> Ids:
        return np.arange(_TOKENS, dtype=np.int32) % self.info.vocab_size

    def _missed(self, completeness: Floats) -> str | None:
        """By how much single sources miss the logits, None where it is rounding."""
        worst = float(completeness.max(initial=0.0))
        bound = _TOLERANCE if self.info.dtype == "float32" else _HALF_TOLERANCE
        return None if worst <= bound else f"{worst:.1e} of the logits"

    def _check_source(self, layer: int, refused: str | None) -> None:
        if layer not in self.info.moe_layers:
            raise UsageError(
                f"layer {layer} does not route",
                f"the routing layers are {', '.join(map(str, self.info.moe_layers)) or 'none'}",
            )
        if refused is not None:
            raise ModelError(refused, "the shares of whole layers are there")

    def _router_logits(self, record: PassRecord, layer: int) -> mx.array:
        """float32 [T, E] of one router; E: its own experts."""
        logits = record.layers[layer].logits
        assert logits is not None
        E = self.architecture.sites[layer].num_experts
        return logits.astype(mx.float32).reshape(-1, logits.shape[-1])[:, :E]

    def _added_by(
        self, record: PassRecord, layer: int, part: str, earlier: Sequence[int]
    ) -> mx.array:
        """[T, M, E]: what a part of the layers `earlier` added to the logits of the router of
        `layer`, read from the stream."""
        assert self._decomposition is not None
        names = self._decomposition.source_names
        rows = mx.array([names.index((part, at)) for at in earlier], mx.int32)
        E = self.architecture.sites[layer].num_experts
        return self._decomposition.read_sources(record, (layer,)).logits[:, 0, :, :E][:, rows]
