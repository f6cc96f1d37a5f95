"""Sizes of the two demo networks, and how their tensors are named on disk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

ROPE_THETA: Final = 10_000.0
EMBEDDING_STD: Final = 0.5
FINAL_GAIN: Final = 0.1
MATRIX_STD: Final = 0.02
_INTO_THE_STREAM: Final = ("o_proj.weight", "mlp.experts.down", "down_proj.weight")


@dataclass(frozen=True, slots=True)
class Shape:
    """One architecture: OLMoE where there are experts, else Llama.

    ``intermediate`` is the width of one expert, or of the only feed-forward block.
    """

    folder: str
    intermediate: int
    experts: int = 0
    active_experts: int = 0
    vocabulary: int = 4_096
    hidden: int = 128
    layers: int = 8
    heads: int = 4
    context: int = 512
    norm_eps: float = 1e-5

    def training_tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the tensors in training, where a layer's experts are stacked.

        Experts lie one after the other along the inner axis: ``gate_up`` is
        [2 · experts · intermediate, hidden], all gates first, and ``down`` is its transpose's
        counterpart [hidden, experts · intermediate].
        """
        wide = (self.hidden, self.hidden)
        tensors: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden)
        }
        for layer in range(self.layers):
            at = f"model.layers.{layer}."
            tensors[f"{at}input_layernorm.weight"] = (self.hidden,)
            tensors |= {f"{at}self_attn.{name}_proj.weight": wide for name in "qkvo"}
            tensors[f"{at}post_attention_layernorm.weight"] = (self.hidden,)
            if self.experts:
                inner = self.experts * self.intermediate
                tensors |= {f"{at}self_attn.{name}_norm.weight": (self.hidden,) for name in "qk"}
                tensors[f"{at}mlp.gate.weight"] = (self.experts, self.hidden)
                tensors[f"{at}mlp.experts.gate_up"] = (2 * inner, self.hidden)
                tensors[f"{at}mlp.experts.down"] = (self.hidden, inner)
            else:
                tensors[f"{at}mlp.gate_proj.weight"] = (self.intermediate, self.hidden)
                tensors[f"{at}mlp.up_proj.weight"] = (self.intermediate, self.hidden)
                tensors[f"{at}mlp.down_proj.weight"] = (self.hidden, self.intermediate)
        tensors["model.norm.weight"] = (self.hidden,)
        return tensors

    def initial(self, name: str) -> tuple[float, float]:
        """Mean and standard deviation from which the tensor ``name`` starts, normally distributed.

        ``name`` is one in training, in a checkpoint or in mlx-lm.  Embeddings are large and the
        final norm's gain small, so that the first layers cannot drown the token in the residual
        stream; with the customary 0.02 they do, and every decomposition of the router's input
        comes out flat at the same loss.
        """
        if name.endswith("norm.weight"):
            return (FINAL_GAIN if name == "model.norm.weight" else 1.0), 0.0
        if name == "model.embed_tokens.weight":
            return 0.0, EMBEDDING_STD
        if name.endswith(_INTO_THE_STREAM):
            # Keeps the depth's sum at one scale
            return 0.0, MATRIX_STD / math.sqrt(2 * self.layers)
        return 0.0, MATRIX_STD

    def published(self, tensors: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Training tensors under the names, one per expert, that released checkpoints use."""
        for name, tensor in tensors.items():
            at, _, stack = name.partition("experts.")
            if stack == "gate_up":
                gates, ups = tensor.chunk(2, 0)
                for expert in range(self.experts):
                    rows = slice(expert * self.intermediate, (expert + 1) * self.intermediate)
                    yield f"{at}experts.{expert}.gate_proj.weight", gates[rows]
                    yield f"{at}experts.{expert}.up_proj.weight", ups[rows]
            elif stack == "down":
                for expert in range(self.experts):
                    columns = slice(expert * self.intermediate, (expert + 1) * self.intermediate)
                    yield f"{at}experts.{expert}.down_proj.weight", tensor[:, columns]
            else:
                yield name, tensor

    def parameters(self) -> dict[str, int]:
        """How many parameters there are in all, and how many one token uses."""
        sizes = {name: _product(size) for name, size in self.training_tensors().items()}
        total = sum(sizes.values())
        routed = sum(size for name, size in sizes.items() if ".experts." in name)
        unused = routed * (self.experts - self.active_experts) // self.experts if routed else 0
        return {"total": total, "active": total - unused}

    def config(self) -> dict[str, Any]:
        """The content of ``config.json``, for Transformers 4 and 5 and for mlx-lm."""
        common: dict[str, Any] = {
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": None,
            "dtype": "bfloat16",
            "eos_token_id": 0,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.context,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.heads,
            "pad_token_id": 0,
            "rms_norm_eps": self.norm_eps,
            # The newer and the older place of the same number: each reader knows only one of them
            "rope_parameters": {"rope_theta": ROPE_THETA, "rope_type": "default"},
            "rope_theta": ROPE_THETA,
            "tie_word_embeddings": True,
            "use_cache": True,
            "vocab_size": self.vocabulary,
        }
        if not self.experts:
            return {
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "mlp_bias": False,
                **common,
            }
        return {
            "architectures": ["OlmoeForCausalLM"],
            "model_type": "olmoe",
            "clip_qkv": None,
            "norm_topk_prob": False,
            "num_experts": self.experts,
            "num_experts_per_tok": self.active_experts,
            "output_router_logits": False,
            "router_aux_loss_coef": 0.001,
            **common,
        }

    def generation_config(self) -> dict[str, Any]:
        """The content of ``generation_config.json``."""
        return {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0, "use_cache": True}


def _product(size: tuple[int, ...]) -> int:
    product = 1
    for length in size:
        product *= length
    return product


MOE: Final = Shape(folder="olmoe", intermediate=32, experts=16, active_experts=4)
DENSE: Final = Shape(folder="llama", intermediate=128)
"""As wide as the experts that one token of :data:`MOE` uses."""

SHAPES: Final = {"demo": MOE, "demo-dense": DENSE}
"""Both, by the names under which the bundled checkpoints are opened."""
