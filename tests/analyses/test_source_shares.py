"""Shares by the layer that added: by definition, and on a router whose source is planted."""

import numpy as np
import pytest

from moetui.analyses.router_evidence import Evidence, document_sums
from moetui.analyses.source_shares import source_shares, source_sums
from tests.analyses.test_causal_check import texts
from tests.suites.fake import FakeModel

LAYERS = (1, 3)


def measured(model, count=22):
    traces = [model.trace(text, sources=LAYERS) for text in texts(count)]
    names = traces[0].sources.names
    return source_shares([source_sums(t) for t in traces], LAYERS, names, seed=0), traces


def test_shares_of_sources_are_covariances_over_variances():
    found, traces = measured(FakeModel())
    for row, layer in enumerate(LAYERS):
        z = np.concatenate([t.sources.logits[:, row] for t in traces]).astype(float)  # [n, S, E]
        z -= z.mean(axis=-1, keepdims=True)
        total = z.sum(axis=1)
        variance = total.var(axis=0).sum()
        for source in found[row].sources:
            index = traces[0].sources.names.index((source.part, source.layer))
            part = z[:, index]
            covariance = ((part - part.mean(axis=0)) * (total - total.mean(axis=0))).mean(axis=0)
            assert source.across_tokens.value == pytest.approx(covariance.sum() / variance)
        assert sum(s.across_tokens.value for s in found[row].sources) == pytest.approx(1)
        assert [s.layer for s in found[row].sources] == [None, layer]


def test_the_sources_of_a_part_sum_to_its_share():
    model = FakeModel(attention=2.0)
    found, traces = measured(model)
    whole = Evidence([document_sums(trace, LAYERS) for trace in traces])
    shares = whole.estimate(mean_over=[0, 1], seed=0).across_tokens
    for row in range(len(LAYERS)):
        attention = [s for s in found[row].sources if s.part == "attention"]
        given = sum(s.across_tokens.value for s in attention)
        assert given == pytest.approx(shares.value[row, 1], abs=1e-5)
        assert attention[0].across_tokens.ci_low < given < attention[0].across_tokens.ci_high


def test_no_documents_give_no_shares():
    assert source_shares([], LAYERS, (), seed=0) == ()
