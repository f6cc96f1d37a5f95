"""Tiny random models as `Model`s, and logits of one pass with and without interventions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.switch_layers import SwitchGLU, SwitchMLP
from mlx_lm.utils import _get_classes, load_tokenizer
from numpy.typing import NDArray

from moetui.model.model import Model
from moetui.model.records import Want
from moetui.trace import Intervention
from tests.model.architectures import ARCHITECTURES, build, config_of
from tests.reference.values import DATA

Array = NDArray[Any]
# Experts as separate modules, and kernels for Metal alone: nothing of their routing is seen.
NOT_READ = {"dbrx", "muse_spark"}
ROUTING = [name for name in ARCHITECTURES if name not in NOT_READ]
K_NAMES = {
    "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "moe_top_k",
    "top_k_experts",
}  # fmt: skip
# One of every kind of block: tested always. The others are tested with the slow tests.
KINDS = {
    "Klear", "bailing_moe", "deepseek_v3", "gemma4_text", "gpt_oss", "granitemoe", "kimi_linear",
    "laguna", "llama4", "longcat_flash", "mixtral", "nemotron_h (latent)", "olmoe", "phimoe",
    "qwen2_moe",
}  # fmt: skip
IDS = [int(i) for i in np.random.default_rng(5).integers(1, 288, 30)]


def often(names: Iterable[str]) -> list[Any]:
    """The architectures `names` as parameters, those that repeat a kind among the slow ones."""
    return [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in names]


@cache
def tiny(name: str) -> Model:
    """The random instance of an architecture."""
    return over(build(name), name)


def over(network: nn.Module, name: str) -> Model:
    """A network that no checkpoint holds, as a Model."""
    folder = DATA / "olmoe"
    return Model(name, folder, network, load_tokenizer(folder), config_of(name), "float32")


def with_k(name: str, k: int) -> nn.Module:
    """The same instance, made from a configuration that says k experts a token."""
    config = config_of(name)
    for settings in (config, config.get("text_config", {})):
        settings.update(dict.fromkeys(K_NAMES & settings.keys(), k))
    model_class, args_class = _get_classes(config)
    network = model_class(args_class.from_dict(config))
    network.update(tree_unflatten(tree_flatten(build(name).parameters())))
    network.set_dtype(mx.float32)
    return network


def plain(network: nn.Module, ids: list[int]) -> Array:
    """Logits [T, V] of mlx-lm's own forward."""
    return np.array(network(mx.array(ids)[None], cache=make_prompt_cache(network)))[0]


def changed(model: Model, ids: list[int], *interventions: Intervention) -> Array:
    """Logits [T, V] of one pass with interventions."""
    records: list[Any] = []
    edits = model.edits(len(ids), interventions)
    with model.capture.on(Want(residuals=False), records.append, edits):
        model.network(mx.array(ids)[None], cache=make_prompt_cache(model.network))
    return np.array(records[0].logits)[0]


def banks(network: nn.Module) -> Iterator[tuple[int, nn.Module]]:
    """Decoder layer and bank, wherever a layer holds one."""
    for number, layer in enumerate(network.layers):
        for _, module in layer.named_modules():
            if isinstance(module, SwitchGLU | SwitchMLP):
                yield number, module


def last_linear(bank: nn.Module) -> nn.Module:
    """The projection that ends every expert of a bank."""
    last: nn.Module = bank.down_proj if isinstance(bank, SwitchGLU) else bank.fc2
    return last


def linears(bank: nn.Module) -> list[nn.Module]:
    """All projections of a bank."""
    names = ("gate_proj", "up_proj", "down_proj", "fc1", "fc2")
    return [bank[name] for name in names if name in bank]


def set_rows(linear: nn.Module, expert: int, rows: dict[str, Array]) -> None:
    """Parameters of one expert become others, in a new array."""
    for name, row in rows.items():
        values = np.array(linear[name])
        values[expert] = row
        linear[name] = mx.array(values)
