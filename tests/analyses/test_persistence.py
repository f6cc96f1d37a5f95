"""Consistency from token to token: at chance for independent routing, above it where planted."""

import numpy as np
import pytest

from moetui.analyses.decoded import Sequences
from moetui.analyses.persistence import persistence
from moetui.analyses.segments import segment_consistency
from moetui.suites.moe_dynamics.generation_verdict import persistence_outcome

E, L, K, V = 8, 2, 2, 10


def sequences(n, T, choose, seed=0, start=1):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        ids = rng.integers(0, V, T).astype(np.int32)
        rows.append((ids, choose(rng, ids).astype(np.int16), start))
    return Sequences.of(rows, E)


def best(scores):
    return np.argsort(-scores, axis=-1)[..., :K]


def independent(rng, ids):
    return best(rng.random((len(ids), L, E)) + np.linspace(0, 0.6, E))


def by_token(rng, ids):
    """Every token has an expert of its own in each layer; neighbours share it where tokens do."""
    scores = rng.random((len(ids), L, E))
    scores[np.arange(len(ids))[:, None], np.arange(L), (ids[:, None] * 3) % 4] += 1
    return best(scores)


def persistent(rng, ids, stays=0.75):
    """The experts stay three times of four, whatever the token."""
    experts = independent(rng, ids)
    for t in range(1, len(ids)):
        if rng.random() < stays:
            experts[t] = experts[t - 1]
    return experts


def test_steps_and_their_overlap_are_those_within_the_sequences():
    found = sequences(5, 6, independent, start=3)
    assert found.follows.tolist() == [n for n in range(30) if n % 6 >= 3]
    overlap = [
        len({*found.experts[n, layer]} & {*found.experts[n - 1, layer]}) / K
        for n in found.follows
        for layer in range(L)
    ]
    result = persistence(found, [3, 7], permutations=999, seed=0)
    assert result.layers[0].overlap.value == pytest.approx(np.mean(overlap))
    assert [one.layer for one in result.layers] == [None, 3, 7]
    assert result.steps == 15


def test_the_exact_expectation_is_that_of_many_shuffles():
    found = sequences(4, 9, by_token)
    overall = persistence(found, range(L), permutations=999, seed=0).layers[0]
    expected = overall.overlap.value - overall.over_tokens.value
    rng, drawn = np.random.default_rng(5), []
    for _ in range(2000):
        order = np.arange(len(found.token))
        for token in range(V):
            rows = np.flatnonzero(found.token == token)
            order[rows] = rng.permutation(rows)
        moved = found.experts[order]
        both = moved[found.follows][..., :, None] == moved[found.follows - 1][..., None, :]
        drawn.append(both.sum(axis=(-1, -2)).mean() / K)
    assert expected == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(2000))


def test_independent_routing_has_the_overlap_of_its_loads():
    result = persistence(sequences(40, 30, independent), range(L), permutations=999, seed=0)
    overall = result.layers[0]
    assert overall.overlap.null_mean > overall.uniform + 0.02
    assert overall.overlap.ci_low < overall.overlap.null_mean < overall.overlap.ci_high
    for one in (overall.over_sequence, overall.over_tokens):
        assert one.ci_low < 0 < one.ci_high
    assert overall.over_tokens.p > 0.05


def test_what_equal_tokens_explain_is_not_persistence():
    rng = np.random.default_rng(3)

    def repeated(_, ids):
        return by_token(rng, ids)

    rows = []
    for _ in range(40):
        ids = np.repeat(rng.integers(0, V, 15), 2).astype(np.int32)
        rows.append((ids, repeated(rng, ids).astype(np.int16), 1))
    result = persistence(Sequences.of(rows, E), range(L), permutations=999, seed=0)
    overall = result.layers[0]
    assert overall.overlap.ci_low > overall.overlap.null_mean + 0.05
    assert overall.over_tokens.ci_low < 0 < overall.over_tokens.ci_high
    assert overall.over_tokens.p > 0.05
    assert result.repeats.value > 0.5


def test_planted_persistence_is_found_beyond_token_identity():
    result = persistence(sequences(40, 30, persistent), range(L), permutations=999, seed=0)
    assert persistence_outcome(result) == "persistent"
    for one in result.layers:
        assert one.over_tokens.ci_low > 0.2
        assert one.over_sequence.ci_low > 0.2
        assert (one.over_tokens.p, one.over_tokens.q) == (0.001, 0.001)


def in_texts(rng, ids):
    """A text has an expert of its own in each layer, in no order."""
    scores = rng.random((len(ids), L, E))
    scores[:, np.arange(L), rng.integers(0, E, L)] += 0.8
    return best(scores)


def test_a_text_with_experts_of_its_own_is_not_persistent_from_step_to_step():
    result = persistence(sequences(40, 30, in_texts), range(L), permutations=999, seed=0)
    overall = result.layers[0]
    assert overall.over_tokens.ci_low > 0.1 and overall.over_tokens.p == 0.001
    assert overall.over_sequence.ci_low < 0 < overall.over_sequence.ci_high
    assert persistence_outcome(result) == "text-wide"


def test_a_layer_is_judged_beside_the_others_whatever_its_loads():
    """The second layer has few experts in use, so that its neighbours overlap anyway."""

    def mixed(rng, ids):
        experts = persistent(rng, ids, stays=0.25)
        few = np.array([1, 1, 0.9, 0, 0, 0, 0, 0])
        experts[:, 1] = best(rng.random((len(ids), L, E)) + few)[:, 1]
        return experts

    _, first, second = persistence(
        sequences(40, 30, mixed), range(L), permutations=999, seed=0
    ).layers
    assert second.overlap.value > first.overlap.value
    assert first.over_tokens.q == 0.001 and second.over_tokens.q > 0.05


def test_a_segment_is_served_by_its_most_used_experts():
    found = sequences(4, 19, independent)
    (result,) = segment_consistency(found, [8], seed=0)
    shares = []
    for sequence in range(4):
        for start in (0, 8):
            rows = found.experts[sequence * 19 + start : sequence * 19 + start + 8]
            for layer in range(L):
                counts = np.sort(np.bincount(rows[:, layer].ravel(), minlength=E))
                shares.append(counts[-K:].sum() / (8 * K))
    assert result.segments == 8
    assert result.share.value == pytest.approx(np.mean(shares))


def test_segments_longer_than_any_text_are_said_to_be_missing():
    (_, missing) = segment_consistency(sequences(25, 20, independent), [16, 32], seed=0)
    assert missing.share.value is None
    assert missing.reason == "no text has 32 tokens"


def test_segments_of_persistent_routing_are_served_better_than_equal_tokens_are():
    (kept,) = segment_consistency(sequences(40, 32, persistent), [8], seed=0)
    (loose,) = segment_consistency(sequences(40, 32, independent), [8], seed=0)
    assert kept.over_tokens.ci_low > 0.05
    assert kept.share.value > kept.share.null_high
    assert loose.over_tokens.ci_low < 0 < loose.over_tokens.ci_high
    # The best of few tokens serve more than k of E by chance alone.
    assert loose.share.value > loose.uniform + 0.1


@pytest.mark.slow
def test_independent_routing_is_rarely_called_persistent():
    wrong = 0
    for seed in range(40):
        found = sequences(8, 15, independent, seed=seed)
        result = persistence(found, range(L), permutations=999, seed=seed)
        wrong += result.layers[0].over_tokens.p <= 0.05
    # Expected are 2 of 40; more than 6 has a chance of 0.3 %.
    assert wrong <= 6
