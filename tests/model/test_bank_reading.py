"""What experts are made of and what each makes of a token: by numpy, by passes, by the headers."""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import moetui
from moetui.demo import checkpoint
from moetui.errors import ModelError, UsageError
from moetui.model.bank import linears
from moetui.model.model import Model
from moetui.trace import Merge
from tests.model.architectures import ARCHITECTURES
from tests.model.packed import Packed
from tests.model.subject import Subject, subject_of
from tests.model.test_routes import UNREADABLE
from tests.model.tiny import quantised
from tests.reference.values import DATA
from tests.suites.olmoe import Olmoe

READABLE = [name for name in ARCHITECTURES if name not in UNREADABLE]


def subject(name: str) -> Subject:
    found = subject_of(name)
    assert not isinstance(found, str)
    return found


@pytest.mark.parametrize("name", READABLE)
def test_every_expert_includes_those_that_a_pass_chose(name: str) -> None:
    model, ids, trace = subject(name).model, subject(name).ids, subject(name).trace
    assert trace.expert_outputs is not None
    layers = trace.layers.tolist()
    found = dict(model.every_expert(ids, layers))
    assert list(found) == layers
    for row, layer in enumerate(layers):
        E = model.bank_size(layer)
        assert found[layer].shape[:2] == (len(ids), E)
        chosen = trace.expert_ids[:, row].astype(int)
        for token, slot in np.argwhere((chosen >= 0) & (chosen < E)).tolist():
            expected = trace.expert_outputs[token, row, slot]
            ours = found[layer][token, chosen[token, slot]]
            assert np.abs(ours - expected).max() <= 1e-4 * max(np.abs(expected).max(), 1e-3)


def test_every_expert_of_the_demo_model_is_what_numpy_makes_of_the_checkpoint() -> None:
    text, layer = "The dog has a ball", 5
    olmoe = Olmoe(checkpoint("demo"))
    entered, attended, _ = olmoe.streams(text)
    x = olmoe.read(layer, entered[layer] + attended[layer])
    model = moetui.load("demo")
    matrices = model.expert_matrices(layer)
    last = len(model.tokenize(text)) - 1
    [(_, ours)] = model.every_expert(text, (layer,), (0, last))
    assert ours.shape == (2, 16, 128) and matrices.neurons.shape == (16, 32, 3 * 128)
    for expert in range(16):
        gate, up = (matrices.into[n][expert].astype(float) @ x for n in ("gate_proj", "up_proj"))
        expected = matrices.out_of["down_proj"][expert] @ (gate / (1 + np.exp(-gate)) * up)
        assert np.abs(ours[1, expert] - expected).max() < 1e-4 * np.abs(expected).max()


def test_packed_experts_are_unpacked_as_numpy_unpacks_them(tmp_path: Path) -> None:
    for mode in ("affine 4-bit", "mxfp4"):
        folder = quantised(tmp_path / mode, "qwen3_moe", mode)
        packed, model = Packed(folder), moetui.load(folder)
        layer = model.info.moe_layers[1]
        found = model.expert_matrices(layer, (6, 2))
        assert found.experts.tolist() == [6, 2]
        for name, ours in {**found.into, **found.out_of}.items():
            key = packed.names(f"{layer}.mlp.switch_mlp.{name}")[0]
            arrays = mx.load(str(folder / "model.safetensors"))
            size = arrays[f"{key}.weight"].shape[0]
            for row, expert in enumerate((6, 2)):
                one = _Slice(packed, expert, size).matrix(key)
                assert np.abs(ours[row] - one).max() < 1e-5
        router = packed.matrix(packed.names(f"{layer}.mlp.gate")[0])
        assert np.abs(model.router_matrix(layer) - router).max() < 1e-5


class _Slice(Packed):
    """The matrices of one expert of a checkpoint."""

    def __init__(self, whole: Packed, expert: int, experts: int) -> None:
        self._arrays = {
            name: array[expert] if array.ndim == 3 and array.shape[0] == experts else array
            for name, array in whole._arrays.items()
        }
        self._config = whole._config


def permuted_copy(network: nn.Module, source: int, target: int, *, seed: int = 5) -> None:
    """In every bank `target` becomes `source` with its neurons exchanged."""
    rng = np.random.default_rng(seed)
    for _, bank in network.named_modules():
        if type(bank).__name__ not in ("SwitchGLU", "SwitchMLP"):
            continue
        parts = dict(linears(bank))
        F = next(m for n, m in parts.items() if n in ("down_proj", "fc2"))["weight"].shape[-1]
        order = mx.array(rng.permutation(F))
        for name, linear in parts.items():
            reads = name not in ("down_proj", "fc2")
            for key in ("weight", "bias"):
                if key in linear:
                    row = linear[key][source]
                    moved = row[order] if reads else row[:, order] if key == "weight" else row
                    linear[key] = mx.array(linear[key])
                    linear[key][target] = moved


# With biases, without a gate, with a correction bias, scaling what experts read, in a latent space.
PERMUTED = ["olmoe", "gpt_oss", "phixtral", "deepseek_v3", "llama4", "nemotron_h (latent)"]


@pytest.mark.parametrize("name", PERMUTED)
def test_an_expert_with_its_neurons_exchanged_merges_once_they_are_aligned(name: str) -> None:
    model = Subject(name).model
    ids = subject(name).ids
    permuted_copy(model.network, 1, 4)
    plain = model.nll(ids)
    for shares in (None, (0.2, 0.7)):
        one = Merge(experts=(1, 4), frequencies=shares, aligned=True)
        other = Merge(experts=(1, 4), frequencies=shares)
        assert np.abs(model.nll(ids, [one]) - plain).max() < 1e-4
        assert np.abs(model.nll(ids, [other]) - plain).max() > 1e-3
    assert np.array_equal(model.nll(ids), plain)


def test_aligned_or_not_duplicates_merge_and_independent_experts_do_not() -> None:
    model, ids = Subject("mixtral").model, subject("mixtral").ids
    for _, bank in model.network.named_modules():
        if type(bank).__name__ == "SwitchGLU":
            for _, linear in linears(bank):
                linear["weight"] = mx.array(linear["weight"])
                linear["weight"][3] = linear["weight"][0]
    plain = model.nll(ids)
    for aligned in (True, False):
        same = model.nll(ids, [Merge(experts=(0, 3), aligned=aligned)])
        apart = model.nll(ids, [Merge(experts=(0, 5), aligned=aligned)])
        assert np.abs(same - plain).max() < 1e-5 and np.abs(apart - plain).max() > 1e-2


def test_a_merge_kept_from_the_pass_before_is_made_anew_for_other_weights() -> None:
    model, ids = Subject("olmoe").model, subject("olmoe").ids
    merge = [Merge(experts=(0, 1))]
    before = model.nll(ids, merge)
    assert np.array_equal(model.nll(ids, merge), before)
    permuted_copy(model.network, 2, 1)
    fresh = Subject("olmoe").model
    permuted_copy(fresh.network, 2, 1)
    assert np.array_equal(model.nll(ids, merge), fresh.nll(ids, merge))
    assert not np.array_equal(model.nll(ids, merge), before)


def header(folder: Path) -> dict[str, Any]:
    raw = (folder / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    found: dict[str, Any] = json.loads(raw[8 : 8 + size])
    found.pop("__metadata__", None)
    return found


def numbers(folder: Path, *words: str) -> int:
    """How many numbers the tensors hold in whose names one of `words` is; packed ones unpacked."""
    tensors = header(folder)
    config = json.loads((folder / "config.json").read_text()).get("quantization", {})
    total = 0
    for name, tensor in tensors.items():
        stem = name.removesuffix(".weight")
        if not any(word in name for word in words) or name.endswith((".scales", ".biases")):
            continue
        own = config.get(stem, config)
        bits = own["bits"] if f"{stem}.scales" in tensors else 32
        total += prod(tensor["shape"]) * 32 // bits
    return total


def test_parameters_are_those_of_the_headers(tmp_path: Path) -> None:
    folders = {
        "demo": checkpoint("demo"),
        "qwen2_moe": DATA / "qwen2_moe",
        "packed": quantised(tmp_path, "qwen2_moe", "affine 4-bit"),
        "dense": DATA / "llama",
    }
    for folder in folders.values():
        if not (folder / "model.safetensors").is_file():
            continue
        model = moetui.load(folder)
        found = model.parameter_counts()
        assert found.total == model.info.parameters == numbers(folder, "")
        assert found.embeddings.parameters == numbers(folder, "embed_tokens", "lm_head")
        assert found.shared.parameters == numbers(folder, "shared_expert")
        routed = numbers(folder, "mlp.experts", "mlp.switch_mlp")
        assert found.routed.parameters == routed
        assert found.routers.parameters == numbers(folder, "mlp.gate.")
        if model.info.is_moe:
            k, E = model.info.top_k, model.info.num_experts
            assert found.active_routed == routed * k // E


def test_what_is_not_there_is_refused() -> None:
    dense = moetui.load(DATA / "llama")
    with pytest.raises(ModelError, match="no experts"):
        dense.expert_matrices(0)
    dbrx = subject_of("dbrx")
    if isinstance(dbrx, Subject):
        with pytest.raises(ModelError, match="separate modules"):
            list(dbrx.model.every_expert([1, 2], (0,)))
    model: Model = subject("deepseek_v3").model
    with pytest.raises(UsageError, match="layer 0 does not route"):
        model.router_matrix(0)
    with pytest.raises(UsageError, match="no expert 8"):
        model.expert_matrices(model.info.moe_layers[0], (8,))
