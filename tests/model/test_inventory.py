"""The inventory against loaded models, the file system, and arithmetic on published shapes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import moetui
from moetui.demo import checkpoint
from moetui.model import Model
from moetui.model.inventory import FoundModel, describe, find_models
from moetui.model.places import Candidate
from tests.model import zoo
from tests.reference.values import DATA

ROOM = 10**12


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache in the place of the user's own, and an empty home."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture(scope="session")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model as mlx-lm quantises it: 4 bits, its routers 8."""
    from mlx_lm.convert import convert

    folder = tmp_path_factory.mktemp("quantised") / "demo-4bit"

    def bits(path: str, module: object) -> bool | dict[str, int]:
        return {"bits": 8, "group_size": 32} if path.endswith("mlp.gate") else True

    convert(
        str(checkpoint("demo")),
        str(folder),
        quantize=True,
        q_bits=4,
        q_group_size=32,
        quant_predicate=bits,
    )
    return folder


def described(folder: Path, available: int | None = ROOM) -> FoundModel:
    return describe(Candidate("x", folder, "folder"), "cpu", available)


def found(folders: list[Path]) -> dict[str, FoundModel]:
    return {model.name: model for model in find_models(folders)}


@pytest.mark.parametrize(
    "family", ["demo", "demo-dense", "olmoe", "mixtral", "qwen3_moe", "gpt_oss", "llama"]
)
def test_headers_tell_what_the_loaded_model_is(
    family: str, model_of: Callable[[str], Model]
) -> None:
    info = model_of(family).info
    folder = checkpoint(family) if family.startswith("demo") else DATA / family
    told = described(folder)
    assert told.problem is None
    assert told.kind == ("moe" if info.is_moe else "dense")
    assert told.architecture == info.architecture
    assert told.num_experts == info.num_experts
    assert (told.top_k or 0) == info.top_k
    assert told.num_layers == info.num_layers
    assert told.moe_layers == len(info.moe_layers)
    assert told.router_bits == info.router_bits
    assert told.memory is not None
    if info.backend == "cpu":  # the weights are described as a CPU holds them
        assert told.memory.weights == info.weight_bytes


def test_a_quantised_model_is_told_with_its_routers_own_bits(quantised: Path) -> None:
    info = moetui.load(quantised).info
    told = described(quantised)
    assert told.stored == info.quantization == "4-bit affine"
    assert told.router_bits == info.router_bits == 8
    assert (told.num_experts, told.top_k) == (info.num_experts, info.top_k)
    assert told.memory is not None
    if info.backend == "cpu":
        assert told.memory.weights == info.weight_bytes
    config = json.loads((quantised / "config.json").read_text())
    assert config["quantization"]["model.layers.0.mlp.gate"]["bits"] == 8


def test_a_published_shape_takes_what_arithmetic_says(tmp_path: Path) -> None:
    folder = zoo.hollow(tmp_path / "qwen", zoo.QWEN, zoo.qwen_shapes())
    told = described(folder)
    # Parameters of Qwen3-30B-A3B, from its published sizes.
    attention = 2048 * 4096 * 2 + 2 * 2048 * 512 + 2 * 128 + 2 * 2048
    experts = 128 * 2048 + 128 * 3 * 2048 * 768
    parameters = 2 * 151936 * 2048 + 2048 + 48 * (attention + experts)
    assert parameters == 30_532_122_624  # "30.5B", says its model card
    assert told.memory is not None
    assert told.memory.weights == 4 * parameters
    assert told.memory.cache == 2048 * 48 * 2 * 4 * 128 * 4
    on_metal = describe(Candidate("x", folder, "folder"), "metal", ROOM)
    assert on_metal.memory is not None and on_metal.memory.weights == 2 * parameters
    assert (told.routing, told.num_layers, told.moe_layers) == ("MoE 128 × 8", 48, 48)
    assert told.stored == "bf16" and told.router_bits == 16


def test_a_large_model_fits_or_not_by_the_memory_there_is(tmp_path: Path) -> None:
    shapes = zoo.packed(zoo.qwen_shapes(), {"mlp.gate.weight": 8, ".weight": 4})
    config = {**zoo.QWEN, "quantization": {"group_size": 64, "bits": 4}}
    folder = zoo.hollow(tmp_path / "qwen-4bit", config, shapes)
    told = described(folder)
    assert told.memory is not None
    assert (told.stored, told.router_bits) == ("4-bit affine", 8)
    assert described(folder, told.memory.total).fits is True
    assert described(folder, told.memory.total).obstacle is None
    tight = described(folder, told.memory.total - 1)
    assert tight.fits is False
    assert tight.obstacle is not None and "of memory" in tight.obstacle
    assert described(folder, None).fits is None
    assert described(folder, None).obstacle is None


def test_a_longer_context_needs_more_cache_and_captures_and_no_more_weights(tmp_path: Path) -> None:
    folder = zoo.hollow(tmp_path / "qwen", zoo.QWEN, zoo.qwen_shapes())
    candidate = Candidate("x", folder, "folder")
    short, long = (describe(candidate, "cpu", ROOM, n).memory for n in (1024, 8192))
    assert short is not None and long is not None
    assert long.weights == short.weights
    assert long.cache == 8 * short.cache
    assert short.captures < long.captures


def test_everything_on_a_machine_is_found_under_the_name_that_opens_it(
    hub: Path, tmp_path: Path
) -> None:
    zoo.cached(hub, "someone/tiny-moe", checkpoint("demo"))
    zoo.placed(tmp_path / "models" / "mine")
    zoo.placed(tmp_path / "models" / "team" / "theirs", DATA / "llama")
    zoo.placed(tmp_path / "models" / "a" / "b" / "too-deep")
    (tmp_path / "models" / "notes").mkdir()
    (tmp_path / "models" / "readme.txt").write_text("hello")
    models = found([tmp_path / "models", tmp_path / "nowhere"])
    folder = str(tmp_path / "models")
    assert list(models) == [
        "demo", "demo-dense", "someone/tiny-moe", f"{folder}/mine", f"{folder}/team/theirs",
    ]  # fmt: skip
    assert {name: model.source for name, model in models.items()} == {
        "demo": "bundled", "demo-dense": "bundled", "someone/tiny-moe": "cache",
        f"{folder}/mine": "folder", f"{folder}/team/theirs": "folder",
    }  # fmt: skip
    for name in models:
        assert moetui.load(name).info.num_experts == models[name].num_experts


def test_folders_below_home_are_named_as_they_are_typed(hub: Path, tmp_path: Path) -> None:
    zoo.placed(tmp_path / "home" / "models" / "mine")
    models = found([tmp_path / "home" / "models"])
    assert "~/models/mine" in models
    assert moetui.load("~/models/mine").info.num_experts == 16


def test_a_model_that_is_reached_twice_is_listed_once(hub: Path, tmp_path: Path) -> None:
    zoo.placed(tmp_path / "models" / "mine")
    (tmp_path / "models" / "again").symlink_to(tmp_path / "models" / "mine")
    names = list(found([tmp_path / "models", tmp_path / "models"]))
    assert len(names) == 3


def test_the_size_is_that_of_the_files(hub: Path, tmp_path: Path) -> None:
    zoo.cached(hub, "someone/tiny-moe", checkpoint("demo"))
    expected = sum(path.stat().st_size for path in checkpoint("demo").iterdir() if path.is_file())
    assert found([])["someone/tiny-moe"].disk_bytes == expected


def test_the_cache_is_where_the_environment_says(tmp_path: Path) -> None:
    """HF_HOME and HF_HUB_CACHE are read when huggingface_hub is imported: in a new process."""
    import os
    import subprocess
    import sys

    zoo.cached(tmp_path / "a" / "hub", "someone/one", checkpoint("demo"))
    zoo.cached(tmp_path / "b", "someone/two", checkpoint("demo"))
    ask = (
        "from moetui.model.inventory import find_models; print(*(m.name for m in find_models([])))"
    )
    for variables, name in (
        ({"HF_HOME": str(tmp_path / "a")}, "someone/one"),
        ({"HF_HOME": str(tmp_path / "a"), "HF_HUB_CACHE": str(tmp_path / "b")}, "someone/two"),
    ):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE"))}
        done = subprocess.run(
            [sys.executable, "-c", ask],
            env={**kept, **variables}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.split() == ["demo", "demo-dense", name]


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1000])


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.unlink()
    path.write_text(json.dumps(config))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "model.safetensors is damaged or truncated"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "it holds no model*.safetensors"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "it has no tokenizer"),
    "unknown": (lambda f: edit(f, model_type="bert"), "does not know the architecture 'bert'"),
    "layers only": (lambda f: edit(f, model_type="cache"), "does not know the architecture"),
    "more experts": (
        lambda f: edit(f, num_experts=32),
        "names 32 experts, and the weights hold 16",
    ),
    "not JSON": (lambda f: edit(f) or (f / "config.json").write_text("{"), "is not valid JSON"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_stays_in_the_list_with_its_reason(
    hub: Path, tmp_path: Path, damage: str
) -> None:
    harm, says = DAMAGES[damage]
    harm(zoo.cached(hub, "someone/damaged", checkpoint("demo")))
    harm(zoo.placed(tmp_path / "models" / "damaged"))
    zoo.placed(tmp_path / "models" / "whole")
    models = found([tmp_path / "models"])
    assert len(models) == 5
    for name, model in models.items():
        if name.endswith("/damaged"):
            assert model.problem is not None and says in model.problem
            assert model.obstacle == model.problem
            assert "\n" not in model.problem and str(tmp_path) not in model.problem
        else:
            assert model.problem is None and model.fits is not None


def test_experts_that_only_the_configuration_knows_of_are_a_contradiction(tmp_path: Path) -> None:
    folder = zoo.placed(tmp_path / "dense", checkpoint("demo-dense"))
    edit(folder, num_experts=8)
    told = described(folder)
    assert told.kind == "dense"
    assert told.problem == "config.json names 8 experts, and the weights hold none"


def test_a_download_that_was_never_finished_is_listed(hub: Path) -> None:
    folder = zoo.cached(hub, "someone/partly", checkpoint("demo"))
    (folder.parents[1] / "blobs" / "model.safetensors").unlink()
    nothing = hub / "models--someone--nothing"
    nothing.mkdir()
    models = found([])
    assert models["someone/partly"].problem is not None
    assert models["someone/nothing"].problem == "its download was never finished"


def test_a_damaged_older_revision_does_not_hide_the_whole_one(hub: Path) -> None:
    folder = zoo.cached(hub, "someone/tiny-moe", checkpoint("demo"))
    older = folder.parent / ("f" * 40)
    older.mkdir()
    (older / "model.safetensors").symlink_to("../../blobs/gone")
    assert found([])["someone/tiny-moe"].problem is None


def test_a_revision_without_a_main_branch_is_named_by_its_folder(hub: Path) -> None:
    folder = zoo.cached(hub, "someone/tiny-moe", checkpoint("demo"))
    shutil.rmtree(folder.parents[1] / "refs")
    models = found([])
    assert "someone/tiny-moe" not in models
    assert models[str(folder)].num_experts == 16
    assert moetui.load(str(folder)).info.num_experts == 16


def test_text_models_inside_larger_ones_are_told(tmp_path: Path) -> None:
    inner = json.loads((checkpoint("demo") / "config.json").read_text())
    folder = zoo.placed(tmp_path / "vision")
    (folder / "config.json").unlink()
    outer = {"model_type": "qwen3_5_moe", "text_config": inner}
    (folder / "config.json").write_text(json.dumps(outer))
    told = described(folder)
    assert (told.architecture, told.routing, told.num_layers) == ("qwen3_5_moe", "MoE 16 × 4", 8)


def test_what_is_written_as_json_can_be_read_as_the_type_that_documents_it(tmp_path: Path) -> None:
    told = described(checkpoint("demo"))
    assert msgspec.json.decode(msgspec.json.encode(told), type=FoundModel) == told
    assert set(msgspec.json.schema(FoundModel)["$defs"]["FoundModel"]["properties"]) == set(
        json.loads(msgspec.json.encode(told))
    )
