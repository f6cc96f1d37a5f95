"""Shares of single heads: by definition, of a planted head, and against their layer's."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_tokenizer
from numpy.typing import NDArray

import moetui
from moetui.analyses.single_sources import PERMUTATIONS, permuted_powers, single_sums
from moetui.analyses.source_heads import HeadShares, head_shares
from moetui.analyses.source_shares import source_sums
from moetui.model.model import Model
from moetui.trace import HeadSources
from tests.model.architectures import VOCABULARY, build
from tests.reference.values import DATA

LAYERS, HEADS, E = (0, 1, 3), (0, 2, 3), 6


def document(seed: int, tokens: int = 9) -> HeadSources:
    """Layer 0 has no heads, layer 1 two of them, layer 3 three and a bias; others add as much."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(tokens, len(LAYERS), 1 + max(HEADS), E)) + rng.normal(size=E)
    logits[:, 0, 1:] = logits[:, 1, 0] = logits[:, 1, 3:] = 0
    attention = logits.sum(axis=2)
    return HeadSources(
        layer=3,
        layers=np.array(LAYERS, np.int32),
        heads=np.array(HEADS, np.int32),
        router_logits=(attention.sum(axis=1) + rng.normal(size=(tokens, E))).astype(np.float32),
        logits=logits.astype(np.float32),
        attention=attention.astype(np.float32),
    )


def measured(found: Sequence[HeadSources]) -> HeadShares:
    first = found[0]
    most = first.logits.shape[2]
    permuted = sum(
        (permuted_powers(one, most, f"d{i}", seed=0) for i, one in enumerate(found)),
        np.zeros((PERMUTATIONS, len(first.layers), most)),
    )
    layers = list(zip(first.layers.tolist(), first.heads.tolist(), strict=True))
    return head_shares(
        [single_sums(one, most) for one in found], permuted, first.layer, layers, seed=0
    )


def covariance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(((a - a.mean(axis=0)) * (b - b.mean(axis=0))).mean(axis=0).sum())


def test_shares_of_heads_are_covariances_over_variances() -> None:
    found = [document(seed) for seed in range(22)]
    shares = measured(found)
    assert (shares.layer, shares.layers, shares.unsplit) == (3, LAYERS, (0,))
    there = {(0, None), (1, 0), (1, 1), (3, None), (3, 0), (3, 1), (3, 2)}
    assert {(one.layer, one.head) for one in shares.heads} == there
    centre = np.eye(E) - 1 / E
    z = np.concatenate([one.router_logits for one in found]).astype(float) @ centre
    together = np.zeros_like(z)
    for one in shares.heads:
        slot = 0 if one.head is None else 1 + one.head
        row = LAYERS.index(one.layer)
        part = np.concatenate([d.logits[:, row, slot] for d in found]).astype(float) @ centre
        together += part
        expected = covariance(part, z) / covariance(z, z)
        assert one.across_tokens.value == pytest.approx(expected, abs=1e-6)
        of_token = ((part * z).sum(axis=1) / (z**2).sum(axis=1)).mean()
        assert one.per_token.value == pytest.approx(of_token, abs=1e-6)
        assert one.across_tokens.n_tokens == len(z) == shares.tokens
        assert one.across_tokens.q is not None and one.across_tokens.ci_low is not None
    expected = covariance(together, z) / covariance(z, z)
    assert shares.together.value == pytest.approx(expected, abs=1e-6)
    sizes = [abs(one.across_tokens.value or 0) for one in shares.heads]
    assert sizes == sorted(sizes, reverse=True)


def planted(layer: int, head: int) -> Model:
    """An OLMoE of which only this head writes into what the last router reads: from all other
    blocks of the output matrices the directions of its rows are taken out."""
    network = build("olmoe")
    last = network.layers[-1]
    rows = np.array(last.mlp.gate.weight) * np.array(last.post_attention_layernorm.weight)
    unread = np.eye(rows.shape[1]) - np.linalg.pinv(rows) @ rows
    for index, one in enumerate(network.layers):
        projection = one.self_attn.o_proj
        W, d = np.array(projection.weight), 64 // one.self_attn.n_heads
        kept = slice(head * d, (head + 1) * d) if index == layer else slice(0)
        silenced = unread @ W
        silenced[:, kept] = W[:, kept]
        projection.weight = mx.array(silenced.astype(np.float32))
    folder = DATA / "olmoe"
    config = {"model_type": "olmoe"}
    return Model("planted", folder, network, load_tokenizer(folder), config, "float32")


@pytest.mark.parametrize(("layer", "head"), [(1, 2), (3, 0)])
def test_a_head_that_alone_writes_what_the_router_reads_is_found(layer: int, head: int) -> None:
    model, rng = planted(layer, head), np.random.default_rng(5)
    texts = [rng.integers(1, VOCABULARY, 24) for _ in range(24)]
    shares = measured([model.head_sources(ids, 3) for ids in texts])
    first, *others = shares.heads
    assert (first.layer, first.head) == (layer, head) and len(others) == 15
    share = first.across_tokens
    assert share.value is not None and share.value > 0.01
    assert share.q is not None and share.null_high is not None and share.q <= 0.01
    assert share.value > share.null_high
    assert shares.together.value == pytest.approx(share.value, abs=1e-5)
    for one in others:
        assert abs(one.across_tokens.value or 0.0) < 1e-5
        assert one.across_tokens.q is None or one.across_tokens.q > 0.05


def test_the_heads_of_a_layer_sum_to_its_attention_on_the_demo_model() -> None:
    model = moetui.load("demo")
    for text in ("The dog has a ball, and 12 + 7 =", "Once upon a time there was a king."):
        found = model.head_sources(text, 7)
        sums = single_sums(found, found.logits.shape[2])
        trace = model.trace(text, lens=0, sources=(7,))
        layers = source_sums(trace)
        assert trace.sources is not None and sums.tokens == layers.tokens[0]
        for layer in range(8):
            at = trace.sources.names.index(("attention", layer))
            scale = np.abs(layers.power[0]).max()
            assert abs(sums.power[layer].sum() - layers.power[0, at]) < 1e-5 * scale
            scale = np.abs(layers.mean[0]).max()
            assert np.abs(sums.mean[layer].sum(0) - layers.mean[0, at]).max() < 1e-5 * scale
