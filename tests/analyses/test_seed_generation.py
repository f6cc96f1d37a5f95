"""The seed's generation dynamics against its rule, written down once more in plain loops."""

import numpy as np
import pytest

from moetui.analyses.decoded import Decoded
from moetui.analyses.seed_generation import seed_generation

E, L, K = 16, 3, 2


def text(T, seed, prompt=4):
    rng = np.random.default_rng(seed)
    experts = np.argsort(rng.random((T, L, E)), axis=-1)[..., :K].astype(np.int16)
    return Decoded(
        id=str(seed), domain="", prompt_tokens=prompt, ids=np.arange(T, dtype=np.int32),
        experts=experts,
    )  # fmt: skip


def published(rows):
    """(consistency, handoffs, phases) of rows [steps, L, K]."""
    matches = total = handoffs = 0
    for t in range(1, len(rows)):
        for layer in range(L):
            matches += len({*rows[t, layer]} & {*rows[t - 1, layer]})
            total += K
            handoffs += rows[t, layer, 0] != rows[t - 1, layer, 0]
    phases = []
    for t in range(2, len(rows)):
        divergence = 0.0
        for layer in range(L):
            before = {e for row in rows[max(0, t - 3) : t] for e in row[layer]}
            now = {*rows[t, layer]}
            divergence += 1 - len(before & now) / len(before | now)
        if divergence / L > 0.5:
            phases.append(t)
    return matches / total, handoffs, tuple(phases)


def test_the_seeds_numbers_follow_its_rule():
    texts = [text(20 + seed, seed) for seed in range(3)]
    found = seed_generation(texts, ["a", "b", "c"], E, seed=0)
    expected = [published(one.experts[3:-1]) for one in texts]
    for one, (consistency, handoffs, phases) in zip(found.texts, expected, strict=True):
        assert one.consistency == pytest.approx(consistency)
        assert one.handoffs == handoffs
        assert one.phases == phases
    assert found.consistency.value == pytest.approx(np.mean([e[0] for e in expected]))
    steps = sum(len(one.ids) - 4 for one in texts)
    assert found.handoffs.value == pytest.approx(sum(e[1] for e in expected) / steps)
    assert found.phase_steps.value == pytest.approx(
        sum(len(e[2]) for e in expected) / (steps - 2 * 3)
    )


def test_independent_steps_have_phases_by_the_seeds_rule_everywhere():
    found = seed_generation([text(34, seed) for seed in range(5)], list("abcde"), E, seed=0)
    assert found.phase_steps.value > 0.9
    assert found.phase_steps.p > 0.05
    assert found.consistency.null_low < found.consistency.value < found.consistency.null_high


def test_a_text_of_one_token_has_no_consistency():
    found = seed_generation([text(5, 0)], ["a"], E, seed=0)
    assert found.texts[0].consistency is None
    assert found.consistency.value is None
    assert found.phase_steps.caveat == "too few steps"
