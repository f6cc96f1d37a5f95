"""η² of the token's identity on routers whose answer is planted, and against plain loops."""

import numpy as np
import pytest

from moetui.analyses.token_identity import token_identity, token_sums
from tests.analyses.test_causal_check import texts
from tests.suites.fake import FakeModel

LAYERS = (0, 1, 3)


def measure(model, count=40, *, words=20, vocabulary=60, **given):
    traces = [model.trace(text) for text in texts(count, words, vocabulary)]
    sums = [token_sums(trace, LAYERS) for trace in traces]
    return token_identity(model.info, sums, LAYERS, seed=0, **given), traces


def eta2_by_loops(traces, layer):
    """One token after the other, the mean of its id in all other documents."""
    z = [t.router_logits[:, layer].astype(float) for t in traces]
    z = [one - one.mean(axis=1, keepdims=True) for one in z]
    own, left = [], []
    for d, trace in enumerate(traces):
        for row, token in enumerate(trace.token_ids):
            others = [
                z[e][traces[e].token_ids == token]
                for e in range(len(traces))
                if e != d and (traces[e].token_ids == token).any()
            ]
            if len(others) >= 5:
                own.append(z[d][row])
                left.append(z[d][row] - np.concatenate(others).mean(axis=0))
    return 1 - np.var(left, axis=0).sum() / np.var(own, axis=0).sum(), len(own)


def test_a_router_that_reads_only_the_token_is_foretold_by_it():
    found, _ = measure(FakeModel(attention=0.0))
    assert [row.eta2.value for row in found.layers] == pytest.approx([1, 1, 1], abs=1e-6)
    assert found.mean.eta2.null_high < 0.5 and found.mean.eta2.p == 0.01


def test_a_router_that_reads_only_its_context_is_not():
    found, _ = measure(FakeModel(embedding=0.0))
    for row in found.layers:
        assert row.eta2.value < 0.02
        assert row.eta2.null_low < row.eta2.value < row.eta2.null_high
        assert row.eta2.p > 0.01


def test_eta2_equals_plain_loops():
    found, traces = measure(FakeModel(attention=0.8), count=14, vocabulary=30)
    for row in found.layers:
        expected, tokens = eta2_by_loops(traces, row.layer)
        assert row.eta2.value == pytest.approx(expected, abs=1e-6)
        assert row.eta2.n_tokens == tokens
    assert found.coverage.value == pytest.approx(tokens / sum(map(len, traces)))
    assert found.mean.eta2.value == pytest.approx(np.mean([r.eta2.value for r in found.layers[1:]]))
    assert found.mean_layers == (1, 3)


def test_half_the_variance_gives_half():
    """Token and context each add a standard normal number to every expert."""
    found, _ = measure(FakeModel(attention=1.0), count=150, vocabulary=210)
    assert found.verdict == "measured" and found.ids >= 200
    interval = found.layers[1].eta2
    assert interval.ci_low < interval.value < interval.ci_high
    assert interval.value == pytest.approx(0.46, abs=0.04)  # means of ~14 tokens cost 1/14 of it


def test_few_token_ids_are_inconclusive_and_none_is_no_number():
    found, _ = measure(FakeModel(), vocabulary=30)
    assert found.verdict == "inconclusive" and "30 token ids" in found.reason
    found, _ = measure(FakeModel(), count=5)
    assert found.ids == 0 and found.layers == () and found.mean is None
    assert found.coverage.value == 0


def test_tokens_without_data_are_left_out():
    trace = FakeModel().trace(texts(1)[0])
    trace.router_logits[3, 1, 2] = np.nan
    sums = token_sums(trace, LAYERS)
    assert sums.counts.sum() == len(trace) - 1 and sums.tokens == len(trace)
