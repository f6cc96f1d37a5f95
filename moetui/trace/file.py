"""The `.moetrace` file: one safetensors file whose header carries a JSON description.

Opening one executes nothing: the header is decoded into a typed structure, every tensor's name,
type and shape is checked against it before any of them is read, and the format itself bounds all
sizes by the size of the file.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from moetui.errors import TraceFileError
from moetui.trace.types import LensReadout, ModelInfo, Streams, TokenKind, Trace

SCHEMA_VERSION = 1
SUFFIX = ".moetrace"
_HEADER = "moetrace"
_DTYPES = {"F32": np.float32, "I32": np.int32, "I16": np.int16}

# Every tensor that a file may hold: its safetensors type, and its shape in letters.
_TENSORS: dict[str, tuple[str, str]] = {
    "token_ids": ("I32", "T"),
    "layers": ("I32", "L"),
    "router_logits": ("F32", "TLE"),
    "selection_scores": ("F32", "TLE"),
    "expert_ids": ("I16", "TLk"),
    "expert_weights": ("F32", "TLk"),
    "logits": ("F32", "V"),
    "router_parts": ("F32", "TLGE"),
    "seed_parts": ("F32", "TL2E"),
    "attention": ("F32", "AhTS"),
    "expert_outputs": ("F32", "TLkH"),
    "streams.entering": ("F32", "TNH"),
    "streams.at_router": ("F32", "TNH"),
    "streams.leaving": ("F32", "TNH"),
    "streams.router_input": ("F32", "TLH"),
    "lens.layers": ("I32", "M"),
    "lens.positions": ("I32", "P"),
    "lens.token_ids": ("I32", "PMn"),
    "lens.logprobs": ("F32", "PMn"),
    "lens.answer_ids": ("I32", "P"),
    "lens.answer_rank": ("I32", "PM"),
    "lens.answer_logprob": ("F32", "PM"),
}
_REQUIRED = ("token_ids", "layers", "router_logits", "expert_ids", "expert_weights", "logits")


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    schema_version: int
    model: ModelInfo
    tokens: tuple[str, ...]
    token_kinds: tuple[TokenKind, ...]
    prompt_tokens: int
    lens_text: dict[int, str]
    versions: dict[str, str]
    interventions: tuple[str, ...] = ()


def save_trace(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Write `trace` to `path`, whole or not at all.

    Raises TraceFileError when the folder cannot be written.
    """
    from safetensors.numpy import save

    header = _Header(
        schema_version=SCHEMA_VERSION,
        model=trace.model,
        tokens=trace.tokens,
        token_kinds=trace.token_kinds,
        prompt_tokens=trace.prompt_tokens,
        lens_text=dict(trace.lens.text) if trace.lens else {},
        versions=_versions(),
        interventions=trace.interventions,
    )
    tensors = {name: np.ascontiguousarray(value) for name, value in _tensors(trace).items()}
    data = save(tensors, metadata={_HEADER: msgspec.json.encode(header).decode()})
    write_atomically(Path(path), data)


def write_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that nobody ever sees half of it.

    Raises TraceFileError when the folder cannot be written.
    """
    part: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            part = Path(file.name)
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        part.replace(path)
    except OSError as error:
        raise TraceFileError(
            f"cannot write {path}: {error.strerror}", "choose a folder that exists and is writable"
        ) from error
    finally:
        if part is not None:  # still there after a failure or an interrupt only
            part.unlink(missing_ok=True)


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """Read a `.moetrace` file. Raises TraceFileError for anything else, saying what is wrong."""
    from safetensors import SafetensorError, safe_open

    where = Path(path)
    if not where.is_file():
        raise TraceFileError(f"no such trace file: {where}", "check the path")
    try:
        with safe_open(where, framework="numpy") as file:
            header = _read_header(file.metadata() or {}, where)
            names = set(file.keys())
            _check(file, names, header, where)
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise _damaged(where, str(error)) from error
    return _trace(header, tensors)


def looks_like_trace(start: bytes) -> bool:
    """Whether a file that begins with `start` (9 bytes or more) is meant as a trace: the length
    of a header, then the header, which is JSON."""
    return start[8:9] == b"{" and not start.lstrip().startswith((b"{", b"["))


def _damaged(path: Path, why: str) -> TraceFileError:
    return TraceFileError(
        f"{path} is not a readable {SUFFIX} file: {why}",
        f"write it again with `moetui trace -o NAME{SUFFIX}`",
    )


def _read_header(metadata: Mapping[str, str], path: Path) -> _Header:
    if _HEADER not in metadata:
        raise _damaged(path, "it holds no trace description")
    try:
        header = msgspec.json.decode(metadata[_HEADER], type=_Header)
    except msgspec.DecodeError as error:
        raise _damaged(path, f"its description is invalid ({error})") from error
    if header.schema_version != SCHEMA_VERSION:
        raise TraceFileError(
            f"{path} has trace format {header.schema_version}; this moetui reads {SCHEMA_VERSION}",
            "install the moetui version that wrote it, or trace again",
        )
    return header


def _check(file: Any, names: set[str], header: _Header, path: Path) -> None:
    """Names, types and shapes, before anything is allocated; one letter has one length."""
    if unknown := names - _TENSORS.keys():
        raise _damaged(path, f"unknown tensor {min(unknown)!r}")
    if missing := set(_REQUIRED) - names:
        raise _damaged(path, f"tensor {min(missing)!r} is missing")
    for group in ("lens.", "streams."):
        whole = {name for name in _TENSORS if name.startswith(group)}
        if 0 < len(names & whole) < len(whole):
            raise _damaged(path, f"tensor {min(whole - names)!r} is missing")
    lengths = {
        "T": len(header.tokens),
        "L": len(header.model.moe_layers),
        "2": 2,
        "N": header.model.num_layers,
        "H": header.model.hidden_size,
        "G": len(header.model.part_names),
    }
    for name in sorted(names):
        dtype, letters = _TENSORS[name]
        view = file.get_slice(name)
        shape = view.get_shape()
        if view.get_dtype() != dtype:
            raise _damaged(path, f"{name} has type {view.get_dtype()}, not {dtype}")
        if len(shape) != len(letters):
            raise _damaged(path, f"{name} has {len(shape)} axes, not {len(letters)}")
        for letter, length in zip(letters, shape, strict=True):
            if lengths.setdefault(letter, length) != length:
                raise _damaged(path, f"{name} has shape {shape}, which does not fit the rest")
    if len(header.token_kinds) != lengths["T"] or not 0 <= header.prompt_tokens <= lengths["T"]:
        raise _damaged(path, "its token lists differ in length")


def _tensors(trace: Trace) -> dict[str, np.ndarray[Any, Any]]:
    found: dict[str, Any] = {}
    for name in _TENSORS:
        owner: Any = trace
        group, _, field = name.rpartition(".")
        if group:
            owner = trace.lens if group == "lens" else trace.streams
        value = None if owner is None else getattr(owner, field)
        if value is not None:
            found[name] = value
    return found


def _trace(header: _Header, tensors: dict[str, Any]) -> Trace:
    groups: dict[str, dict[str, Any]] = {"": {}, "lens": {}, "streams": {}}
    for name, value in tensors.items():
        group, _, field = name.rpartition(".")
        groups[group][field] = value
    return Trace(
        model=header.model,
        tokens=header.tokens,
        token_kinds=header.token_kinds,
        prompt_tokens=header.prompt_tokens,
        interventions=header.interventions,
        lens=LensReadout(text=header.lens_text, **groups["lens"]) if groups["lens"] else None,
        streams=Streams(**groups["streams"]) if groups["streams"] else None,
        **{"selection_scores": None, **groups[""]},
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("moetui", "mlx", "mlx-lm", "transformers", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a trace may be saved where the engine is not installed
            continue
    return found
