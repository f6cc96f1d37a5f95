"""The models on this machine: what each is, and whether it fits into memory.

Told from config.json and the headers of the weight files; no weight is read and mlx is not
imported. `moetui models` prints it and the explorer's model picker is made from it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from moetui.errors import ModelError
from moetui.model.backend import Backend, expected_backend
from moetui.model.budget import CONTEXT, need
from moetui.model.checkpoint import Checkpoint, look_at
from moetui.model.config import Packing, claims, packing
from moetui.model.headers import Tensors, experts_by_layer, router_bits
from moetui.model.memory import room
from moetui.model.places import Candidate, Source, candidates
from moetui.sizes import size_text

SCHEMA_VERSION = 1


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a model will take.

    weights: as they will be loaded (float32 on a CPU; packed where the checkpoint is). cache: keys
    and values of `context` tokens. captures: what moetui reads of so many tokens. total: the most
    at once. available: what there was when this was found out, None where the system does not tell.
    """

    context: int
    weights: int
    cache: int
    captures: int
    total: int
    available: int | None


class FoundModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model on this machine.

    name: what to give to moetui to open it. problem: why it cannot be opened, in one sentence; the
    fields that are not known then are null. kind: "moe" where the weights hold routed experts.
    num_experts: of the layer with the most, 0 for a dense model. top_k: experts that a token uses,
    null where the configuration leaves it to a default. moe_layers: layers that route.
    disk_bytes: of all files in the folder. dtype: in which most bytes of the weights are stored,
    by the name of the file format. packing: how most weights are quantised, null when they are
    not. router_bits: of the router's own weights, the fewest of any layer. fits: whether
    memory.total is available; null where that is not known.
    """

    name: str
    path: str
    source: Source
    disk_bytes: int
    problem: str | None = None
    kind: Literal["moe", "dense"] | None = None
    architecture: str | None = None
    num_experts: int | None = None
    top_k: int | None = None
    num_layers: int | None = None
    moe_layers: int | None = None
    dtype: str | None = None
    packing: Packing | None = None
    router_bits: int | None = None
    memory: Memory | None = None
    fits: bool | None = None

    @property
    def routing(self) -> str | None:
        """`MoE 64 × 8`: experts × how many of them a token uses; or `dense`."""
        if self.kind == "moe":
            return f"MoE {self.num_experts} × {self.top_k or '?'}"
        return self.kind

    @property
    def stored(self) -> str | None:
        """How the weights are stored: `4-bit mxfp4`, or their type: `bf16`."""
        if self.packing is not None:
            return f"{self.packing.bits}-bit {self.packing.mode}"
        return self.dtype.lower() if self.dtype is not None else None

    @property
    def obstacle(self) -> str | None:
        """Why not to open it, in one sentence: it is damaged, or it does not fit."""
        if self.problem is not None or self.fits is not False or self.memory is None:
            return self.problem
        available = size_text(self.memory.available or 0)
        return f"it needs {size_text(self.memory.total)} of memory, and {available} are free"


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """All models found. backend: where mlx is expected to compute; available_bytes: memory that a
    model could take; context: tokens that the estimates are for; folders: where models were looked
    for besides the Hugging Face cache."""

    schema_version: int = SCHEMA_VERSION
    backend: Backend
    available_bytes: int | None
    context: int
    cache: str
    folders: tuple[str, ...]
    models: tuple[FoundModel, ...]


def find_models(
    folders: Iterable[Path], *, context: int = CONTEXT, freed: int = 0
) -> Iterator[FoundModel]:
    """Every model on this machine, one after the other as it is found.

    folders: searched besides the Hugging Face cache, one and two levels deep. context: tokens to
    estimate the memory for. freed: bytes that will be given back before a model is loaded.
    """
    backend = expected_backend()
    there = room(backend)
    available = None if there is None else there + freed
    for candidate in candidates(folders):
        yield describe(candidate, backend, available, context)


def describe(
    candidate: Candidate, backend: Backend, available: int | None, context: int = CONTEXT
) -> FoundModel:
    """What `candidate` is. A damaged one is described by its problem."""
    folder = candidate.folder
    found = FoundModel(
        name=candidate.name,
        path=str(folder),
        source=candidate.source,
        disk_bytes=disk_bytes(folder),
        problem=candidate.problem,
    )
    if candidate.problem is not None:
        return found
    try:
        checkpoint = look_at(folder)
    except ModelError as error:
        return msgspec.structs.replace(found, problem=_within(error.message, folder))
    return _described(found, checkpoint, backend, available, context)


def disk_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`, links followed and every file counted once."""
    files: dict[tuple[int, int], int] = {}
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                status = Path(path, name).stat()
            except OSError:  # a link that leads nowhere
                continue
            files[status.st_dev, status.st_ino] = status.st_size
    return sum(files.values())


def _described(
    found: FoundModel,
    checkpoint: Checkpoint,
    backend: Backend,
    available: int | None,
    context: int,
) -> FoundModel:
    """`found` with what its configuration and headers say, and whether these agree."""
    config, tensors = checkpoint.config, checkpoint.tensors
    said = claims(config)
    held = {
        layer: experts
        for layer, experts in experts_by_layer(tensors, said.experts).items()
        if said.layers is None or layer < said.layers  # beyond lie layers that are not loaded
    }
    experts = max(held.values(), default=0)
    bits = router_bits(tensors, experts, said.hidden_size) if experts else None
    memory = _memory(checkpoint, backend, available, context)
    return msgspec.structs.replace(
        found,
        problem=_contradiction(said.experts, experts),
        kind="moe" if experts else "dense",
        architecture=str(config["model_type"]),
        num_experts=experts,
        top_k=said.top_k if experts else None,
        num_layers=said.layers,
        moe_layers=len(held),
        dtype=_main_type(tensors),
        packing=packing(config),
        router_bits=bits,
        memory=memory,
        fits=None if available is None else memory.total <= available,
    )


def _main_type(tensors: Tensors) -> str:
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        sizes[tensor.dtype] += tensor.nbytes
    return max(sizes, key=sizes.__getitem__)


def _memory(
    checkpoint: Checkpoint, backend: Backend, available: int | None, context: int
) -> Memory:
    bytes_ = need(checkpoint.config, checkpoint.tensors, cpu=backend == "cpu", context=context)
    return Memory(
        context=context,
        weights=bytes_.weights,
        cache=bytes_.cache,
        captures=bytes_.captures,
        total=bytes_.total,
        available=available,
    )


def _contradiction(claimed: int, held: int) -> str | None:
    """Where configuration and weights do not speak of the same experts."""
    if claimed > 1 and not held:
        return f"config.json names {claimed} experts, and the weights hold none"
    if claimed > 1 and claimed != held:
        return f"config.json names {claimed} experts, and the weights hold {held}"
    return None


def _within(message: str, folder: Path) -> str:
    """An error about `folder`, for a list in which it stands beside the folder's name."""
    return message.replace(f"{folder}{os.sep}", "").replace(str(folder), "it")
