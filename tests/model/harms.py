"""Ways to damage a copy of a checkpoint, or to make it unusual: each takes its folder."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.model.editing import (
    CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    WEIGHTS,
    edit_config,
    edit_header,
    edit_json,
    edit_model,
    edit_tensor,
    put_values,
    read_weights,
    rebuild,
    shard,
    write_weights,
)

Harm = Callable[[Path], object]

EMBEDDING, GATE = "model.embed_tokens.weight", "model.layers.3.mlp.gate.weight"
Q_PROJ = "model.layers.5.self_attn.q_proj.weight"
# Numbers in bfloat16; the last two are 3.4e38 and 8.9e17.
NAN, INF, HUGE, LARGE = (struct.pack("<H", bits) for bits in (0x7FC0, 0x7F80, 0x7F7F, 0x5D46))


def config(**changes: Any) -> Harm:
    return lambda folder: edit_config(folder, **changes)


def without(key: str) -> Harm:
    def harm(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        del config[key]
        (folder / CONFIG).write_text(json.dumps(config))

    return harm


def written(name: str, content: str | bytes) -> Harm:
    raw = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(raw)


def inserted(name: str, text: str) -> Harm:
    """Text put right behind the first brace of a JSON file."""

    def harm(folder: Path) -> None:
        path = folder / name
        path.write_text(path.read_text().replace("{", "{" + text, 1))

    return harm


def removed(name: str) -> Harm:
    return lambda folder: (folder / name).unlink()


def cut(name: str, keep: float) -> Harm:
    def harm(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: int(len(raw) * keep)])

    return harm


def instead(name: str, make: Callable[[Path], object]) -> Harm:
    """Something else in the place of a file."""

    def harm(folder: Path) -> None:
        path = folder / name
        if path.exists():
            path.unlink()
        make(path)

    return harm


def linked(name: str, target: Callable[[Path], Path]) -> Harm:
    """A link in the place of a file."""
    return lambda folder: instead(name, lambda path: path.symlink_to(target(folder)))(folder)


def moved(name: str, new: str) -> Harm:
    """The file lies at `new` (relative to the folder), and a link to it in its place."""

    def harm(folder: Path) -> None:
        target = (folder / new).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / name, target)
        (folder / name).symlink_to(target)

    return harm


def tensor(name: str, **changes: Any) -> Harm:
    return lambda folder: edit_tensor(folder, name, **changes)


def header(edit: Callable[[dict[str, Any]], Any]) -> Harm:
    return lambda folder: edit_header(folder, edit)


def values(name: str, pattern: bytes, at: int = 0) -> Harm:
    return lambda folder: put_values(folder, name, pattern, at=at)


def tokenizer(**changes: Any) -> Harm:
    return lambda folder: edit_json(folder, TOKENIZER, **changes)


def tokenizer_config(**changes: Any) -> Harm:
    return lambda folder: edit_json(folder, TOKENIZER_CONFIG, **changes)


def more_tokens(**tokens: int) -> Harm:
    def harm(folder: Path) -> None:
        vocabulary = json.loads((folder / TOKENIZER).read_text())["model"]["vocab"]
        edit_model(folder, vocab={**vocabulary, **tokens})

    return harm


def together(*harms: Harm) -> Harm:
    def harm(folder: Path) -> None:
        for one in harms:
            one(folder)

    return harm


def header_bytes(raw: bytes) -> Harm:
    return lambda folder: write_weights(folder / WEIGHTS, raw, read_weights(folder / WEIGHTS)[1])


def header_length(length: int) -> Harm:
    def harm(folder: Path) -> None:
        path = folder / WEIGHTS
        path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])

    return harm


def twice_in_header(folder: Path) -> None:
    header, data = read_weights(folder / WEIGHTS)
    entry = f'"{GATE}": {json.dumps(header[GATE])}, '
    raw = json.dumps(header).replace("{", "{" + entry, 1)
    write_weights(folder / WEIGHTS, raw.encode(), data)


def overlap(header: dict[str, Any]) -> None:
    header[GATE]["data_offsets"] = [at - 256 for at in header[GATE]["data_offsets"]]


def recast(name: str, dtype: str, factor: float) -> Harm:
    """One tensor in another type: the file is sound, the numbers are zero."""

    def change(tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
        _, shape, raw = tensors[name]
        tensors[name] = dtype, shape, bytes(int(len(raw) * factor))

    return lambda folder: rebuild(folder, change)


def transposed(tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    dtype, shape, raw = tensors[EMBEDDING]
    tensors[EMBEDDING] = dtype, shape[::-1], raw


def shorter_embedding(tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    dtype, (rows, width), raw = tensors[EMBEDDING]
    tensors[EMBEDDING] = dtype, [rows - 96, width], raw[: (rows - 96) * width * 2]


def few_words(folder: Path) -> None:
    """A vocabulary of four words, and an embedding of as many rows."""

    def change(tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
        dtype, (_, width), raw = tensors[EMBEDDING]
        tensors[EMBEDDING] = dtype, [4, width], raw[: 4 * width * 2]

    rebuild(folder, change)
    edit_config(folder, vocab_size=4)
    model = {"type": "WordLevel", "vocab": {"<u>": 0, "a": 1, "b": 2, "c": 3}, "unk_token": "<u>"}
    edit_json(folder, TOKENIZER, model=model, added_tokens=[], pre_tokenizer={"type": "Whitespace"})
    edit_json(folder, TOKENIZER_CONFIG, eos_token=None, pad_token=None)


def tall_header(header: dict[str, Any]) -> None:
    header[GATE]["shape"] = [1] * 40 + header[GATE]["shape"]


def zeroed(folder: Path) -> None:
    header, data = read_weights(folder / WEIGHTS)
    write_weights(folder / WEIGHTS, header, bytes(len(data)))


def dropped_from_shard(folder: Path) -> None:
    shard(folder)
    path = folder / "model-00002-of-00002.safetensors"
    header, data = read_weights(path)
    last = max(header, key=lambda name: header[name]["data_offsets"])
    begin = header.pop(last)["data_offsets"][0]
    write_weights(path, header, data[:begin])


POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f3\n"
    "size 5336064\n"
)
AUTO_MAP = {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}
