"""Predictors of experts in worlds whose routing has a known cause."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

import moetui
from moetui.analyses.attention_features import attention_features
from moetui.analyses.attention_routing import (
    POPULARITY,
    TOKEN,
    ReadTokens,
    attention_routing,
    read_tokens,
)
from moetui.suites.moe_dynamics.attention_routing_verdict import (
    ADDS,
    INCONCLUSIVE,
    MORE,
    NOTHING,
    corrected_outcome,
)
from tests.analyses.worlds import E, K, seldom_seen, world

OUTPUT, INPUT, BEFORE, PATTERN = (
    "attention output", "router input", "residual before", "attention pattern",
)  # fmt: skip


def read(kind, documents=30, first=0, seed=0, pattern=True):
    """Documents of a world as the analysis reads them, twice the same layer."""
    found = []
    for d, one in enumerate(world(kind, documents, seed=seed, first=first)):
        rng = np.random.default_rng([seed, first, d])

        def two(values):
            return np.stack([values, values], axis=1).astype(np.float32)

        found.append(
            ReadTokens(
                id=str(first + d),
                rows=np.arange(len(one.ids), dtype=np.int32),
                ids=one.ids.astype(np.int32),
                experts=np.stack([one.experts, one.experts], axis=1),
                router_input=two(one.embedding + one.attention),
                attention_output=two(one.attention),
                residual_before=two(one.embedding),
                attention_pattern=two(rng.random((len(one.ids), 5))) if pattern else None,
            )
        )
    return found


def judged(kind, seed=0, shuffles=20, **options):
    return attention_routing(
        read(kind, seed=seed, **options),
        read(kind, first=1000, seed=seed, **options),
        (3, 7),
        num_experts=E,
        no_pattern=None,
        sampled=30,
        shuffles=shuffles,
        seed=seed,
    )


def of(found, predictor):
    return next(one for one in found.mean.predictors if one.predictor == predictor)


@pytest.fixture(scope="module")
def worlds():
    return {kind: judged(kind) for kind in ("chance", "token", "attention")}


def test_routing_by_chance_is_foretold_by_popularity_and_by_nothing_beyond(worlds):
    found = worlds["chance"]
    popular = of(found, POPULARITY).recall.value
    assert popular > K / E + 0.05
    for name in (OUTPUT, INPUT, BEFORE, PATTERN):
        one = of(found, name)
        assert one.recall.value == pytest.approx(popular, abs=0.03)
        assert one.added.ci_low < one.added.null_high + 0.01
        assert corrected_outcome(one) not in (MORE, ADDS)


def rare(kind, first=0, seed=0):
    """Documents of many tokens that are seldom seen; see `seldom_seen`."""

    def one_layer(values):
        return values[:, None].astype(np.float32)

    return [
        ReadTokens(
            id=str(first + d),
            rows=np.arange(len(one.ids), dtype=np.int32),
            ids=one.ids.astype(np.int32),
            experts=one.experts[:, None],
            router_input=one_layer(one.attention),
            attention_output=one_layer(one.attention),
            residual_before=one_layer(one.embedding),
            attention_pattern=None,
        )
        for d, one in enumerate(seldom_seen(kind, 60, first=first, seed=seed))
    ]


def judged_rare(kind, seed=0):
    return attention_routing(
        rare(kind, seed=seed),
        rare(kind, first=1000, seed=seed),
        (3,),
        num_experts=E,
        no_pattern="none here",
        sampled=30,
        shuffles=20,
        seed=seed,
    )


def test_features_of_the_token_tell_of_seldom_ones_and_nothing_beyond_the_token():
    found = judged_rare("token")
    assert found.coverage < 0.97 and found.movable > 0.9
    output = of(found, OUTPUT)
    # More than a table that does not know every token: the token's own doing all the same.
    assert output.gain.ci_low > 0 and output.added.ci_low > output.added.null_high
    for one in (output, of(found, BEFORE)):
        assert one.added_beyond.value == pytest.approx(0, abs=1e-12) and one.added_beyond.p == 1
        assert one.recall.value <= one.equal_tokens.value + 0.01
    assert corrected_outcome(output) == NOTHING
    assert corrected_outcome(of(judged_rare("token and chance"), OUTPUT)) == NOTHING
    beyond = of(judged_rare("token and place"), OUTPUT)
    assert beyond.added_beyond.ci_low > 0.2 and corrected_outcome(beyond) == MORE


@pytest.mark.parametrize("kind", ["token and document", "token in document"])
def test_what_token_and_document_bring_about_is_no_finding(kind):
    output = of(judged_rare(kind), OUTPUT)
    # More than tokens tell, and than an exchange within documents leaves, and yet not attention's.
    assert output.gain.ci_low > 0.02 and output.added_beyond.ci_low > output.added.null_high + 0.02
    assert output.beyond_both.value == pytest.approx(0, abs=0.03)
    assert corrected_outcome(output) not in (MORE, ADDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["token", "token and chance", "token and document"])
def test_simulated_tokens_are_hardly_ever_called_a_finding(kind):
    called = [corrected_outcome(of(judged_rare(kind, seed), OUTPUT)) for seed in range(1, 21)]
    assert sum(one in (MORE, ADDS) for one in called) <= 1


@pytest.mark.slow
def test_simulated_chance_is_hardly_ever_called_a_finding():
    called = [corrected_outcome(of(judged("chance", seed), OUTPUT)) for seed in range(1, 13)]
    # One in twenty draws of the null is as large by chance.
    assert sum(one in (MORE, ADDS) for one in called) <= 1


def test_routing_by_the_token_is_known_from_the_token_alone(worlds):
    found = worlds["token"]
    assert of(found, TOKEN).recall.value > 0.95
    assert abs(of(found, BEFORE).added.value) < 0.03
    output = of(found, OUTPUT)
    assert output.gain.ci_high < -0.3
    assert abs(output.added.value) < 0.02 and corrected_outcome(output) == NOTHING


def test_routing_by_attention_is_found_beyond_the_token(worlds):
    found = worlds["attention"]
    output, token = of(found, OUTPUT), of(found, TOKEN)
    assert token.recall.value == pytest.approx(of(found, POPULARITY).recall.value, abs=0.03)
    assert output.recall.value > 0.75 and output.gain.ci_low > 0.4
    assert corrected_outcome(output) == MORE
    assert of(found, BEFORE).gain.ci_high < 0.05 and of(found, PATTERN).gain.ci_high < 0.05
    # Exchanged within documents, it is worth no more than popularity.
    assert output.recall.null_high < token.recall.value + 0.05


def test_the_table_recalls_what_counting_by_hand_gives(worlds):
    fit, judge = read("token"), read("token", first=1000)
    counts = {}
    for one in fit:
        for token, experts in zip(one.ids, one.experts[:, 0], strict=True):
            row = counts.setdefault(int(token), np.zeros(E))
            row[experts] += 1
    total = sum(counts.values()) / sum(len(one.ids) for one in fit)
    hits = n = 0
    for one in judge:
        for token, experts in zip(one.ids, one.experts[:, 0], strict=True):
            scores = counts.get(int(token), np.zeros(E)) + total
            told = sorted(range(E), key=lambda e, s=scores: (-s[e], e))[:K]
            hits += len(set(told) & set(experts.tolist()))
            n += K
    assert of(worlds["token"], TOKEN).recall.value == pytest.approx(hits / n)


def test_sizes_are_told(worlds):
    found = worlds["chance"]
    assert (found.documents, found.fit_documents, found.tokens) == (30, 30, 900)
    assert (found.k, found.chance) == (K, K / E) and found.coverage == pytest.approx(1, abs=0.02)
    assert [one.layer for one in found.layers] == [3, 7] and found.missing == {}
    # Both layers are the same, and the mean over them is what each of them is.
    for one, whole in zip(found.layers[0].predictors, found.mean.predictors, strict=True):
        assert one.recall.value == whole.recall.value
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_what_cannot_be_read_is_said_and_not_made_up():
    without = judged("token", shuffles=0, pattern=False)
    assert list(without.missing) == [PATTERN]
    assert PATTERN not in [one.predictor for one in without.mean.predictors]
    output = of(without, OUTPUT)
    assert output.gain.null_mean is None and output.added_beyond is None
    assert corrected_outcome(output) == INCONCLUSIVE
    silent = [[silenced(one) for one in read("token", first=first)] for first in (0, 1000)]
    found = attention_routing(
        *silent, (3, 7), num_experts=E, no_pattern=None, sampled=30, shuffles=0, seed=0
    )
    assert list(found.missing) == [OUTPUT]


def silenced(one):
    """The same document where attention adds nothing in the second layer."""
    output = one.attention_output.copy()
    output[:, 1] = 0
    return replace(one, attention_output=output)


def test_what_is_read_of_the_model_is_what_a_trace_holds():
    demo_model = moetui.load("demo")
    ids = demo_model.tokenize("def fibonacci(n):\n    return n if n < 2 else 1")
    rows, layers = np.array([2, 5, 9], np.int32), (0, 4, 7)
    found = read_tokens(demo_model, "x", ids, layers, rows)
    trace = demo_model.trace(ids, lens=0, streams=True, attention=True)
    for at, layer in enumerate(layers):
        np.testing.assert_array_equal(found.experts[:, at], trace.expert_ids[rows, layer])
        np.testing.assert_array_equal(
            found.router_input[:, at], trace.streams.router_input[rows, layer]
        )
        added = trace.streams.at_router[rows, layer] - trace.streams.entering[rows, layer]
        np.testing.assert_array_equal(found.attention_output[:, at], added)
        np.testing.assert_array_equal(
            found.attention_pattern[:, at], attention_features(trace.attention[layer], rows)
        )
    # At layer 0 the stream before is the token's embedding: equal tokens, equal features.
    same = read_tokens(demo_model, "x", np.array([ids[3], ids[3]]), (0,), np.array([0, 1]))
    np.testing.assert_allclose(same.residual_before[0], same.residual_before[1], atol=1e-6)
