"""What-if on the bundled model: its numbers are those of the model's own methods."""

from __future__ import annotations

import numpy as np
import pytest

import moetui
from moetui.analyses.what_if import WhatIf, WhatIfRequest, what_if
from moetui.model import Model
from moetui.trace import Ban, Deselect, Drop, Force, TopK, Trace

LAYER = 4


@pytest.fixture(scope="module")
def model() -> Model:
    return moetui.load("demo")


@pytest.fixture(scope="module")
def trace(model: Model) -> Trace:
    return model.trace("127 + 45 = 172\n9 - 3 = 6\n")


def found(model: Model, trace: Trace, change: object, *, row: int = 5) -> WhatIf:
    """Measured after token 5, with three controls."""
    request = WhatIfRequest(
        token_ids=tuple(trace.token_ids.tolist()),
        row=row,
        prompt_tokens=len(trace),
        changes=(change,),
        controls=3,
    )
    *_, last = what_if(model, request)
    return last


def used(trace: Trace, row: int = 5) -> int:
    """The best expert of the layer at that token."""
    at = int(np.flatnonzero(trace.layers == LAYER)[0])
    return int(trace.expert_ids[row, at, 0])


def changes(trace: Trace) -> list[object]:
    experts, layers = (used(trace),), (LAYER,)
    return [
        Drop(experts=experts, layers=layers),
        Drop(experts=experts, layers=layers, renormalise=True),
        Deselect(experts=experts, layers=layers),
        Ban(experts=experts, layers=layers),
        Force(experts=experts, layers=layers),
        TopK(k=1, layers=layers),
    ]


@pytest.mark.parametrize("index", range(6))
def test_the_numbers_are_those_of_the_model(model: Model, trace: Trace, index: int) -> None:
    change = changes(trace)[index]
    finding = found(model, trace, change)
    kl = model.kl(trace.token_ids, [change])[5]
    assert finding.kl.statistic.value == pytest.approx(float(kl), rel=1e-4, abs=1e-9)
    nll, base = model.nll(trace.token_ids, [change]), model.nll(trace.token_ids)
    assert finding.delta_nll is not None
    assert finding.delta_nll.statistic.value == pytest.approx(
        float((nll[5:].astype(float) - base[5:]).mean()), abs=1e-9
    )
    assert not finding.identical


def test_what_is_no_change_is_exactly_none(model: Model, trace: Trace) -> None:
    at = int(np.flatnonzero(trace.layers == LAYER)[0])
    idle = sorted(set(range(model.info.num_experts)) - {*trace.expert_ids[:, at].ravel().tolist()})
    assert idle, "every expert works in this text: take a shorter one"
    for change in (
        Drop(experts=(idle[0],), layers=(LAYER,)),
        Drop(experts=(idle[0],), layers=(LAYER,), renormalise=True),
        Deselect(experts=(idle[0],), layers=(LAYER,)),
        TopK(k=model.info.top_k),
    ):
        finding = found(model, trace, change)
        assert finding.identical and finding.kl.statistic.value == 0.0
        assert finding.delta_nll is not None and finding.delta_nll.statistic.value == 0.0
        assert finding.routing is not None and finding.routing.statistic.value == 0.0


def test_texts_of_the_next_tokens_are_the_model_s(model: Model, trace: Trace) -> None:
    finding = found(model, trace, Drop(experts=(used(trace),), layers=(LAYER,)))
    assert [token.text for token in finding.next_tokens] == [
        model.token_text(token.token_id) for token in finding.next_tokens
    ]
