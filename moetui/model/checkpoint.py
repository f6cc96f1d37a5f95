"""What can be said of a checkpoint before any weight is read, so that a bad one fails clearly."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from moetui.errors import ModelError

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
    from mlx_lm.utils import MODEL_REMAPPING

    module = MODEL_REMAPPING.get(model_type, model_type)
    if find_spec(f"mlx_lm.models.{module}") is None:
        raise ModelError(
            f"mlx-lm does not know the architecture {model_type!r}",
            "a newer mlx-lm may: pip install -U mlx-lm",
        )
    return str(model_type)


def in_mlx_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers writes under names that mlx-lm does not look at, under those that it does.

    transformers 5 puts the rotary settings into `rope_parameters`, calls the number of experts
    `num_local_experts` and the mixers of granitemoehybrid as in every other family, and lists
    what differs in the full-attention layers of gemma4 by layer. Without the older names mlx-lm
    would refuse the checkpoint or, worse, silently take its own defaults.
    """
    renamed = _rope(config.get("rope_parameters"))
    if "num_local_experts" in config:
        renamed["num_experts"] = config["num_local_experts"]
    by_layer = config.get("per_layer_config")
    for settings in by_layer.values() if isinstance(by_layer, dict) else ():
        renamed |= {_GLOBAL[key]: value for key, value in settings.items() if key in _GLOBAL}
    missing = {name: value for name, value in renamed.items() if config.get(name) is None}
    mixers = config.get("layer_types")
    if config.get("model_type") == "granitemoehybrid" and isinstance(mixers, list):
        missing["layer_types"] = [_MIXERS.get(mixer, mixer) for mixer in mixers]
    return missing


# What mlx-lm calls these settings of the layers that attend to everything.
_GLOBAL = {"head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"}
_MIXERS = {"linear_attention": "mamba", "full_attention": "attention"}


def _rope(parameters: object) -> dict[str, Any]:
    """`rope_parameters`, where they are one set for all layers, as the older settings."""
    if not isinstance(parameters, dict) or "rope_theta" not in parameters:
        return {}
    scaling = {key: value for key, value in parameters.items() if key != "rope_theta"}
    scaled = scaling.get("rope_type", "default") != "default"
    settings = {"rope_theta": parameters["rope_theta"], "rope_scaling": scaling if scaled else None}
    if "partial_rotary_factor" in parameters:
        settings["partial_rotary_factor"] = parameters["partial_rotary_factor"]
    return settings


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
