"""What a model is, as far as results must name it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten

from moetui.model.backend import backend
from moetui.model.digest import digest, recipe_digest
from moetui.model.headers import expert_bytes
from moetui.model.parameters import all_learnt
from moetui.model.probe import Probe
from moetui.model.reinitialise import Initialisation
from moetui.model.safetensors import read_header
from moetui.trace import ModelInfo


def model_info(
    name: str,
    folder: Path,
    network: nn.Module,
    config: Mapping[str, Any],
    stored: str,
    probe: Probe,
    initialisation: Initialisation | None = None,
) -> ModelInfo:
    """What is said of a model: by its checkpoint in `folder`, whose routers are stored as the
    type `stored`, by its parameters, by what the probe saw, and by how its weights were drawn if
    they were never trained."""
    sites = probe.architecture.sites
    arrays = [array for _, array in tree_flatten(network.parameters())]
    quantization = config.get("quantization") or config.get("quantization_config") or {}
    bits = quantization.get("bits")
    return ModelInfo(
        name=f"{name}, re-initialised ({initialisation})" if initialisation else name,
        architecture=str(config["model_type"]),
        digest=recipe_digest(folder, str(initialisation)) if initialisation else digest(folder),
        num_layers=len(probe.architecture.layers),
        moe_layers=tuple(sites),
        num_experts=probe.architecture.num_experts,
        top_k=probe.top_k,
        hidden_size=probe.hidden_size,
        vocab_size=probe.vocab_size,
        parameters=all_learnt(network),
        weight_bytes=sum(array.nbytes for array in arrays),
        dtype=probe.dtype,
        backend=backend(),
        quantization=f"{bits}-bit {quantization.get('mode', 'affine')}" if bits else None,
        router_bits=min((site.bits for site in sites.values() if site.bits), default=None)
        or _BITS.get(stored)
        if sites
        else None,
        shift_invariant=probe.shift_invariant,
        weights_scale_input=probe.weights_scale_input,
        part_names=probe.decomposition.part_names if probe.decomposition else (),
        routing_error=probe.routing_error,
        decomposition_error=probe.decomposition_error,
        lens_error=probe.lens_error,
        attention_error=probe.attention_error,
        initialisation=str(initialisation) if initialisation else None,
        layer_experts=_layer_experts(probe),
        expert_bytes=_expert_bytes(folder, tuple(sites), probe.architecture.num_experts),
    )


_BITS = {"float32": 32, "bfloat16": 16, "float16": 16}


def _layer_experts(probe: Probe) -> tuple[int, ...]:
    """By layer, where layers differ."""
    found = tuple(site.num_experts for site in probe.architecture.sites.values())
    return found if len(set(found)) > 1 else ()


def _expert_bytes(folder: Path, layers: tuple[int, ...], experts: int) -> tuple[int, ...]:
    """Of one expert of each of these layers; empty where the files do not tell them apart."""
    headers = (read_header(path) for path in sorted(folder.glob("model*.safetensors")))
    tensors = {name: tensor for header in headers for name, tensor in header.items()}
    found = expert_bytes(tensors, experts)
    return tuple(found[layer] for layer in layers) if found.keys() >= set(layers) else ()
