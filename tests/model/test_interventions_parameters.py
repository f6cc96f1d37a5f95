"""Another number of experts, merged experts: as a configuration or a bank that says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models.switch_layers import SwitchLinear

import moetui
from moetui.errors import UsageError
from moetui.model import Model
from moetui.model.merge import merged_banks
from moetui.model.selection import uncompiled
from moetui.model.taps import Attached
from moetui.trace import Merge, TopK
from tests.model.conftest import FAMILIES
from tests.model.intervened import (
    IDS,
    K_NAMES,
    ROUTING,
    Array,
    banks,
    build,
    changed,
    linears,
    often,
    over,
    plain,
    set_rows,
    tiny,
    with_k,
)
from tests.model.test_capture import some_ids, state_of
from tests.model.test_uneven import uneven
from tests.reference.values import DATA, DEMO

ModelOf = Callable[[str], Model]


@pytest.mark.parametrize("name", ["demo", *FAMILIES])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_pass_with_k_experts_is_that_of_a_checkpoint_whose_config_says_k(
    model_of: ModelOf, name: str, k: int, tmp_path: Path
) -> None:
    folder = tmp_path / name
    shutil.copytree(DEMO if name == "demo" else DATA / name, folder)
    config = json.loads((folder / "config.json").read_text())
    assert config.keys() & K_NAMES
    config |= dict.fromkeys(config.keys() & K_NAMES, k)
    (folder / "config.json").write_text(json.dumps(config))
    other, model = moetui.load(folder), model_of(name)
    ids = some_ids(model, 40)
    assert other.info.top_k == k
    assert np.array_equal(changed(model, ids, TopK(k=k)), plain(other.network, ids))


# llama4 multiplies its input by the weights of one expert and knows no other number.
@pytest.mark.parametrize("name", often([name for name in ROUTING if name != "llama4"]))
def test_so_it_is_in_every_architecture(name: str) -> None:
    model = tiny(name)
    for k in (1, 2, 4):
        trace = model.trace(IDS, lens=0, interventions=[TopK(k=k)])
        assert trace.expert_ids.shape[-1] == k and (trace.expert_ids >= 0).all()
        # mlx 0.32 crashes in a sum that was compiled for any shape when its axis becomes 1.
        with uncompiled() if name.startswith("bailing_moe") else nullcontext():
            expected = plain(with_k(name, k), IDS)
        assert np.array_equal(changed(model, IDS, TopK(k=k)), expected)


def test_one_expert_is_refused_where_the_block_knows_only_one() -> None:
    with pytest.raises(UsageError, match="does not run with"):
        tiny("llama4").trace(IDS, interventions=[TopK(k=2)])


def test_layers_may_use_different_numbers_of_experts(model_of: ModelOf) -> None:
    for model in (model_of("olmoe"), uneven()):
        native = model.trace(IDS)
        trace = model.trace(IDS, expert_outputs=True, interventions=[TopK(k=6, layers=(1,))])
        used = (trace.expert_ids >= 0).sum(-1)
        assert (used == [4, 6, 4]).all()
        assert np.array_equal(trace.expert_ids[:, 0, :4], native.expert_ids[:, 0])
        assert trace.expert_outputs is not None
        assert trace.expert_outputs.shape[2] == 6


def test_the_native_number_of_experts_changes_nothing_at_all(model_of: ModelOf) -> None:
    model = model_of("olmoe")
    assert model.edits(9, [TopK(k=4)]).taps() == []


def by_hand(rows: list[Array], shares: list[float]) -> Array:
    """float32 Σ f_i x_i / Σ f_i, one after the other."""
    total = np.zeros_like(rows[0], dtype=np.float32)
    for row, share in zip(rows, shares, strict=True):
        total = total + np.float32(share) * row.astype(np.float32)
    mean: Array = total / np.float32(sum(shares))
    return mean


def merged_by_hand(network: nn.Module, experts: list[int], shares: list[float]) -> nn.Module:
    """Every bank with the mean in the place of each of `experts`; unquantised."""
    for _, bank in banks(network):
        for linear in linears(bank):
            for name in ("weight", "bias"):
                if name in linear:
                    mean = by_hand([np.array(linear[name])[e] for e in experts], shares)
                    for expert in experts:
                        set_rows(linear, expert, {name: mean})
    return network


@pytest.mark.parametrize("name", often(ROUTING))
def test_merged_experts_are_a_bank_averaged_by_numpy(name: str) -> None:
    model = tiny(name)
    before = state_of(model)
    for shares in (None, (1.0, 5.0, 2.5)):
        expected = plain(merged_by_hand(build(name), [0, 2, 5], list(shares or (1, 1, 1))), IDS)
        ours = changed(model, IDS, Merge(experts=(0, 2, 5), frequencies=shares))
        assert np.array_equal(ours, expected)
    assert state_of(model) == before
    assert np.array_equal(plain(model.network, IDS), plain(build(name), IDS))


def test_frequencies_belong_to_the_experts_they_are_given_with(model_of: ModelOf) -> None:
    model = model_of("olmoe")
    one = changed(model, IDS, Merge(experts=(5, 2), frequencies=(1.0, 3.0)))
    other = changed(model, IDS, Merge(experts=(2, 5), frequencies=(3.0, 1.0)))
    swapped = changed(model, IDS, Merge(experts=(2, 5), frequencies=(1.0, 3.0)))
    assert np.array_equal(one, other) and not np.array_equal(one, swapped)


HOW: list[dict[str, Any]] = [
    {"group_size": 32, "bits": 4, "mode": "affine"},
    {"group_size": 32, "bits": 8, "mode": "affine"},
    {"group_size": 32, "bits": 4, "mode": "mxfp4"},
    {"group_size": 16, "bits": 4, "mode": "nvfp4"},
]


@pytest.mark.parametrize("how", HOW, ids=lambda how: f"{how['mode']}-{how['bits']}")
def test_a_quantised_bank_is_averaged_and_quantised_again(how: dict[str, Any]) -> None:
    def quantised() -> nn.Module:
        network = build("mixtral")
        nn.quantize(network, class_predicate=lambda _, m: isinstance(m, SwitchLinear), **how)
        return network

    model, network = over(quantised(), "mixtral"), quantised()
    for _, bank in banks(network):
        for linear in linears(bank):
            arrays = {n: a for n, a in linear.items() if isinstance(a, mx.array)}
            parts = [
                mx.dequantize(
                    arrays["weight"][e], arrays["scales"][e],
                    arrays["biases"][e] if "biases" in arrays else None, **how,
                )
                for e in (1, 4)
            ]  # fmt: skip
            mean = by_hand([np.array(part.astype(mx.float32)) for part in parts], [1, 1])
            new = mx.quantize(mx.array(mean), **how)
            named = dict(zip(("weight", "scales", "biases"), new, strict=False))
            for expert in (1, 4):
                set_rows(linear, expert, {n: np.array(a) for n, a in named.items()})
    before, untouched = state_of(model), plain(model.network, IDS)
    ours = changed(model, IDS, Merge(experts=(4, 1)))
    assert np.array_equal(ours, plain(network, IDS)) and not np.array_equal(ours, untouched)
    assert state_of(model) == before and np.array_equal(plain(model.network, IDS), untouched)


def test_a_bank_with_a_scale_for_every_expert_gets_that_of_the_mean() -> None:
    """nvfp4 with global scales, which mlx runs on GPUs only: the parameters alone."""
    how: dict[str, Any] = {"group_size": 16, "bits": 4, "mode": "nvfp4"}
    _, bank = next(banks(build("mixtral")))
    bank.down_proj = down = bank.down_proj.to_quantized(**how, global_scale=True)

    def weights(expert: int) -> mx.array:
        return mx.dequantize(
            down["weight"][expert],
            down["scales"][expert],
            global_scale=down["global_scale"][expert],
            **how,
        )

    mean, other = (weights(1) + weights(4)) / 2, weights(2)
    largest = float(mx.abs(mean).max())
    with Attached(merged_banks({0: bank}, [Merge(experts=(1, 4))])):
        scales = np.array(down["global_scale"])
        np.testing.assert_allclose(scales[[1, 4]], largest)
        # Of 4-bit floats the largest is 6 and the coarsest step 2: half of it is the rounding.
        assert float(mx.abs(weights(1) - mean).max()) <= largest / 6 * 1.1
        assert mx.array_equal(weights(1), weights(4)) and mx.array_equal(weights(2), other)


def test_merging_one_expert_leaves_a_quantised_bank_as_it_is(model_of: ModelOf) -> None:
    model = model_of("gpt_oss")
    assert model.edits(9, [Merge(experts=(3,))]).taps() == []


def test_merges_follow_one_another(model_of: ModelOf) -> None:
    """Of the two, the later sees the banks that the earlier made."""
    model = model_of("mixtral")
    network = moetui.load(DATA / "mixtral").network
    merged_by_hand(merged_by_hand(network, [0, 1], [1, 1]), [1, 2], [1, 3])
    ours = changed(model, IDS, Merge(experts=(0, 1)), Merge(experts=(1, 2), frequencies=(1.0, 3.0)))
    assert np.array_equal(ours, plain(network, IDS))
