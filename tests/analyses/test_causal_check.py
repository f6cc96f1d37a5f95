"""The causal check on routers whose answer is planted."""

import dataclasses

import numpy as np
import pytest

from moetui.analyses.causal_check import (
    BY_RESAMPLE,
    REPLACEMENTS,
    causal_check,
    causal_sums,
    part_moments,
)
from tests.suites.fake import FakeModel

LAYERS = (0, 2)


def texts(count, words=12, vocabulary=40, seed=0):
    rng = np.random.default_rng(seed)
    drawn = rng.integers(vocabulary, size=(count, words))
    return [" ".join(f"w{i}" for i in row) for row in drawn]


def check(model, count=24, *, seed=0, tokens=6, minimum=20, vocabulary=40):
    written = texts(count, vocabulary=vocabulary, seed=seed)
    traces = [model.trace(text, sources=LAYERS) for text in written]
    moments = [part_moments(trace, f"d{i}", seed=seed) for i, trace in enumerate(traces)]
    sums = [
        causal_sums(model, trace, f"d{i}", moments, tokens=tokens, seed=seed)
        for i, trace in enumerate(traces)
    ]
    return causal_check(model.info, sums, LAYERS, minimum=minimum, seed=seed), sums, moments


def effects(row):
    return {part.part: part for part in row.parts}


def test_a_router_that_reads_only_the_token_does_not_notice_other_attention():
    found, _, _ = check(FakeModel(attention=0.0))
    for row in (*found.layers, found.mean):
        parts = effects(row)
        assert parts["attention"].resample.change.value == 0
        assert parts["attention"].mean.change.value == 0
        assert parts["embedding"].resample.excess.ci_low > 0
    assert found.verdict == "attention does not matter most"
    assert found.reproduced.value == 1


def test_a_router_that_reads_only_attention_follows_it_alone():
    found, _, _ = check(FakeModel(embedding=0.0))
    parts = effects(found.mean)
    assert parts["embedding"].resample.change.value == 0
    # The donor's experts are two of eight others, as likely as any.
    assert parts["attention"].resample.change.value > 0.6
    assert found.mean.lead.ci_low > 0


def test_attention_that_works_through_few_directions_beats_random_ones():
    """In a wide stream most of a random direction of the same length misses the router."""
    found, _, _ = check(FakeModel(embedding=0.3, blind=128))
    assert effects(found.mean)["attention"].resample.excess.ci_low > 0
    assert found.verdict == "attention matters most"


def test_attention_that_reaches_all_experts_alike_is_no_cause():
    found, _, _ = check(FakeModel(attention=0.0, common=50.0))
    assert effects(found.mean)["attention"].resample.change.value == 0
    assert found.verdict == "attention does not matter most"
    # A share of the norm would call it large; so does the length of the change.
    assert effects(found.mean)["attention"].resample.length.value > 0.1


def test_parts_without_any_effect_decide_nothing():
    """Router weights of noise that reads both parts alike: no lead, whatever the shares. Of many
    words, so that another document's token is as other as its context."""
    found = [
        check(
            FakeModel(attention=0.5, embedding=0.5, blind=128), 60, seed=seed, vocabulary=100_000
        )[0]
        for seed in range(8)
    ]
    # At the level of the interval one in forty would find a lead of attention.
    assert sum(one.verdict == "attention matters most" for one in found) <= 1
    assert abs(np.mean([one.mean.lead.value for one in found])) < 0.03


def test_sums_equal_a_recomputation_token_by_token():
    model = FakeModel()
    _, sums, moments = check(model, count=4, tokens=100)
    trace = model.trace(texts(4)[1], sources=LAYERS)
    assert sums[1].tokens == len(trace)
    mean = sum(m.total for m in moments) / sum(m.tokens for m in moments)
    for row, layer in enumerate(LAYERS):
        expected = np.zeros(3)
        for t in range(len(trace)):
            h = trace.sources.at_router[t, row].astype(float)
            before = set(np.argsort(-(h[:-1] + h[-1]))[:2].tolist())
            for part in range(3):
                changed = h - trace.sources.parts[t, row, part] + mean[row, part]
                after = set(np.argsort(-(changed[:-1] + changed[-1]))[:2].tolist())
                expected[part] += 1 - len(before & after) / len(before | after)
        assert sums[1].change[row, :, 0] == pytest.approx(expected, abs=1e-12)
        assert sums[1].reproduced[row] == len(trace), layer


def test_random_directions_are_as_long_as_the_change():
    """A router that answers with the length of what it was handed."""
    asked = []

    class Listening(FakeModel):
        def routes(self, layer, streams):
            asked.append(streams)
            return super().routes(layer, streams)

    model = Listening()
    check(model, count=3, tokens=2)
    for streams in asked:
        by_token = streams.reshape(2, -1, streams.shape[-1]).astype(float)
        changes = np.linalg.norm(by_token[:, 1:] - by_token[:, :1], axis=-1).reshape(2, 3, 2, 21)
        assert changes == pytest.approx(np.broadcast_to(changes[..., :1], changes.shape), abs=1e-5)


def test_resamples_come_from_other_documents_only():
    model = FakeModel()
    _, _, moments = check(model, count=2)
    marked = [
        dataclasses.replace(moments[0], one=np.full_like(moments[0].one, 1e6)),
        moments[1],
    ]
    trace = model.trace(texts(2)[0], sources=LAYERS)
    resample = REPLACEMENTS.index(BY_RESAMPLE)
    own = causal_sums(model, trace, "d0", marked, tokens=3, seed=0).length[..., resample]
    other = causal_sums(model, trace, "d1", marked, tokens=3, seed=0).length[..., resample]
    assert own.max() < 100 < other.min()


def test_the_same_seed_gives_the_same_sums_and_few_documents_no_verdict():
    first, second = (check(FakeModel(), count=8, seed=3) for _ in range(2))
    for a, b in zip(first[1], second[1], strict=True):
        assert np.array_equal(a.random, b.random) and np.array_equal(a.change, b.change)
    assert first[0] == second[0]
    assert first[0].verdict == "inconclusive" and "8 documents" in first[0].reason


def test_the_null_is_the_band_of_the_draws():
    found, sums, _ = check(FakeModel())
    tokens = sum(one.tokens for one in sums)
    draws = sum(one.random for one in sums)[0, 1, 1] / tokens
    change = found.layers[0].parts[1].resample.change
    assert change.null_mean == pytest.approx(draws.mean())
    assert [change.null_low, change.null_high] == pytest.approx(np.quantile(draws, [0.025, 0.975]))
    assert change.p == (1 + (draws >= change.value).sum()) / 21
    excess = found.layers[0].parts[1].resample.excess
    assert excess.value == pytest.approx(change.value - draws.mean())
