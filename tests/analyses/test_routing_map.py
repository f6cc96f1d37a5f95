import math

import msgspec
import numpy as np
import pytest

from moetui.analyses.expert_load import RunLoad
from moetui.analyses.routing_map import difference_map, routing_map, session_map
from tests.builders import make_runs, make_trace


def test_weights_stand_at_the_experts_that_ran_and_nowhere_else():
    trace = make_trace(T=4, N=3, E=8, k=2)
    shown = routing_map(trace, 2)
    for layer in range(3):
        for expert in range(8):
            ran = trace.expert_ids[2, layer].tolist()
            weight = trace.expert_weights[2, layer, ran.index(expert)] if expert in ran else 0
            assert shown.values[layer][expert] == pytest.approx(weight)


def test_an_even_router_would_give_each_chosen_expert_the_mean_weight():
    trace = make_trace(N=1, E=8, k=4)
    assert routing_map(trace, 0).uniform[0] == pytest.approx(trace.expert_weights[0, 0].sum() / 4)


def test_layers_with_fewer_experts_have_no_value_beyond():
    shown = routing_map(make_trace(N=3, E=8, k=4, layer_experts={1: 3}), 0)
    assert [math.isnan(v) for v in shown.values[1]] == [False] * 3 + [True] * 5
    assert len(shown.chosen[1]) == len(shown.weights[1]) == 3
    assert not any(math.isnan(w) for w in shown.weights[1])


def test_full_colour_is_a_round_number_that_nothing_exceeds():
    for seed in range(20):
        shown = routing_map(make_trace(seed=seed), 0)
        most = max(map(max, shown.values))
        assert most <= shown.full
        assert str(shown.full).strip("0.")[:1] in {"1", "2", "5"}


def test_dense_layers_are_left_out_but_counted():
    shown = routing_map(make_trace(N=4, moe_layers=(1, 3)), 0)
    assert (shown.num_layers, shown.layers, len(shown.values)) == (4, [1, 3], 2)


def test_a_difference_is_b_less_a_at_every_expert():
    a, b = (
        make_trace(N=3, E=8, k=2, layer_experts={1: 3}),
        make_trace(N=3, E=8, k=2, seed=1, layer_experts={1: 3}),
    )
    shown = difference_map(a, 2, b, 4)
    first, second = np.array(routing_map(a, 2).values), np.array(routing_map(b, 4).values)
    np.testing.assert_allclose(shown.values, second - first)
    assert np.nanmax(abs(second - first)) <= shown.full
    for row in range(3):
        ran = {*a.expert_ids[2, row].tolist(), *b.expert_ids[4, row].tolist()}
        assert set(shown.chosen[row]) == ran
        sizes = [abs(w) for w in shown.weights[row]]
        assert sizes == sorted(sizes, reverse=True)
        assert shown.weights[row] == [shown.values[row][e] for e in shown.chosen[row]]
    back = difference_map(b, 4, a, 2)
    np.testing.assert_allclose(back.values, -np.array(shown.values))
    assert np.nansum(np.abs(difference_map(a, 2, a, 2).values)) == 0


def test_session_load_is_the_share_of_tokens_over_all_runs():
    def run(counts, tokens):
        zero = np.zeros((1, 3), np.int64)
        return RunLoad((0,), (3,), 1, np.array([counts]), zero, tokens, 0)

    shown = session_map([run([2, 1, 0], 3), run([0, 1, 0], 1)], num_layers=2)
    assert shown.values == [[0.5, 0.5, 0.0]]
    assert shown.uniform == pytest.approx([1 / 3])
    assert (shown.tokens, shown.prompts, shown.num_layers) == (4, 2, 2)


def test_session_load_sums_to_k_in_every_layer():
    shown = session_map(make_runs(3, N=3, E=16, k=4, layer_experts={1: 5}), 3)
    assert np.nansum(shown.values, axis=1) == pytest.approx([4, 4, 4])
    assert shown.uniform == pytest.approx([4 / 16, 4 / 5, 4 / 16])


def test_it_is_json_with_null_for_what_does_not_exist():
    shown = routing_map(make_trace(N=2, E=4, k=2, layer_experts={1: 3}), 0)
    assert msgspec.json.decode(msgspec.json.encode(shown))["values"][1][3] is None
