"""The part of a model that says what its experts are made of, and what each makes of a token.

The matrices are those of the bank, unpacked where the checkpoint packs them. What every expert
would put out is computed by the bank itself, from the very tensor that it was handed in a pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from moetui.errors import ModelError, UsageError
from moetui.model.architecture import Architecture, Site
from moetui.model.bank import INTO, linears, matrix, parameters
from moetui.model.edits import Edits
from moetui.model.parameters import parameter_counts
from moetui.model.records import PassRecord, Want
from moetui.model.taps import Attached, ModuleTap
from moetui.trace import ModelInfo
from moetui.trace.bank import ExpertMatrices, ParameterCounts

Ids = NDArray[np.int32]
Floats = NDArray[np.float32]

_ROUTING = Want(residuals=False)
# Numbers of outputs that are computed in one go: bounds memory whatever the text's length.
_AT_ONCE = 1 << 24


class BankReading(ABC):
    """What `moetui.model.Model` says of its expert banks; how it runs is the model's own affair."""

    network: nn.Module
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

    def bank_size(self, layer: int) -> int:
        """How many experts the bank of decoder layer `layer` holds. Experts that hand their
        input on (longcat) are in no bank. Raises as `expert_matrices`."""
        return self._site(layer).bank_experts

    def expert_matrices(self, layer: int, experts: Sequence[int] | None = None) -> ExpertMatrices:
        """What `experts` of decoder layer `layer` (default: all of its bank) are made of.

        Raises UsageError for a layer that does not route or an expert that it does not have,
        ModelError with the reason where the model's experts cannot be read.
        """
        site = self._site(layer)
        wanted = list(range(site.bank_experts)) if experts is None else list(experts)
        if strange := [e for e in wanted if not 0 <= e < site.bank_experts]:
            raise UsageError(
                f"layer {layer} has no expert {strange[0]}",
                f"its experts count from 0 to {site.bank_experts - 1}",
            )
        into: dict[str, Floats] = {}
        out_of: dict[str, Floats] = {}
        size = 0
        for name, linear in linears(site.bank):
            held = parameters(linear)
            stacked = mx.stack([matrix(linear, held, e) for e in wanted])
            (into if name in INTO else out_of)[name] = np.array(stacked)
            size += sum(array.nbytes for array in held.values()) // site.bank_experts
        return ExpertMatrices(
            layer=layer,
            experts=np.array(wanted, np.int32),
            into=into,
            out_of=out_of,
            bytes_each=size,
        )

    def router_matrix(self, layer: int) -> Floats:
        """float32 [E, H], the rows by which the router of decoder layer `layer` reads its input.

        Raises as `expert_matrices`.
        """
        return np.array(self._site(layer).matrix())

    def every_expert(
        self,
        text_or_ids: str | Sequence[int] | Ids,
        layers: Sequence[int],
        rows: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Floats]]:
        """Layer by layer, float32 [rows, E', W']: what each of the E' experts of its bank puts
        out for `rows` of the prompt (default: all), chosen or not, before weighting.

        The input is what the bank was handed in one pass: where weights are multiplied with it
        (llama4), that of the chosen expert; W' is the hidden size, but where the layer projects
        what its experts put out. Raises UsageError for an empty prompt, ids outside the vocabulary
        or a layer that does not route, ModelError with the reason where experts cannot be read.
        """
        ids = self.ids(text_or_ids)
        sites = [self._site(layer) for layer in layers]
        read: dict[int, mx.array] = {}
        with Attached([ModuleTap(s.bank, partial(_note, read, s.layer)) for s in sites]):
            record = self.pass_record(ids, _ROUTING, self.edits(len(ids)))
        mx.eval(record.logits, list(read.values()))
        del record
        for site in sites:
            yield site.layer, _outputs(site, read.pop(site.layer), rows)

    def parameter_counts(self) -> ParameterCounts:
        """Where the learnt numbers of the model are, dense ones too."""
        return parameter_counts(self.network, self.architecture, self.info)

    def _site(self, layer: int) -> Site:
        if not self.info.is_moe:
            why = self.info.routing_error or "the model has no experts"
            raise ModelError(why, "the logit lens and the residual parts can be read")
        if layer not in self.architecture.sites:
            raise UsageError(
                f"layer {layer} does not route",
                f"the routing layers are {', '.join(map(str, self.info.moe_layers))}",
            )
        return self.architecture.sites[layer]


def _note(
    read: dict[int, mx.array], layer: int, call: Callable[..., Any], x: mx.array, *args: Any
) -> Any:
    read[layer] = x
    return call(x, *args)


def _outputs(site: Site, x: mx.array, rows: Sequence[int] | None) -> Floats:
    """Every expert of the bank on some rows of what it read."""
    x = x.reshape(-1, x.shape[-1])
    if rows is not None:
        x = x[mx.array(list(rows), mx.int32)]
    E = site.bank_experts
    step = max(1, _AT_ONCE // (E * x.shape[-1]))
    found = []
    for start in range(0, x.shape[0], step):
        some = x[start : start + step]
        everyone = mx.broadcast_to(mx.arange(E), (some.shape[0], E))
        found.append(np.array(site.bank(some, everyone).astype(mx.float32)))
    return np.concatenate(found)
