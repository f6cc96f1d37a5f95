"""Models on a machine that has none: a Hugging Face cache and folders, made as they really look.

Small ones are copies of real checkpoints. Large ones are real headers over files with holes: they
have the size and the tensors of the model they stand for, and take no room on the disk.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from moetui.demo import checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ITEM = {"BF16": 2, "F32": 4, "U32": 4, "U8": 1}

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]

# Qwen3-30B-A3B as Hugging Face publishes it.
QWEN = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "vocab_size": 151936,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
}


def snapshot(hub: Path, name: str) -> Path:
    """The empty folder of the revision that opens as `name`, in the cache `hub`."""
    repository = hub / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    folder = repository / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    return folder


def cached(hub: Path, name: str, source: Path) -> Path:
    """The checkpoint `source` as a download puts it into the cache: links to blobs."""
    folder = snapshot(hub, name)
    blobs = folder.parents[1] / "blobs"
    blobs.mkdir()
    for path in source.iterdir():
        if path.is_file():
            shutil.copyfile(path, blobs / path.name)
            (folder / path.name).symlink_to(Path("../../blobs") / path.name)
    return folder


def placed(folder: Path, source: Path | None = None) -> Path:
    """A checkpoint (the demo model by default) copied to `folder`."""
    shutil.copytree(source or checkpoint("demo"), folder)
    return folder


def hollow(folder: Path, config: Mapping[str, object], shapes: Shapes) -> Path:
    """A checkpoint in `folder` with the headers of `shapes` and no data behind them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + ITEM[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    raw = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)
    return folder


def qwen_shapes() -> Shapes:
    """The tensors of Qwen3-30B-A3B in mlx's layout, in bfloat16."""
    return dict(_qwen())


def packed(shapes: Shapes, bits: Mapping[str, int], group: int = 64) -> Shapes:
    """`shapes` as mlx packs them: matrices whose name ends as a key of `bits` says, to so many."""
    out: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (dtype, shape) in shapes.items():
        wanted = next((b for end, b in bits.items() if name.endswith(end)), None)
        if wanted is None or len(shape) < 2:
            out[name] = (dtype, shape)
            continue
        stem = name.removesuffix(".weight")
        out[name] = ("U32", (*shape[:-1], shape[-1] * wanted // 32))
        for part in ("scales", "biases"):
            out[f"{stem}.{part}"] = (dtype, (*shape[:-1], shape[-1] // group))
    return out


def _qwen() -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    H, V, E, F = 2048, 151936, 128, 768
    yield from _bf16("model.embed_tokens.weight", V, H)
    yield from _bf16("model.norm.weight", H)
    yield from _bf16("lm_head.weight", V, H)
    for layer in range(48):
        at = f"model.layers.{layer}"
        yield from _bf16(f"{at}.self_attn.q_proj.weight", 4096, H)
        yield from _bf16(f"{at}.self_attn.k_proj.weight", 512, H)
        yield from _bf16(f"{at}.self_attn.v_proj.weight", 512, H)
        yield from _bf16(f"{at}.self_attn.o_proj.weight", H, 4096)
        for norm, size in (("q_norm", 128), ("k_norm", 128)):
            yield from _bf16(f"{at}.self_attn.{norm}.weight", size)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield from _bf16(f"{at}.{norm}.weight", H)
        yield from _bf16(f"{at}.mlp.gate.weight", E, H)
        for part, rows, columns in (("gate", F, H), ("up", F, H), ("down", H, F)):
            yield from _bf16(f"{at}.mlp.switch_mlp.{part}_proj.weight", E, rows, columns)


def _bf16(name: str, *shape: int) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    yield name, ("BF16", shape)
