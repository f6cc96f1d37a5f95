"""What single attention heads add to a router's logits: by numpy from the checkpoint's matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm.models.mixtral
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_tokenizer
from numpy.typing import NDArray

import moetui
from moetui.demo import checkpoint
from moetui.errors import ModelError, UsageError
from moetui.model.model import Model
from moetui.trace import AddToPart, HeadSources, ScalePart
from tests.model import tiny
from tests.model.architectures import build
from tests.model.packed import Packed
from tests.model.silenced import kernel
from tests.model.test_routes import subject
from tests.model.test_sources import half
from tests.model.test_uneven import uneven
from tests.reference.values import DATA
from tests.suites.olmoe import Olmoe

TEXT = "The dog has a ball, and 12 + 7 ="
Array = NDArray[np.float64]


def close(ours: NDArray[Any], expected: Array, tolerance: float = 1e-4) -> bool:
    return bool(np.abs(ours - expected).max() < tolerance * np.abs(expected).max() + 1e-6)


@pytest.mark.parametrize("layer", [0, 7])
def test_heads_of_the_demo_model_add_what_numpy_makes_of_the_checkpoint(layer: int) -> None:
    olmoe = Olmoe(checkpoint("demo"))
    entered, attended, _ = olmoe.all_streams(TEXT)
    h = entered[layer] + attended[layer]
    gain = olmoe.read(layer, h) / h
    found = moetui.load("demo").head_sources(TEXT, layer)
    assert found.layers.tolist() == list(range(layer + 1))
    assert set(found.heads.tolist()) == {olmoe.config["num_attention_heads"]}
    for at in range(layer + 1):
        expected = (olmoe.heads(at, entered[at]) * gain[:, None]) @ olmoe.router(layer).T
        assert close(found.logits[:, at, 1:], expected)
        assert close(found.attention[:, at], (attended[at] * gain) @ olmoe.router(layer).T)
    assert not found.logits[:, :, 0].any() and found.completeness.max() < 1e-5
    assert close(found.router_logits, olmoe.read(layer, h) @ olmoe.router(layer).T)


def kernel_outputs(model: Model, ids: NDArray[np.int32]) -> list[Array]:
    """[heads, T, D] of every layer, from the fused kernel in mlx-lm's own forward."""
    seen: list[mx.array] = []

    def spy(call: Any, *args: Any, **kwargs: Any) -> mx.array:
        seen.append(call(*args, **kwargs))
        return seen[-1]

    with kernel(spy):
        mx.eval(model.network(mx.array(ids)[None], cache=make_prompt_cache(model.network)))
    return [np.array(one.astype(mx.float32), np.float64)[0] for one in seen]


# Grouped queries; attention sinks and a bias of the projection; latent attention.
FAMILIES = ("mixtral", "gpt_oss", "deepseek_v2")


@pytest.mark.parametrize("mode", [None, "affine 4-bit", "mxfp4"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_head_is_its_block_of_the_output_matrix_on_disk(
    name: str, mode: str | None, tmp_path: Path
) -> None:
    folder = (
        tiny.save(*tiny.network(name), tmp_path)
        if mode is None
        else tiny.quantised(tmp_path, name, mode)
    )
    model, packed = moetui.load(folder), Packed(folder)
    ids = np.arange(3, 17, dtype=np.int32)
    last = model.info.moe_layers[-1]
    found = model.head_sources(ids, last)
    streams = model.trace(ids, lens=0, streams=True).streams
    assert streams is not None and found.completeness.max() < 1e-5
    gain = (streams.router_input[:, -1] / streams.at_router[:, last]).astype(np.float64)
    router = np.array(model.architecture.sites[last].matrix(), np.float64)
    outputs, names = kernel_outputs(model, ids), packed.names("o_proj")
    assert len(outputs) == len(names) == len(found.layers) == last + 1
    for row, (heads, at) in enumerate(zip(outputs, names, strict=True)):
        assert packed.bits(at) == (32 if mode is None else 4) and found.heads[row] == len(heads)
        blocks = np.split(packed.matrix(at), len(heads), axis=1)
        for head, (x, W) in enumerate(zip(heads, blocks, strict=True)):
            expected = (x @ W.T * gain) @ router.T
            assert close(found.logits[:, row, 1 + head], expected)
        bias = np.broadcast_to(packed.vector(f"{at}.bias"), gain.shape)
        assert close(found.logits[:, row, 0], (bias * gain) @ router.T)
        assert bias.any() == (name == "gpt_oss")


def test_what_is_no_head_has_a_place_of_its_own() -> None:
    """The bias of the projection; and all of a layer that has a recurrence in attention's place."""
    with_bias = subject("gpt_oss").model.head_sources([3, 1, 4], 3)
    assert (with_bias.heads == 4).all() and (with_bias.ids[:, :, 0] == 0).all()
    found = subject("qwen3_next").model.head_sources([3, 1, 4, 1, 5], 3)
    assert found.heads.tolist() == [0, 4, 0, 4]
    assert found.ids[0].tolist() == [[0, -1, -1, -1, -1], [-1, 1, 2, 3, 4]] * 2
    assert np.array_equal(found.logits[:, 0, 0], found.attention[:, 0])
    assert not found.logits[:, 0, 1:].any() and not found.logits[:, 1, 0].any()


def test_layers_differ_in_their_number_of_heads_and_in_whether_they_attend() -> None:
    assert subject("laguna").model.head_sources([3, 1, 4], 3).heads.tolist() == [4, 4, 4, 2]
    model = subject("nemotron_h").model  # one thing a layer: Mamba, experts, attention, experts
    assert model.head_sources([3, 1, 4], 3).layers.tolist() == [0, 2]
    assert model.head_sources([3, 1, 4], 1).layers.tolist() == [0]


def test_attention_beside_the_experts_comes_after_the_router_of_its_layer() -> None:
    found = subject("phixtral").model.head_sources([3, 1, 4], 3)
    assert found.layers.tolist() == [0, 1, 2] and found.completeness.max() < 1e-5


def test_a_router_with_fewer_experts_has_no_more_logits() -> None:
    model = uneven()
    found = model.head_sources([3, 1, 4, 1, 5, 9], model.info.moe_layers[1])
    assert found.router_logits.shape[-1] == found.logits.shape[-1] == 10
    assert np.isfinite(found.logits).all() and found.completeness.max() < 1e-5


@pytest.mark.parametrize("name", ["granitemoe", "gemma4", "lfm2_moe"])
def test_heads_add_up_in_half_precision(name: str) -> None:
    model = half(name, mx.bfloat16)
    assert model.head_sources_error is None
    found = model.head_sources(np.arange(20), model.info.moe_layers[-1])
    assert found.heads.max() == 4 and found.completeness.max() < 1e-2


def loaded(network: Any, kind: str) -> Model:
    folder = DATA / "olmoe"
    config = {"model_type": kind}
    return Model(kind, folder, network, load_tokenizer(folder), config, "float32")


def test_heads_that_are_mixed_before_their_projection_are_not_taken_for_its_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every block of what is projected then holds two heads; the blocks add up all the same."""
    own = mlx_lm.models.mixtral.scaled_dot_product_attention

    def mixing(*args: Any, **kwargs: Any) -> mx.array:
        heads = own(*args, **kwargs)
        half = heads.shape[-1] // 2
        return mx.concatenate([heads[..., :half], mx.roll(heads, 1, 1)[..., half:]], axis=-1)

    monkeypatch.setattr(mlx_lm.models.mixtral, "scaled_dot_product_attention", mixing)
    model = loaded(build("mixtral"), "mixtral")
    assert "attention" in model.info.part_names
    with pytest.raises(ModelError, match="no layer of this architecture projects the outputs"):
        model.head_sources([3, 1, 4], 3)


def test_a_projection_whose_output_is_changed_is_not_what_attention_puts_out() -> None:
    network = build("mixtral")
    attention = type(network.layers[0].self_attn)

    class Doubling(attention):  # type: ignore[misc,valid-type]
        def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
            return 2 * super().__call__(*args, **kwargs)

    for layer in network.layers:
        object.__setattr__(layer.self_attn, "__class__", Doubling)
    model = loaded(network, "mixtral")
    assert model.info.decomposition_error is None
    assert model.head_sources_error == (
        "no layer of this architecture projects the outputs of attention heads"
    )


def test_what_cannot_be_told_apart_is_refused_with_the_reason() -> None:
    model = subject("kimi_k3").model
    with pytest.raises(ModelError, match="mixed with something else"):
        model.head_sources([1, 2], model.info.moe_layers[-1])
    with pytest.raises(ModelError, match="not one sum per token"):
        subject("deepseek_v41").model.head_sources([1, 2], 1)
    with pytest.raises(UsageError, match="layer 0 does not route"):
        subject("deepseek_v3").model.head_sources([1, 2], 0)
    with pytest.raises(UsageError, match="empty"):
        subject("mixtral").model.head_sources([], 0)


def same(one: HeadSources, other: HeadSources) -> bool:
    return np.array_equal(one.logits, other.logits)


def test_interventions_in_force_are_in_what_heads_add_and_nothing_is_left_behind() -> None:
    model = moetui.load("demo")
    before = model.head_sources(TEXT, 7)
    with model.intervene(ScalePart(part="attention", factor=0.5, layers=(2,))):
        changed = model.head_sources(TEXT, 7)
    assert changed.completeness.max() < 1e-5 and not same(before, changed)
    # What is halved there is no projection's own output any more: it stays one source.
    assert changed.heads.tolist() == [4, 4, 0, 4, 4, 4, 4, 4]
    with model.intervene(AddToPart(part="experts", vector=(0.1,) * 128, layers=(0,))):
        assert model.head_sources(TEXT, 7).completeness.max() < 1e-5
    assert same(before, model.head_sources(TEXT, 7))
