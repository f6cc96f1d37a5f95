"""The logit lens is the model's own norm and head, at any layer and position."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from moetui.errors import UsageError
from moetui.model import Model
from moetui.model import model as model_module
from tests.model.conftest import FAMILIES
from tests.model.test_capture import plain_logits, some_ids

ModelOf = Callable[[str], Model]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    z = logits.astype(np.float64)
    z -= z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


@pytest.mark.parametrize("name", ["demo", "demo-dense", *FAMILIES, "llama"])
def test_the_lens_of_the_last_layer_is_the_models_own_output(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    ids = some_ids(model, 11)
    trace = model.trace(ids, lens=4)
    own = log_softmax(plain_logits(model, ids))
    assert trace.lens is not None
    top = np.argsort(-own, axis=-1, kind="stable")[:, :4]
    gaps = np.take_along_axis(own, np.argsort(-own, axis=-1)[:, :5], -1)
    clear = (-np.diff(gaps, axis=-1)).min(-1) > 1e-4
    assert clear.any()
    assert np.array_equal(trace.lens.token_ids[clear, -1], top[clear])
    expected = np.take_along_axis(own, trace.lens.token_ids[:, -1], -1)
    np.testing.assert_allclose(trace.lens.logprobs[:, -1], expected, atol=1e-4)
    assert not trace.lens.answer_rank[:, -1].any()
    assert np.array_equal(trace.lens.answer_ids, trace.lens.token_ids[:, -1, 0])


def test_every_layer_is_read_through_the_untied_head_and_final_norm(model_of: ModelOf) -> None:
    model = model_of("mixtral")
    ids = some_ids(model, 6)
    trace = model.trace(ids, streams=True)
    assert trace.streams is not None and trace.lens is not None
    hidden = trace.streams.leaving.astype(np.float64)
    network = model.network
    gain = np.array(network.model.norm.weight, np.float64)
    rms = np.sqrt((hidden**2).mean(-1, keepdims=True) + network.model.norm.eps)
    logprobs = log_softmax(hidden / rms * gain @ np.array(network.lm_head.weight, np.float64).T)
    expected = np.take_along_axis(logprobs, trace.lens.token_ids, -1)
    np.testing.assert_allclose(trace.lens.logprobs, expected, atol=1e-4)
    answers = logprobs[:, -1].argmax(-1)
    of_answer = np.take_along_axis(logprobs, answers[:, None, None], -1)
    assert np.array_equal(trace.lens.answer_rank, (logprobs > of_answer).sum(-1))


def test_positions_left_out_of_a_long_trace_can_be_read_later(
    demo: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = some_ids(demo, 20)
    whole = demo.trace(ids)
    monkeypatch.setattr(model_module, "LENS_LIMIT", 20)
    short = demo.trace(ids)
    assert short.lens is not None and whole.lens is not None
    assert short.lens.positions.tolist() == [19]
    later = demo.lens(short, [3, -1])
    assert later.positions.tolist() == [3, 19]
    assert np.array_equal(later.token_ids, whole.lens.token_ids[[3, 19]])
    np.testing.assert_allclose(later.logprobs, whole.lens.logprobs[[3, 19]], atol=1e-5)


def test_a_position_that_the_trace_does_not_have_is_refused(demo: Model) -> None:
    with pytest.raises(UsageError):
        demo.lens(demo.trace([1, 2, 3]), 3)
