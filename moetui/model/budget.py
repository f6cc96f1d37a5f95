"""Whether a model fits into memory: what it will need, and what there is.

Everything here is told from the headers and the configuration; no weight is read, mlx is not
needed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moetui.errors import ModelError
from moetui.model.config import (
    HEAD_KEYS,
    HIDDEN_KEYS,
    KV_HEAD_KEYS,
    LAYER_KEYS,
    claims,
    count,
    language_part,
)
from moetui.model.safetensors import ITEM_BYTES, Tensor

# Tokens that estimates are for, unless told: one full pass of a prompt.
CONTEXT = 2048
# A model is refused only where there is no room for so many: a prompt and an answer.
LEAST_CONTEXT = 512
# A prompt runs in passes of so many tokens; the lens reads so many rows, so many logits at once.
_PASS, _LENS_ROWS, _LENS_LOGITS = 2048, 4096, 1 << 25
_LENS_COPIES = 4  # logits, their logarithms, what top-k and the ranks make of them
_FLOATS = frozenset(("F16", "BF16", "F32"))
_FLOAT8 = frozenset(("F8_E4M3",))
_GROUPS = 4  # of router_parts: embedding, attention, experts, the rest
# Latent attention whose cache mlx-lm keeps unfolded, as keys and values of every head.
_UNFOLDED = ("deepseek_v2", "minicpm3", "youtu_llm")
_TWO_ATTENTIONS = ("longcat_flash", "longcat_flash_ngram")  # in every layer
_LATENT_HEAD = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_STREAMS = 3  # entering a layer, at its router, leaving it
_LAYER = re.compile(r"(?:^|\.)(\d+)\.")
_CGROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
_FILE_CACHE = re.compile(r"^(?:total_)?inactive_file (\d+)$", re.MULTILINE)
_VM_FREE = ("free", "inactive", "speculative", "purgeable")


@dataclass(frozen=True)
class Need:
    """Bytes that a model takes: its weights as they will be loaded, the key-value cache and the
    captures at a context of `context` tokens, and the copies made while the largest layer loads.
    """

    weights: int
    cache: int
    captures: int
    loading: int
    context: int

    @property
    def total(self) -> int:
        """The most that is taken at once: layers are loaded before there is a cache."""
        return self.weights + max(self.loading, self.cache + self.captures)


def need(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, cpu: bool, context: int = CONTEXT
) -> Need:
    """What a model of `tensors` will need. On a `cpu` its weights become float32."""
    by_layer: Counter[str] = Counter()
    for name, tensor in tensors.items():
        layer = _LAYER.search(name)
        by_layer[layer[1] if layer else name] += _loaded_bytes(tensor, cpu=cpu)
    return Need(
        weights=weight_bytes(tensors, cpu=cpu),
        cache=cache_bytes(config, context, 4 if cpu else 2),
        captures=capture_bytes(config, context),
        loading=max(by_layer.values(), default=0),
        context=context,
    )


def weight_bytes(tensors: Mapping[str, Tensor], *, cpu: bool) -> int:
    """Bytes of the weights as they will be loaded.

    Packed weights stay packed. On a `cpu` all floating types become float32. 8-bit floats count
    as unpacked (to 16 bits elsewhere), which is what most architectures of mlx-lm do with them.
    """
    return sum(_loaded_bytes(tensor, cpu=cpu) for tensor in tensors.values())


def cache_bytes(config: Mapping[str, Any], context: int, item_bytes: int) -> int:
    """Bytes of keys and values of all layers at `context` tokens.

    An upper bound where the configuration does not list which layers keep them, and for layers
    that keep no more than a window.
    """
    whole = language_part(config)
    kinds = whole.get("layer_types")
    layers = count(whole, LAYER_KEYS) or 0
    if isinstance(kinds, list):
        # State-space, convolution and linear-attention layers keep a fixed, small state.
        layers = sum("attention" in str(kind) and "linear" not in str(kind) for kind in kinds)
    attentions = 2 if whole.get("model_type") in _TWO_ATTENTIONS else 1
    return layers * attentions * _cached_numbers(whole) * context * item_bytes


def capture_bytes(config: Mapping[str, Any], context: int) -> int:
    """Bytes of a trace of `context` tokens (router logits, scores and parts), and of what one
    pass needs while it runs: residual streams, next-token logits, the lens."""
    said = claims(config)
    layers, vocabulary = said.layers or 0, count(language_part(config), ("vocab_size",)) or 0
    # router_logits, selection_scores, router_parts, two seed_parts
    kept = context * layers * said.experts * (2 + _GROUPS + 2)
    streams = layers * (said.hidden_size or 0) * _STREAMS
    lens = min(_LENS_LOGITS, min(_LENS_ROWS, context * layers) * vocabulary) * _LENS_COPIES
    return 4 * (kept + min(context, _PASS) * (streams + vocabulary) + lens)


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that programs can take now without swapping; None where the system does not tell.

    Linux: MemAvailable, and less where a control group allows less. macOS: the pages that
    `vm_stat` calls free, inactive, speculative and purgeable. `root`: where /proc and /sys are.
    """
    if sys.platform == "darwin":
        return _from_vm_stat(_output_of("vm_stat"))
    figures = [_mem_available(root), _left_in_group(root)]
    known = [figure for figure in figures if figure is not None]
    return min(known) if known else None


def on_device(info: Mapping[str, str | int], available: int | None, active: int) -> int | None:
    """Bytes left where mlx computes. info: `mlx.core.device_info()`; active: what mlx holds.

    CUDA has memory of its own; Metal shares the machine's, up to a limit; a CPU has all of it.
    """
    free, limit = info.get("free_memory"), info.get("max_recommended_working_set_size")
    if isinstance(free, int):
        return free
    if isinstance(limit, int):
        left = limit - active
        return left if available is None else min(left, available)
    return available


def require(need: Need, available: int | None, name: str, *, packed: bool) -> None:
    """ModelError with the figures when `need` is more than is `available` (None: not known).

    packed: the weights are quantised already, so there is no smaller version to suggest.
    """
    if available is None or need.total <= available:
        return
    smaller = "take a smaller model" if packed else "take a quantised version (4-bit, say)"
    raise ModelError(
        f"{name} does not fit into memory: it needs {_gigabytes(need.total)} (weights "
        f"{_gigabytes(need.weights)}, {need.context:,} tokens of context "
        f"{_gigabytes(need.cache + need.captures)}) and {_gigabytes(available)} are available",
        f"{smaller}, or close other programs",
    )


def _cached_numbers(whole: Mapping[str, Any]) -> int:
    """Numbers that an attention layer keeps of one token: keys and values of every head, or the
    latent that both are made from."""
    heads = count(whole, HEAD_KEYS) or 1
    latent = count(whole, ("kv_lora_rank",))
    if latent is not None:
        nope, rope, value = (count(whole, (key,)) or 0 for key in _LATENT_HEAD)
        unfolded = whole.get("model_type") in _UNFOLDED
        numbers = heads * (nope + rope + value) if unfolded else latent + rope
        indexer = count(whole, ("index_head_dim",)) or 0  # of sparse attention: kept twice
        return numbers + 2 * indexer
    size = count(whole, ("head_dim",)) or (count(whole, HIDDEN_KEYS) or 0) // heads
    return 2 * (count(whole, KV_HEAD_KEYS) or heads) * size


def _loaded_bytes(tensor: Tensor, *, cpu: bool) -> int:
    if tensor.dtype in _FLOAT8:
        return tensor.size * (4 if cpu else 2)
    if cpu and tensor.dtype in _FLOATS:
        return tensor.size * 4
    return tensor.size * ITEM_BYTES[tensor.dtype]


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _mem_available(root: Path) -> int | None:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _left_in_group(root: Path) -> int | None:
    """What the tightest control group around this process leaves, page cache not counted."""
    left = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        base = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        if controllers and "memory" not in controllers.split(","):
            continue
        group = base / path.lstrip("/")
        while group.is_relative_to(base):
            left += _left_here(group)
            group = group.parent
    return min(left, default=None)


def _left_here(group: Path) -> list[int]:
    for limit_file, usage_file in _CGROUP_FILES:
        limit, usage = _text(group / limit_file).strip(), _text(group / usage_file).strip()
        if limit.isdigit() and usage.isdigit():
            cached = _FILE_CACHE.search(_text(group / "memory.stat"))
            return [max(0, int(limit) - int(usage) + (int(cached[1]) if cached else 0))]
    return []


def _from_vm_stat(text: str) -> int | None:
    page = re.search(r"page size of (\d+) bytes", text)
    pages = [re.search(rf"^Pages {kind}: +(\d+)\.", text, re.M) for kind in _VM_FREE]
    found = [int(match[1]) for match in pages if match]
    return int(page[1]) * sum(found) if page and found else None


def _output_of(program: str) -> str:
    try:
        return subprocess.run([program], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
