"""Seeded damage: one seed, one mutant. What is changed is random, what may come of it is not."""

from __future__ import annotations

import json
import math
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from moetui.demo import checkpoint
from tests.model.editing import (
    CONFIG,
    INDEX,
    TOKENIZER,
    TOKENIZER_CONFIG,
    WEIGHTS,
    read_weights,
    write_weights,
)
from tests.reference.values import DATA

FAMILIES = ("olmoe", "mixtral", "qwen3_moe", "gpt_oss", "llama")
ARCHITECTURES = (
    "llama", "mixtral", "qwen2_moe", "qwen3_moe", "qwen3_next", "gpt_oss", "deepseek",
    "deepseek_v2", "deepseek_v3", "dbrx", "phimoe", "phixtral", "granitemoe", "jamba", "mamba2",
    "gemma3n", "openelm", "nemotron_h", "rwkv7", "llama4", "minimax", "base", "cache",
    "rope_utils", "switch_layers", "olmo", "gemma2", "lfm2_moe", "ernie4_5_moe", "bailing_moe",
    "hunyuan",
)  # fmt: skip
VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 5, 7, 2**15, 2**31 - 1, 2**31, 2**40, 2**63, 10**30, 0.0,
    -0.5, 0.5, 1e-45, 1e38, 1e308, math.nan, math.inf, -math.inf, "", "1", "true", "null", "\x00",
    "\x1b[2J", "../../etc/passwd", "x" * 10_000, [], [1], [0, 1], ["a"], [None], [[1, 2], [3]], {},
    {"a": 1}, {"rope_type": "yarn"}, {"rope_type": "llama3", "factor": 2}, {"": None},
]  # fmt: skip
# Settings that some architecture or library looks at.
KEYS = (
    "head_dim", "sliding_window", "layer_types", "rope_scaling", "rope_parameters", "rope_theta",
    "quantization", "quantization_config", "text_config", "num_experts", "num_local_experts",
    "n_routed_experts", "mlp_only_layers", "decoder_sparse_step", "attention_bias", "mlp_bias",
    "partial_rotary_factor", "tie_word_embeddings", "num_key_value_heads",
    "moe_intermediate_size", "first_k_dense_replace", "quantize_activations", "architectures",
    "model_file", "auto_map", "eos_token_id", "rope_traditional", "vocab_size", "num_layers",
    "moe_topk", "n_group", "topk_group", "norm_topk_prob", "max_position_embeddings",
    "layer_norm_eps",
)  # fmt: skip
TOKENIZER_KEYS = (
    "tokenizer_class", "auto_map", "added_tokens_decoder", "extra_special_tokens",
    "additional_special_tokens", "chat_template", "chat_template_type", "tool_parser_type",
    "bos_token", "eos_token", "unk_token", "pad_token", "model_max_length", "padding_side",
    "truncation_side", "add_bos_token", "add_eos_token", "add_prefix_space",
    "clean_up_tokenization_spaces", "tokenizer_file", "vocab_file", "legacy",
    "split_special_tokens", "init_inputs", "model_input_names", "mask_token", "cls_token",
    "fast_tokenizer_files", "name_or_path",
)  # fmt: skip
CLASSES = (
    "LlamaTokenizer", "GPT2Tokenizer", "BertTokenizer", "T5Tokenizer", "Qwen2Tokenizer",
    "GemmaTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", "NewlineTokenizer",
    "CodeLlamaTokenizer", "XLMRobertaTokenizer",
)  # fmt: skip

Mutator = Callable[[random.Random, Path], str]


def make(seed: int, folder: Path) -> str:
    """Write mutant `seed` into the empty `folder`; what was done to it, in words."""
    rng = random.Random(seed)
    base = rng.choice((*FAMILIES, "demo"))
    source = checkpoint("demo") if base == "demo" else DATA / base
    shutil.copytree(source, folder, dirs_exist_ok=True)
    mutators = rng.choices(_MUTATORS, k=rng.choice((1, 1, 1, 2, 3)))
    return f"{base}: " + "; ".join(_done(mutate, rng, folder) for mutate in mutators)


def _done(mutate: Mutator, rng: random.Random, folder: Path) -> str:
    try:
        return mutate(rng, folder)
    except Exception as error:  # an earlier mutator has left nothing to change
        return f"nothing ({type(error).__name__})"


def _config_value(rng: random.Random, folder: Path) -> str:
    return _changed(rng, folder / CONFIG, KEYS)


def _architecture(rng: random.Random, folder: Path) -> str:
    config = json.loads((folder / CONFIG).read_text())
    config["model_type"] = rng.choice(ARCHITECTURES)
    (folder / CONFIG).write_text(json.dumps(config))
    return f"model_type {config['model_type']}"


def _generation_config(rng: random.Random, folder: Path) -> str:
    path = folder / "generation_config.json"
    if not path.exists():
        path.write_text('{"eos_token_id": 0}')
    return _changed(rng, path, ("eos_token_id", "bos_token_id"))


def _tokenizer_config(rng: random.Random, folder: Path) -> str:
    if rng.random() < 0.3:
        config = json.loads((folder / TOKENIZER_CONFIG).read_text())
        config["tokenizer_class"] = rng.choice(CLASSES)
        (folder / TOKENIZER_CONFIG).write_text(json.dumps(config))
        return f"tokenizer_class {config['tokenizer_class']}"
    name = rng.choice((TOKENIZER_CONFIG, TOKENIZER_CONFIG, "special_tokens_map.json"))
    if not (folder / name).exists():
        (folder / name).write_text("{}")
    return _changed(rng, folder / name, TOKENIZER_KEYS)


def _changed(rng: random.Random, path: Path, keys: tuple[str, ...]) -> str:
    """One value of a flat JSON file changed, removed, added, or its key renamed."""
    content = json.loads(path.read_text())
    key = rng.choice(list(content) or ["x"]) if rng.random() < 0.6 else rng.choice(keys)
    action = rng.choice(("set", "set", "set", "remove", "rename", "scale"))
    value = content.get(key)
    if action == "remove":
        content.pop(key, None)
    elif action == "rename":
        content[key + rng.choice(("_", "s", "\n"))] = content.pop(key, None)
    elif action == "scale" and isinstance(value, int | float):
        content[key] = rng.choice((value * 2, value + 1, value - 1, -value, value // 2, value**9))
    else:
        content[key] = rng.choice(VALUES)
    path.write_text(json.dumps(content))
    return f"{path.name} {action} {key!r} to {str(content.get(key))[:40]!r}"


def _tokenizer_tree(rng: random.Random, folder: Path) -> str:
    """One node of tokenizer.json, its vocabulary seldom, changed, removed or doubled."""
    content = json.loads((folder / TOKENIZER).read_text())
    model = content["model"]
    vocabulary, merges = model.pop("vocab"), model.pop("merges", [])
    places = list(_places(content))
    parent, key = rng.choice(places)
    action = rng.choice(("set", "remove", "graft"))
    if action == "remove":
        del parent[key]
    elif action == "graft":
        other, name = rng.choice(places)
        parent[key] = json.loads(json.dumps(other[name])) if name in _keys(other) else None
    else:
        parent[key] = rng.choice(VALUES)
    if isinstance(content.get("model"), dict):
        content["model"].setdefault("vocab", vocabulary)
        content["model"].setdefault("merges", merges)
    (folder / TOKENIZER).write_text(json.dumps(content))
    return f"tokenizer.json {action} at {key!r}"


def _keys(container: Any) -> list[Any]:
    return list(container) if isinstance(container, dict) else list(range(len(container)))


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of nested JSON."""
    for key in _keys(content):
        yield content, key
        if isinstance(content[key], dict | list):
            yield from _places(content[key])


def _vocabulary(rng: random.Random, folder: Path) -> str:
    content = json.loads((folder / TOKENIZER).read_text())
    vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
    action = rng.choice(("lose", "move", "collide", "merge", "type", "added"))
    token = rng.choice(list(vocabulary))
    if action == "lose":
        for name in rng.sample(list(vocabulary), k=min(rng.choice((1, 50)), len(vocabulary))):
            del vocabulary[name]
    elif action == "move":
        vocabulary[token] = rng.choice((-1, 2**16, 2**31, 2**32 - 1, 2**32, len(vocabulary) + 7))
    elif action == "collide":
        vocabulary[token] = vocabulary[rng.choice(list(vocabulary))]
    elif action == "merge":
        merges.insert(0, rng.choice((["a", "b"], "a b", "ab", ["a"], [], ["a", "zz"], None, 5)))
    elif action == "type":
        content["model"]["type"] = rng.choice(("WordPiece", "WordLevel", "Unigram", "BPE", "?"))
    else:
        content["added_tokens"].append(
            {"id": rng.choice((0, 5, 10**6, 2**32)), "content": rng.choice(("", "a", "<q>", "\n")),
             "single_word": False, "lstrip": True, "rstrip": True, "normalized": True,
             "special": rng.random() < 0.5}
        )  # fmt: skip
    (folder / TOKENIZER).write_text(json.dumps(content))
    return f"vocabulary {action} {token!r}"


def _parts(rng: random.Random, folder: Path) -> str:
    """A part of the tokenizer's pipeline that checkpoints of other families have."""
    content = json.loads((folder / TOKENIZER).read_text())
    place, part = rng.choice(_PIPELINE)
    content[place] = part
    (folder / TOKENIZER).write_text(json.dumps(content))
    return f"{place} {str(part)[:60]}"


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _split(pattern: str, behavior: str = "Isolated") -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


_PIPELINE: list[tuple[str, Any]] = [
    ("normalizer", {"type": "NFKC"}),
    ("normalizer", {"type": "Lowercase"}),
    ("normalizer", {"type": "Strip", "strip_left": True, "strip_right": True}),
    ("normalizer", {"type": "Prepend", "prepend": "x" * 3000}),
    ("normalizer", {"type": "Prepend", "prepend": ""}),
    ("normalizer", {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                    "strip_accents": None, "lowercase": True}),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAAAA"}),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAA="}),
    ("normalizer", _replace({"String": " "}, "▁")),
    ("normalizer", _replace({"Regex": "."}, "")),
    ("normalizer", _replace({"Regex": "(?=a)"}, "b")),
    ("normalizer", _replace({"Regex": "a|"}, "b")),
    ("normalizer", _replace({"Regex": "\\b"}, "b")),
    ("normalizer", _replace({"Regex": "."}, "a" * 4000)),
    ("pre_tokenizer", None),
    ("pre_tokenizer", {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
                       "split": True}),
    ("pre_tokenizer", {"type": "Digits", "individual_digits": True}),
    ("pre_tokenizer", {"type": "Punctuation", "behavior": "Removed"}),
    ("pre_tokenizer", {"type": "CharDelimiterSplit", "delimiter": " "}),
    ("pre_tokenizer", {"type": "FixedLength", "length": 1}),
    ("pre_tokenizer", {"type": "UnicodeScripts"}),
    ("pre_tokenizer", _split("(a+)+$")),
    ("pre_tokenizer", _split("", "Removed")),
    ("pre_tokenizer", _split(".", "Removed")),
    ("pre_tokenizer", _split("(?<=a)", "MergedWithNext")),
    ("pre_tokenizer", _split("\\", "Contiguous")),
    ("post_processor", {"type": "BertProcessing", "sep": ["[SEP]", 9**9], "cls": ["[CLS]", 0]}),
    ("post_processor", {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0],
                        "trim_offsets": True, "add_prefix_space": False}),
    ("post_processor", {"type": "TemplateProcessing", "single": [], "pair": [],
                        "special_tokens": {}}),
    ("post_processor", {"type": "TemplateProcessing", "pair": [], "single": ["$A", "<s>"],
                        "special_tokens": {"<s>": {"id": "<s>", "ids": [], "tokens": []}}}),
    ("decoder", None),
    ("decoder", {"type": "WordPiece", "prefix": "##", "cleanup": True}),
    ("decoder", _replace({"String": ""}, "x" * 100)),
    ("truncation", {"direction": "Left", "max_length": 0, "strategy": "OnlyFirst", "stride": 0}),
    ("padding", {"strategy": {"Fixed": 2**31}, "direction": "Left", "pad_to_multiple_of": 8,
                 "pad_id": 9, "pad_type_id": 0, "pad_token": "x"}),
]  # fmt: skip


def _bytes(rng: random.Random, folder: Path) -> str:
    """Bytes of one file flipped, lost, doubled or put in."""
    name = rng.choice((CONFIG, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS))
    raw = bytearray((folder / name).read_bytes())
    # Of the weights the header: flips in the data are another mutator's.
    end = 8 + struct.unpack("<Q", raw[:8])[0] if name == WEIGHTS else len(raw)
    at, action = rng.randrange(end), rng.choice(("flip", "cut", "lose", "double", "put"))
    if action == "flip":
        for _ in range(rng.choice((1, 1, 4, 16))):
            raw[rng.randrange(end)] ^= 1 << rng.randrange(8)
    elif action == "cut":
        del raw[at:]
    elif action == "lose":
        del raw[at : at + rng.choice((1, 8, 100))]
    elif action == "double":
        raw[at:at] = raw[at : at + rng.choice((1, 8, 100))]
    else:
        raw[at:at] = rng.choice((b"\0", b'"', b"{", b"[" * 5000, b"\xff\xfe", b"1e999", b"-"))
    (folder / name).write_bytes(raw)
    return f"{name} {action} at {at}"


def _header(rng: random.Random, folder: Path) -> str:
    """One entry of the weights' header."""
    header, data = read_weights(folder / WEIGHTS)
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry, action = header[name], rng.choice(("dtype", "shape", "offsets", "name", "value"))
    if action == "dtype":
        entry["dtype"] = rng.choice(
            ["BF16", "F16", "F32", "F64", "U8", "I16", "U16", "I32", "U32", "BOOL", "C64",
             "F8_E4M3", "F8_E8M0", "F8_E5M2", "F4", "", None]
        )  # fmt: skip
    elif action == "shape":
        entry["shape"] = rng.choice(_shapes(entry["shape"]))
    elif action == "offsets":
        begin, end = entry["data_offsets"]
        step = rng.choice((-4, -2, 2, 64, 2**40, -(2**62)))
        entry["data_offsets"] = rng.choice(
            [[begin + step, end + step], [begin, end + step], [end, begin], [begin], [0.5, 1.5]]
        )
    elif action == "name":
        header[rng.choice((name + "x", name[:-1], "", "\n", "__metadata__"))] = header.pop(name)
    else:
        header[name] = rng.choice(VALUES)
    write_weights(folder / WEIGHTS, header, data)
    return f"header {action} of {name}"


def _shapes(shape: list[int]) -> list[Any]:
    """Shapes of as many numbers, and others."""
    size = math.prod(shape)
    return [
        shape[::-1], [size], [1, *shape], [*shape, 1], [size, 1], [2, size // 2],
        [-n for n in shape], [0], [], [2**31, 0], [2**33, *shape], [*shape, 2], "x", None,
        [float(n) for n in shape], [2**16, 2**16, 2**16, 2**16],
    ]  # fmt: skip


def _data(rng: random.Random, folder: Path) -> str:
    """Bits of the weights themselves: NaN, infinities, and huge numbers that are finite."""
    path = folder / WEIGHTS
    raw = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    pattern = rng.choice(
        (b"\xc0\x7f", b"\x80\x7f", b"\x80\xff", b"\x7f\x7f", b"\0\0\xc0\x7f", b"\xff\xff\x7f\x7f")
    )
    count = rng.choice((1, 1, 100, 4000))
    for _ in range(rng.choice((1, 3))):
        at = start + 4 * rng.randrange((len(raw) - start) // 4)
        room = (len(raw) - at) // len(pattern)
        raw[at : at + min(count, room) * len(pattern)] = pattern * min(count, room)
    path.write_bytes(raw)
    return f"data {pattern.hex()} × {count}"


def _files(rng: random.Random, folder: Path) -> str:
    """Files lost, emptied, or an index that is wrong."""
    action = rng.choice(("lose", "empty", "index", "folder", "link"))
    path = folder / rng.choice(sorted(p.name for p in folder.iterdir()))
    if action == "index":
        shard = rng.choice((WEIGHTS, "model-2.safetensors", "", "..", "\0", "a/b", 5, None))
        (folder / INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": shard}}))
        return f"index names {shard!r}"
    if path.is_dir() or path.is_symlink():
        return "nothing"
    path.unlink()
    if action == "empty":
        path.touch()
    elif action == "folder":
        path.mkdir()
    elif action == "link":
        path.symlink_to(rng.choice(("/dev/zero", "/etc/passwd", path.name, "nowhere", ".")))
    return f"{path.name} {action}"


_MUTATORS: list[Mutator] = [
    _config_value, _config_value, _config_value, _config_value, _architecture, _generation_config,
    _tokenizer_config, _tokenizer_config, _tokenizer_tree, _tokenizer_tree, _vocabulary, _parts,
    _parts, _bytes, _bytes, _header, _header, _header, _data, _files,
]  # fmt: skip
