"""The checks pass where the readings are right, and each of them can fail."""

import dataclasses

import numpy as np
import pytest

from moetui.analyses.sanity import sanity, sanity_sums
from tests.analyses.test_causal_check import texts
from tests.suites.fake import FakeModel

LAYERS = (0, 2)


def checked(model, count=22, layers=LAYERS):
    sums = [sanity_sums(model, text, layers, seed=0) for text in texts(count)]
    return sanity(model.info, sums, layers, seed=0), sums


def test_a_sound_reading_passes_every_check():
    found, sums = checked(FakeModel())
    assert found.failed == ()
    assert found.same_logits == found.texts == 22
    for row in found.layers:
        assert row.reproduced.value == 1 and row.ties.value == 0
        assert row.completeness < 1e-5
        assert abs(row.shuffled.value) < 0.2
    assert found.first_layer_ratio == 0 and found.first_layer_experts
    covariance, variance = (sum(getattr(s, n)[0] for s in sums) for n in ("covariance", "variance"))
    assert found.layers[0].shuffled.value == pytest.approx(covariance / variance)


def test_another_tokens_logits_are_those_of_the_same_text():
    model = FakeModel(attention=0.0)
    _, sums = checked(model, 3)
    z = model.trace(texts(3)[1]).router_logits[:, 2].astype(float)
    z -= z.mean(axis=1, keepdims=True)
    z -= z.mean(axis=0)
    assert sums[1].variance[1] == pytest.approx((z**2).sum())
    assert abs(sums[1].covariance[1]) < sums[1].variance[1]


class Broken(FakeModel):
    def __init__(self, what):
        super().__init__()
        self.what = what

    def trace(self, *args, **kwargs):
        trace = super().trace(*args, **kwargs)
        if self.what == "ratio":
            trace.seed_parts[:, 0, 1] = 1
        if self.what == "parts":
            trace.router_parts[:, 2] *= 1.01
        if self.what == "experts":
            trace.router_parts[:, 0, 2] += 1
        if self.what == "ids":
            trace.expert_ids[3, 2] = [0, 1] if trace.expert_ids[3, 2, 0] != 0 else [2, 3]
        return trace

    def next_logits(self, text_or_ids):
        logits = super().next_logits(text_or_ids)
        return logits + 1e-6 if self.what == "logits" else logits


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("ratio", "0 by construction"),
        ("parts", "layer 2: the parts miss"),
        ("experts", "of which there are none"),
        ("ids", "layer 2: "),
        ("logits", "22 texts the logits"),
    ],
)
def test_what_is_wrong_is_said(what, told):
    found, _ = checked(Broken(what))
    assert any(told in line for line in found.failed), found.failed


def test_ties_are_counted():
    class Tied(FakeModel):
        def trace(self, *args, **kwargs):
            trace = super().trace(*args, **kwargs)
            logits = trace.router_logits
            row, ids = np.arange(len(trace)), trace.expert_ids[:, 2]
            below = np.where(np.isin(np.arange(8), ids[0]), -np.inf, logits[0, 2]).argmax()
            logits[0, 2, below] = logits[row, 2, ids[:, 1]][0]
            return dataclasses.replace(trace)

    found, sums = checked(Tied(), 2)
    assert sums[0].ties.tolist() == [0, 1]
    assert found.layers[1].ties.value == pytest.approx(2 / (sums[0].tokens + sums[1].tokens))
    assert found.layers[0].ties.value == 0


def test_a_router_that_cannot_be_asked_is_no_failure():
    model = FakeModel()
    model.routes_error = "reads more than the stream"
    found, _ = checked(model)
    assert found.layers[0].reproduced is None and found.failed == ()
    assert found.reproduced_error == "reads more than the stream"
