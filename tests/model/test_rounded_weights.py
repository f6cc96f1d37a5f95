"""Weights in fewer bits for a while: as mlx quantises a model, and undone exactly."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import moetui
from moetui.errors import ModelError, UsageError
from moetui.model import Model

TEXT = "12 + 7 = 19 and the dog"


def test_a_pass_inside_is_that_of_a_quantised_copy(demo: Model) -> None:
    copy = moetui.load("demo")
    nn.quantize(copy.network, group_size=32, bits=4)
    ids = demo.tokenize(TEXT)
    expected = np.array(copy.network(mx.array(ids)[None])[0].astype(mx.float32))
    plain = demo.next_logits(ids)
    with demo.quantised(4):
        found = demo.next_logits(ids)
    size = np.abs(expected[-1]).max()
    assert np.abs(found - expected[-1]).max() < 2e-3 * size
    assert np.abs(found - plain).max() > 2e-2 * size
    assert np.array_equal(demo.next_logits(ids), plain)


def test_more_bits_change_less(demo: Model) -> None:
    plain = demo.next_logits(TEXT)
    errors = []
    for bits in (8, 4, 2):
        with demo.quantised(bits):
            errors.append(np.abs(demo.next_logits(TEXT) - plain).max())
    assert errors[0] < errors[1] < errors[2]


def test_what_cannot_be_rounded_is_refused_and_nothing_is_left_behind(demo: Model) -> None:
    with pytest.raises(UsageError, match="7 bits"), demo.quantised(7):
        pass
    copy = moetui.load("demo")
    nn.quantize(copy.network, group_size=32, bits=8)
    assert "quantised already" in copy.quantised_error
    with pytest.raises(ModelError, match="quantised already"), copy.quantised(4):
        pass
    plain = demo.next_logits(TEXT)
    with pytest.raises(RuntimeError, match="inside"), demo.quantised(4):
        raise RuntimeError("inside")
    assert np.array_equal(demo.next_logits(TEXT), plain)
