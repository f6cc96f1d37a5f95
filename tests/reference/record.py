"""What transformers and torch compute for one checkpoint: read by hooks on their own modules.

Nothing of moetui is imported here, so that the two cannot share a mistake. Routers differ in what
they return from one family to the next, so none is asked: what counts is the product with the
router's matrix, what `topk` was taken of, and what the experts were given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM, Mxfp4Config

Arrays = dict[str, NDArray[Any]]

LENS_TOP = 5

# The attention of a decoder layer, and the norm before its feed-forward part, as the families
# here call them. Where a layer has several of these, the first is meant: with norms on both sides
# of a part, `post_attention_layernorm` belongs to the attention.
ATTENTION = ("self_attn", "attn")
FEED_FORWARD_NORM = (
    "pre_feedforward_layernorm",
    "pre_mlp_layernorm",
    "pre_ff_layernorm",
    "ffn_norm",
    "ln_2",
    "post_attention_layernorm",
)


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


@dataclass(frozen=True)
class Site:
    """Where one decoder layer routes: the router's matrix [E, H] and the bank of experts."""

    matrix: torch.Tensor
    bank: nn.Module

    @property
    def num_experts(self) -> int:
        """Rows of the matrix."""
        return len(self.matrix)


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The decoder layers in order."""
    decoder: Any = model.base_model
    (layers,) = (
        child
        for child in decoder.children()
        if isinstance(child, nn.ModuleList) and len(child) == model.config.num_hidden_layers
    )
    return list(layers)


def final_norm(model: nn.Module) -> nn.Module:
    """The norm between the last layer and the head."""
    decoder: Any = model.base_model
    return [child for child in decoder.children() if "Norm" in type(child).__name__][-1]


def site_of(layer: nn.Module) -> Site | None:
    """Where `layer` routes; None in a dense layer."""
    banks = [m for m in layer.modules() if type(m).__name__.endswith("Experts")]
    if not banks:
        return None
    bank: Any = banks[0]
    (matrix,) = (
        parameter
        for name, parameter in layer.named_parameters()
        if re.search(r"\b(gate|router)\b", name) and parameter.shape[:1] == (bank.num_experts,)
        if parameter.ndim == 2
    )
    return Site(matrix, bank)


class Decisions(TorchFunctionMode):
    """While active: every product with a router's matrix, and what its experts are ranked by.

    received, logits, ranked: a tensor for every layer that routes, in order. A router that calls
    no `topk` over all experts ranks its logits.
    """

    def __init__(self, sites: list[Site]) -> None:
        super().__init__()
        self._sites = {site.matrix.data_ptr(): site for site in sites}
        self._experts = 0
        self.received: list[torch.Tensor] = []
        self.logits: list[torch.Tensor] = []
        self.ranked: list[torch.Tensor] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call `function`, and note it where it is part of a router's decision."""
        result = function(*args, **(kwargs or {}))
        if function is nn.functional.linear and args[1].data_ptr() in self._sites:
            self._experts = self._sites[args[1].data_ptr()].num_experts
            self.received.append(args[0].reshape(-1, args[0].shape[-1]).clone())
            self.logits.append(result.reshape(-1, self._experts).clone())
            self.ranked.append(self.logits[-1])
        elif function in (torch.topk, torch.Tensor.topk) and args[0].shape[-1] == self._experts:
            self.ranked[-1] = args[0].reshape(-1, self._experts).clone()
        return result


@dataclass
class Taps:
    """Module calls of one forward pass, in the order of the layers.

    attention: by layer, where there is any; banks: what experts are given: input, ids, weights.
    """

    entering: list[torch.Tensor] = field(default_factory=list)
    at_router: list[torch.Tensor] = field(default_factory=list)
    leaving: list[torch.Tensor] = field(default_factory=list)
    attention: dict[int, torch.Tensor] = field(default_factory=dict)
    banks: list[tuple[torch.Tensor, ...]] = field(default_factory=list)


def _first(values: Any) -> torch.Tensor:
    result: torch.Tensor = values[0] if isinstance(values, tuple) else values
    return result.detach().clone()


@contextmanager
def tapped(model: nn.Module) -> Iterator[Taps]:
    """Hooks on every layer, the norm of its second part, its attention and its experts."""
    taps = Taps()
    with ExitStack() as hooks:

        def before(module: nn.Module, act: Callable[[tuple[Any, ...]], None]) -> None:
            handle = module.register_forward_pre_hook(
                lambda _, args, kwargs: act((*args, *kwargs.values())), with_kwargs=True
            )
            hooks.callback(handle.remove)

        def after(module: nn.Module, act: Callable[[Any], None]) -> None:
            hooks.callback(module.register_forward_hook(lambda _m, _i, out: act(out)).remove)

        def noted(store: list[torch.Tensor], values: Any) -> None:
            store.append(_first(values))

        def attended(number: int, output: Any) -> None:
            taps.attention[number] = output[1].detach().clone()

        for number, layer in enumerate(decoder_layers(model)):
            before(layer, partial(noted, taps.entering))
            norm = _named(layer, FEED_FORWARD_NORM)
            assert norm is not None, f"layer {number} has no norm of a known name"
            before(norm, partial(noted, taps.at_router))
            after(layer, partial(noted, taps.leaving))
            if (attention := _named(layer, ATTENTION)) is not None:
                after(attention, partial(attended, number))
            if (site := site_of(layer)) is not None:
                before(site.bank, lambda given: taps.banks.append(given[:3]))
        yield taps


def _named(layer: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
    found = [getattr(layer, name, None) for name in names]
    return next((module for module in found if module is not None), None)


def expert_outputs(bank: nn.Module, inputs: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Each selected expert's own output [T, k, H]: the bank run with one expert, weight 1."""
    one = torch.ones(len(ids), 1)
    return torch.stack([bank(inputs, ids[:, [j]], one) for j in range(ids.shape[1])], dim=1)


def record(model: nn.Module, token_ids: list[int]) -> Arrays:
    """Every reference value for one prompt; `README.md` in this folder names them."""
    with torch.no_grad():
        return _record(model, token_ids)


def _record(model: nn.Module, token_ids: list[int]) -> Arrays:
    sites = [site_of(layer) for layer in decoder_layers(model)]
    routing = [site for site in sites if site is not None]
    with tapped(model) as taps, Decisions(routing) as decisions:
        logits = model(torch.tensor([token_ids]), use_cache=False, output_attentions=True).logits[0]
    values: dict[str, torch.Tensor] = {
        "logits": logits,
        "entering": torch.cat(taps.entering).transpose(0, 1),
        "at_router": torch.cat(taps.at_router).transpose(0, 1),
        "leaving": torch.cat(taps.leaving).transpose(0, 1),
        "attention": _attention(taps, len(sites)),
    }
    values |= _lens(model, token_ids, values["leaving"])
    assert torch.equal(values["lens_logprobs"][:, -1], _best(logits)[0]), "not the final norm"
    if routing:
        values |= _routing(routing, taps, decisions)
    arrays: Arrays = {name: value.contiguous().numpy() for name, value in values.items()}
    arrays["token_ids"] = np.array(token_ids, np.int32)
    arrays["layers"] = np.array([n for n, site in enumerate(sites) if site is not None], np.int32)
    return arrays


def _attention(taps: Taps, layers: int) -> torch.Tensor:
    """Probabilities [N, heads, T, T]; NaN for a layer that has another mixer."""
    none = torch.full_like(next(iter(taps.attention.values())), torch.nan)
    return torch.cat([taps.attention.get(number, none) for number in range(layers)])


def _lens(model: nn.Module, token_ids: list[int], leaving: torch.Tensor) -> dict[str, torch.Tensor]:
    """The model's own output if its last layer had left what each layer leaves, [T, N, n]."""
    norm = final_norm(model)
    readings = []
    for hidden in leaving.unbind(1):
        handle = norm.register_forward_pre_hook(lambda _m, _args, h=hidden: (h[None],))
        readings.append(_best(model(torch.tensor([token_ids]), use_cache=False).logits[0]))
        handle.remove()
    best, ids = (torch.stack(parts, dim=1) for parts in zip(*readings, strict=True))
    return {"lens_logprobs": best, "lens_token_ids": ids.int()}


def _best(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    best = logits.log_softmax(-1).topk(LENS_TOP + 1, dim=-1)
    return best.values, best.indices


def _routing(sites: list[Site], taps: Taps, decisions: Decisions) -> dict[str, torch.Tensor]:
    rows = [
        _decision(*layer)
        for layer in zip(
            sites,
            taps.banks,
            decisions.received,
            decisions.logits,
            decisions.ranked,
            strict=True,
        )
    ]
    return {name: torch.stack([row[name] for row in rows], dim=1) for name in rows[0]}


def _decision(
    site: Site,
    given: tuple[torch.Tensor, ...],
    received: torch.Tensor,
    logits: torch.Tensor,
    ranked: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """One layer's routing; what the experts were given decides, sorted by what was ranked."""
    inputs, chosen, weights = given
    k = chosen.shape[-1]
    assert torch.equal(chosen.sort(-1).values, ranked.topk(k).indices.sort(-1).values)
    order = by_score(ranked, chosen)
    ids = chosen.gather(-1, order)
    return {
        "router_input": received,
        "router_logits": logits,
        "selection_scores": ranked,
        "expert_ids": ids.short(),
        "expert_weights": weights.gather(-1, order),
        "expert_outputs": expert_outputs(site.bank, inputs.reshape(len(ids), -1), ids),
    }


def by_score(scores: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Order of the selected experts: score descending, then id ascending. ids: [T, k]."""
    selected = scores.gather(-1, ids).double().numpy()
    return torch.from_numpy(np.lexsort((ids.numpy(), -selected), axis=-1))


def continued(model: nn.Module, token_ids: list[int], count: int) -> list[int]:
    """The prompt and `count` tokens that follow it greedily, every one from a full pass."""
    ids = list(token_ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids
