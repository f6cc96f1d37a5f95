"""What experts put out for tokens that did not choose them: by forcing them, and by numpy."""

from __future__ import annotations

import numpy as np
import pytest

import moetui
from moetui.errors import ModelError, UsageError
from moetui.trace import Remap
from tests.model.intervened import IDS, ROUTING, often, plain, tiny

REFUSED = {"llama4", "longcat_flash", "longcat_flash_ngram"}


@pytest.mark.parametrize("name", often(sorted(set(ROUTING) - REFUSED)))
def test_an_expert_puts_out_what_it_does_when_it_works_for_another(name: str) -> None:
    model = tiny(name)
    layer = model.info.moe_layers[-1]
    every = model.every_expert(IDS, layer)
    E = model.architecture.sites[layer].num_experts
    assert every.shape[:2] == (len(IDS), E)
    natural = model.trace(IDS, lens=0).expert_ids[:, -1]
    target = int(np.bincount(natural.ravel()).argmin())
    for source in np.unique(natural)[:3].tolist():
        one = Remap(source=source, target=target, layers=(layer,))
        trace = model.trace(IDS, lens=0, expert_outputs=True, interventions=[one])
        assert trace.expert_outputs is not None
        rows = (natural == source).any(-1) & (natural != target).all(-1)
        place = (trace.expert_ids[:, -1] == target).argmax(-1)
        got = trace.expert_outputs[np.arange(len(IDS)), -1, place][rows]
        want = every[rows, target]
        assert np.abs(got - want).max(initial=0) <= 1e-5 * np.abs(every).max()


def test_asking_leaves_the_model_as_it_was() -> None:
    model = moetui.load("demo")
    before = plain(model.network, IDS)
    model.every_expert(IDS, 4)
    assert np.array_equal(plain(model.network, IDS), before)


def test_where_it_cannot_be_asked_it_says_why() -> None:
    with pytest.raises(ModelError, match="depends on its weight"):
        tiny("llama4").every_expert(IDS, tiny("llama4").info.moe_layers[0])
    with pytest.raises(ModelError, match="not all experts"):
        tiny("longcat_flash").every_expert(IDS, tiny("longcat_flash").info.moe_layers[0])
    with pytest.raises(UsageError, match="does not route"):
        moetui.load("demo").every_expert(IDS, 99)
