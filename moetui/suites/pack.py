"""What a part left, as bytes and back: JSON types, Structs, dataclasses and numpy arrays.

Arrays keep their type, shape and every bit, so a number computed from what was read back equals
one computed from what was written.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

_ARRAY = 1


def pack(value: Any) -> bytes:
    """`value` as MessagePack. Raises NotImplementedError for a type that is none of those."""
    return msgspec.msgpack.encode(value, enc_hook=_encoded, order="deterministic")


def unpack(data: bytes, kind: Any) -> Any:
    """The value of type `kind` that `pack` made `data` of.

    Raises msgspec.MsgspecError where `data` is something else.
    """
    return msgspec.msgpack.decode(data, type=kind, dec_hook=_decoded, ext_hook=_array)


def _encoded(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise NotImplementedError("an array of objects cannot be kept")
        head = msgspec.msgpack.encode((value.dtype.str, value.shape))
        size = len(head).to_bytes(4, "little")
        return msgspec.msgpack.Ext(_ARRAY, size + head + np.ascontiguousarray(value).tobytes())
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"{type(value).__name__} cannot be kept")


def _array(code: int, data: memoryview) -> NDArray[Any]:
    if code != _ARRAY:
        raise msgspec.ValidationError(f"unknown extension {code}")
    size = int.from_bytes(data[:4], "little")
    kind, shape = msgspec.msgpack.decode(data[4 : 4 + size], type=tuple[str, tuple[int, ...]])
    return np.frombuffer(data[4 + size :], np.dtype(kind)).reshape(shape).copy()


def _decoded(kind: Any, value: Any) -> Any:
    # Arrays come out of `_array` already; annotations such as NDArray[np.float64] need no more.
    if isinstance(value, np.ndarray):
        return value
    raise NotImplementedError(f"{kind} cannot be read back")
