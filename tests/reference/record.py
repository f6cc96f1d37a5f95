"""What transformers and torch compute for one checkpoint: read by hooks on their own modules.

Nothing of moetui is imported here, so that the two cannot share a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Mxfp4Config

Arrays = dict[str, NDArray[Any]]

LENS_TOP = 5


def load(folder: Path) -> nn.Module:
    """The checkpoint as a user of transformers opens it: float32, CPU, plain attention."""
    options: dict[str, Any] = {}
    config = AutoConfig.from_pretrained(folder)
    if getattr(config, "quantization_config", None):
        # Released gpt_oss experts are MXFP4. Every value is exact in float32, so that both sides
        # compute with the same numbers; the fused kernels would need a GPU.
        options["quantization_config"] = Mxfp4Config(dequantize=True)
    model: nn.Module = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        **options,
    )
    return model.float().eval()


@dataclass
class Taps:
    """Module calls of one forward pass, in the order of the layers."""

    entering: list[torch.Tensor] = field(default_factory=list)
    at_router: list[torch.Tensor] = field(default_factory=list)
    leaving: list[torch.Tensor] = field(default_factory=list)
    attention: list[torch.Tensor] = field(default_factory=list)
    router_input: list[torch.Tensor] = field(default_factory=list)
    router: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=list)


def _first(values: Any) -> torch.Tensor:
    result: torch.Tensor = values[0] if isinstance(values, tuple) else values
    return result.detach().clone()


@contextmanager
def tapped(model: nn.Module) -> Iterator[Taps]:
    """Hooks on every layer, its second norm, its attention and its router (where it has one)."""
    taps = Taps()
    with ExitStack() as hooks:

        def before(module: nn.Module, store: list[torch.Tensor]) -> None:
            handle = module.register_forward_pre_hook(
                lambda _, args, kwargs: store.append(_first(args or kwargs["hidden_states"])),
                with_kwargs=True,
            )
            hooks.callback(handle.remove)

        def after(module: nn.Module, act: Any) -> None:
            hooks.callback(module.register_forward_hook(lambda _m, _i, out: act(out)).remove)

        for layer in model.model.layers:
            before(layer, taps.entering)
            before(layer.post_attention_layernorm, taps.at_router)
            after(layer, lambda out: taps.leaving.append(_first(out)))
            after(layer.self_attn, lambda out: taps.attention.append(out[1].detach().clone()))
            router = router_of(layer)
            if router is not None:
                before(router, taps.router_input)
                after(router, taps.router.append)
        yield taps


def router_of(layer: nn.Module) -> nn.Module | None:
    """The router of a decoder layer; None in a dense layer."""
    found = [m for m in layer.mlp.modules() if type(m).__name__.endswith("TopKRouter")]
    return found[0] if found else None


def by_score(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Order of the selected experts: score descending, then id ascending. ids: [T, k]."""
    scores = logits.gather(-1, ids).double().numpy()
    return torch.from_numpy(np.lexsort((ids.numpy(), -scores), axis=-1))


def expert_outputs(layer: nn.Module, inputs: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Each selected expert's own output [T, k, H]: the bank run with one expert, weight 1."""
    one = torch.ones(len(ids), 1)
    bank: Any = layer.mlp.experts
    return torch.stack([bank(inputs, ids[:, [j]], one) for j in range(ids.shape[1])], dim=1)


def record(model: nn.Module, token_ids: list[int]) -> Arrays:
    """Every reference value for one prompt; `README.md` in this folder names them."""
    with torch.no_grad():
        return _record(model, token_ids)


def _record(model: nn.Module, token_ids: list[int]) -> Arrays:
    with tapped(model) as taps:
        logits = model(torch.tensor([token_ids]), use_cache=False, output_attentions=True).logits[0]
    values: dict[str, torch.Tensor] = {
        "logits": logits,
        "entering": torch.cat(taps.entering).transpose(0, 1),
        "at_router": torch.cat(taps.at_router).transpose(0, 1),
        "leaving": torch.cat(taps.leaving).transpose(0, 1),
        "attention": torch.cat(taps.attention),
    }
    values |= _lens(model, values["leaving"])
    layers = [i for i, layer in enumerate(model.model.layers) if router_of(layer) is not None]
    if layers:
        values |= _routing(model, taps, layers)
    arrays: Arrays = {name: value.contiguous().numpy() for name, value in values.items()}
    arrays["token_ids"] = np.array(token_ids, np.int32)
    arrays["layers"] = np.array(layers, np.int32)
    return arrays


def _lens(model: nn.Module, leaving: torch.Tensor) -> dict[str, torch.Tensor]:
    """Final norm and head on the stream after every layer: the best few tokens, [T, N, n]."""
    readout: Any = model
    logprobs = readout.lm_head(readout.model.norm(leaving)).log_softmax(-1)
    best, ids = logprobs.topk(LENS_TOP + 1, dim=-1)
    return {"lens_logprobs": best, "lens_token_ids": ids.int()}


def _routing(model: nn.Module, taps: Taps, layers: list[int]) -> dict[str, torch.Tensor]:
    rows: dict[str, list[torch.Tensor]] = {
        name: []
        for name in (
            "router_input",
            "router_logits",
            "expert_ids",
            "expert_weights",
            "expert_outputs",
        )
    }
    for number, received, (logits, weights, chosen) in zip(
        layers, taps.router_input, taps.router, strict=True
    ):
        inputs = received.reshape(len(logits), -1)
        order = by_score(logits, chosen)
        ids = chosen.gather(-1, order)
        rows["router_input"].append(inputs)
        rows["router_logits"].append(logits)
        rows["expert_ids"].append(ids.short())
        rows["expert_weights"].append(weights.gather(-1, order))
        layer = model.model.layers[number]
        rows["expert_outputs"].append(expert_outputs(layer, inputs, ids))
    return {name: torch.stack(values, dim=1) for name, values in rows.items()}


def continued(model: nn.Module, token_ids: list[int], count: int) -> list[int]:
    """The prompt and `count` tokens that follow it greedily, every one from a full pass."""
    ids = list(token_ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids


def smallest_gap(logits: NDArray[Any], k: int) -> float:
    """The smallest distance between neighbours among the k + 1 highest values of any row.

    Where it is far above rounding, two correct programs must name the same k in the same order.
    """
    best = -np.sort(-logits, axis=-1)[..., : k + 1]
    return float(-np.diff(best, axis=-1).max())
