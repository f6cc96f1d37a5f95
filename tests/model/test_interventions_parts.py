"""Residual parts are changed where they are added, in the units of the residual stream."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from moetui.errors import UsageError
from moetui.model import Model
from moetui.model import model as model_module
from moetui.model.parts import changed as changed_part
from moetui.trace import AddToPart, Part, PatchPart, ScalePart, Streams
from tests.model.conftest import FAMILIES
from tests.model.intervened import (
    IDS,
    ROUTING,
    Array,
    banks,
    changed,
    last_linear,
    often,
    plain,
    tiny,
)
from tests.model.test_capture import some_ids
from tests.model.test_interventions_routing import again

ModelOf = Callable[[str], Model]
# Hyper-connections carry several streams; attention residuals mix streams of many layers.
NO_PARTS = {"deepseek_v41", "kimi_k3"}
WITH_PARTS = [name for name in ROUTING if name not in NO_PARTS]
# Attention and experts read the same stream and are added side by side.
SIDE_BY_SIDE = {"phixtral"}
SUMS = ("attention", "experts")


def streams(
    model: Model, ids: list[int], *interventions: ScalePart | AddToPart | PatchPart
) -> Streams:
    trace = model.trace(ids, lens=0, streams=True, interventions=interventions)
    assert trace.streams is not None
    return trace.streams


def sides(seen: Streams, part: Part, layer: int) -> tuple[Array, Array]:
    """The stream before and after a part is added, [T, H] each."""
    before, after = ("entering", "at_router") if part == "attention" else ("at_router", "leaving")
    return getattr(seen, before)[:, layer], getattr(seen, after)[:, layer]


def scaled(network: nn.Module, part: Part, factor: float, layers: set[int]) -> nn.Module:
    """The last projection of a part, and its bias, times a power of two or 0: exact."""
    held = dict(banks(network))
    for number, layer in enumerate(network.layers):
        if part == "attention":
            last = layer.self_attn.o_proj
        else:  # a layer that does not route has one down projection
            last = last_linear(held[number]) if number in held else layer.mlp.down_proj
        if number in layers:
            for name in ("weight", "bias"):
                if name in last:
                    last[name] = last[name] * factor
    return network


@pytest.mark.parametrize("name", ["demo", "olmoe", "mixtral", "qwen3_moe"])
@pytest.mark.parametrize("part", SUMS)
@pytest.mark.parametrize("factor", [0.0, 2.0, -0.5])
def test_a_scaled_part_is_a_scaled_last_projection_bit_for_bit(
    model_of: ModelOf, name: str, part: Part, factor: float
) -> None:
    model = model_of(name)
    ids, layers = some_ids(model, 40), set(range(model.info.num_layers))
    expected = plain(scaled(again(name), part, factor, layers), ids)
    assert np.array_equal(changed(model, ids, ScalePart(part=part, factor=factor)), expected)
    last = {model.info.num_layers - 1}
    expected = plain(scaled(again(name), part, factor, last), ids)
    one = ScalePart(part=part, factor=factor, layers=tuple(last))
    assert np.array_equal(changed(model, ids, one), expected)


def test_attention_of_gpt_oss_is_scaled_with_its_bias(model_of: ModelOf) -> None:
    model = model_of("gpt_oss")
    expected = plain(scaled(again("gpt_oss"), "attention", 0.0, {0, 1, 2, 3}), IDS)
    assert np.array_equal(changed(model, IDS, ScalePart(part="attention", factor=0)), expected)


@pytest.mark.parametrize("name", ["mixtral", "olmoe", "gpt_oss"])
def test_a_scaled_embedding_is_a_scaled_table(model_of: ModelOf, name: str) -> None:
    model, network = model_of(name), again(name)
    network.model.embed_tokens.weight = network.model.embed_tokens.weight * 0.5
    ours = changed(model, IDS, ScalePart(part="embedding", factor=0.5))
    assert np.array_equal(ours, plain(network, IDS))


@pytest.mark.parametrize("name", ["demo", *FAMILIES])
def test_without_the_last_experts_the_model_says_what_the_lens_reads_at_its_last_router(
    model_of: ModelOf, name: str
) -> None:
    model = model_of(name)
    ids, last = some_ids(model, 20), model.info.num_layers - 1
    ours = changed(model, ids, ScalePart(part="experts", factor=0, layers=(last,)))
    at_router = streams(model, ids).at_router[:, last]
    read = np.array(model.lens_reader.logits(mx.array(at_router)))
    np.testing.assert_allclose(ours, read, atol=1e-5 * np.abs(read).max())


@pytest.mark.parametrize("name", often(WITH_PARTS))
@pytest.mark.parametrize("part", SUMS)
def test_parts_of_every_architecture_are_scaled_and_added_to_in_units_of_the_stream(
    name: str, part: Part
) -> None:
    model = tiny(name)
    if name in SIDE_BY_SIDE:
        with pytest.raises(UsageError, match="on its own"):
            model.trace(IDS, interventions=[ScalePart(part=part, factor=2)])
        return
    native = streams(model, IDS)
    vector = np.random.default_rng(1).normal(size=model.info.hidden_size).astype(np.float32)
    for layer in range(model.info.num_layers):
        before, after = sides(native, part, layer)
        if np.array_equal(before, after):
            continue  # a layer that has no such part
        close = {"atol": 2e-6 * np.abs(after).max()}
        seen = streams(model, IDS, ScalePart(part=part, factor=-1.5, layers=(layer,)))
        assert np.array_equal(sides(seen, part, layer)[0], before)
        expected = before - 1.5 * (after - before)
        np.testing.assert_allclose(sides(seen, part, layer)[1], expected, **close)
        seen = streams(model, IDS, AddToPart(part=part, vector=vector, layers=(layer,)))
        np.testing.assert_allclose(sides(seen, part, layer)[1], after + vector, **close)
        values = np.stack([vector, 2 * vector])
        patch = PatchPart(part=part, layer=layer, values=values, rows=(3, 17))
        seen = streams(model, IDS, patch)
        expected = after.copy()
        expected[[3, 17]] = before[[3, 17]] + values
        np.testing.assert_allclose(sides(seen, part, layer)[1], expected, **close)
        others = np.delete(np.arange(len(IDS)), [3, 17])
        assert np.array_equal(sides(seen, part, layer)[1][others], after[others])


@pytest.mark.parametrize("name", often(WITH_PARTS))
def test_the_trace_of_a_changed_stream_still_adds_up(name: str) -> None:
    model = tiny(name)
    part: Part = "embedding" if name in SIDE_BY_SIDE else "experts"
    trace = model.trace(IDS, lens=0, interventions=[ScalePart(part=part, factor=0.5)])
    assert trace.completeness is not None and trace.completeness.max() < 1e-5


@pytest.mark.parametrize("name", ["demo", "demo-dense", *FAMILIES])
def test_with_the_embeddings_of_another_prompt_it_is_the_other_prompt(
    model_of: ModelOf, name: str
) -> None:
    model = model_of(name)
    one, other = some_ids(model, 12, seed=1), some_ids(model, 12, seed=2)
    values = streams(model, other).entering[:, 0]
    patch = PatchPart(part="embedding", layer=0, values=values, rows=tuple(range(12)))
    assert np.array_equal(changed(model, one, patch), plain(model.network, other))


@pytest.mark.parametrize("part", ["embedding", *SUMS])
def test_a_patched_row_is_the_same_whether_a_prompt_runs_in_one_pass_or_in_many(
    demo: Model, monkeypatch: pytest.MonkeyPatch, part: Part
) -> None:
    values = np.random.default_rng(4).normal(size=(2, demo.info.hidden_size)).astype(np.float32)
    patch = PatchPart(part=part, layer=0, values=values, rows=(9, 2))
    whole = demo.trace(IDS, interventions=[patch])
    assert not np.allclose(whole.router_logits, demo.trace(IDS).router_logits, atol=1e-2)
    monkeypatch.setattr(model_module, "PREFILL", 4)
    pieces = demo.trace(IDS, interventions=[patch])
    np.testing.assert_allclose(pieces.router_logits, whole.router_logits, atol=1e-4)


def test_rows_of_generated_tokens_are_left_alone(demo: Model) -> None:
    """A patch of all rows of the prompt is over when the prompt is."""
    values = np.zeros((len(IDS), demo.info.hidden_size), np.float32)
    patch = PatchPart(part="experts", layer=2, values=values, rows=tuple(range(len(IDS))))
    generation = demo.generate(IDS, 6, interventions=[patch])
    ids = [*IDS, *(int(step.token_ids[0]) for step in generation)]
    longer = demo.trace(ids, interventions=[patch])
    generated = demo.generate(IDS, 6, interventions=[patch])
    for row, step in enumerate(generated, len(IDS)):
        np.testing.assert_allclose(step.router_logits[0], longer.router_logits[row], atol=1e-4)


def test_a_dense_model_has_parts_too(model_of: ModelOf) -> None:
    model = model_of("demo-dense")
    native, without = streams(model, IDS), streams(model, IDS, ScalePart(part="experts", factor=0))
    assert np.array_equal(without.leaving[:, 0], native.at_router[:, 0])
    assert np.array_equal(without.leaving, without.at_router)


@pytest.mark.parametrize("name", sorted(NO_PARTS))
def test_where_the_stream_is_no_sum_the_parts_cannot_be_changed(name: str) -> None:
    with pytest.raises(UsageError, match=r"one vector per token|on its own"):
        tiny(name).trace(IDS, interventions=[ScalePart(part="attention", factor=0)])


def test_a_layer_without_the_part_says_so_only_when_it_is_named() -> None:
    model = tiny("nemotron_h")  # one mixer a layer: recurrence, experts, attention, experts
    with pytest.raises(UsageError, match="layer 1, which has none"):
        model.trace(IDS, interventions=[ScalePart(part="attention", factor=0, layers=(1,))])
    everywhere = changed(model, IDS, ScalePart(part="attention", factor=0))
    named = changed(model, IDS, ScalePart(part="attention", factor=0, layers=(0, 2)))
    assert np.array_equal(everywhere, named)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_stays_half_and_rounds_once(dtype: mx.Dtype) -> None:
    before = mx.array([[256.0, 1.0]], dtype)
    after = before + mx.array([[8.0, 0.5]], dtype)
    half = ScalePart(part="experts", factor=0.5)
    vector = AddToPart(part="experts", vector=np.array([4.0, 0.25], np.float32))
    result = changed_part([half, vector], after, start=0, before=before)
    assert result.dtype == dtype
    assert np.array_equal(np.array(result.astype(mx.float32)), [[264.0, 1.5]])


def test_changes_are_made_in_the_order_given(demo: Model) -> None:
    vector = np.random.default_rng(3).normal(size=demo.info.hidden_size).astype(np.float32)
    scale = ScalePart(part="attention", factor=2, layers=(1,))
    add = AddToPart(part="attention", vector=vector, layers=(1,))
    before, after = sides(streams(demo, IDS), "attention", 1)
    for order, expected in (
        ((scale, add), before + 2 * (after - before) + vector),
        ((add, scale), before + 2 * (after - before + vector)),
    ):
        ours = sides(streams(demo, IDS, *order), "attention", 1)[1]
        np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())
