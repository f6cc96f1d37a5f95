"""Null models: everything of the trained model but its weights, and these drawn as was said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes, quantize_model
from numpy.typing import NDArray

import moetui
from moetui.demo import NAMES
from moetui.errors import ModelError, UsageError
from moetui.model import Model
from moetui.model.checkpoint import check
from moetui.model.draw import Drawing
from moetui.model.reinitialise import load_random
from moetui.model.weights import build
from tests.model import tiny
from tests.model.architectures import ARCHITECTURES, COMMON, config_of, save
from tests.model.editing import edit_config
from tests.model.zoo import placed
from tests.reference.values import DATA

# Half a unit in the last place of its 8 bits, relative.
BFLOAT16 = 2**-8
METAL_ONLY = "muse_spark"
READABLE = [name for name in ARCHITECTURES if name != METAL_ONLY]
NVFP4: dict[str, Any] = {"group_size": 16, "bits": 4, "mode": "nvfp4", "global_scale": True}
ERRORS = ("routing_error", "decomposition_error", "lens_error", "attention_error")
READ = ("shift_invariant", "weights_scale_input", "moe_layers", "top_k", "parameters")

Arrays = dict[str, NDArray[np.float32]]


def parameters(network: nn.Module) -> Arrays:
    return {name: np.array(a.astype(mx.float32)) for name, a in tree_flatten(network.parameters())}


def started(config: dict[str, Any], seed: int) -> nn.Module:
    """The network as the classes of mlx-lm start it."""
    model_class, args_class = _get_classes(config)
    mx.random.seed(seed)
    network: nn.Module = model_class(args_class.from_dict(config))
    return network


def is_matrix(name: str, array: NDArray[np.float32]) -> bool:
    return array.ndim >= 2 and not name.endswith("bias")


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)


@pytest.fixture(scope="module")
def demo() -> Model:
    return load_random("demo")


@pytest.mark.parametrize("name", READABLE)
def test_every_architecture_starts_as_its_own_classes_start_it(name: str, tmp_path: Path) -> None:
    trained = parameters(save(name, tmp_path))
    model = load_random(tmp_path, seed=5)
    drawn, own = parameters(model.network), parameters(started(config_of(name), 5))
    assert drawn.keys() == trained.keys()
    for path, array in drawn.items():
        assert array.shape == trained[path].shape
        if is_matrix(path, array):
            assert array.min() < array.max(), path
            assert not np.array_equal(array, trained[path]), path
            if own[path].min() == own[path].max():
                # As wide as chance has it: five standard errors of the estimate.
                std = array.std() * array.shape[-1] ** 0.5
                assert abs(std - 1) < 5 / np.sqrt(2 * array.size), path
                continue
        assert np.array_equal(array, own[path]), path


@pytest.mark.parametrize("name", READABLE)
def test_what_can_be_read_of_an_architecture_does_not_hang_on_its_weights(
    name: str, tmp_path: Path
) -> None:
    save(name, tmp_path)
    info, trained = load_random(tmp_path).info, moetui.load(tmp_path).info
    assert {e: getattr(info, e) for e in ERRORS} == {e: getattr(trained, e) for e in ERRORS}
    assert {r: getattr(info, r) for r in READ} == {r: getattr(trained, r) for r in READ}
    # The biases of a LayerNorm start at 0 and add nothing.
    begun = [part for part in trained.part_names if part in info.part_names]
    assert list(info.part_names) == begun
    assert set(trained.part_names) - set(begun) <= {"static bias"}
    assert (info.dtype, info.weight_bytes) == (trained.dtype, trained.weight_bytes)


def test_an_architecture_that_does_not_run_here_says_so_without_weights_too(tmp_path: Path) -> None:
    save(METAL_ONLY, tmp_path)
    with pytest.raises(ModelError, match="No Metal back-end"):
        load_random(tmp_path)


@pytest.mark.parametrize("how", ["own", "trainer"])
@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_weights_whatever_was_drawn_before(name: str, how: str) -> None:
    mx.random.seed(1)
    first = parameters(load_random(name, how=how, seed=3).network)
    mx.random.normal((7,))
    assert same(first, parameters(load_random(name, how=how, seed=3).network))
    other = parameters(load_random(name, how=how, seed=4).network)
    assert not any(np.array_equal(other[n], a) for n, a in first.items() if is_matrix(n, a))


def test_what_is_drawn_afterwards_is_what_would_have_been_drawn_anyway() -> None:
    mx.random.seed(11)
    mx.random.normal((2,))
    expected = np.array(mx.random.normal((3,)))
    mx.random.seed(11)
    mx.random.normal((2,))
    load_random("demo", seed=0)
    assert np.array_equal(np.array(mx.random.normal((3,))), expected)


def test_the_modules_initialisers_are_the_ones_that_mlx_documents(demo: Model) -> None:
    """nn.Linear and banks of experts: uniform within ±1/√fan_in; embeddings: N(0, 1/width)."""
    for name, array in parameters(demo.network).items():
        bound = array.shape[-1] ** -0.5
        if name == "model.embed_tokens.weight":
            assert array.std() == pytest.approx(bound, rel=0.01)
            assert array.max() > 3 * bound
        elif array.ndim >= 2:
            assert 0.98 * bound < np.abs(array).max() <= bound * (1 + BFLOAT16), name
            assert array.std() == pytest.approx(bound / np.sqrt(3), rel=0.05), name
        else:
            assert (array == 1).all(), name


@pytest.mark.parametrize("name", NAMES)
def test_the_trainers_start_is_the_one_that_the_model_card_tells(name: str) -> None:
    """Matrices N(0, 0.02²), embeddings N(0, 0.5²), projections into the stream over √(2 · 8
    layers), gains 1 and the last one 0.1."""
    for path, array in parameters(load_random(name, how="trainer").network).items():
        if array.ndim == 1:
            gain = 0.1 if path == "model.norm.weight" else 1.0
            assert np.abs(array / gain - 1).max() <= BFLOAT16, path
            continue
        std = 0.02
        if path.endswith(("o_proj.weight", "down_proj.weight")):
            std /= np.sqrt(2 * 8)
        if path == "model.embed_tokens.weight":
            std = 0.5
        # A drawn standard deviation is within five standard errors of the true one.
        assert abs(array.std() / std - 1) < 5 / np.sqrt(2 * array.size) + BFLOAT16, path
        assert abs(array.mean()) < 5 * std / np.sqrt(array.size), path
        excess = ((array - array.mean()) ** 4).mean() / array.var() ** 2 - 3
        assert abs(excess) < 5 * np.sqrt(24 / array.size), path


def test_weights_are_rounded_to_the_types_that_the_checkpoint_stores(demo: Model) -> None:
    assert demo.info.router_bits == moetui.load("demo").info.router_bits == 16
    for path, array in parameters(demo.network).items():
        rounded = np.array(mx.array(array).astype(mx.bfloat16).astype(mx.float32))
        assert np.array_equal(array, rounded), path


def test_none_of_the_checkpoints_weights_is_read(tmp_path: Path) -> None:
    """They are all NaN, which a load that reads them refuses."""
    folder = placed(tmp_path / "nan")
    weights = mx.load(str(folder / "model.safetensors"))
    broken = {name: mx.full(a.shape, float("nan"), a.dtype) for name, a in weights.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), broken, {"format": "pt"})
    with pytest.raises(ModelError, match="NaN"):
        moetui.load(folder)
    assert np.isfinite(load_random(folder).trace("1 + 1").logits).all()


def test_the_head_stays_tied_to_the_embedding(demo: Model) -> None:
    assert "lm_head.weight" not in parameters(demo.network)
    trace = demo.trace("127 + 45 =", streams=True)
    assert trace.streams is not None
    last = trace.streams.leaving[-1, -1].astype(np.float64)
    normed = last / np.sqrt((last**2).mean() + 1e-5)
    own = parameters(demo.network)["model.embed_tokens.weight"] @ normed
    assert np.allclose(trace.logits, own, atol=1e-4)


@pytest.mark.parametrize("mode", tiny.MODES)
@pytest.mark.parametrize(
    "name", ["olmoe", "qwen3_moe", "gpt_oss", "deepseek_v3", "gemma4", "llama"]
)
def test_what_is_quantised_is_quantised_again_as_the_converter_does_it(
    name: str, mode: str, tmp_path: Path
) -> None:
    """mlx-lm's converter on the network as its own classes start it."""
    folder = tiny.quantised(tmp_path, name, mode, dtype=mx.bfloat16)
    config = tiny.network(name)[1]
    network = started(config, 2)
    network.set_dtype(mx.bfloat16)
    converted, _ = quantize_model(network, config, **tiny.MODES[mode])
    converted.set_dtype(mx.float32)
    model, trained = load_random(folder, seed=2), moetui.load(folder)
    expected, drawn = parameters(converted), parameters(model.network)
    assert drawn.keys() == expected.keys()
    for path, array in drawn.items():
        drawn_instead = path.endswith("mlp.gate.weight") and not expected[path].any()
        assert np.array_equal(array, expected[path]) != drawn_instead, path
    for said in ("router_bits", "quantization", "weight_bytes", "parameters", "dtype"):
        assert getattr(model.info, said) == getattr(trained.info, said)
    assert model.info.router_bits is not None or name == "llama"


def test_an_nvfp4_bank_keeps_one_scale_for_every_expert(tmp_path: Path) -> None:
    made, config = tiny.network("qwen3_moe")
    folder = tiny.save(*quantize_model(made, config, **NVFP4), tmp_path)
    converted, _ = quantize_model(started(config, 2), config, **NVFP4)
    drawing = Drawing(2, None, lambda step: None)
    network, _, _ = build(check(folder), float32=False, drawing=drawing)
    expected, drawn = parameters(converted), parameters(network)
    assert any(path.endswith("global_scale") for path in expected)
    assert same(drawn, expected)


def test_ternary_weights_are_said_not_to_be_drawn(tmp_path: Path) -> None:
    """bitnet packs four of them into a byte that no initialiser fills."""
    config = {key: value for key, value in COMMON.items() if value is not None}
    config |= {"model_type": "bitnet", "eos_token_id": 1}
    tiny.save(started(config, 0), config, tmp_path)
    with pytest.raises(ModelError, match=r"stores \S+_proj\.weight in a way"):
        load_random(tmp_path)


def test_name_digest_and_initialisation_tell_a_null_model_from_every_other(
    demo: Model, tmp_path: Path
) -> None:
    infos = [
        moetui.load("demo").info,
        demo.info,
        load_random("demo", seed=1).info,
        load_random("demo", how="trainer").info,
        load_random("demo-dense").info,
    ]
    assert len({info.digest for info in infos}) == len({info.name for info in infos}) == len(infos)
    assert load_random("demo").info == demo.info
    assert demo.info.name == "demo, re-initialised (own initialiser, seed 0)"
    assert [info.initialisation for info in infos[:4]] == [
        None,
        "own initialiser, seed 0",
        "own initialiser, seed 1",
        "trainer's initialiser, seed 0",
    ]


def test_the_digest_follows_what_the_weights_follow_from(demo: Model, tmp_path: Path) -> None:
    """Other trained weights make no other null model; another setting does."""
    folder = placed(tmp_path / "copy")
    weights = mx.load(str(folder / "model.safetensors"))
    zeros = {name: mx.zeros_like(array) for name, array in weights.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), zeros, {"format": "pt"})
    assert load_random(folder).info.digest == demo.info.digest
    edit_config(folder, rope_theta=500.0)
    assert load_random(folder).info.digest != demo.info.digest


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("demo", {"how": "torch"}, "no initialiser 'torch'"),
        ("demo", {"seed": -1}, "seed -1 is out of range"),
        ("demo", {"seed": 2**63}, "out of range"),
        (DATA / "olmoe", {"how": "trainer"}, "is not known"),
    ],
)
def test_what_cannot_be_drawn_is_refused(name: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_random(name, **options)


def test_wrong_names_are_refused_as_by_load() -> None:
    with pytest.raises(ModelError, match="no such model"):
        load_random("./none")
