"""A table of checkpoints that are damaged, hostile or merely unusual, and what must come of each.

Every row edits a copy of the demo checkpoint. Its last part is a word of the error's message, or
None where the checkpoint must load and work.
"""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

from tests.model.editing import (
    CONFIG,
    INDEX,
    TOKENIZER,
    TOKENIZER_CONFIG,
    WEIGHTS,
    rebuild,
    shard,
    write_weights,
)
from tests.model.harms import (
    EMBEDDING,
    GATE,
    HUGE,
    INF,
    LARGE,
    NAN,
    POINTER,
    Q_PROJ,
    config,
    cut,
    dropped_from_shard,
    header,
    header_bytes,
    header_length,
    inserted,
    instead,
    linked,
    moved,
    overlap,
    recast,
    removed,
    shorter_embedding,
    tall_header,
    tensor,
    together,
    transposed,
    twice_in_header,
    values,
    without,
    written,
    zeroed,
)
from tests.model.mutations_tokenizer import TOKENIZERS, Row

FILES: dict[str, Row] = {
    "config missing": (removed(CONFIG), "no config.json"),
    "config a folder": (instead(CONFIG, Path.mkdir), "folder where a file"),
    "config a pipe": (instead(CONFIG, os.mkfifo), "not a regular file"),
    "config a link to nowhere": (linked(CONFIG, lambda f: f / "none"), "leads nowhere"),
    "config a link to itself": (linked(CONFIG, lambda f: f / CONFIG), "leads nowhere"),
    "config a link to /etc/passwd": (linked(CONFIG, lambda f: Path("/etc/passwd")), "outside"),
    "config a link to a device": (linked(CONFIG, lambda f: Path("/dev/zero")), "outside"),
    "weights a pipe": (instead(WEIGHTS, os.mkfifo), "not a regular file"),
    "weights a folder": (instead(WEIGHTS, Path.mkdir), "folder where a file"),
    "weights a link out of the folder": (moved(WEIGHTS, "../other/weights"), "outside"),
    "weights a link within the folder": (moved(WEIGHTS, "blobs/weights"), None),
    "weights a Git LFS pointer": (written(WEIGHTS, POINTER), "Git LFS pointer"),
    "tokenizer a pipe": (instead(TOKENIZER, os.mkfifo), "not a regular file"),
    "tokenizer a link out of the folder": (moved(TOKENIZER, "../other/t.json"), "outside"),
    "tokenizer a Git LFS pointer": (written(TOKENIZER, POINTER), "Git LFS pointer"),
    "tokenizer_config a pipe": (instead(TOKENIZER_CONFIG, os.mkfifo), "not a regular file"),
    "generation_config a pipe": (
        instead("generation_config.json", os.mkfifo), "not a regular file",
    ),
    "special_tokens_map a pipe": (
        instead("special_tokens_map.json", os.mkfifo), "not a regular file",
    ),
    "chat template a pipe": (instead("chat_template.jinja", os.mkfifo), "not a regular file"),
    "more chat templates, a pipe among them": (
        together(
            lambda f: (f / "additional_chat_templates").mkdir(),
            instead("additional_chat_templates/x.jinja", os.mkfifo),
        ),
        "not a regular file",
    ),
    "a pipe that nobody opens": (instead("notes", os.mkfifo), None),
    "only pickled weights": (
        together(removed(WEIGHTS), written("pytorch_model.bin", b"PK\x03\x04")),
        "only pytorch_model.bin",
    ),
    "only a .pt file": (together(removed(WEIGHTS), written("model.pt", b"PK")), "only model.pt"),
    "only a .gguf file": (together(removed(WEIGHTS), written("m.gguf", b"GGUF")), "only m.gguf"),
    "only an adapter": (
        lambda f: (f / WEIGHTS).rename(f / "adapter_model.safetensors"), "only adapter_model",
    ),
    "weights missing": (removed(WEIGHTS), "no model*.safetensors"),
    "pickled weights beside the others": (written("pytorch_model.bin", b"PK\x03\x04"), None),
    "tokenizer missing": (removed(TOKENIZER), "no tokenizer"),
    "tokenizer_config missing": (removed(TOKENIZER_CONFIG), None),
    "two shards with an index": (shard, None),
    "a shard missing": (
        together(shard, removed("model-00002-of-00002.safetensors")), "lacks model-00002-of-00002",
    ),
    "a shard truncated": (
        together(shard, cut("model-00001-of-00002.safetensors", 0.9)), "damaged or truncated",
    ),
    "a shard without a tensor": (dropped_from_shard, "which its index names"),
    "shards beside the whole": (
        together(
            lambda f: shutil.copy(f / WEIGHTS, f / "whole"), shard,
            lambda f: (f / "whole").rename(f / WEIGHTS),
        ),
        "both hold",
    ),
    "index without weight_map": (written(INDEX, "{}"), "no weight_map"),
    "index is a list": (written(INDEX, "[]"), "hold an object"),
    "index names a number": (written(INDEX, '{"weight_map": {"a": 1}}'), "names 1"),
    "index leaves the folder": (
        written(INDEX, '{"weight_map": {"a": "../model.safetensors"}}'), "../model.safetensors",
    ),
    "index names a tensor that is not there": (
        written(INDEX, '{"weight_map": {"lm_head.weight": "model.safetensors"}}'), "lm_head.weight",
    ),
}  # fmt: skip

CONFIGS: dict[str, Row] = {
    "config cut short": (cut(CONFIG, 0.5), "not valid JSON"),
    "config empty": (written(CONFIG, ""), "not valid JSON"),
    "config a list": (written(CONFIG, "[]"), "hold an object"),
    "config null": (written(CONFIG, "null"), "hold an object"),
    "config in UTF-16": (
        lambda f: (f / CONFIG).write_text((f / CONFIG).read_text(), encoding="utf-16"), "not UTF-8",
    ),
    "config with a byte-order mark": (
        lambda f: (f / CONFIG).write_text((f / CONFIG).read_text(), encoding="utf-8-sig"),
        "byte-order mark",
    ),
    "config in Latin-1": (written(CONFIG, b'{"model_type": "olmo\xe9"}'), "not UTF-8"),
    "config nested without end": (written(CONFIG, "[" * 200_000), "nested too deeply"),
    "config nested 100 deep": (
        inserted(CONFIG, '"a": ' + '{"a": ' * 100 + "1" + "}" * 100 + ", "), "nested too deeply",
    ),
    "a key twice": (inserted(CONFIG, '"hidden_size": 64, '), "'hidden_size' twice"),
    "a number of 10,000 digits": (
        inserted(CONFIG, '"seed": 1' + "0" * 10_000 + ", "), "not valid JSON",
    ),
    "a number of 30 digits": (config(seed=10**30), "within 64 bits"),
    "no model_type": (without("model_type"), "names no model_type"),
    "model_type a number": (config(model_type=7), "names no model_type"),
    "model_type a path": (config(model_type="../../x"), "names no model_type"),
    "model_type unknown": (config(model_type="nonesuch"), "does not know"),
    "model_type a part of mlx-lm that is no model": (config(model_type="base"), "does not know"),
    "model_type of another family": (config(model_type="llama"), "cannot be loaded"),
    "code of its own": (config(model_file="own.py"), "run its own code"),
    "auto_map, which mlx-lm does not look at": (
        config(auto_map={"AutoModelForCausalLM": "modeling_own.Own"}), None,
    ),
    "hidden_size missing": (without("hidden_size"), "hidden_size"),
    "hidden_size negative": (config(hidden_size=-128), "'hidden_size' is -128"),
    "hidden_size zero": (config(hidden_size=0), "'hidden_size' is 0"),
    "hidden_size huge": (config(hidden_size=2**40), "'hidden_size' is 1099511627776"),
    "hidden_size text": (config(hidden_size="128"), "'hidden_size' is '128'"),
    "hidden_size a fraction": (config(hidden_size=128.5), "'hidden_size' is 128.5"),
    "hidden_size true": (config(hidden_size=True), "'hidden_size' is True"),
    "hidden_size an object": (config(hidden_size={"a": 1}), "cannot be loaded"),
    "hidden_size of another model": (config(hidden_size=64), "cannot be loaded"),
    "hidden_size no multiple of the heads": (config(num_attention_heads=3, num_key_value_heads=3),
        "a multiple of the 3 attention heads"),
    "heads zero": (config(num_attention_heads=0), "'num_attention_heads' is 0"),
    "key-value heads no divisor": (config(num_key_value_heads=3), "a divisor of the 4 heads"),
    "layers negative": (config(num_hidden_layers=-1), "'num_hidden_layers' is -1"),
    "one layer more": (config(num_hidden_layers=9), "cannot be loaded"),
    "one layer less": (config(num_hidden_layers=7), "cannot be loaded"),
    "a thousand million layers": (config(num_hidden_layers=10**9), "1,000,000,000 layers"),
    "experts huge": (config(num_experts=10**9), "num_experts = 1,000,000,000"),
    "experts fewer": (config(num_experts=8), "cannot be loaded"),
    "experts missing": (without("num_experts"), "num_experts"),
    "more experts a token than there are": (config(num_experts_per_tok=17), "from 1 to 16"),
    "no experts a token": (config(num_experts_per_tok=0), "from 1 to 16"),
    "all experts a token": (config(num_experts_per_tok=16), None),
    "experts a token as text": (config(num_experts_per_tok="4"), "a number, not text"),
    "vocab_size larger": (config(vocab_size=4100), "cannot be loaded"),
    "vocab_size smaller": (config(vocab_size=4000), "cannot be loaded"),
    "vocab_size asks for 10^12 weights": (config(vocab_size=2**31 - 1), "too small"),
    "intermediate_size huge": (config(intermediate_size=2**30), "cannot be loaded"),
    "positions negative": (config(max_position_embeddings=-1), "'max_position_embeddings' is -1"),
    "eps negative": (config(rms_norm_eps=-1.0), "'rms_norm_eps' is -1.0"),
    "eps NaN": (config(rms_norm_eps=float("nan")), "must be a number"),
    "eps infinite": (config(rms_norm_eps=float("inf")), "must be finite"),
    "eps text": (config(rms_norm_eps="1e-5"), "a number, not text"),
    "rope_theta zero": (config(rope_theta=0), "'rope_theta' is 0"),
    "rope_theta NaN inside": (
        config(rope_parameters={"rope_theta": float("nan")}), "must be a number",
    ),
    "rope_scaling of no known kind": (config(rope_scaling={"rope_type": "?"}), "cannot be loaded"),
    "rope_scaling a number": (config(rope_scaling=4), "cannot be loaded"),
    "a truth value as text": (config(norm_topk_prob="false"), "true or false, not text"),
    "a head where the weights have none": (
        config(tie_word_embeddings=False), "Missing 1 parameters: lm_head.weight",
    ),
    "quantised, say only the settings": (
        config(quantization={"group_size": 64, "bits": 4}), None,
    ),
    "quantisation settings of no sense": (config(quantization="4 bits"), "cannot be loaded"),
    "an unknown key": (config(colour="blue", time_step_limit=[0.0, float("inf")]), None),
    "generation_config not JSON": (written("generation_config.json", "{"), "generation_config"),
    "generation_config a list": (written("generation_config.json", "[]"), "generation_config"),
}  # fmt: skip

HEADERS: dict[str, Row] = {
    "weights empty": (cut(WEIGHTS, 0), "damaged or truncated"),
    "weights of seven bytes": (written(WEIGHTS, b"\0" * 7), "damaged or truncated"),
    "weights cut short": (cut(WEIGHTS, 0.5), "damaged or truncated"),
    "weights one byte short": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-1]),
        "damaged or truncated",
    ),
    "weights one byte long": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes() + b"\0"),
        "damaged or truncated",
    ),
    "header of 2^60 bytes": (header_length(1 << 60), "header does not fit"),
    "header of 0 bytes": (header_length(0), "header does not fit"),
    "header of 30 MB": (
        lambda f: write_weights(f / WEIGHTS, b"{}" + b" " * 30_000_000, b""), "a header of",
    ),
    "header shorter than it is": (header_length(40_000), "not valid JSON"),
    "header not JSON": (header_bytes(b"{" * 1000), "not valid JSON"),
    "header not UTF-8": (header_bytes(b'{"\xff": 1}'), "not UTF-8"),
    "header nested without end": (header_bytes(b"[" * 200_000), "nested too deeply"),
    "header a list": (header_bytes(b"[1]"), "no JSON object"),
    "header without a tensor": (
        lambda f: write_weights(f / WEIGHTS, {}, b""), "asks for 8 layers",
    ),
    "metadata not text": (header(lambda h: h.update(__metadata__={"a": 1})), "metadata"),
    "metadata null, as mlx writes them": (header(lambda h: h.update(__metadata__=None)), None),
    "a tensor twice": (twice_in_header, "twice"),
    "a tensor's entry is a number": (header(lambda h: h.update({GATE: 1})), "no proper entry"),
    "a tensor without a type": (
        header(lambda h: h[GATE].pop("dtype") and None), "no proper entry",
    ),
    "type F64": (recast(GATE, "F64", 4), "'F64', which mlx does not read"),
    "type unknown": (tensor(GATE, dtype="F7\n\x1b[2J"), "which mlx does not read"),
    "type of another width": (tensor(GATE, dtype="F32"), "needs 8,192 bytes"),
    "type of integers": (recast(GATE, "I16", 1), "as int16"),
    "type complex": (recast(GATE, "C64", 4), "as complex64"),
    "type of 8-bit floats without a scale": (recast(GATE, "F8_E4M3", 0.5), "as uint8"),
    "type F32 for one tensor": (recast(GATE, "F32", 2), None),
    "type F16 for one tensor": (recast(Q_PROJ, "F16", 1), None),
    "shape negative": (tensor(GATE, shape=[-16, -128]), "has the shape"),
    "shape huge": (tensor(GATE, shape=[2**62, 4]), "has the shape"),
    "shape that overflows to the right size": (
        tensor(GATE, shape=[2**30, 2**30, 2**30]), "needs",
    ),
    "shape of fractions": (tensor(GATE, shape=[16.0, 128.5]), "no proper entry"),
    "shape of text": (tensor(GATE, shape=["16", "128"]), "no proper entry"),
    "shape of 42 dimensions": (header(tall_header), "42 dimensions"),
    "shape with more numbers": (tensor(GATE, shape=[16, 129]), "needs 4,128 bytes"),
    "shape turned": (lambda f: rebuild(f, transposed), "cannot be loaded"),
    "embedding shorter than vocab_size": (
        lambda f: rebuild(f, shorter_embedding), "cannot be loaded",
    ),
    "offsets negative": (tensor(GATE, data_offsets=[-4096, 0]), "owns -4,096"),
    "offsets behind the end": (
        tensor(GATE, data_offsets=[2**40, 2**40 + 4096]), "follows a gap",
    ),
    "offsets backwards": (tensor(GATE, data_offsets=[4096, 0]), "needs 4,096 bytes"),
    "offsets of three": (tensor(GATE, data_offsets=[0, 1, 2]), "no proper entry"),
    "two tensors share bytes": (header(overlap), "shares bytes"),
    "a gap": (header(lambda h: h.pop(GATE) and None), "follows a gap"),
    "a tensor missing": (lambda f: rebuild(f, lambda t: t.pop(GATE) and None), "Missing 1"),
    "a tensor too many": (
        lambda f: rebuild(f, lambda t: t.update(extra=("F32", [1], bytes(4)))), "extra",
    ),
    "a tensor under another name": (
        header(lambda h: h.update({"gate\n\x1b]0;x\x07": h.pop(GATE)})), "not in model",
    ),
}  # fmt: skip

VALUES: dict[str, Row] = {
    "one NaN in the embedding": (values(EMBEDDING, NAN, at=77_000), f"{EMBEDDING} holds 1 "),
    "one infinite router weight": (values(GATE, INF), f"{GATE} holds 1 "),
    "minus and plus infinity": (
        values(Q_PROJ, INF + struct.pack("<H", 0xFF80)), f"{Q_PROJ} holds 2 ",
    ),
    "NaN in one expert": (
        values("model.layers.6.mlp.experts.11.up_proj.weight", NAN * 4), "holds 4 ",
    ),
    "NaN in the last norm": (values("model.norm.weight", NAN), "model.norm.weight holds 1 "),
    "finite values of 10^38": (
        values("model.layers.0.self_attn.v_proj.weight", HUGE * 7),
        "v_proj.weight holds 7 ",
    ),
    "sound weights, no sound result": (
        together(
            values("model.layers.0.input_layernorm.weight", LARGE * 128),
            values("model.layers.0.self_attn.v_proj.weight", LARGE * 128 * 128),
            values("model.layers.0.self_attn.o_proj.weight", LARGE * 128 * 128),
        ),
        "NaN or infinite logits",
    ),
    "all weights zero": (zeroed, None),
}  # fmt: skip

ROWS: dict[str, Row] = {**FILES, **CONFIGS, **HEADERS, **VALUES, **TOKENIZERS}
