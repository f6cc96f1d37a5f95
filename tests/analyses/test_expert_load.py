import numpy as np

from moetui.analyses.expert_load import expert_counts, run_load, total_load
from tests.builders import make_recording, make_runs, make_trace


def test_every_token_counts_each_of_its_experts_once():
    trace = make_trace(T=5, N=2, E=6, k=3)
    counts = expert_counts(trace)
    for layer in range(2):
        for expert in range(6):
            assert counts[layer, expert] == (trace.expert_ids[:, layer] == expert).any(-1).sum()


def test_prompt_and_generation_are_kept_apart():
    load = run_load(make_recording(4, 3, E=8, k=2).trace())
    assert (load.prefill_tokens, load.decode_tokens, load.tokens) == (4, 3, 7)
    assert (load.prefill.sum(1) == 4 * 2).all()
    assert (load.decode.sum(1) == 3 * 2).all()


def test_padded_ids_are_not_counted_and_missing_experts_are_known():
    load = run_load(make_trace(T=4, N=2, E=8, k=4, layer_experts={1: 3}))
    assert load.experts == (8, 3)
    assert load.counts[1].tolist() == [4, 4, 4, 0, 0, 0, 0, 0]


def test_the_total_is_the_sum_of_runs():
    runs = make_runs(3)
    total = total_load(runs)
    assert (total.counts == np.sum([run.counts for run in runs], axis=0)).all()
    assert total.tokens == sum(run.tokens for run in runs)
