"""What can be said of a checkpoint before any weight is read, so that a bad one fails clearly."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moetui.errors import ModelError
from moetui.model.supported import is_supported

_AGAIN = "copy or download the checkpoint again"
_HEADER_LIMIT = 100_000_000  # the safetensors format's own limit


def check(folder: Path) -> dict[str, Any]:
    """The configuration of the checkpoint in `folder`, whose files are complete and well formed.

    Raises ModelError naming the file and what is wrong with it.
    """
    config = _read_json(folder / "config.json")
    architecture(config, folder)
    weights = sorted(folder.glob("model*.safetensors"))
    if not weights:
        raise ModelError(f"{folder} holds no model*.safetensors file", _AGAIN)
    for shard in _indexed(folder):
        if not (folder / shard).is_file():
            raise ModelError(f"{folder} lacks {shard}, which its index names", _AGAIN)
    for path in weights:
        _check_safetensors(path)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise ModelError(f"{folder} has no tokenizer (tokenizer.json or tokenizer.model)", _AGAIN)
    return config


def architecture(config: Mapping[str, Any], folder: Path) -> str:
    """The mlx-lm model type that `config` asks for; ModelError when mlx-lm does not have it."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not re.fullmatch(r"[\w-]+", model_type):
        raise ModelError(
            f"{folder / 'config.json'} names no model_type", "give a language model's folder"
        )
    if "model_file" in config:
        raise ModelError(
            f"{folder} wants to run its own code ({config['model_file']!r})",
            "moetui runs no code from checkpoints; use a model that mlx-lm knows by itself",
        )
    if not is_supported(model_type):
        raise ModelError(
            f"mlx-lm does not know the architecture {model_type!r}",
            "a newer mlx-lm may: pip install -U mlx-lm",
        )
    return str(model_type)


def in_mlx_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers writes under names that mlx-lm does not look at, under those that it does.

    transformers 5 puts the rotary settings into `rope_parameters` and calls the number of experts
    `num_local_experts`; without the older names mlx-lm would silently take its own defaults.
    """
    renamed: dict[str, Any] = {}
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        renamed["rope_theta"] = rope["rope_theta"]
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        if scaling.get("rope_type", "default") != "default":
            renamed["rope_scaling"] = scaling
    if "num_local_experts" in config:
        renamed["num_experts"] = config["num_local_experts"]
    return {name: value for name, value in renamed.items() if config.get(name) is None}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", _AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON", _AGAIN) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} does not hold an object", _AGAIN)
    return content


def _indexed(folder: Path) -> set[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return set()
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ModelError(f"{index} has no weight_map", _AGAIN)
    return {str(shard) for shard in weight_map.values()}


def _check_safetensors(path: Path) -> None:
    """Header length, header, and the length of the data that it promises."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
            raise ModelError(f"{path} is damaged or truncated: its header does not fit", _AGAIN)
        raw = file.read(length)
    try:
        header = json.loads(raw)
        ends = [
            tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"
        ]
        promised = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: its header cannot be read", _AGAIN) from error
    if promised != size:
        raise ModelError(
            f"{path} is damaged or truncated: {size:,} bytes where its header says {promised:,}",
            _AGAIN,
        )
