"""One sequence step by step: overlaps, handoffs and changes against recounts and planted truths."""

import numpy as np
import pytest

from moetui.analyses.expert_load import run_load, total_load
from moetui.analyses.generation_steps import FEW, generation_steps, mean_overlap, steps_of
from moetui.analyses.phase_changes import change_scores, peaks, window_distances
from moetui.analyses.routing_sets import chance_overlap, expert_sets, members, shared, step_overlap
from tests.builders import make_trace


def drawn(T, L, E, k, seed=0, favoured=None):
    """Independent sets: int16 [T, L, k]; `favoured` experts [T, n] are chosen where given."""
    rng = np.random.default_rng(seed)
    score = rng.random((T, L, E))
    if favoured is not None:
        for t, some in enumerate(favoured):
            score[t][:, list(some)] += 1.0
    return np.argsort(-score, axis=-1)[..., :k].astype(np.int16)


@pytest.mark.parametrize("E", [5, 64, 70, 130])
def test_the_overlap_of_a_step_is_that_of_the_sets(E):
    experts = drawn(9, 3, E, 4)
    found = step_overlap(experts, E)
    for t in range(8):
        for layer in range(3):
            both = set(experts[t, layer]) & set(experts[t + 1, layer])
            assert found[t, layer] == len(both) / 4


def test_padding_is_no_expert_that_two_tokens_share():
    experts = np.array([[[1, 2, -1]], [[2, 5, -1]]], np.int16)
    assert step_overlap(experts, 6).tolist() == [[0.5]]
    assert shared(expert_sets(experts, 6)[0], expert_sets(experts, 6)[1]).tolist() == [1]


def test_chance_is_the_mean_overlap_of_all_pairs_of_tokens():
    experts = drawn(12, 2, 10, 3, favoured=[(0, 1)] * 12)
    load = members(experts, 10).mean(axis=0)
    pairs = [(a, b) for a in range(12) for b in range(12) if a != b]
    for layer in range(2):
        overlaps = [len({*experts[a, layer]} & {*experts[b, layer]}) / 3 for a, b in pairs]
        assert chance_overlap(load, tokens=12)[layer] == pytest.approx(np.mean(overlaps))
    assert chance_overlap(load) == pytest.approx((load**2).sum(-1) / 3)


def test_handoffs_name_who_left_and_who_came():
    experts = np.array([[[4, 1, 2]], [[2, 3, 4]], [[2, 3, 4]]], np.int16)
    found = steps_of(
        experts, [0, 1, 2], np.full((1, 6), 0.5), layers=[0], num_layers=1, prompt_tokens=2,
        load_tokens=100, prompts=3,
    )  # fmt: skip
    first, second = (step[0] for step in found.handoffs)
    assert (first.left, first.came) == ([1], [3])
    assert (second.left, second.came) == ([], [])
    assert found.overlap == [[pytest.approx(2 / 3)], [1.0]]
    # The step to token 1 is within the prompt, that to token 2 to a generated one.
    assert found.prefill.value == pytest.approx(2 / 3)
    assert found.decoded.value == 1.0


def test_a_trace_is_described_beside_the_loads_of_its_session_and_claims_nothing():
    runs = [make_trace(20, 4, 16, 4, seed=seed, prompt_tokens=12) for seed in range(3)]
    load = total_load([run_load(run) for run in runs])
    found = generation_steps(runs[0], load, prompts=3)
    assert found.overlap == step_overlap(runs[0].expert_ids, 16).tolist()
    assert found.chance == pytest.approx(chance_overlap(load.counts / 60, 60).tolist())
    assert found.uniform == [0.25] * 4
    assert FEW in found.caveat
    assert all(one.ci_low is None and one.p is None for one in found.by_layer)
    assert found.by_layer[2].value == pytest.approx(np.mean([row[2] for row in found.overlap]))
    assert found.changes.changes is None and "too few" in found.changes.reason


def test_a_dense_model_and_a_single_token_have_no_steps():
    load = total_load([run_load(make_trace(4))])
    assert generation_steps(make_trace(1), load, prompts=1) is None
    assert generation_steps(make_trace(4, moe_layers=()), load, prompts=1) is None


def test_few_sequences_have_a_mean_but_no_interval():
    few = mean_overlap([3.0] * 19, [10] * 19, 0.25, seed=0)
    assert (few.value, few.null_mean, few.ci_low) == (pytest.approx(0.3), 0.25, None)
    assert FEW in few.caveat
    rng = np.random.default_rng(0)
    enough = mean_overlap(rng.normal(3, 1, 60), [10] * 60, 0.25, seed=0)
    assert enough.ci_low < 0.3 < enough.ci_high


def test_the_distance_of_windows_is_hellingers():
    experts = drawn(30, 2, 8, 2)
    found = window_distances(members(experts, 8), 5)
    assert found.shape == (21, 2)
    for t in (5, 17, 25):
        for layer in range(2):
            p, q = (
                np.bincount(experts[rows, layer].ravel(), minlength=8) / 10
                for rows in (slice(t - 5, t), slice(t, t + 5))
            )
            apart = np.sqrt(np.square(np.sqrt(p) - np.sqrt(q)).sum() / 2)
            assert found[t - 5, layer] == pytest.approx(apart)


def test_peaks_are_the_highest_within_reach_and_named_once():
    assert peaks([0, 3, 1, 0, 0, 2, 2, 0], 2) == [1, 5]
    assert peaks([0.0, 0.0, 0.0], 2) == []


def test_a_planted_change_is_found_at_its_step_when_tokens_repeat():
    T, at = 120, 67
    favoured = [(0, 1, 2, 3) if t < at else (8, 9, 10, 11) for t in range(T)]
    ids = np.random.default_rng(1).integers(0, 6, T)
    experts = drawn(T, 3, 16, 4, favoured=favoured)
    found = change_scores(experts, ids, 16, permutations=999, seed=0)
    assert found.changes == [at]
    assert found.peaks[0] == at
    assert found.q[at - found.window] <= 0.01


def test_a_change_that_the_tokens_make_is_none():
    T, at = 120, 67
    rng = np.random.default_rng(1)
    # Two vocabularies, and every token has experts of its own.
    ids = np.where(np.arange(T) < at, rng.integers(0, 6, T), rng.integers(6, 12, T))
    experts = drawn(T, 3, 16, 4, favoured=[(i, (i + 1) % 16) for i in ids])
    found = change_scores(experts, ids, 16, permutations=999, seed=0)
    assert found.changes == []
    # By its height alone it would have been taken for one.
    assert found.peaks[0] == pytest.approx(at, abs=3)


def test_tokens_that_occur_once_allow_no_test():
    experts = drawn(60, 2, 8, 2)
    found = change_scores(experts, np.arange(60), 8, permutations=999, seed=0)
    assert (found.changes, found.q, found.critical) == (None, None, None)
    assert found.reason.startswith("0 of 60 tokens occur again")
    assert found.peaks and len(found.score) == 60 - 2 * found.window + 1


@pytest.mark.slow
def test_independent_routing_rarely_shows_a_change():
    wrong = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        experts = drawn(80, 2, 8, 2, seed=seed)
        found = change_scores(experts, rng.integers(0, 8, 80), 8, permutations=999, seed=seed)
        wrong += bool(found.changes)
    # Expected are 3 of 60 at a family-wise 5 %; more than 8 has a chance of 0.4 %.
    assert wrong <= 8
