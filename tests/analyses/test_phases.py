"""Phases of many texts: none by chance or by tokens, a planted one at its step."""

import numpy as np
import pytest

from moetui.analyses.decoded import Sequences
from moetui.analyses.phases import phases

E, L, K, V = 12, 2, 3, 6


def texts(n, T, choose, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        ids = rng.integers(0, V, T).astype(np.int32)
        rows.append((ids, choose(rng, ids).astype(np.int16), 1))
    return Sequences.of(rows, E)


def best(scores):
    return np.argsort(-scores, axis=-1)[..., :K]


def independent(rng, ids):
    return best(rng.random((len(ids), L, E)))


def changing(rng, ids):
    """Other experts from token 21 on, whatever the token."""
    scores = rng.random((len(ids), L, E))
    scores[:21, :, :4] += 0.7
    scores[21:, :, 6:10] += 0.7
    return best(scores)


def read(found, **options):
    return phases(
        found, [f"text {d}" for d in range(found.count)], [10] * found.count, [3, 5], range(L),
        window=6, permutations=999, **{"seed": 0, **options},
    )  # fmt: skip


def test_a_planted_phase_is_found_at_its_step():
    found = read(texts(24, 36, changing))
    assert found.with_phase.ci_low > 0.7
    steps = [change.step for change in found.changes]
    assert np.mean(np.abs(np.array(steps) - 21) <= 1) > 0.9
    assert all(change.generated for change in found.changes if change.step >= 10)
    assert found.reason is None
    assert found.layers == (3, 5)


def test_independent_routing_has_no_phases():
    found = read(texts(24, 36, independent))
    assert found.changes == () and found.with_phase.value == 0
    assert found.with_phase.ci_low == 0 and found.with_phase.ci_high < 0.2
    assert found.over_tokens.ci_low < 0 < found.over_tokens.ci_high
    assert found.steps == 24 * (36 - 12 + 1)


def test_a_change_of_the_tokens_is_no_phase():
    rng = np.random.default_rng(4)
    rows = []
    for _ in range(24):
        ids = np.concatenate([rng.integers(0, 3, 20), rng.integers(3, V, 20)]).astype(np.int32)
        scores = rng.random((40, L, E))
        for layer in range(L):
            scores[np.arange(40), layer, ids * 2] += 1
        rows.append((ids, best(scores).astype(np.int16), 1))
    found = read(Sequences.of(rows, E))
    assert found.with_phase.value <= 1 / 24
    assert abs(found.over_tokens.value) < 0.02


def test_short_and_few_texts_carry_no_verdict():
    assert read(texts(30, 9, independent)).reason == "no text has two windows of 6 tokens"
    few = read(texts(5, 30, independent))
    assert few.reason == "5 texts of two windows, 20 needed"
    assert few.with_phase.ci_low is None


@pytest.mark.slow
def test_independent_texts_rarely_have_any_phase():
    wrong = sum(
        bool(read(texts(6, 24, independent, seed=seed), seed=seed).changes) for seed in range(40)
    )
    # Expected are 2 of 40 at a family-wise 5 %; more than 6 has a chance of 0.3 %.
    assert wrong <= 6
