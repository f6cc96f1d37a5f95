"""Tiny random checkpoints, one per family, in the layout in which the family is published."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCABULARY: Final = 288
SPECIAL: Final = ["<pad>", "<end>"]

# Sizes shared by all families. Grouped-query attention and an untied head, as published models
# have them: a program that mixes up key heads, or reads the embedding as the head, shows it.
COMMON: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}

YARN: Final[dict[str, Any]] = {
    "rope_type": "yarn",
    "factor": 8.0,
    "beta_fast": 4.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 32,
    # The published checkpoints say false, but mlx-lm always rounds the range, and the two must
    # compute the same function here.
    "truncate": True,
}


@dataclass(frozen=True)
class Family:
    """One architecture: the sizes that differ from `COMMON`, and its RoPE.

    `theta` is no default of any library: a loader that overlooks it gives other numbers.
    """

    model_type: str
    sizes: dict[str, Any]
    theta: float
    scaling: dict[str, Any] | None = None
    seed: int = 0

    def config(self) -> Any:
        """The transformers configuration."""
        rope = {"rope_type": "default", **(self.scaling or {}), "rope_theta": self.theta}
        return AutoConfig.for_model(
            self.model_type, **{**COMMON, **self.sizes, "rope_parameters": rope}
        )

    def published_names(self) -> dict[str, Any]:
        """Configuration keys of the published files that transformers 5 no longer writes."""
        names: dict[str, Any] = {"rope_theta": self.theta, "rope_scaling": self.scaling}
        if "num_experts" in self.sizes:
            names["num_experts"] = self.sizes["num_experts"]
        return names


FAMILIES: Final = (
    Family(
        "olmoe",
        {
            "num_hidden_layers": 3,
            "num_key_value_heads": 6,
            "intermediate_size": 16,
            "num_experts": 16,
            "num_experts_per_tok": 4,
            "norm_topk_prob": False,
        },
        theta=700.0,
    ),
    Family(
        "mixtral",
        {
            "num_hidden_layers": 2,
            "intermediate_size": 24,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
        },
        theta=3000.0,
    ),
    Family(
        "qwen3_moe",
        {
            "num_hidden_layers": 3,
            # A dense layer between two that route, and heads wider than hidden / heads.
            "mlp_only_layers": [1],
            "head_dim": 12,
            "intermediate_size": 40,
            "moe_intermediate_size": 16,
            "num_experts": 12,
            "num_experts_per_tok": 3,
            "norm_topk_prob": True,
        },
        theta=900.0,
    ),
    Family(
        "gpt_oss",
        {
            "num_hidden_layers": 4,
            # MXFP4 packs 32 values to a block along the inner axis.
            "hidden_size": 64,
            "intermediate_size": 32,
            "head_dim": 16,
            "num_attention_heads": 4,
            # Shorter than two of the prompts.
            "sliding_window": 6,
            "num_local_experts": 8,
            "num_experts_per_tok": 3,
        },
        theta=1200.0,
        scaling=YARN,
    ),
    Family("llama", {"num_hidden_layers": 3, "intermediate_size": 64}, theta=500.0),
)


def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Matrices N(0, 1/fan_in), so that routers decide clearly; nothing stays 0 or 1.

    Initialisers leave norms at one and biases at zero: a program that forgot one would pass.
    """
    transposed = model.config.model_type == "gpt_oss"  # its experts lie as [experts, in, out]
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name:
            noise = 1 + 0.2 * noise
        elif "bias" in name:
            noise = 0.3 * noise
        elif weight.ndim > 1 and "embed" not in name:
            fan_in = weight.shape[-2] if transposed and weight.ndim == 3 else weight.shape[-1]
            noise = noise / fan_in**0.5
        weight.data.copy_(noise)


def save(family: Family, folder: Path, seed: int) -> None:
    """Write checkpoint and tokenizer as a download of that family would look."""
    model = AutoModelForCausalLM.from_config(family.config(), dtype=torch.float32)
    randomise(model, torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    _edit_json(folder / "config.json", lambda config: config.update(family.published_names()))
    if family.model_type == "gpt_oss":
        _edit_json(folder / "config.json", _say_mxfp4)
        pack_experts(folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes for the owner alone


def _edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


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
