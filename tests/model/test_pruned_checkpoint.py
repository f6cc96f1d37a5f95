"""A model that is told to do without experts is one whose checkpoint never had them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import moetui
from moetui.analyses.expert_groups import prunes
from tests.model.test_capture import some_ids
from tests.reference.values import DATA

DROPPED = (1, 3)
EXPERT = re.compile(r"(.*\.experts\.)(\d+)(\..*)")
ROUTER = re.compile(r".*\.(mlp|block_sparse_moe)\.gate\.weight$")


def without(source: Path, folder: Path) -> Path:
    """The checkpoint at `source` with the dropped experts, and their rows of every router, gone;
    those that stay are numbered anew."""
    config = json.loads((source / "config.json").read_text())
    numbers = {"num_experts", "num_local_experts"} & config.keys()
    kept = [e for e in range(config[min(numbers)]) if e not in DROPPED]
    config |= dict.fromkeys(numbers, len(kept))
    weights = {}
    for name, array in load_file(source / "model.safetensors").items():
        if (expert := EXPERT.match(name)) is not None:
            if int(expert[2]) in kept:
                weights[f"{expert[1]}{kept.index(int(expert[2]))}{expert[3]}"] = array
        else:
            weights[name] = array[kept] if ROUTER.match(name) else array
    folder.mkdir()
    for file in source.iterdir():
        if file.is_file() and file.name not in ("config.json", "model.safetensors"):
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("name", ["olmoe", "qwen3_moe", "mixtral"])
def test_pruning_is_what_a_checkpoint_without_the_experts_does(name: str, tmp_path: Path) -> None:
    whole = moetui.load(DATA / name)
    pruned = moetui.load(without(DATA / name, tmp_path / name))
    assert pruned.info.num_experts == whole.info.num_experts - len(DROPPED)
    ids = some_ids(whole, 40)
    changes = [one for layer in whole.info.moe_layers for one in prunes(whole, layer, DROPPED)]
    ours, theirs = whole.nll(ids, changes), pruned.nll(ids)
    np.testing.assert_allclose(ours, theirs, rtol=2e-5)
    assert np.abs(whole.nll(ids) - theirs).max() > 1e-3, "and they mattered"
