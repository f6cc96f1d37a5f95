"""Fingerprints of a checkpoint, quick enough to take at every load."""

from __future__ import annotations

import hashlib
from pathlib import Path

from moetui.model.safetensors import read_header

_BLOCK = 1 << 20
_BLOCKS = 64


def digest(folder: Path) -> str:
    """16 hex digits of SHA-256 over config.json and every weight file: name, size, first block
    (which holds the header) and 64 blocks spread over the rest. Two checkpoints that differ in
    one weight alone may share it; files of up to 64 MiB are covered whole.
    """
    hasher = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        hasher.update(f"\0{path.name}\0{size}\0".encode())
        step = max(_BLOCK, size // _BLOCKS)
        with path.open("rb") as file:
            for start in range(0, size, step):
                file.seek(start)
                hasher.update(file.read(_BLOCK))
    return hasher.hexdigest()[:16]


def recipe_digest(folder: Path, initialisation: str) -> str:
    """16 hex digits of SHA-256 over what weights drawn as `initialisation` says follow from:
    config.json, and the name, type and shape of every tensor in the weight files.
    """
    hasher = hashlib.sha256((folder / "config.json").read_bytes())
    tensors = (read_header(path).items() for path in folder.glob("*.safetensors"))
    for name, tensor in sorted(item for items in tensors for item in items):
        hasher.update(f"\0{name}\0{tensor.dtype}\0{tensor.shape}\0".encode())
    hasher.update(initialisation.encode())
    return hasher.hexdigest()[:16]
