"""Write a family's checkpoint and tokenizer to a folder, as a download would look."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from families import VOCABULARY, Family
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

SPECIAL: Final = ["<pad>", "<end>"]


def randomise(model: nn.Module, generator: torch.Generator, zero: tuple[str, ...]) -> None:
    """Matrices N(0, 1/fan_in), so that routers decide clearly; nothing stays 0 or 1.

    Initialisers leave norms at one and biases at zero: a program that forgot one would pass.
    """
    tied = model.config.tie_word_embeddings
    for name, weight in model.state_dict(keep_vars=True).items():
        if tied and name == "lm_head.weight":  # is the embedding
            continue
        noise = torch.randn(weight.shape, generator=generator)
        if re.search(r"norm|\bln_|scale$|scalar$", name):
            noise = weight.data + 0.2 * noise  # some families store what they add to one
        elif re.search(r"(expert|correction)_bias$", name):
            # Not negative, as published: from a group that is passed over transformers takes
            # -inf for a score, mlx-lm 0.
            noise = 0.3 * noise.abs()
        elif "bias" in name:
            noise = 0.3 * noise
        elif weight.ndim > 1 and (tied or "embed" not in name):
            noise = noise / _fan_in(model.config.model_type, name, weight.shape) ** 0.5
        weight.data.copy_(torch.zeros_like(noise) if name.endswith(zero) else noise)


def _fan_in(model_type: str, name: str, shape: torch.Size) -> int:
    # The experts of gpt_oss lie as [experts, in, out], all matrices of gpt2 as [in, out].
    transposed = {"gpt_oss": len(shape) == 3, "gpt2": ".c_" in name}
    return shape[-2 if transposed.get(model_type, False) else -1]


def save(family: Family, folder: Path, seed: int) -> None:
    """Write checkpoint and tokenizer as a download of that family would look."""
    model = AutoModelForCausalLM.from_config(family.config(), dtype=torch.float32)
    randomise(model, torch.Generator().manual_seed(seed), family.zero)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    _edit_json(folder / "config.json", lambda config: config.update(family.published_names()))
    if family.model_type == "gpt_oss":
        _edit_json(folder / "config.json", _say_mxfp4)
        pack_experts(folder / "model.safetensors")
    if family.model_type == "gpt2":
        _without_prefix(folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone


def _edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def _without_prefix(path: Path) -> None:
    """OpenAI's gpt2 files name the layers `h.0…`, transformers calls them `transformer.h.0…`."""
    tensors = {name.removeprefix("transformer."): value for name, value in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def _say_mxfp4(config: dict[str, Any]) -> None:
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": []}


# The eight magnitudes of FP4 (E2M1); bit 3 is the sign.
FP4: Final = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)


def pack_experts(path: Path) -> None:
    """Replace gpt_oss expert matrices [E, in, out] by published MXFP4 blocks and scales."""
    tensors: dict[str, torch.Tensor] = {}
    for name, value in load_file(path).items():
        if name.endswith(("gate_up_proj", "down_proj")):
            blocks, scales = mxfp4(value.transpose(1, 2).numpy())
            tensors[f"{name}_blocks"] = torch.from_numpy(blocks)
            tensors[f"{name}_scales"] = torch.from_numpy(scales)
        else:
            tensors[name] = value
    save_file(tensors, path, metadata={"format": "pt"})


def mxfp4(weight: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Blocks [..., in/32, 16] of two values a byte, low half first, and scales 2^(s - 127)."""
    groups = weight.reshape(*weight.shape[:-1], -1, 32)
    exponent = np.floor(np.log2(np.abs(groups).max(-1))) - 2
    scaled = groups / np.exp2(exponent)[..., None]
    codes = np.abs(np.abs(scaled)[..., None] - FP4).argmin(-1).astype(np.uint8)
    codes |= (scaled < 0).astype(np.uint8) << 3
    blocks = codes[..., ::2] | codes[..., 1::2] << 4
    return np.ascontiguousarray(blocks), np.ascontiguousarray(exponent + 127).astype(np.uint8)


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE whose few merges come from one sentence."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    words = "the router of a layer reads the stream and the experts that it selects answer"
    bpe.train_from_iterator([words, "127 + 45 = 172", "def f(x): return x + 1"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", eos_token="<end>", model_max_length=256
    )
