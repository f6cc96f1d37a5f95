"""The stream at a router by what added to it, layer by layer, on every architecture."""

from __future__ import annotations

import numpy as np
import pytest

from moetui.errors import UsageError
from tests.model.architectures import ARCHITECTURES
from tests.model.test_routes import NOT_ONE_STREAM, UNREADABLE, subject

SPLIT = [n for n in ARCHITECTURES if n not in UNREADABLE | NOT_ONE_STREAM]


@pytest.mark.parametrize("name", SPLIT)
def test_sources_sum_to_the_stream_and_to_the_parts_of_its_logits(name: str) -> None:
    model, whole = subject(name).model, subject(name).trace
    asked = model.info.moe_layers
    trace = model.trace(subject(name).ids, lens=0, sources=asked)
    found = trace.sources
    assert found is not None and trace.router_parts is not None and whole.streams is not None
    assert found.layers.tolist() == list(asked)
    at_router = whole.streams.at_router[:, list(asked)]
    assert np.array_equal(found.at_router, at_router)
    scale = np.abs(at_router).max()
    assert np.abs(found.parts.sum(axis=2) - at_router).max() < 1e-5 * scale
    parts = [part for part, _ in found.names]
    by_part = np.stack(
        [
            found.logits[:, :, [p == part for p in parts]].sum(axis=2)
            for part in model.info.part_names
        ],
        axis=2,
    )
    scale = np.nanmax(np.abs(trace.router_parts))
    np.testing.assert_allclose(by_part, trace.router_parts, atol=2e-5 * scale, equal_nan=True)


@pytest.mark.parametrize("name", ["olmoe", "qwen2_moe", "deepseek_v3", "gpt_oss"])
def test_a_source_is_what_its_layer_added_through_the_frozen_norm(name: str) -> None:
    """By numpy, from the streams that the layers received and handed on."""
    model = subject(name).model
    trace = model.trace(subject(name).ids, lens=0, streams=True, sources=model.info.moe_layers[-1:])
    layer = model.info.moe_layers[-1]
    assert trace.sources is not None and trace.streams is not None
    site = model.architecture.sites[layer]
    W = np.array(site.matrix(), np.float64)
    gain = trace.streams.router_input[:, -1] / trace.streams.at_router[:, layer]
    z = {source: trace.sources.logits[:, 0, s] for s, source in enumerate(trace.sources.names)}
    for earlier in range(layer + 1):
        attended = trace.streams.at_router[:, earlier] - trace.streams.entering[:, earlier]
        expected = (attended * gain) @ W.T
        assert np.abs(z["attention", earlier] - expected).max() < 1e-4 * np.abs(expected).max()
        mixed = trace.streams.leaving[:, earlier] - trace.streams.at_router[:, earlier]
        given = sum(z[part, at] for part, at in z if at == earlier and part != "attention")
        expected = (mixed * gain) @ W.T * (earlier < layer)
        assert np.abs(given - expected).max() <= 1e-4 * np.abs(expected).max()


def test_sources_at_a_layer_that_does_not_route_are_refused() -> None:
    model = subject("deepseek_v3").model
    with pytest.raises(UsageError, match="layer 0 does not route"):
        model.trace([1, 2], sources=(0,))
