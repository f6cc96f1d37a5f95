"""The bundled checkpoints as files: format, names, sizes."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moetui.demo import NAMES, checkpoint, corpus

MEGABYTE = 1_000_000


def safetensors_header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    return header


def test_importing_the_demo_package_loads_nothing_heavy():
    code = (
        "import sys, moetui.demo\n"
        "heavy = {'mlx', 'torch', 'transformers', 'numpy', 'tokenizers'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_each_name_leads_to_a_complete_checkpoint(name):
    files = {path.name for path in checkpoint(name).iterdir()}
    assert files == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="demo-dense"):
        checkpoint("olmoe")
    with pytest.raises(ValueError, match="evaluation"):
        corpus("train")  # type: ignore[arg-type]


def test_sizes_stay_within_what_a_package_can_carry():
    whole = sum(path.stat().st_size for path in checkpoint("demo").iterdir())
    assert 5 * MEGABYTE <= whole <= 6 * MEGABYTE
    assert (checkpoint("demo-dense") / "model.safetensors").stat().st_size <= 3 * MEGABYTE


def test_both_checkpoints_share_one_tokenizer():
    first, second = (checkpoint(name) / "tokenizer.json" for name in NAMES)
    assert first.read_bytes() == second.read_bytes()


def test_weights_carry_the_names_and_dtype_of_released_olmoe_checkpoints():
    header = safetensors_header(checkpoint("demo") / "model.safetensors")
    assert header.pop("__metadata__") == {"format": "pt"}
    experts = {
        f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight"
        for layer in range(8)
        for expert in range(16)
        for part in ("gate", "up", "down")
    }
    assert experts == {name for name in header if ".experts." in name}
    assert header["model.layers.0.mlp.experts.0.down_proj.weight"]["shape"] == [128, 32]
    assert {tensor["dtype"] for tensor in header.values()} == {"BF16"}


def test_parameter_counts_of_the_card_match_the_weights(card):
    for name in NAMES:
        header = safetensors_header(checkpoint(name) / "model.safetensors")
        header.pop("__metadata__")
        sizes = {key: _product(tensor["shape"]) for key, tensor in header.items()}
        unused = sum(size for key, size in sizes.items() if ".experts." in key) * 12 // 16
        counted = {"total": sum(sizes.values()), "active": sum(sizes.values()) - unused}
        assert card["training"][name]["parameters"] == counted


def test_both_places_of_the_rope_base_agree():
    for name in NAMES:
        config = json.loads((checkpoint(name) / "config.json").read_text("utf-8"))
        assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000
        assert config["max_position_embeddings"] == 512
        assert config["tie_word_embeddings"] is True


def test_both_checkpoints_were_trained_for_the_same_number_of_steps(card):
    steps = {card["training"][name]["steps"] for name in NAMES}
    assert len(steps) == 1


def _product(shape: list[int]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product
