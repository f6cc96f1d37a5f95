"""Tiny random checkpoints made with mlx-lm's own classes, in the layout its converter writes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.utils import _get_classes, load_model, quantize_model, save_config, save_model

from tests.model.architectures import COMMON, config_of, randomised
from tests.reference.values import DATA

# Widths that groups of 64 divide, so that every matrix can be packed in any mode.
WIDE: dict[str, Any] = {
    name: 64 if width == 32 else 128
    for name, width in COMMON.items()
    if width in (32, 96) and name.endswith(("size", "dim"))
}

DENSE: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"head_dim": 32, "tie_word_embeddings": True},
    "gpt2": {"n_ctx": 256, "n_embd": 64, "n_head": 4, "n_layer": 4, "n_positions": 256},
    "gemma3_text": {"sliding_window": 6, "sliding_window_pattern": 2},
    "phi3": {"num_key_value_heads": 4},
}

# How mlx-lm's converter is asked for each kind of checkpoint.
MODES: dict[str, dict[str, Any]] = {
    "affine 4-bit": {"group_size": 64, "bits": 4, "mode": "affine"},
    "affine 8-bit": {"group_size": 32, "bits": 8, "mode": "affine"},
    "mxfp4": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
}


def network(name: str, seed: int = 0) -> tuple[nn.Module, dict[str, Any]]:
    """A random network, float32, and its configuration, which names its end-of-text token."""
    config = _dense(name) if name in DENSE else _wide(config_of(name))
    model_class, args_class = _get_classes(config)
    made = model_class(args_class.from_dict(config))
    made.update(randomised(made.parameters(), seed))
    made.set_dtype(mx.float32)
    made.eval()
    mx.eval(made.parameters())
    return made, {**config, "eos_token_id": 1}


def save(made: nn.Module, config: dict[str, Any], folder: Path) -> Path:
    """A checkpoint folder as mlx-lm's converter writes it, with the reference tokenizer."""
    save_model(folder, made)
    save_config(config, folder / "config.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DATA / "olmoe" / name, folder / name)
    return folder


def quantised(
    folder: Path, name: str, mode: str, *, dtype: mx.Dtype = mx.float32, **options: Any
) -> Path:
    """The architecture `name`, packed as `MODES[mode]`; `options` go to mlx-lm's
    `quantize_model`."""
    made, config = network(name)
    made.set_dtype(dtype)
    return save(*quantize_model(made, config, **MODES[mode], **options), folder)


def requantised(folder: Path, source: Path, mode: str) -> Path:
    """A checkpoint on disk, packed once more: what is packed already stays as it is."""
    return save(*quantize_model(*load_model(source), **MODES[mode]), folder)


def _dense(name: str) -> dict[str, Any]:
    common = {key: value for key, value in COMMON.items() if value is not None}
    return {**common, "model_type": name, **DENSE[name]}


def _wide(config: dict[str, Any]) -> dict[str, Any]:
    if "text_config" in config:
        return {**config, "text_config": _wide(config["text_config"])}
    return {name: WIDE[name] if value == COMMON.get(name) and name in WIDE else value
            for name, value in config.items()}  # fmt: skip
