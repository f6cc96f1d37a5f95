"""The suite `anatomy`: planted moulds and directions are found, random weights have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import moetui
from moetui.analyses.matrix_ranks import MatrixRanks
from moetui.analyses.parameter_shares import ParameterShares
from moetui.analyses.weight_similarity import WeightSimilarity, mean_of_layers
from moetui.stats import Statistic
from moetui.suites import run_prepared, suite
from moetui.suites.comparison import compare
from moetui.suites.comparison import sections as compared
from moetui.suites.lines import text_of
from moetui.suites.moe_dynamics.merging_verdict import ALIGNED_MEAN
from moetui.suites.results import SuiteResult, result_json, results_of
from moetui.suites.sections import sections
from moetui.suites.summary import summary
from moetui.suites.wording import number
from tests.model.architectures import ARCHITECTURES
from tests.model.subject import Subject, subject_of
from tests.model.test_routes import UNREADABLE
from tests.model.tiny import quantised
from tests.reference.values import DATA
from tests.suites.moe_dynamics.planted import InMemory


def run(model: Any, **parameters: Any) -> SuiteResult:
    prepared = suite("anatomy", {"models": ["planted"], **parameters})
    return run_prepared(prepared, source=InMemory(model))


def outcomes(result: SuiteResult) -> tuple[str, str]:
    return result.verdicts[0].seed.outcome, result.verdicts[0].corrected.outcome


def test_random_weights_are_native() -> None:
    result = run(Subject("olmoe").model)
    assert outcomes(result) == ("native", "native")
    assert not result.failures
    assert [r.relative for r in results_of(result, "planted", MatrixRanks)[0].of("router")]


def test_experts_of_one_mould_and_routers_of_one_direction_are_pseudo() -> None:
    rng = np.random.default_rng(0)
    model = Subject("olmoe").model
    for site in model.architecture.sites.values():
        gate = site.bank.gate_proj
        E, F, H = gate["weight"].shape
        one = np.einsum("e,f,h->efh", *(rng.normal(size=n) for n in (E, F, H)))
        mould = rng.normal(size=(1, F, H))
        gate["weight"] = mx.array((mould + 0.1 * one).astype(np.float32))
    result = run(model)
    [weights] = results_of(result, "planted", WeightSimilarity)
    assert all(layer.mergeable == layer.pairs for layer in weights.layers)
    assert outcomes(result) == ("pseudo", "pseudo")
    model = Subject("olmoe").model
    for site in model.architecture.sites.values():
        E, H = site.router["weight"].shape
        direction = np.outer(rng.normal(size=E), rng.normal(size=H))
        site.router["weight"] = mx.array(direction.astype(np.float32))
    assert outcomes(run(model)) == ("native", "pseudo")


def test_what_all_layers_have_in_common_is_no_sharing_within_one() -> None:
    """A direction that experts of all layers have, as the gates of trained models do."""
    rng = np.random.default_rng(1)
    model = Subject("olmoe").model
    direction = rng.normal(size=64).astype(np.float32)
    direction *= 1.2 / np.linalg.norm(direction)
    for site in model.architecture.sites.values():
        gate = site.bank.gate_proj
        gate["weight"] = gate["weight"] + mx.array(direction)
    result = run(model)
    [ranks] = results_of(result, "planted", MatrixRanks)
    for one in ranks.shares("gate_proj"):
        assert (one.share.value or 0) > 0.5
        assert one.share.value == pytest.approx(one.share.null_mean, abs=0.05)
    assert outcomes(result)[1] == "native"
    # Without its null beside it, the headline number would read as sharing.
    [headline] = [m.statistic for m in result.measures if m.name.startswith("gate_proj: energy")]
    shares = [one.share for one in ranks.shares("gate_proj")]
    assert headline.value == pytest.approx(np.mean([one.value for one in shares]))
    assert headline.null_mean == pytest.approx(np.mean([one.null_mean for one in shares]))
    assert headline.p is None and "experts of two layers" in (headline.caveat or "")
    [aligned] = [m.statistic for m in result.measures if m.name == ALIGNED_MEAN]
    assert aligned.null_mean is not None and "null: pairs of experts" in (aligned.caveat or "")
    chance = number(headline.null_mean)
    assert f"{number(headline.value)}, null {chance}" in text_of(summary(result), 160)
    beside = compare(result, result, names=("a", "b"))
    [nulls] = [t for s in compared(beside) for t in s.tables if t.title.startswith("The same by")]
    assert (
        "corrected",
        "gate_proj: energy in common, mean of layers",
        chance,
        chance,
    ) in nulls.rows


def test_a_mean_over_layers_has_a_null_only_where_every_layer_has_one() -> None:
    layers = [Statistic(value=0.2, null_mean=0.1), Statistic(value=0.4, null_mean=0.2)]
    found = mean_of_layers(layers, "null: chance")
    assert found is not None and "null: chance" in (found.caveat or "")
    assert (found.value, found.null_mean) == pytest.approx((0.3, 0.15))
    found = mean_of_layers([*layers, Statistic(value=0.6)], "null: chance")
    assert found is not None and found.value == pytest.approx(0.4)
    assert found.null_mean is None and "null" not in (found.caveat or "")
    assert mean_of_layers([*layers, Statistic()], "x") is None and mean_of_layers([], "x") is None


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n not in UNREADABLE][::4])
def test_every_architecture_that_shows_its_experts_answers(name: str) -> None:
    found = subject_of(name)
    assert not isinstance(found, str)
    result = run(found.model, layers="first", experts=3, rank_experts=2)
    assert not result.failures and "inconclusive" not in outcomes(result)
    [shares] = results_of(result, "planted", ParameterShares)
    assert shares.total == found.model.info.parameters
    assert sum(part.share for part in shares.parts) == pytest.approx(1)
    assert shares.active <= shares.total and b"NaN" not in result_json(result)


def test_packed_models_are_unpacked_first(tmp_path: Path) -> None:
    result = run(moetui.load(quantised(tmp_path, "qwen2_moe", "affine 4-bit")), layers="first")
    [shares] = results_of(result, "planted", ParameterShares)
    assert shares.router_bits == 4 and shares.quantization == "4-bit affine"
    assert outcomes(result) == ("native", "native")
    parts = {part.part: part for part in shares.parts}
    assert parts["shared experts"].parameters > 0
    # Four bits a weight, and a scale and a bias of 32 bits for 64 of them.
    routed = parts["routed experts"]
    assert routed.bytes == pytest.approx(routed.parameters * (4 / 8 + 2 * 4 / 64), rel=0.01)


@pytest.mark.parametrize("name", ["llama", "dbrx"])
def test_without_experts_to_read_the_reason_is_told(name: str) -> None:
    if name == "llama":
        model: Any = moetui.load(DATA / "llama")
    else:
        found = subject_of(name)
        model = found if isinstance(found, str) else found.model
    result = run(model)
    assert outcomes(result) == ("inconclusive", "inconclusive") and not result.failures
    reason = "dense model" if name == "llama" else "separate modules"
    assert reason in result.verdicts[0].corrected.statement
    [shares] = results_of(result, "planted", ParameterShares)
    assert shares.total == model.info.parameters and reason in (shares.dense or "")
    shown = text_of(sections(result), 100)
    assert "no layer routes" in shown and reason in shown
