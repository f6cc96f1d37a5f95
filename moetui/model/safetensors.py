"""The header of a safetensors file: every tensor's type, shape and place, and that they add up.

Format: 8 bytes with the header's length, the header (JSON), the data. Each tensor owns the bytes
`data_offsets` of the data; together they cover it exactly once.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import msgspec

from moetui.errors import ModelError
from moetui.model.files import AGAIN, parse_json, shown

# Bytes of the types that mlx reads, by the names that the format gives them.
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2,
    "BF16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "C64": 8,
}  # fmt: skip
# A quarter of what the format allows, and twice what 100,000 tensors in one file need.
_HEADER_LIMIT = 25_000_000
_MAX_SIZE = 2**31  # shapes are 32-bit integers in mlx
_MAX_DIMENSIONS = 16


class Tensor(msgspec.Struct, frozen=True):
    """One tensor as its header announces it: its type by the format's name, its shape, and where
    its bytes begin and end in the data that follow the header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.data_offsets[1] - self.data_offsets[0]

    @property
    def size(self) -> int:
        """Numbers in it; packed weights count as the integers that hold them."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name; no tensor's data is read.

    Raises ModelError when the header is not one, or does not describe exactly this file.
    """
    raw, data_bytes = _raw_header(path)
    content = parse_json(raw, f"the header of {path}")
    if not isinstance(content, dict):
        raise ModelError(f"{path} is damaged: its header is no JSON object", AGAIN)
    metadata = content.pop("__metadata__", None) or {}  # mlx writes null for none
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ModelError(f"{path} is damaged: its metadata are not text", AGAIN)
    tensors = {name: _tensor(path, name, entry) for name, entry in content.items()}
    _check_cover(path, tensors, data_bytes)
    return tensors


def _raw_header(path: Path) -> tuple[bytes, int]:
    """The bytes of the header, and how many bytes of data follow it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= size - 8:
                raise ModelError(f"{path} is damaged or truncated: its header does not fit", AGAIN)
            if length > _HEADER_LIMIT:
                raise ModelError(f"{path} is damaged: a header of {length:,} bytes", AGAIN)
            return file.read(length), size - 8 - length
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", AGAIN) from error


def _tensor(path: Path, name: str, entry: Any) -> Tensor:
    """One entry of the header, whose bytes are what its type and shape need."""
    try:
        tensor = msgspec.convert(entry, Tensor)
    except msgspec.ValidationError as error:
        raise _damaged(path, name, f"has no proper entry ({error})") from error
    if tensor.dtype not in ITEM_BYTES:
        raise ModelError(
            f"{path} stores {shown(name)} as {shown(tensor.dtype)}, which mlx does not read",
            "convert the weights to BF16, F16 or F32",
        )
    if len(tensor.shape) > _MAX_DIMENSIONS:
        raise _damaged(path, name, f"has {len(tensor.shape)} dimensions")
    if not all(0 <= length < _MAX_SIZE for length in tensor.shape):
        raise _damaged(path, name, f"has the shape {shown(list(tensor.shape))}")
    needed = tensor.size * ITEM_BYTES[tensor.dtype]
    if tensor.data_offsets[0] < 0 or tensor.nbytes != needed:
        begin, end = tensor.data_offsets
        raise _damaged(path, name, f"needs {needed:,} bytes and owns {begin:,} to {end:,}")
    return tensor


def _check_cover(path: Path, tensors: dict[str, Tensor], data_bytes: int) -> None:
    """Every byte of the data belongs to exactly one tensor."""
    reached = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        begin, end = tensor.data_offsets
        if begin != reached:
            what = "shares bytes with another tensor" if begin < reached else "follows a gap"
            raise _damaged(path, name, what)
        reached = end
    if reached != data_bytes:
        raise ModelError(
            f"{path} is damaged or truncated: {data_bytes:,} bytes of data where its header says "
            f"{reached:,}",
            AGAIN,
        )


def _damaged(path: Path, name: str, what: str) -> ModelError:
    return ModelError(f"{path} is damaged: {shown(name)} {what}", AGAIN)
