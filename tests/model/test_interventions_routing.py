"""Interventions in the routing are, bit for bit, models that were built so."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache

import moetui
from moetui.errors import UsageError
from moetui.model import Model
from moetui.model.architecture import examine
from moetui.model.interventions import banned
from moetui.trace import AddLogits, Ban, Deselect, Drop, Force, Remap, join
from tests.model.conftest import FAMILIES
from tests.model.intervened import (
    IDS,
    ROUTING,
    Array,
    banks,
    build,
    changed,
    last_linear,
    linears,
    often,
    over,
    plain,
    set_rows,
    tiny,
)
from tests.model.test_capture import some_ids
from tests.reference.values import DATA

ModelOf = Callable[[str], Model]
CHECKPOINTS = ("demo", *FAMILIES)
# Their routing is not one top-k of scores: the choice cannot be edited alone.
NO_TOP_K = {"phimoe"}
RESELECTING = [name for name in ROUTING if name not in NO_TOP_K]


def again(name: str) -> nn.Module:
    """The network of a checkpoint, loaded once more to be rebuilt by hand."""
    return moetui.load(name if name == "demo" else DATA / name).network


def zeroed(network: nn.Module, expert: int, layers: set[int]) -> nn.Module:
    """An expert that puts out nothing: its last projection and bias are 0."""
    for layer, bank in banks(network):
        if layer in layers:
            last = last_linear(bank)
            set_rows(last, expert, {n: 0 for n in ("weight", "bias") if n in last})
    return network


def copied(network: nn.Module, source: int, target: int, layers: set[int]) -> nn.Module:
    """`source` has the parameters of `target`."""
    for layer, bank in banks(network):
        if layer in layers:
            for linear in linears(bank):
                arrays = {n: np.array(a) for n, a in linear.items() if isinstance(a, mx.array)}
                set_rows(linear, source, {n: a[target] for n, a in arrays.items()})
    return network


def used(model: Model) -> int:
    """An expert of the bank that the last token uses in the last layer."""
    ids = model.trace(IDS, lens=0).expert_ids[-1, -1]
    return int(ids[ids < 8][0])


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_dropped_expert_is_one_whose_down_projection_is_zero(
    model_of: ModelOf, name: str
) -> None:
    model = model_of(name)
    ids, some = some_ids(model, 40), set(model.info.moe_layers[1:])
    whole = set(model.info.moe_layers)
    assert np.array_equal(
        changed(model, ids, Drop(experts=(3,))), plain(zeroed(again(name), 3, whole), ids)
    )
    assert np.array_equal(
        changed(model, ids, Drop(experts=(3,), layers=tuple(some))),
        plain(zeroed(again(name), 3, some), ids),
    )


@pytest.mark.parametrize("name", often(ROUTING))
def test_so_it_is_in_every_architecture(name: str) -> None:
    model = tiny(name)
    chosen = used(model)
    expected = plain(zeroed(build(name), chosen, set(model.info.moe_layers)), IDS)
    assert not np.array_equal(expected, plain(model.network, IDS))
    assert np.array_equal(changed(model, IDS, Drop(experts=(chosen,))), expected)


@pytest.mark.parametrize("name", often(ROUTING))
def test_so_it_is_token_by_token_too(name: str) -> None:
    model = tiny(name)
    network = zeroed(build(name), 2, set(model.info.moe_layers))
    memory, ids = make_prompt_cache(network), IDS[:7]
    generation = model.generate(ids, 5, interventions=[Drop(experts=(2,))])
    logits = np.array(network(mx.array(ids)[None], cache=memory))[0, -1]
    for step in generation:
        assert int(step.token_ids[0]) == int(logits.argmax())
        logits = np.array(network(mx.array(step.token_ids)[None], cache=memory))[0, -1]
        assert np.array_equal(step.logits, logits)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_remapped_expert_is_one_with_the_weights_of_another(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    ids, whole = some_ids(model, 40), set(model.info.moe_layers)
    expected = plain(copied(again(name), 1, 4, whole), ids)
    assert np.array_equal(changed(model, ids, Remap(source=1, target=4)), expected)


@pytest.mark.parametrize("name", often(ROUTING))
def test_so_it_is_in_every_architecture_too(name: str) -> None:
    model = tiny(name)
    chosen = used(model)
    other = (chosen + 1) % 8
    expected = plain(copied(build(name), chosen, other, set(model.info.moe_layers)), IDS)
    assert not np.array_equal(expected, plain(model.network, IDS))
    assert np.array_equal(changed(model, IDS, Remap(source=chosen, target=other)), expected)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_renormalised_weights_keep_their_sum_and_their_proportions(
    model_of: ModelOf, name: str
) -> None:
    model = model_of(name)
    ids, layer = some_ids(model, 40), model.info.moe_layers[0]
    before = model.trace(ids)
    dropped = (int(before.expert_ids[0, 0, 0]), int(before.expert_ids[1, 0, 0]))
    after = model.trace(
        ids, interventions=[Drop(experts=dropped, layers=(layer,), renormalise=True)]
    )
    gone = np.isin(before.expert_ids[:, 0], dropped)
    weights = before.expert_weights[:, 0].astype(np.float64)
    kept = np.where(gone, 0, weights)
    rest = kept.sum(-1, keepdims=True)
    growth = weights.sum(-1, keepdims=True) / np.where(rest == 0, 1, rest)
    np.testing.assert_array_equal(after.expert_ids[:, 0], before.expert_ids[:, 0])
    np.testing.assert_allclose(after.expert_weights[:, 0], kept * growth, rtol=1e-6)
    untouched = ~gone.any(-1)
    assert gone.any() and untouched.any()
    assert np.array_equal(after.expert_weights[untouched, 0], before.expert_weights[untouched, 0])


def test_where_all_experts_of_a_token_are_dropped_nothing_is_added(model_of: ModelOf) -> None:
    model = model_of("mixtral")
    everything = Drop(experts=tuple(range(8)), layers=(1,), renormalise=True)
    trace = model.trace(IDS, streams=True, interventions=[everything])
    assert trace.streams is not None
    assert np.array_equal(trace.streams.leaving[:, 1], trace.streams.at_router[:, 1])


def route(name: str, z: Array, chosen_by: Array, k: int) -> tuple[Array, Array]:
    """Experts [T, k] and weights by the rule of the family's paper, in float64.

    z: the router's logits, from which weights come. chosen_by: what top-k ranks.
    """
    z = z.astype(np.float64)
    ids = np.argsort(-chosen_by, axis=-1, kind="stable")[:, :k]
    if name in {"mixtral", "gpt_oss"}:  # top-k, then softmax
        weights = np.exp(np.take_along_axis(z, ids, -1))
        return ids, weights / weights.sum(-1, keepdims=True)
    weights = np.exp(z - z.max(-1, keepdims=True))
    weights = np.take_along_axis(weights / weights.sum(-1, keepdims=True), ids, -1)
    if name == "qwen3_moe":
        weights = weights / weights.sum(-1, keepdims=True)
    return ids, weights


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("kind", [Ban, Deselect, Force])
def test_the_choice_and_the_weights_follow_the_familys_rule(
    model_of: ModelOf, name: str, kind: type[Ban | Deselect | Force]
) -> None:
    model = model_of(name)
    ids, layer = some_ids(model, 40), model.info.moe_layers[0]
    native = model.trace(ids)
    z = native.router_logits[:, 0]
    experts = (2, 5)
    edited = z.copy()
    edited[:, experts] = np.inf if kind is Force else -1e9
    trace = model.trace(ids, interventions=[kind(experts=experts, layers=(layer,))])
    if kind is not Ban:
        assert trace.selection_scores is not None and native.selection_scores is not None
        assert np.array_equal(trace.selection_scores[:, 0], native.selection_scores[:, 0])
    k = model.info.top_k
    chosen, weights = route(name, edited if kind is Ban else z, edited, k)
    by_id, expected = np.argsort(trace.expert_ids[:, 0], -1), np.argsort(chosen, -1)
    clear = margin(edited, k) > 1e-4
    assert clear.mean() > 0.9
    ours = np.take_along_axis(trace.expert_ids[:, 0], by_id, -1)
    assert np.array_equal(ours[clear], np.take_along_axis(chosen, expected, -1)[clear])
    np.testing.assert_allclose(
        np.take_along_axis(trace.expert_weights[:, 0], by_id, -1)[clear],
        np.take_along_axis(weights, expected, -1)[clear],
        atol=1e-6,
    )


def margin(scores: Array, k: int) -> Array:
    """The gap at the border of the choice."""
    best = -np.sort(-scores, axis=-1)
    gaps: Array = best[:, k - 1] - best[:, k]
    return gaps


@pytest.mark.parametrize("name", often(RESELECTING))
def test_the_next_best_of_the_unmasked_scores_are_chosen_in_every_architecture(
    name: str,
) -> None:
    model = tiny(name)
    k = model.info.top_k
    barred, forced = (0, 3), (1, 6)[: min(2, k)]
    for intervention, best in (
        (Deselect(experts=barred), -np.inf),
        (Force(experts=forced), np.inf),
    ):
        generation = model.generate(IDS, 3, interventions=[intervention])
        trace = join([generation.prompt, *generation])
        assert trace.selection_scores is not None
        scores = trace.selection_scores.astype(np.float64)
        scores[..., intervention.experts] = best
        expected = np.sort(np.argsort(-scores, axis=-1, kind="stable")[..., :k], -1)
        best_first = -np.sort(-scores, axis=-1)
        clear = best_first[..., k - 1] > best_first[..., k] + 1e-6
        assert clear.mean() > 0.5  # masked groups tie
        assert np.array_equal(np.sort(trace.expert_ids, -1)[clear], expected[clear])
        chosen = np.isin(trace.expert_ids, intervention.experts)
        assert not chosen.any() if best < 0 else (chosen.sum(-1) == len(forced)).all()


BIASED = {  # where the bias lives that selects but does not weigh, from the block that routes
    "Klear": "expert_bias",
    "laguna": "gate.e_score_correction_bias",
    "lfm2_moe": "expert_bias",
    "minimax": "e_score_correction_bias",
    "minimax_m3_vl": "e_score_correction_bias",
    "nemotron_h (latent)": "gate.e_score_correction_bias",
    "step3p5": "gate.router_bias",
    "longcat_flash": "router.e_score_correction_bias",
    "deepseek_v41": "gate.e_score_correction_bias",
}


@pytest.mark.parametrize("name", BIASED)
@pytest.mark.parametrize("shift", [-1e3, 1e3])
def test_another_choice_is_another_bias_of_the_selection(name: str, shift: float) -> None:
    """These architectures choose by score + bias and weigh by the score alone."""
    model, network = tiny(name), build(name)
    for site in examine(network).sites.values():
        *path, last = BIASED[name].split(".")
        owner = site.block
        for step in path:
            owner = owner[step]
        bias = np.array(owner[last])
        bias[[1, 4]] += shift
        owner[last] = mx.array(bias)
    expected = plain(network, IDS)
    kind = Deselect if shift < 0 else Force
    ours = changed(model, IDS, kind(experts=(1, 4)))
    assert np.abs(expected - plain(model.network, IDS)).max() > 1e-3 * np.abs(expected).max()
    # The same experts in another order: their sum is rounded differently.
    np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())


COMPILED = ("deepseek_v3", "dots1", "exaone_moe", "glm4_moe", "kimi_linear", "mistral4")


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("kind", [Deselect, Force])
def test_compiled_routers_weigh_the_new_choice_by_their_own_scores(
    name: str, kind: type[Deselect | Force]
) -> None:
    """Sigmoid (mistral4: softmax) of the logits of the chosen, made to add up to 2.5; of the
    logits as they are after other interventions."""
    more = AddLogits(delta=tuple(np.linspace(-1, 1, 8).tolist()))
    trace = tiny(name).trace(IDS, lens=0, interventions=[more, kind(experts=(1, 4))])
    z = np.take_along_axis(trace.router_logits, trace.expert_ids.astype(np.int64), -1)
    z = z.astype(np.float64)
    scores = np.exp(z) if name == "mistral4" else 1 / (1 + np.exp(-z))
    expected = 2.5 * scores / scores.sum(-1, keepdims=True)
    np.testing.assert_allclose(trace.expert_weights, expected, rtol=1e-5)


def test_a_banned_expert_is_one_whose_router_bias_is_a_billion_lower(model_of: ModelOf) -> None:
    model, network = model_of("gpt_oss"), again("gpt_oss")
    for layer in network.layers:
        bias = np.array(layer.mlp.router.bias)
        bias[3] = -1e9
        layer.mlp.router.bias = mx.array(bias)
    ids = some_ids(model, 40)
    assert np.array_equal(changed(model, ids, Ban(experts=(3,))), plain(network, ids))


def test_added_logits_are_an_added_router_bias(model_of: ModelOf) -> None:
    model, network = model_of("gpt_oss"), again("gpt_oss")
    delta = np.random.default_rng(2).normal(size=8).astype(np.float32)
    for layer in network.layers:
        layer.mlp.router.bias = layer.mlp.router.bias + mx.array(delta)
    ids = some_ids(model, 40)
    ours = changed(model, ids, AddLogits(delta=tuple(delta.tolist())))
    np.testing.assert_allclose(ours, plain(network, ids), atol=1e-5 * np.abs(ours).max())


@pytest.mark.parametrize("name", often(ROUTING))
def test_the_router_hands_on_what_it_is_made_to_in_every_architecture(name: str) -> None:
    model = tiny(name)
    native = model.trace(IDS, lens=0)
    z = native.router_logits[:, 0]
    delta = np.random.default_rng(9).normal(size=z.shape[-1]).astype(np.float32)
    added = model.trace(IDS, lens=0, interventions=[AddLogits(delta=tuple(delta.tolist()))])
    assert np.array_equal(added.router_logits[:, 0], z + delta)
    z[:, [0, 2]] = -1e9
    without = model.trace(IDS, lens=0, interventions=[Ban(experts=(0, 2))])
    assert np.array_equal(without.router_logits[:, 0], z)
    held = np.isin(without.expert_ids, (0, 2))  # by a correction bias, or where logits are capped
    if name != "laguna":  # its soft-cap lifts what is banned to a score that is not 0
        assert not without.expert_weights[held].any()
    for trace in (added, without):
        assert np.isfinite(trace.logits).all()
        assert not np.array_equal(trace.logits, native.logits)


@pytest.mark.parametrize("kind", [Deselect, Force])
def test_experts_picked_one_after_the_other_cannot_be_reselected(
    kind: type[Deselect | Force],
) -> None:
    with pytest.raises(UsageError, match="one top-k of scores") as refused:
        tiny("phimoe").trace(IDS, interventions=[kind(experts=(1,))])
    assert "Ban" in refused.value.hint


def test_where_the_routing_cannot_be_read_it_cannot_be_changed() -> None:
    with pytest.raises(UsageError, match="experts as separate modules"):
        over(build("dbrx"), "dbrx").trace(IDS, interventions=[Drop(experts=(1,))])


def test_a_ban_that_leaves_fewer_than_k_gives_the_rest_no_weight(model_of: ModelOf) -> None:
    model = model_of("mixtral")
    trace = model.trace(IDS, interventions=[Ban(experts=tuple(range(7)))])
    last = trace.expert_ids == 7
    assert last.any(-1).all()
    np.testing.assert_allclose(trace.expert_weights[last], 1)
    assert not trace.expert_weights[~last].any()


def test_a_banned_logit_is_finite_in_half_precision() -> None:
    mask = mx.array([True, False])
    for dtype, lowest in ((mx.float16, -65504.0), (mx.bfloat16, -1e9), (mx.float32, -1e9)):
        edited = banned(mask, mx.array([3.0, 2.0], dtype))
        assert edited.dtype == dtype
        np.testing.assert_allclose(np.array(edited.astype(mx.float32)), [lowest, 2], rtol=1e-2)
