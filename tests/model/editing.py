"""Editing a copy of a checkpoint: its JSON files, the header of its weights, the weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def edit_json(folder: Path, name: str, **changes: Any) -> None:
    """Replace top-level values of a JSON file, which need not exist."""
    path = folder / name
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **changes}))


def edit_config(folder: Path, **changes: Any) -> None:
    edit_json(folder, CONFIG, **changes)


def edit_model(folder: Path, **changes: Any) -> None:
    """Replace values of the tokenizer's own model: its vocabulary, its merges, …"""
    tokenizer = json.loads((folder / TOKENIZER).read_text())
    tokenizer["model"].update(changes)
    (folder / TOKENIZER).write_text(json.dumps(tokenizer))


def read_weights(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write_weights(path: Path, header: Any, data: bytes) -> None:
    """A safetensors file; `header` is bytes, or what becomes JSON."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def edit_header(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Let `edit` change the header in place, or return what is to stand in its stead."""
    header, data = read_weights(folder / WEIGHTS)
    changed = edit(header)
    write_weights(folder / WEIGHTS, header if changed is None else changed, data)


def edit_tensor(folder: Path, name: str, **changes: Any) -> None:
    edit_header(folder, lambda header: header[name].update(changes))


def put_values(folder: Path, name: str, pattern: bytes, *, at: int = 0) -> None:
    """Overwrite the bytes of one tensor from byte `at` with `pattern`."""
    header, data = read_weights(folder / WEIGHTS)
    start = header[name]["data_offsets"][0] + at
    write_weights(folder / WEIGHTS, header, data[:start] + pattern + data[start + len(pattern) :])


def rebuild(
    folder: Path, change: Callable[[dict[str, tuple[str, list[int], bytes]]], None]
) -> None:
    """Let `change` edit all tensors as name → (dtype, shape, bytes), and write a sound file."""
    header, data = read_weights(folder / WEIGHTS)
    header.pop("__metadata__", None)
    tensors = {
        name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
        for name, entry in header.items()
    }
    change(tensors)
    save_tensors(folder / WEIGHTS, tensors)


def save_tensors(path: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    """A sound safetensors file."""
    header, parts, reached = {}, [], 0
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {
            "dtype": dtype, "shape": shape, "data_offsets": [reached, reached + len(raw)],
        }  # fmt: skip
        reached += len(raw)
        parts.append(raw)
    write_weights(path, header, b"".join(parts))


def shard(folder: Path) -> None:
    """Split the weights into two shards with an index, as larger checkpoints come."""
    header, data = read_weights(folder / WEIGHTS)
    header.pop("__metadata__", None)
    names = sorted(header)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    weight_map = {}
    for number, half in enumerate(halves, 1):
        file = f"model-0000{number}-of-00002.safetensors"
        tensors = {
            name: (
                header[name]["dtype"],
                header[name]["shape"],
                data[slice(*header[name]["data_offsets"])],
            )
            for name in half
        }
        save_tensors(folder / file, tensors)
        weight_map.update(dict.fromkeys(half, file))
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
