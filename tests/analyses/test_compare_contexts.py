from dataclasses import replace

import msgspec
import numpy as np
import pytest
from scipy import stats

from moetui.analyses.alignment import Context
from moetui.analyses.compare_contexts import (
    ONE_PAIR,
    OTHER_TOKENS,
    SAME_CONTEXT,
    UNEVEN,
    UNTRAINED,
    compare_contexts,
)
from moetui.analyses.expert_load import RunLoad
from tests.builders import make_runs, make_trace


def pair(row_a=2, row_b=3, **options):
    """Rows of two runs of one model, all token ids different in the two but for row 0."""
    a = make_trace(seed=0, **options)
    b = make_trace(seed=1, **options)
    b = replace(b, token_ids=b.token_ids + 30)
    return Context.of(a, row_a), Context.of(b, row_b)


def used(ids, weights, E):
    dense = np.zeros(E)
    dense[ids[ids >= 0]] = weights[ids >= 0]
    return dense


def test_a_token_beside_itself_is_equal_and_said_to_be_so_by_construction():
    trace = make_trace(6, 4, 16, 4)
    found = compare_contexts(Context.of(trace, 3), Context.of(trace, 3))
    assert found.same_id and found.same_context
    assert (found.above, found.below, found.above_expected) == (0, 0, 0)
    for layer in found.layers:
        assert layer.level is None
        assert layer.overlap.value == 1.0 and layer.variation.value == 0.0
        assert layer.shared.value == 4 and not layer.lost and not layer.gained
        assert [u.a for u in layer.both] == [u.b for u in layer.both]
        assert layer.aligned.value is None and layer.aligned.n_tokens == 0
    assert all(p.same and p.a == p.b for p in found.lens)
    assert found.lens[-1].a_in_b == found.lens[-1].b_in_a == 1
    assert found.caveats == [SAME_CONTEXT]


@pytest.mark.parametrize(("E", "k"), [(16, 4), (64, 8), (8, 2)])
def test_sets_weights_and_chance_equal_an_independent_count(E, k):
    a, b = pair(E=E, k=k)
    found = compare_contexts(a, b)
    law = stats.hypergeom(E, k, k)
    assert found.null.name == "uniform" and found.null.prompts == 0
    above = 0
    for row, layer in enumerate(found.layers):
        (one, i), (two, j) = a.located, b.located
        first, second = set(one.expert_ids[i, row].tolist()), set(two.expert_ids[j, row].tolist())
        assert {u.expert for u in layer.both} == first & second
        assert {u.expert for u in layer.lost} == first - second
        assert {u.expert for u in layer.gained} == second - first
        assert layer.overlap.value == pytest.approx(len(first & second) / len(first | second))
        x = used(one.expert_ids[i, row], one.expert_weights[i, row], E)
        y = used(two.expert_ids[j, row], two.expert_weights[j, row], E)
        variation = np.abs(x / x.sum() - y / y.sum()).sum() / 2
        assert layer.variation.value == pytest.approx(variation, rel=1e-5)
        for u in (*layer.both, *layer.lost, *layer.gained):
            assert u.a == (pytest.approx(x[u.expert]) if u.expert in first else None)
            assert u.b == (pytest.approx(y[u.expert]) if u.expert in second else None)
        assert layer.shared.null_mean == pytest.approx(law.mean())
        band = (layer.shared.null_low, layer.shared.null_high)
        assert band == (law.ppf(0.025), law.ppf(0.975))
        shared = np.arange(k + 1)
        assert layer.overlap.null_mean == pytest.approx(
            law.pmf(shared) @ (shared / (2 * k - shared))
        )
        assert layer.overlap.null_high == pytest.approx(band[1] / (2 * k - band[1]))
        assert layer.level == ("above" if layer.shared.value > band[1] else "inside")
        above += layer.level == "above"
    assert found.above == above and found.below == 0
    assert found.above_expected == pytest.approx(len(found.layers) * law.sf(law.ppf(0.975)))


def test_total_variation_by_chance_lies_in_its_band_and_matches_random_placements():
    a, b = pair(E=16, k=4)
    layer = compare_contexts(a, b).layers[0]
    (one, i), (two, j) = a.located, b.located
    x = one.expert_weights[i, 0] / one.expert_weights[i, 0].sum()
    y = two.expert_weights[j, 0] / two.expert_weights[j, 0].sum()
    rng = np.random.default_rng(5)
    drawn = []
    for _ in range(4000):
        first, second = np.zeros(16), np.zeros(16)
        first[rng.permutation(16)[:4]], second[rng.permutation(16)[:4]] = x, y
        drawn.append(np.abs(first - second).sum() / 2)
    null = layer.variation
    assert null.null_mean == pytest.approx(np.mean(drawn), abs=0.015)
    # Few values are possible, so the limit is judged by how much lies beyond it.
    assert 0.015 < np.mean(np.array(drawn) <= null.null_low + 1e-9) < 0.035
    assert null.null_high == 1.0 and null.seed is not None


def test_a_and_b_may_change_places():
    a, b = pair()
    there, back = compare_contexts(a, b), compare_contexts(b, a)
    assert (there.a, there.b) == (back.b, back.a)
    for one, two in zip(there.layers, back.layers, strict=True):
        assert [u.expert for u in one.lost] == [u.expert for u in two.gained]
        assert {u.expert for u in one.both} == {u.expert for u in two.both}
        assert (one.shared, one.overlap, one.level) == (two.shared, two.overlap, two.level)
        assert one.variation.value == pytest.approx(two.variation.value)
        for name in ("null_mean", "null_low", "null_high"):
            there_, back_ = getattr(one.variation, name), getattr(two.variation, name)
            assert there_ == pytest.approx(back_)
    for one, two in zip(there.lens, back.lens, strict=True):
        assert (one.a, one.b, one.a_in_b, one.b_in_a) == (two.b, two.a, two.b_in_a, two.a_in_b)


def test_layers_with_fewer_experts_have_their_own_chance():
    a, b = pair(N=4, E=16, k=4, moe_layers=(1, 2, 3), layer_experts={2: 3, 3: 8})
    found = compare_contexts(a, b)
    assert [layer.layer for layer in found.layers] == [1, 2, 3]
    assert [layer.experts for layer in found.layers] == [16, 3, 8]
    full, all_run, half = found.layers
    assert full.shared.null_mean == pytest.approx(1) and half.shared.null_mean == pytest.approx(2)
    # All three experts run at both: nothing else is possible, so nothing is above chance.
    assert (all_run.shared.value, all_run.shared.null_mean) == (3, pytest.approx(3))
    assert all_run.level == "inside" and all_run.overlap.value == 1.0


def test_tokens_of_different_models_are_refused():
    a = Context.of(make_trace(), 1)
    b = Context.of(make_trace(info={"digest": "f" * 16, "name": "another"}), 1)
    with pytest.raises(ValueError, match="other experts"):
        compare_contexts(a, b)


def test_dense_models_are_compared_by_the_lens_alone():
    a, b = pair(moe_layers=())
    found = compare_contexts(a, b, make_runs(20, moe_layers=()))
    assert found.layers == [] and found.above == 0 and found.caveats == []
    assert found.routing_reason == "synthetic has no routing to compare"
    assert len(found.lens) == found.num_layers


def test_the_lens_names_top_tokens_and_the_place_of_a_s_answer():
    a, b = pair(N=6)
    found = compare_contexts(a, b)
    one, two = a.located[0].lens, b.located[0].lens
    for layer, lens in enumerate(found.lens):
        assert lens.a.token_id == one.token_ids[2, layer, 0]
        assert lens.b.token_id == two.token_ids[3, layer, 0]
        assert lens.same == (lens.a.token_id == lens.b.token_id)
        listed = two.token_ids[3, layer].tolist()
        answer = int(one.answer_ids[2])
        assert lens.a_in_b == (listed.index(answer) + 1 if answer in listed else None)
    assert found.listed == 5 and found.lens_reason is None


@pytest.mark.parametrize(("at", "named"), [((2, 5), "A"), ((5, 2), "B"), ((2, 2), "A and B")])
def test_a_lens_that_was_not_read_is_named(at, named):
    a, b = pair(*at, lens_positions=[5])
    found = compare_contexts(a, b)
    assert found.lens == [] and found.lens_reason.endswith(f"the token of {named}")
    assert found.layers


def test_different_ids_are_said_to_be_different_and_equal_ones_are_found():
    a, b = make_trace(seed=0, tokens=["x", " 127", "y", "127", "z", "x"]), make_trace(seed=1)
    b = replace(
        b,
        tokens=("127", "x", " 127", "x", " 127", "q"),
        token_ids=np.array([40, 0, 1, 0, 1, 41], np.int32),
    )
    found = compare_contexts(Context.of(a, 1), Context.of(b, 0))
    assert not found.same_id and found.alike and found.elsewhere == [2, 4]
    assert OTHER_TOKENS in found.caveats and UNTRAINED not in found.caveats
    other = compare_contexts(Context.of(a, 4), Context.of(b, 5))
    assert not other.same_id and not other.alike and other.elsewhere == []
    same = compare_contexts(Context.of(a, 1), Context.of(b, 2))
    assert same.same_id and not same.alike and same.elsewhere == [4]
    assert same.caveats == [ONE_PAIR, UNTRAINED, UNEVEN]


def test_aligned_tokens_give_a_mean_with_its_size_and_chance():
    a, b = pair(row_a=5, row_b=5, T=6)
    ids = np.array([60, 1, 61, 3, 4, 5], np.int32)
    b = Context.of(replace(b.located[0], token_ids=ids), 5)
    found = compare_contexts(a, b)
    assert found.alignment.rows_a == [1, 3, 4, 5]
    one, two = a.located[0].expert_ids, b.located[0].expert_ids
    shared = np.arange(5)
    chance = stats.hypergeom(16, 4, 4).pmf(shared) @ (shared / (8 - shared))
    for row, layer in enumerate(found.layers):
        sets = [(set(one[i, row].tolist()), set(two[i, row].tolist())) for i in (1, 3, 4, 5)]
        wanted = np.mean([len(x & y) / len(x | y) for x, y in sets])
        assert layer.aligned.value == pytest.approx(wanted)
        assert layer.aligned.null_mean == pytest.approx(chance)
        assert (layer.aligned.n_tokens, layer.aligned.n_documents) == (4, 1)
        assert layer.aligned.ci_low is None and "independent" in layer.aligned.caveat


def test_missing_weights_give_no_number():
    a, b = pair()
    trace = b.located[0]
    holed = replace(trace, expert_weights=np.full_like(trace.expert_weights, np.nan))
    layer = compare_contexts(a, Context.of(holed, 3)).layers[0]
    assert layer.variation.value is None and "no weights" in layer.variation.caveat
    assert layer.shared.value is not None


def loads(count, E=16, k=4, L=4, tokens=50, seed=0):
    """Runs of a router with favourites."""
    rng = np.random.default_rng(seed)
    taste = rng.normal(size=(L, E)) * 1.5
    made = []
    for _ in range(count):
        ids = np.argsort(-(taste + rng.gumbel(size=(tokens, L, E))), axis=-1)[..., :k]
        counts = np.stack([np.bincount(ids[:, row].ravel(), minlength=E) for row in range(L)])
        made.append(RunLoad(tuple(range(L)), (E,) * L, k, counts, np.zeros_like(counts), tokens, 0))
    return tuple(made)


def test_from_twenty_prompts_on_chance_follows_the_load_of_the_session():
    a, b = pair()
    few, many = loads(19), loads(20)
    assert compare_contexts(a, b, few).null.name == "uniform"
    found = compare_contexts(a, b, many)
    assert (found.null.name, found.null.prompts) == ("session load", 20)
    share = sum(run.counts for run in many) / 1000
    for row, layer in enumerate(found.layers):
        assert layer.shared.null_mean == pytest.approx((share[row] ** 2).sum(), rel=2e-3)
        assert layer.shared.null_mean > 16 / 16  # favourites are shared more than k²/E
    assert UNEVEN not in found.caveats


def test_loads_in_which_experts_are_missing_are_no_chance_level():
    a, b = pair()
    runs = list(loads(20))
    counts = runs[0].prefill.copy()
    counts[0, counts[0].argmax()] -= 1  # one choice less on record than the tokens made
    runs[0] = replace(runs[0], prefill=counts)
    assert compare_contexts(a, b, runs).null.name == "uniform"


def test_unrelated_choices_are_above_the_band_as_rarely_as_promised():
    rng = np.random.default_rng(3)
    trace = make_trace(400, 6, 12, 4, with_parts=False, with_lens=False)
    ids = np.argsort(rng.random((400, 6, 12)), axis=-1)[..., :4].astype(np.int16)
    trace = replace(trace, expert_ids=ids, token_ids=np.arange(400, dtype=np.int32))
    pairs = [
        compare_contexts(Context.of(trace, row), Context.of(trace, row + 1))
        for row in range(0, 400, 2)
    ]
    above = np.array([found.above for found in pairs])
    expected = pairs[0].above_expected
    assert expected <= 6 * 0.025
    # 1200 independent cells.
    error = np.sqrt(expected / 6 * (1 - expected / 6) * 1200) / 200
    assert abs(above.mean() - expected) < 4 * error


def test_a_router_with_random_weights_shares_more_at_equal_tokens_and_no_more_at_others():
    """What the pane would show of an untrained model, and why it claims nothing of it."""
    rng = np.random.default_rng(0)
    E, k, H, T, L = 16, 4, 64, 60, 8
    words, routers = rng.normal(size=(T, H)), rng.normal(size=(L, H, E))

    def run(seed, order):
        around = np.random.default_rng(seed).normal(size=(T, L, H))
        z = np.einsum("tlh,lhe->tle", words[order, None] + 0.7 * around, routers)
        trace = make_trace(T, L, E, k, with_parts=False, with_lens=False)
        ids = np.argsort(-z, axis=-1)[..., :k].astype(np.int16)
        return replace(trace, expert_ids=ids, token_ids=order.astype(np.int32))

    forwards = np.arange(T)
    a, b = run(1, forwards), run(2, forwards[::-1])
    same = [compare_contexts(Context.of(a, i), Context.of(b, T - 1 - i)) for i in range(T)]
    other = [compare_contexts(Context.of(a, i), Context.of(b, i)) for i in range(T)]
    assert all(found.same_id for found in same) and not any(found.same_id for found in other)
    expected = same[0].above_expected
    assert np.mean([found.above for found in same]) > 10 * expected
    assert np.mean([found.above for found in other]) < 10 * expected
    assert all(UNTRAINED in found.caveats for found in same)


def test_what_it_says_is_json():
    a, b = pair(layer_experts={1: 3})
    found = compare_contexts(a, b)
    assert msgspec.json.decode(msgspec.json.encode(found))["layers"][0]["level"] is not None
