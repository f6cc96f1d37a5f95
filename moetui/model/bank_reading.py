"""The part of a model that says what every expert of a layer makes of a text, chosen or not.

The layer's own bank of experts is called once more in the model's own pass, on the very input
that the chosen ones read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from moetui.errors import ModelError, UsageError
from moetui.model.architecture import Architecture, Site
from moetui.model.edits import Edits
from moetui.model.records import LayerRecord, PassRecord, Want
from moetui.model.taps import Attached, ModuleTap
from moetui.trace import ModelInfo

Ids = NDArray[np.int32]
Floats = NDArray[np.float32]

# Of the largest output: kernels for another number of experts round differently.
_TOLERANCE, _HALF_TOLERANCE = 1e-4, 3e-2
_HINT = "the outputs of the chosen experts are in the trace: expert_outputs=True"


class BankReading(ABC):
    """What `moetui.model.Model` says of experts that were not chosen."""

    info: ModelInfo
    architecture: Architecture

    @abstractmethod
    def ids(self, text_or_ids: str | Sequence[int] | Ids) -> Ids:
        """Token ids of a prompt, checked."""

    @abstractmethod
    def edits(self, prompt_tokens: int) -> Edits:
        """What the interventions in force make of a pass."""

    @abstractmethod
    def pass_record(self, ids: Ids, want: Want, edits: Edits) -> PassRecord:
        """One pass over `ids` from an empty cache, not evaluated."""

    def every_expert(self, text_or_ids: str | Sequence[int] | Ids, layer: int) -> Floats:
        """float32 [T, E, H']: what every expert of decoder layer `layer` puts out for every token,
        before weighting, whether the token chose it or not; H' as in `Trace.expert_outputs`.

        Raises UsageError for an empty prompt, ids outside the vocabulary, or a layer that does
        not route; ModelError where experts read what depends on their weight, or are not all in
        one bank.
        """
        ids = self.ids(text_or_ids)
        site = self._site(layer)
        found: list[mx.array] = []

        def around(call: Callable[..., Any], x: mx.array, indices: mx.array, *rest: Any) -> Any:
            everyone = mx.arange(site.num_experts, dtype=indices.dtype)
            every = mx.broadcast_to(everyone, (*indices.shape[:-1], site.num_experts))
            found.append(call(x, every, *rest))
            return call(x, indices, *rest)

        with Attached([ModuleTap(site.bank, around)]):
            want = Want(residuals=False, expert_outputs=True)
            record = self.pass_record(ids, want, self.edits(len(ids))).layers[layer]
        every = found[-1].astype(mx.float32).reshape(len(ids), site.num_experts, -1)
        self._check(every, record)
        return np.array(every)

    def _site(self, layer: int) -> Site:
        site = self.architecture.sites.get(layer)
        if site is None:
            raise UsageError(
                f"layer {layer} does not route",
                f"the routing layers are {', '.join(map(str, self.info.moe_layers)) or 'none'}",
            )
        if self.info.weights_scale_input:
            raise ModelError(
                "what an expert reads depends on its weight here: it has no output without one",
                _HINT,
            )
        if site.num_experts != site.bank_experts:
            raise ModelError("not all experts of this architecture are in one bank", _HINT)
        return site

    def _check(self, every: mx.array, record: LayerRecord) -> None:
        """What the chosen experts put out in the pass itself must be among the answers."""
        assert record.expert_outputs is not None and record.indices is not None
        chosen = record.indices.reshape(len(every), -1, 1)
        own = record.expert_outputs.astype(mx.float32).reshape(*chosen.shape[:2], -1)
        error = mx.abs(mx.take_along_axis(every, chosen, axis=1) - own).max()
        tolerance = _TOLERANCE if self.info.dtype == "float32" else _HALF_TOLERANCE
        if bool((error > tolerance * mx.abs(own).max()).item()):
            raise ModelError("this architecture's bank answers otherwise when asked again", _HINT)
