"""The router's input, logits and choice, computed again in numpy from the checkpoint alone.

Written to be read beside the OLMoE paper (arXiv 2409.02060): one function a formula, no cache,
no batches, float64, nothing shared with moetui or mlx.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import moetui
from tests.reference import values

Array = NDArray[np.float64]


def read_safetensors(path: Path) -> dict[str, Array]:
    """Every tensor as float64. The file: 8 bytes header size, a JSON header, then the data."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    tensors = {}
    for name, entry in json.loads(raw[8:start]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        data = raw[start + begin : start + end]
        tensors[name] = decode(data, entry["dtype"]).reshape(entry["shape"]).astype(np.float64)
    return tensors


def decode(data: bytes, dtype: str) -> NDArray[np.float32]:
    """bfloat16 is the upper half of a float32."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    assert dtype == "F32", dtype
    return np.frombuffer(data, "<f4")


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Array = e / e.sum(axis=-1, keepdims=True)
    return result


def silu(x: Array) -> Array:
    result: Array = x / (1 + np.exp(-x))
    return result


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    result: Array = weight * x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    return result


def rope(x: Array, theta: float) -> Array:
    """Rotate the pairs (x_i, x_{i + d/2}) of every head by position · theta^(-2i/d).

    x: [heads, T, d].
    """
    _, T, d = x.shape
    angle = np.arange(T)[:, None] * theta ** (-np.arange(0, d, 2) / d)
    a, b = x[..., : d // 2], x[..., d // 2 :]
    return np.concatenate(
        [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=-1
    )


def causal_attention(q: Array, k: Array, v: Array) -> Array:
    """Every token sees itself and what came before. q, k, v: [heads, T, d]."""
    T, d = q.shape[1:]
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(d)
    scores = np.where(np.tril(np.ones((T, T), bool)), scores, -np.inf)
    return softmax(scores) @ v


@dataclass
class Router:
    """What one layer's router received [T, H], answered [T, E] and chose [T, k]."""

    inputs: Array
    logits: Array
    ids: NDArray[np.int64]
    weights: Array


class NumpyOlmoe:
    """The first layers of an OLMoE, one token sequence at a time."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = read_safetensors(folder / "model.safetensors")

    def routers(self, ids: list[int], layers: int) -> list[Router]:
        """The routers of the first `layers` layers."""
        x = self.tensors["model.embed_tokens.weight"][ids]
        seen = []
        for layer in range(layers):
            x = x + self.attention(layer, self.norm(layer, "input_layernorm", x))
            u = self.norm(layer, "post_attention_layernorm", x)
            router = self.route(layer, u)
            x = x + self.experts(layer, router)
            seen.append(router)
        return seen

    def weight(self, layer: int, name: str) -> Array:
        return self.tensors[f"model.layers.{layer}.{name}.weight"]

    def norm(self, layer: int, name: str, x: Array) -> Array:
        return rms_norm(x, self.weight(layer, name), self.config["rms_norm_eps"])

    def attention(self, layer: int, x: Array) -> Array:
        heads, theta = self.config["num_attention_heads"], self.config["rope_theta"]
        assert self.config["num_key_value_heads"] == heads
        assert self.config.get("clip_qkv") is None

        def project(name: str) -> Array:
            return x @ self.weight(layer, f"self_attn.{name}_proj").T

        def split(y: Array) -> Array:
            return y.reshape(len(x), heads, -1).transpose(1, 0, 2)

        # The norms of q and k span all heads together and come before RoPE.
        q = split(self.norm(layer, "self_attn.q_norm", project("q")))
        k = split(self.norm(layer, "self_attn.k_norm", project("k")))
        y = causal_attention(rope(q, theta), rope(k, theta), split(project("v")))
        return y.transpose(1, 0, 2).reshape(len(x), -1) @ self.weight(layer, "self_attn.o_proj").T

    def route(self, layer: int, u: Array) -> Router:
        """Softmax over all experts, then the k most probable; equal ones by id."""
        logits = u @ self.weight(layer, "mlp.gate").T
        probabilities = softmax(logits)
        ids = np.argsort(-probabilities, axis=-1, kind="stable")
        ids = ids[:, : self.config["num_experts_per_tok"]]
        weights = np.take_along_axis(probabilities, ids, axis=-1)
        if self.config["norm_topk_prob"]:
            weights = weights / weights.sum(axis=-1, keepdims=True)
        return Router(u, logits, ids, weights)

    def experts(self, layer: int, router: Router) -> Array:
        """The weighted sum of each token's own experts: down(silu(gate u) · up u)."""
        out = np.zeros_like(router.inputs)
        for token, u in enumerate(router.inputs):
            for expert, weight in zip(router.ids[token], router.weights[token], strict=True):
                gate, up, down = (
                    self.weight(layer, f"mlp.experts.{expert}.{name}_proj")
                    for name in ("gate", "up", "down")
                )
                out[token] += weight * (down @ (silu(gate @ u) * (up @ u)))
        return out


@pytest.fixture(scope="module", params=["olmoe", "demo"])
def folder(request: pytest.FixtureRequest) -> Path:
    return values.DEMO if request.param == "demo" else values.DATA / request.param


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return moetui.load(str(folder))


@pytest.mark.parametrize("ids", [[42], [2, 250, 11, 42, 42, 7, 133, 90, 201]], ids=["one", "nine"])
def test_routers_of_layers_0_and_1_equal_numpy(folder: Path, model: Any, ids: list[int]) -> None:
    trace = model.trace(ids, streams=True)
    for layer, expected in enumerate(NumpyOlmoe(folder).routers(ids, layers=2)):
        # float32 against float64: 1e-5 of the largest value covers the rounding of two layers.
        close(trace.streams.router_input[:, layer], expected.inputs)
        close(trace.router_logits[:, layer], expected.logits)
        k = expected.ids.shape[-1]
        best = -np.sort(-expected.logits, axis=-1)[:, : k + 1]
        clear = (-np.diff(best, axis=-1)).min(-1) > values.CLEAR
        assert clear.mean() > 0.8
        assert np.array_equal(trace.expert_ids[clear, layer], expected.ids[clear])
        close(trace.expert_weights[clear, layer], expected.weights[clear])


def close(ours: NDArray[np.float32], expected: Array) -> None:
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= 1e-5 * np.abs(expected).max()
