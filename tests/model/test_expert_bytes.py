"""What an expert takes in a checkpoint, against the loaded banks and the files themselves."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from mlx.utils import tree_flatten

import moetui
from moetui.demo import checkpoint
from moetui.model import Model
from tests.reference.values import DATA

ROUTED = (
    "olmoe", "mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "granitemoe", "phimoe",
    "deepseek_v2", "deepseek_v3", "lfm2_moe", "ernie4_5_moe", "gemma4_text",
)  # fmt: skip


@pytest.mark.parametrize("family", ROUTED)
def test_an_expert_takes_its_share_of_the_bank(
    family: str, model_of: Callable[[str], Model]
) -> None:
    model = model_of(family)
    banks = [site.bank for site in model.architecture.sites.values()]
    arrays = [[array for _, array in tree_flatten(bank.parameters())] for bank in banks]
    # These checkpoints store what is computed with: float32, and packed weights as they are.
    assert model.info.expert_bytes == tuple(
        sum(array.nbytes // len(array) for array in bank) for bank in arrays
    )


def test_in_half_precision_it_is_what_the_file_holds(demo: Model) -> None:
    raw = (checkpoint("demo") / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    for layer, size in zip(demo.info.moe_layers, demo.info.expert_bytes, strict=True):
        spans = [
            entry["data_offsets"]
            for name, entry in header.items()
            if f"layers.{layer}.mlp.experts.3." in name
        ]
        assert size == sum(stop - start for start, stop in spans) == 3 * 128 * 32 * 2


def test_scales_and_biases_of_packed_experts_count(tmp_path: Path) -> None:
    from mlx_lm.convert import convert

    folder = tmp_path / "packed"
    convert(str(checkpoint("demo")), str(folder), quantize=True, q_bits=4, q_group_size=32)
    # 4 bits a weight, and for 32 weights a scale and a bias of 16 bits each.
    weights = 3 * 128 * 32
    assert set(moetui.load(folder).info.expert_bytes) == {weights // 2 + weights // 32 * 4}


def test_a_dense_model_has_none() -> None:
    assert moetui.load(DATA / "llama").info.expert_bytes == ()
