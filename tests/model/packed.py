"""Packed weights of a checkpoint, unpacked again in numpy: no call of mlx but to read the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# The values that the 16 codes of FP4 (E2M1) stand for; bit 3 is the sign.
_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


class Packed:
    """The matrices of a checkpoint folder by name, as float64."""

    def __init__(self, folder: Path) -> None:
        self._arrays: dict[str, mx.array] = {}
        for file in sorted(folder.glob("model*.safetensors")):
            self._arrays.update(mx.load(str(file)))
        self._config = json.loads((folder / "config.json").read_text())

    def names(self, ending: str) -> list[str]:
        """Names of the matrices, without `.weight`, that end in `ending`, by layer."""
        found = [n.removesuffix(".weight") for n in self._arrays if n.endswith(f"{ending}.weight")]
        return sorted(found, key=lambda name: [int(p) for p in name.split(".") if p.isdigit()])

    def bits(self, name: str) -> int:
        """Bits a weight of the matrix takes, without scales."""
        weight = self._arrays[f"{name}.weight"]
        return self._settings(name)["bits"] if self._is_packed(name) else 8 * weight.itemsize

    def matrix(self, name: str) -> Array:
        """[out, in]."""
        weight = self._arrays[f"{name}.weight"]
        if not self._is_packed(name):
            return _float(weight)
        settings = self._settings(name)
        codes = _codes(np.array(weight), settings["bits"])
        scales = self._arrays[f"{name}.scales"]
        groups = codes.reshape(len(codes), scales.shape[-1], settings["group_size"])
        if settings.get("mode", "affine") == "mxfp4":
            values = _FP4[groups] * 2.0 ** (np.array(scales).astype(int)[..., None] - 127)
        else:
            biases = _float(self._arrays[f"{name}.biases"])
            values = groups * _float(scales)[..., None] + biases[..., None]
        unpacked: Array = values.reshape(len(codes), -1)
        return unpacked

    def vector(self, name: str) -> Array:
        """A bias, or zeros where there is none."""
        return _float(self._arrays[name]) if name in self._arrays else np.zeros(1)

    def _is_packed(self, name: str) -> bool:
        return f"{name}.scales" in self._arrays

    def _settings(self, name: str) -> dict[str, Any]:
        whole = self._config["quantization"]
        own: dict[str, Any] = whole.get(name)
        # A dictionary of its own stands alone: what it does not name is mlx's default, affine.
        return own if isinstance(own, dict) else whole


def _codes(words: NDArray[np.uint32], bits: int) -> NDArray[np.int64]:
    """[rows, in]: a row is one stream of codes of `bits` bits each, the lowest bit first."""
    stream = np.unpackbits(words.astype("<u4").view(np.uint8), axis=-1, bitorder="little")
    return stream.reshape(len(words), -1, bits) @ 2 ** np.arange(bits)


def _float(array: mx.array) -> Array:
    return np.array(array.astype(mx.float32)).astype(np.float64)
