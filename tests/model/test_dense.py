"""Dense models open too: everything but routing is read of them, packed or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

import moetui
from moetui.model import Model
from moetui.trace import Trace, join
from tests.model import tiny
from tests.model.test_capture import plain_logits, scale, some_ids, state_of
from tests.model.test_generate import plain_generation
from tests.model.test_lens import log_softmax

Array = NDArray[np.float64]
CASES = [(name, mode) for name in tiny.DENSE for mode in (None, "affine 4-bit", "mxfp4")]
# Longer than the sliding window of gemma3_text, which is 6.
TOKENS = 20


class Case:
    """One family, its model and a trace."""

    def __init__(self, name: str, mode: str | None, folder: Path) -> None:
        self.name, self.mode = name, mode
        if mode is None:
            tiny.save(*tiny.network(name), folder)
        else:
            tiny.quantised(folder, name, mode)
        self.model: Model = moetui.load(folder)
        self.ids = some_ids(self.model, TOKENS)
        self.before = state_of(self.model)
        self.trace: Trace = self.model.trace(self.ids, streams=True, attention=True)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(*request.param, tmp_path_factory.mktemp("dense"))


def test_it_is_known_to_be_dense_and_not_to_have_failed(case: Case) -> None:
    info = case.model.info
    assert not info.is_moe and info.moe_layers == ()
    assert info.num_experts == info.top_k == 0 and info.router_bits is None
    assert info.routing_error is None and info.decomposition_error is None
    assert info.lens_error is None
    named = {None: None, "affine 4-bit": "4-bit affine", "mxfp4": "4-bit mxfp4"}
    assert info.quantization == named[case.mode]


def test_routing_fields_have_no_layers_and_nothing_is_made_up(case: Case) -> None:
    trace = case.trace
    assert len(trace.layers) == 0
    for values in (trace.router_logits, trace.expert_ids, trace.expert_weights):
        assert values.shape[:2] == (TOKENS, 0)
    for absent in (trace.selection_scores, trace.router_parts, trace.shares, trace.seed_ratio,
                   trace.completeness, trace.expert_outputs):  # fmt: skip
        assert absent is None


def test_capturing_leaves_logits_and_modules_as_they_are(case: Case) -> None:
    assert np.array_equal(case.trace.logits, plain_logits(case.model, case.ids)[-1])
    assert state_of(case.model) == case.before


def test_the_lens_of_the_last_layer_is_the_models_own_output(case: Case) -> None:
    own = log_softmax(plain_logits(case.model, case.ids))
    lens = case.trace.lens
    assert lens is not None and len(lens.layers) == case.model.info.num_layers
    expected = np.take_along_axis(own, lens.token_ids[:, -1], -1)
    np.testing.assert_allclose(lens.logprobs[:, -1], expected, atol=1e-4)
    assert (own.argmax(-1) == lens.token_ids[:, -1, 0]).all()


def test_generation_gives_exactly_the_tokens_of_plain_mlx_lm(case: Case) -> None:
    traced = [int(step.token_ids[0]) for step in case.model.generate(case.ids[:6], 14)]
    assert traced == plain_generation(case.model, case.ids[:6], 14)


def test_cached_decoding_shows_what_a_full_forward_shows(case: Case) -> None:
    generation = case.model.generate(case.ids[:5], 12)
    stepwise = join([generation.prompt, *generation])
    whole = case.model.trace(stepwise.token_ids)
    np.testing.assert_allclose(stepwise.logits, whole.logits, atol=1e-4 * scale(whole.logits))
    assert stepwise.lens is not None and whole.lens is not None
    np.testing.assert_allclose(stepwise.lens.logprobs, whole.lens.logprobs, atol=2e-3)


def test_attention_is_a_distribution_over_what_a_token_may_see(case: Case) -> None:
    attention = case.trace.attention
    assert attention is not None
    assert attention.shape == (case.model.info.num_layers, 4, TOKENS, TOKENS)
    np.testing.assert_allclose(attention.sum(-1), 1, atol=1e-5)
    far = np.arange(TOKENS)[:, None] - np.arange(TOKENS)
    assert not attention[..., far < 0].any()
    # gemma3_text: every second layer has the whole context, the others a window of 6 tokens.
    windowed = range(0, 4, 2) if case.name == "gemma3_text" else ()
    for layer in range(4):
        assert attention[layer][..., far >= 6].any() == (layer not in windowed)
    assert (attention[..., (far >= 0) & (far < 6)] > 0).all()


class NumpyGpt2:
    """Attention and lens of a GPT-2 from its streams: LayerNorms, no RoPE, a tied head."""

    def __init__(self, model: Model) -> None:
        self.network = model.network.model

    def normed(self, norm: Any, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + norm.eps)
        return centred / deviation * _array(norm.weight) + _array(norm.bias)

    def attention(self, layer: int, entering: Array) -> Array:
        block = self.network.h[layer]
        x = self.normed(block.ln_1, entering)
        qkv = x @ _array(block.attn.c_attn.weight).T + _array(block.attn.c_attn.bias)
        T, heads = len(x), block.attn.n_head
        q, k, _ = (part.reshape(T, heads, -1).swapaxes(0, 1) for part in np.split(qkv, 3, axis=-1))
        scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
        scores[:, np.triu(np.ones((T, T), bool), 1)] = -np.inf
        return np.exp(log_softmax(scores))

    def lens(self, leaving: Array) -> Array:
        return log_softmax(
            self.normed(self.network.ln_f, leaving) @ _array(self.network.wte.weight).T
        )


def _array(array: mx.array) -> Array:
    return np.array(array, np.float64)


def test_gpt2_in_numpy_has_the_same_attention_and_the_same_lens(tmp_path: Path) -> None:
    case = Case("gpt2", None, tmp_path)
    numpy, trace = NumpyGpt2(case.model), case.trace
    assert trace.streams is not None and trace.attention is not None and trace.lens is not None
    for layer in range(case.model.info.num_layers):
        entering, leaving = (
            stream[:, layer].astype(np.float64)
            for stream in (trace.streams.entering, trace.streams.leaving)
        )
        expected = numpy.attention(layer, entering)
        np.testing.assert_allclose(trace.attention[layer], expected, atol=1e-5)
        read = np.take_along_axis(numpy.lens(leaving), trace.lens.token_ids[:, layer], -1)
        np.testing.assert_allclose(trace.lens.logprobs[:, layer], read, atol=1e-4)
