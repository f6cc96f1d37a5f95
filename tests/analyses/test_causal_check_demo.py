"""Untrained networks get no verdict for attention, unless it is true of them."""

import mlx.core as mx
import numpy as np
import pytest

import moetui
from moetui.analyses.causal_check import (
    DECIDES,
    DECIDES_NOT,
    causal_check,
    causal_sums,
    part_moments,
)
from moetui.demo import corpus
from moetui.model.reinitialise import load_random

LAYERS = (4, 7)


def check(model, documents=20, tokens=24):
    read = []
    for document in list(corpus("evaluation"))[:: 315 // documents][:documents]:
        ids = model.tokenize(document.text)[:tokens]
        read.append((document.id, model.trace(ids, lens=0, sources=LAYERS)))
    moments = [part_moments(trace, name, seed=0) for name, trace in read]
    sums = [causal_sums(model, trace, name, moments, tokens=4, seed=0) for name, trace in read]
    return causal_check(model.info, sums, LAYERS, minimum=20, seed=0), read


def effect_by_hand(model, read, part):
    """How often the top expert of the last token changes when `part` is that of the next document:
    the router written in numpy, no call of the model's own."""
    moved = []
    for row, layer in enumerate(LAYERS):
        site = model.architecture.sites[layer]
        W = np.array(site.matrix(), np.float64)
        norm = model.network.layers[layer].post_attention_layernorm
        gain = np.array(norm.weight.astype(mx.float32), np.float64)
        for (_, one), (_, other) in zip(read, read[1:] + read[:1], strict=True):
            h = one.sources.at_router[-1, row].astype(float)
            swapped = h - one.sources.parts[-1, row, part] + other.sources.parts[-1, row, part]
            tops = []
            for stream in (h, swapped):
                u = stream / np.sqrt((stream**2).mean() + norm.eps) * gain
                tops.append(int(np.argmax(W @ u)))
            moved.append(tops[0] != tops[1])
    return np.mean(moved)


@pytest.mark.parametrize("how", ["own", "trainer"])
def test_the_verdict_on_an_untrained_network_is_what_swapping_its_parts_shows(how):
    model = load_random("demo", how=how, seed=0)
    found, read = check(model)
    by_hand = {
        name: effect_by_hand(model, read, part) for part, name in enumerate(model.info.part_names)
    }
    largest = max(by_hand, key=lambda name: by_hand[name])
    assert found.verdict == (DECIDES if largest == "attention" else DECIDES_NOT)
    # Initialised as by its trainer, a layer adds next to nothing: the embedding is all there is.
    assert largest == ("embedding" if how == "trainer" else "attention")


def test_the_trained_one_is_no_matter_of_attention_alone():
    found, _ = check(moetui.load("demo"))
    assert found.verdict != DECIDES
    changes = {part.part: part.resample.change.value for part in found.mean.parts}
    assert changes["routed experts"] > 0.5 and changes["embedding"] < 0.2
