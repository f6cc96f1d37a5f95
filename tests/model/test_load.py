"""Loading: what works, and one clear error for what does not."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import moetui
from moetui.demo import checkpoint
from moetui.errors import EXIT_USAGE, ModelError
from moetui.model.digest import digest
from moetui.model.locate import locate
from tests.reference.values import DATA, names


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("demo"), folder)
    return folder


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def truncate(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def corrupt_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8:40] = b"\xff" * 32
    path.write_bytes(data)


def absurd_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])


WEIGHTS = "model.safetensors"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "config is not JSON": (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "hold an object"),
    "config is missing": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "no model_type": (lambda f: edit_config(f, model_type=None), "names no model_type"),
    "unknown model_type": (lambda f: edit_config(f, model_type="nonesuch"), "does not know"),
    "path as model_type": (lambda f: edit_config(f, model_type="../../x"), "names no model_type"),
    "own code": (lambda f: edit_config(f, model_file="evil.py"), "run its own code"),
    "too many layers": (lambda f: edit_config(f, num_hidden_layers=9), "cannot be loaded"),
    "too few experts": (lambda f: edit_config(f, num_experts=8), "cannot be loaded"),
    "wrong hidden size": (lambda f: edit_config(f, hidden_size=64), "cannot be loaded"),
    "text as a number": (lambda f: edit_config(f, hidden_size="many"), "cannot be loaded"),
    "weights missing": (lambda f: (f / WEIGHTS).unlink(), "no model*.safetensors"),
    "weights truncated": (lambda f: truncate(f / WEIGHTS, 0.5), "damaged or truncated"),
    "weights empty": (lambda f: truncate(f / WEIGHTS, 0), "damaged or truncated"),
    "header corrupted": (lambda f: corrupt_header(f / WEIGHTS), "header cannot be read"),
    "header absurdly long": (lambda f: absurd_header(f / WEIGHTS), "header does not fit"),
    "tokenizer missing": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
    "tokenizer damaged": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer"),
    "index names a shard that is not there": (
        lambda f: (f / "model.safetensors.index.json").write_text(
            '{"weight_map": {"a": "model-00002-of-00002.safetensors"}}'
        ),
        "lacks model-00002-of-00002.safetensors",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_one_clear_error(copy: Path, damage: str) -> None:
    harm, says = DAMAGES[damage]
    harm(copy)
    with pytest.raises(ModelError) as caught:
        moetui.load(copy)
    error = caught.value
    assert says in error.message
    assert error.hint and "\n" not in error.message + error.hint
    assert error.exit_code == EXIT_USAGE


def test_code_in_a_checkpoint_is_never_run(copy: Path) -> None:
    trap = copy / "modeling_olmoe.py"
    ran = copy / "ran"
    trap.write_text(f"open({str(ran)!r}, 'w')\n")
    edit_config(copy, auto_map={"AutoModelForCausalLM": "modeling_olmoe.OlmoeForCausalLM"})
    moetui.load(copy)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("/no/such/folder", "no such model"),
        ("./none", "no such model"),
        ("dmeo", "no such model"),
        ("nobody/nothing-here", "nor in the local Hugging Face cache"),
    ],
)
def test_what_is_no_model_is_said_without_asking_the_network(
    name: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import socket

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ModelError, match=says):
        locate(name)


def test_a_file_is_not_a_model_folder(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="is a file"):
        locate(path)


def test_a_model_in_the_hugging_face_cache_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    repository = tmp_path / "models--someone--tiny-moe"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(checkpoint("demo"), repository / "snapshots" / ("0" * 40))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert moetui.load("someone/tiny-moe").info.num_experts == 16


def test_on_a_cpu_the_weights_become_float32() -> None:
    info = moetui.load("demo").info
    if info.backend != "cpu":
        pytest.skip("this machine computes on its GPU, where weights keep their type")
    assert info.dtype == "float32"
    assert info.router_bits == 16  # as the checkpoint stores it


@pytest.mark.parametrize("family", [name for name in names() if name != "demo"])
def test_a_configuration_that_transformers_5_has_written_gives_the_same_model(
    tmp_path: Path, family: str
) -> None:
    """It renames settings; a fine-tune of a published checkpoint has only the new names."""
    from transformers import AutoConfig

    folder = tmp_path / family
    shutil.copytree(DATA / family, folder)
    AutoConfig.from_pretrained(folder).save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    renamed = ("rope_theta", "rope_scaling", "partial_rotary_factor", "global_head_dim")
    assert not set(renamed) & set(written)
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    logits = moetui.load(DATA / family).trace(ids).logits
    assert np.array_equal(moetui.load(folder).trace(ids).logits, logits)


def test_published_mxfp4_weights_are_named_and_counted_as_what_they_stand_for() -> None:
    info = moetui.load(DATA / "gpt_oss").info
    assert info.quantization == "4-bit mxfp4"
    assert info.router_bits == 32  # the router itself is not packed
    config = json.loads((DATA / "gpt_oss" / "config.json").read_text())
    H, L, V = config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]
    E, F, D = config["num_local_experts"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * D, config["num_key_value_heads"] * D
    attention = H * q + q + 2 * (H * kv + kv) + q * H + H + config["num_attention_heads"]
    experts = E * (2 * (H * F + F) + F * H + H)
    expected = L * (attention + experts + E * H + E + 2 * H) + H + 2 * V * H
    assert info.parameters == expected


def test_the_digest_follows_the_weights(copy: Path) -> None:
    before = digest(copy)
    assert before == digest(checkpoint("demo"))
    data = bytearray((copy / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (copy / WEIGHTS).write_bytes(data)
    assert digest(copy) != before
