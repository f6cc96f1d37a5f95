import msgspec
import numpy as np
import pytest
from scipy.stats import entropy

from moetui.analyses.cold_experts import cold_experts
from moetui.analyses.expert_load import RunLoad
from moetui.stats import load_indices
from tests.builders import make_runs


def run(hits, tokens, k=1, decode=None, decode_tokens=0):
    """A run of one layer."""
    prefill = np.array([hits], np.int64)
    generated = np.zeros_like(prefill) if decode is None else np.array([decode], np.int64)
    return RunLoad((0,), (len(hits),), k, prefill, generated, tokens, decode_tokens)


def even_runs(prompts, tokens, E, k, seed=0):
    """Runs of one layer whose router chooses at random."""
    rng = np.random.default_rng(seed)
    runs = []
    for _ in range(prompts):
        chosen = rng.permuted(np.tile(np.arange(E), (tokens, 1)), axis=1)[:, :k]
        runs.append(run(np.bincount(chosen.ravel(), minlength=E), tokens, k))
    return runs


def test_nothing_in_gives_nothing_out():
    assert cold_experts([]) is None
    assert cold_experts(make_runs(moe_layers=())) is None


def test_counts_by_hand():
    # 100 tokens over 4 experts, uniform 25 %: thresholds 2.5, 6.25, 12.5 and 1 tokens.
    found = cold_experts([run([90, 8, 2, 0], 100)])
    layer = found.layers[0]
    assert layer.never_fired.value == 1
    assert [below.value for below in layer.below] == [2, 2, 3, 1]
    assert layer.for_90.value == 1
    assert layer.entropy.value == pytest.approx(entropy([90, 8, 2], base=4))


@pytest.mark.parametrize(
    ("hits", "carriers"), [([25, 25, 25, 25], 4), ([90, 5, 5, 0], 1), ([80, 10, 10, 0], 2)]
)
def test_the_fewest_experts_that_carry_ninety_percent(hits, carriers):
    assert cold_experts([run(hits, 100)]).layers[0].for_90.value == carriers


def test_prompt_and_generation_have_their_own_entropy():
    found = cold_experts([run([10, 0], 10, decode=[5, 5], decode_tokens=10)])
    layer = found.layers[0]
    assert layer.entropy_prefill.value == pytest.approx(0)
    assert layer.entropy_decode.value == pytest.approx(1)
    assert (layer.entropy_prefill.n_tokens, layer.entropy_decode.n_tokens) == (10, 10)
    assert cold_experts([run([10, 0], 10)]).layers[0].entropy_decode.value is None


def test_chance_levels_are_what_an_even_router_shows():
    E, k, tokens = 16, 2, 30
    drawn = [cold_experts(even_runs(1, tokens, E, k, seed)).layers[0] for seed in range(400)]
    layer = drawn[0]
    mean = np.mean([d.never_fired.value for d in drawn])
    assert mean == pytest.approx(layer.never_fired.null_mean, abs=0.1)
    below = np.mean([[b.value for b in d.below] for d in drawn], axis=0)
    assert below == pytest.approx([b.null_mean for b in layer.below], abs=0.25)
    assert np.mean([d.entropy.value for d in drawn]) == pytest.approx(
        layer.entropy.null_mean, abs=0.003
    )


@pytest.mark.parametrize(("E", "k", "tokens"), [(8, 2, 3), (16, 4, 60), (10, 2, 400), (64, 8, 100)])
def test_an_even_router_needs_as_many_experts_for_ninety_percent_as_chance_says(E, k, tokens):
    # Experts are whole: half an expert too few in every layer would be four in a model of eight.
    rng = np.random.default_rng(1)
    needed = []
    for _ in range(400):
        chosen = rng.permuted(np.tile(np.arange(E), (tokens, 1)), axis=1)[:, :k]
        hits = sorted(np.bincount(chosen.ravel(), minlength=E).tolist(), reverse=True)
        goal = 9 * k * tokens  # tenths of all choices
        needed.append(next(n for n in range(1, E + 1) if 10 * sum(hits[:n]) >= goal))
    chance = cold_experts(even_runs(1, tokens, E, k)).layers[0].for_90.null_mean
    assert chance == pytest.approx(np.mean(needed), abs=0.15)


def test_ten_tokens_of_an_even_router_look_cold_and_chance_says_so():
    layer = cold_experts(even_runs(1, 10, 64, 2)).layers[0]
    assert layer.never_fired.value > 40
    assert layer.never_fired.null_mean == pytest.approx(64 * (1 - 2 / 64) ** 10)


def test_below_twenty_prompts_there_is_no_verdict():
    found = cold_experts(even_runs(19, 50, 8, 2))
    assert found.layers[0].cold is found.layers[0].undecided is found.layers[0].dead is None
    assert found.low is found.high is None
    assert "too few prompts" in found.caveat


def test_an_even_router_has_no_cold_experts():
    layer = cold_experts(even_runs(40, 100, 8, 2)).layers[0]
    assert layer.cold == [0, 0, 0, 0]
    assert layer.undecided == [0, 0, 0, 0]


def test_cold_needs_an_upper_limit_below_the_threshold():
    # Expert 0 has 0.2 % in every prompt alike; uniform is 25 %.
    rng = np.random.default_rng(0)
    runs = []
    for _ in range(40):
        rare = int(rng.random() < 0.5)
        rest = rng.multinomial(250 - rare, [1 / 3] * 3)
        runs.append(run([rare, *rest], 250))
    found = cold_experts(runs)
    assert found.high[0][0] < 0.01
    assert found.layers[0].cold == [1, 1, 1, 1]
    assert found.layers[0].dead == 0


def test_an_expert_used_by_one_prompt_only_is_undecided():
    # Pooled under 0.1× uniform, yet a resample may hold the prompt several times.
    runs = [run([0, 20, 20], 40) for _ in range(24)]
    runs.append(run([30, 5, 5], 40))
    layer = cold_experts(runs).layers[0]
    assert layer.below[0].value == 1
    assert layer.cold[0] == 0
    assert layer.undecided[0] >= 1


def test_an_expert_that_every_token_uses_is_decided():
    rng = np.random.default_rng(0)
    runs = [run([50, *rng.multinomial(50, [1 / 3] * 3)], 50, k=2) for _ in range(25)]
    found = cold_experts(runs)
    assert found.layers[0].undecided == found.layers[0].cold == [0, 0, 0, 0]
    assert found.low[0][0] == pytest.approx(1 - 3 / found.n_effective[0][0])
    assert found.high[0][0] == 1.0
    every = cold_experts([run([10, 10, 10], 10, k=3) for _ in range(300)])  # k = E
    assert every.layers[0].undecided == [0, 0, 0, 0]


def test_no_hit_means_dead_only_with_enough_effective_tokens():
    def silent(prompts, tokens):
        rng = np.random.default_rng(0)
        return [run([0, *rng.multinomial(tokens, [1 / 3] * 3)], tokens) for _ in range(prompts)]

    few, many = cold_experts(silent(20, 5)), cold_experts(silent(20, 100))
    # A tenth of the minimum size, 300 effective tokens, is the least for any verdict.
    assert (few.layers[0].never_fired.value, few.layers[0].dead) == (1, None)
    assert few.layers[0].cold is few.layers[0].undecided is None
    assert "too few tokens for a verdict in 1 of 1 layers" in few.caveat
    assert (many.layers[0].never_fired.value, many.layers[0].dead) == (1, 1)
    assert many.high[0][0] == pytest.approx(3 / 2000, rel=0.5)


def test_limits_hold_the_observed_share():
    found = cold_experts(even_runs(30, 50, 16, 4))
    shares = np.array(found.hits) / 1500
    assert (np.array(found.low) <= shares).all()
    assert (shares <= np.array(found.high)).all()


def test_verdicts_repeat():
    runs = even_runs(25, 40, 8, 2)
    assert msgspec.json.encode(cold_experts(runs)) == msgspec.json.encode(cold_experts(runs))


def test_experts_that_a_layer_does_not_have_are_not_cold():
    found = cold_experts(make_runs(4, N=2, E=8, k=4, layer_experts={1: 3}))
    assert (found.layers[1].experts, found.layers[1].never_fired.value) == (3, 0)
    assert found.pooled.experts == 11


def test_the_pool_sums_its_layers():
    found = cold_experts(make_runs(3, N=3, E=32, k=2))
    for name in ("never_fired", "for_90"):
        assert getattr(found.pooled, name).value == sum(
            getattr(load, name).value for load in found.layers
        )
    below = np.sum([[b.value for b in load.below] for load in found.layers], axis=0)
    assert [b.value for b in found.pooled.below] == below.tolist()


def test_entropy_is_that_of_the_load_indices():
    runs = make_runs(3, N=1, E=16, k=4)
    counts = np.sum([r.counts for r in runs], axis=0)[0]
    indices = load_indices(counts, 4)
    assert cold_experts(runs).layers[0].entropy.value == indices.entropy_normalized


def test_it_survives_json():
    text = msgspec.json.encode(cold_experts(even_runs(20, 10, 8, 2)))
    assert msgspec.json.decode(text)["pooled"]["layer"] is None


def test_too_few_effective_tokens_for_one_percent_are_said():
    assert "effective tokens" in cold_experts(even_runs(30, 20, 8, 2)).caveat
    assert cold_experts(even_runs(100, 100, 8, 2)).caveat is None


def test_a_share_that_equals_the_threshold_is_not_below_it():
    # 7 of 700 tokens is 1 %, and 0.01 * 700 is a little more than 7.
    assert cold_experts([run([693, 7], 700)]).layers[0].below[3].value == 0
