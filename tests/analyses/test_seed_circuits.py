"""The seed's circuits against its rule, written down once more in plain loops."""

import numpy as np
import pytest

from moetui.analyses.seed_circuits import seed_circuits, weight_profiles
from tests.builders import make_trace


def published(profiles, least=0.3):
    """(consistency, chains from the first layer that cover three tenths of the layers)."""
    L, _, E = profiles.shape
    table = np.zeros((L - 1, E, E))
    for layer in range(L - 1):
        for i in range(E):
            for j in range(E):
                a, b = profiles[layer][:, i], profiles[layer + 1][:, j]
                if a.std() > 1e-10 and b.std() > 1e-10:
                    table[layer, i, j] = np.corrcoef(a, b)[0, 1]
    scores = []
    for layer in range(L - 1):
        pairs = sorted(np.ndindex(E, E), key=lambda ij, t=table[layer]: -t[ij])
        rows, columns, kept = set(), set(), []
        for i, j in pairs:
            if i not in rows and j not in columns and table[layer, i, j] > least:
                rows.add(i)
                columns.add(j)
                kept.append(table[layer, i, j])
        scores.append(max(0.0, np.mean(kept)) if kept else 0.0)
    chains = []
    for expert in range(E):
        chain = [expert]
        for layer in range(L - 1):
            best = int(table[layer, chain[-1]].argmax())
            if table[layer, chain[-1], best] < least:
                break
            chain.append(best)
        if len(chain) / L >= 0.3:
            chains.append(tuple(chain))
    return np.mean(scores), set(chains)


def profiles_of(*traces, E=8):
    return weight_profiles(traces, E)


def test_the_seeds_numbers_follow_its_rule():
    profiles = profiles_of(*(make_trace(7, 5, 8, 2, seed=seed) for seed in range(4)))
    found = seed_circuits(profiles, range(5), ["a"] * 4, seed=0)
    consistency, chains = published(profiles)
    assert found.consistency.value == pytest.approx(consistency)
    assert {tuple(p.expert for p in one.places) for one in found.found} == chains
    assert found.pipelines.value == len(chains)


def test_profiles_are_weights_and_nothing_where_an_expert_was_not_chosen():
    trace = make_trace(5, 3, 8, 2)
    profiles = profiles_of(trace)
    for layer in range(3):
        for t in range(5):
            rows = trace.expert_ids[t, layer], trace.expert_weights[t, layer]
            weights = dict(zip(*rows, strict=True))
            for expert in range(8):
                assert profiles[layer, t, expert] == pytest.approx(weights.get(expert, 0.0))


def test_unrelated_layers_have_the_seeds_consistency_all_the_same():
    """Six prompts have about 30 positions: among so few, greedy matching finds correlations."""
    profiles = profiles_of(*(make_trace(5, 6, 8, 2, seed=seed) for seed in range(6)))
    found = seed_circuits(profiles, range(6), ["a"] * 6, seed=0)
    assert found.consistency.value > 0.3
    assert found.consistency.p > 0.05
    assert found.consistency.null_low < found.consistency.value < found.consistency.null_high


def test_layers_that_copy_one_another_stand_out_from_the_null():
    one = profiles_of(*(make_trace(5, 1, 8, 2, seed=seed) for seed in range(6)))
    found = seed_circuits(np.concatenate([one, one, one]), [2, 5, 7], ["a"] * 6, seed=0)
    assert found.consistency.value == pytest.approx(1.0)
    assert found.consistency.p == 0.001
    chain = found.found[0]
    assert [p.layer for p in chain.places] == [2, 5, 7]
    assert chain.coverage == 1.0 and chain.consistency == pytest.approx(1.0)
