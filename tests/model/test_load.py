"""Loading: what works, and one clear error for what does not."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

import moetui
from moetui.demo import checkpoint
from moetui.errors import ModelError
from moetui.model.checkpoint import check
from moetui.model.digest import digest
from moetui.model.locate import locate
from tests.model.editing import CONFIG, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS, edit_config, edit_json
from tests.reference.values import DATA, names

ROOT = 0
NOBODY = 65534


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("demo"), folder)
    return folder


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
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ModelError, match=says):
        locate(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "name is empty"),
        ("a\0b", "no such model"),
        ("x" * 5000, "cannot open"),
        ("~nobody-of-this-name/x", "no such model"),
        ("/etc/passwd/x", "no such model"),
        ("a..b/c", "no Hugging Face id"),
    ],
)
def test_a_name_that_can_be_none_is_said_to_be_none(name: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        locate(name)


def test_links_that_go_round_in_a_circle_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ModelError, match="cannot open"):
        locate(tmp_path / "a")


def test_a_file_is_not_a_model_folder(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="is a file"):
        locate(path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache that holds the demo model as someone/tiny-moe: links to blobs."""
    from huggingface_hub import constants

    repository = tmp_path / "hub" / "models--someone--tiny-moe"
    snapshot, blobs = repository / "snapshots" / ("0" * 40), repository / "blobs"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(checkpoint("demo").iterdir())):
        shutil.copy(path, blobs / f"{number:040x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:040x}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


def test_a_model_in_the_hugging_face_cache_is_found_by_its_name(hub: Path) -> None:
    assert moetui.load("someone/tiny-moe").info.num_experts == 16


def test_a_link_out_of_the_cached_repository_is_refused(hub: Path) -> None:
    elsewhere = hub.parents[2] / "models--someone--else" / "blobs" / "0"
    elsewhere.parent.mkdir(parents=True)
    shutil.copy(hub / CONFIG, elsewhere)
    (hub / CONFIG).unlink()
    (hub / CONFIG).symlink_to(elsewhere)
    with pytest.raises(ModelError, match="outside the checkpoint"):
        moetui.load("someone/tiny-moe")


def test_a_blob_that_was_deleted_is_named(hub: Path) -> None:
    (hub / WEIGHTS).resolve().unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors is a link that leads nowhere"):
        moetui.load("someone/tiny-moe")


def test_a_cache_without_the_files_says_how_to_fetch_them(hub: Path) -> None:
    for path in hub.iterdir():
        path.unlink()
    with pytest.raises(ModelError, match="not complete") as caught:
        locate("someone/tiny-moe")
    assert "--download someone/tiny-moe" in caught.value.hint


def test_a_damaged_cache_is_no_traceback(hub: Path) -> None:
    (hub.parents[1] / "refs" / "main").write_bytes(b"\xff\xfe" * 20)
    with pytest.raises(ModelError, match="cannot be read from the Hugging Face cache"):
        locate("someone/tiny-moe")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Rights count inside: root could read everything."""
    if os.geteuid() != ROOT:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(ROOT)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG])
def test_a_file_that_may_not_be_read_is_named(name: str) -> None:
    # Not below pytest's own folder, which is closed to other users.
    with TemporaryDirectory() as place:
        folder = Path(place) / "copy"
        shutil.copytree(checkpoint("demo"), folder)
        Path(place).chmod(0o755)
        (folder / name).chmod(0)
        with as_nobody(), pytest.raises(ModelError, match=f"{name} cannot be read: Permission"):
            check(folder)


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    with TemporaryDirectory() as place:
        folder = Path(place) / "closed"
        shutil.copytree(checkpoint("demo"), folder)
        Path(place).chmod(0o755)
        folder.chmod(0)
        with as_nobody(), pytest.raises(ModelError, match=r"cannot open .*closed: Permission"):
            locate(folder)
        folder.chmod(0o755)


def test_a_folder_name_that_mlx_lm_would_take_for_a_pattern_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "models [q4]"
    shutil.copytree(checkpoint("demo"), folder)
    with pytest.raises(ModelError, match="its name has one of") as caught:
        moetui.load(folder)
    assert caught.value.hint == "rename the folder"


def test_code_in_a_checkpoint_is_never_run(copy: Path) -> None:
    ran = copy / "ran"
    for name in ("modeling_olmoe.py", "tokenization_own.py"):
        (copy / name).write_text(f"open({str(ran)!r}, 'w')\n")
    edit_config(copy, auto_map={"AutoModelForCausalLM": "modeling_olmoe.OlmoeForCausalLM"})
    own = {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}
    edit_json(copy, TOKENIZER_CONFIG, tokenizer_class="OwnTokenizer", auto_map=own)
    moetui.load(copy)
    assert not ran.exists()


def test_nobody_is_asked_whether_code_may_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers asks on the terminal, where it does not know an architecture by itself."""
    shutil.copytree(DATA / "llama", tmp_path / "own")
    edit_config(tmp_path / "own", model_type="xverse")  # for mlx-lm another name of llama
    own = {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}
    edit_json(tmp_path / "own", TOKENIZER_CONFIG, tokenizer_class="OwnTokenizer", auto_map=own)
    (tmp_path / "own" / "tokenization_own.py").write_text("raise AssertionError('ran')\n")
    monkeypatch.setattr("builtins.input", lambda prompt="": pytest.fail("it asked"))
    with pytest.raises(ModelError, match="wants to run its own code"):
        moetui.load(tmp_path / "own")


def test_loading_asks_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    moetui.load("demo")


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
