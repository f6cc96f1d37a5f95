"""Experts of real banks, pair by pair: by numpy, and with copies planted in a random model."""

from __future__ import annotations

from itertools import combinations

import mlx.core as mx
import numpy as np
import pytest

from moetui.analyses.matrix_ranks import (
    ROUTER,
    ROUTER_CENTRED,
    difference_name,
    layer_ranks,
    matrix_ranks,
)
from moetui.analyses.output_similarity import (
    ACTIVATION,
    OUTPUT,
    correlations,
    cosines,
    output_similarity,
    output_sums,
)
from moetui.analyses.routed import read_document
from moetui.analyses.weight_similarity import (
    ALIGNED,
    RAW,
    drawn_experts,
    layer_weights,
    weight_similarity,
)
from moetui.analyses.weight_similarity import ROUTER as ROUTER_COSINE
from moetui.model.model import Model
from tests.model.subject import Subject, subject_of
from tests.suites.moe_dynamics.planted import copy_expert

TEXTS = [f"The number {n} and {n * n} are of another kind than {n + 3}." for n in range(20, 45)]


def fresh(name: str = "olmoe") -> Model:
    return Subject(name).model


def rows(matrix: np.ndarray) -> np.ndarray:
    flat = matrix.reshape(len(matrix), -1).astype(float)
    cosine: np.ndarray = flat @ flat.T
    lengths = np.linalg.norm(flat, axis=1)
    return cosine / np.outer(lengths, lengths)


def test_cosines_as_they_lie_are_those_of_the_flat_matrices() -> None:
    model = fresh()
    found = layer_weights(model, 1, 2, wanted=16, seed=0)
    matrices = model.expert_matrices(1)
    flat = np.concatenate(
        [m.reshape(8, -1) for m in (*matrices.into.values(), *matrices.out_of.values())], axis=1
    )
    assert np.allclose(found.raw, rows(flat), atol=1e-5)
    router = model.router_matrix(1).astype(float)
    assert np.allclose(found.router, rows(router - router.mean(axis=0)), atol=1e-5)
    assert (found.aligned >= found.raw - 1e-6).all()


def test_a_copy_is_found_as_it_lies_and_one_with_exchanged_neurons_aligned() -> None:
    model = fresh()
    copy_expert(model, 1, 0, 5, exchanged=False)
    copy_expert(model, 1, 2, 6, exchanged=True)
    found = layer_weights(model, 1, 2, wanted=16, seed=0)
    assert found.raw[0, 5] == pytest.approx(1) and found.aligned[0, 5] == pytest.approx(1)
    assert abs(found.raw[2, 6]) < 0.2 and found.aligned[2, 6] == pytest.approx(1)
    others = [p for p in combinations(range(8), 2) if p not in ((0, 5), (2, 6))]
    assert max(found.aligned[p] for p in others) < 0.5
    # Alignment flatters independent experts of two layers as much as those of one.
    flattered = np.mean([found.aligned[p] for p in others])
    assert flattered == pytest.approx(found.across_aligned.mean(), abs=0.02) and flattered > 0.1
    result = weight_similarity([found], threshold=0.8, seed=0)
    assert result.layers[0].mergeable == 1 and result.layers[0].pairs == 28
    assert {one.experts for one in result.of(ALIGNED)} <= {(0, 5), (2, 6)}
    assert result.of(RAW)[0].experts == (0, 5)


def test_router_rows_are_tested_only_where_their_mean_is_left_in() -> None:
    centred = fresh()
    found = weight_similarity(
        [layer_weights(centred, 1, 2, wanted=16, seed=0)], threshold=1, seed=0
    )
    [router] = found.of(ROUTER_COSINE)
    assert centred.info.shift_invariant and router.mean.p is None
    assert router.mean.null_mean == -1 / 7
    assert router.mean.value == pytest.approx(-1 / 7, abs=0.01)
    other = fresh("deepseek_v3")
    layer, partner = other.info.moe_layers[:2]
    weights = layer_weights(other, layer, partner, wanted=16, seed=0)
    [router] = weight_similarity([weights], threshold=1, seed=0).of(ROUTER_COSINE)
    assert not other.info.shift_invariant and router.mean.p is not None


def test_of_many_experts_some_are_drawn() -> None:
    found = layer_weights(fresh(), 1, None, wanted=3, seed=4)
    assert found.raw.shape == (3, 3) and found.bank == 8 and found.across_raw.shape == (3, 0)
    assert found.experts.tolist() == drawn_experts(8, 3, 4)
    assert drawn_experts(3, 5, 0) == [0, 1, 2]
    told = weight_similarity([found], threshold=0.8, seed=0).layers[0]
    assert told.compared == 3 and told.similarities[0].mean.null_mean is None


def test_output_cosines_are_those_of_all_outputs_together() -> None:
    model = fresh()
    copy_expert(model, 2, 1, 3, exchanged=True)
    documents = [read_document(model, str(i), "x", t, 12) for i, t in enumerate(TEXTS)]
    partners = {1: 2, 2: 1}
    sums = [
        output_sums(model, one, partners, wanted=99, rng=np.random.default_rng(0))
        for one in documents
    ]
    outputs = np.concatenate([dict(model.every_expert(d.ids, (2,)))[2] for d in documents])
    expected = rows(outputs.transpose(1, 0, 2))
    assert np.allclose(cosines(sums, 1), expected, atol=1e-5)
    assert expected[1, 3] == pytest.approx(1, abs=1e-5)
    row = model.info.moe_layers.index(2)
    chosen = np.concatenate(
        [(d.experts[:, row, :, None] == np.arange(8)).any(1) for d in documents]
    )
    used = np.flatnonzero(chosen.std(axis=0) > 0)
    by_numpy = np.corrcoef(chosen[:, used].T)
    assert np.allclose(correlations(sums, 1)[np.ix_(used, used)], by_numpy, atol=1e-6)
    found = output_similarity(sums, partners, None, seed=0)
    best = found.layers[1].similarities[0]
    assert best.what == OUTPUT and best.experts == (1, 3)
    assert best.largest.value == pytest.approx(1, abs=1e-5)
    assert (best.largest.null_mean or 1) < 0.9
    activation = found.layers[1].similarities[1]
    # Top-k couples the experts of a layer and none of two layers.
    assert activation.what == ACTIVATION and activation.above is None
    assert activation.mean.p is None and activation.largest.null_mean is None
    assert activation.mean.null_mean == pytest.approx(-1 / (len(used) - 1))
    assert found.documents == 25 and found.mean.ci_low is not None


def test_at_some_tokens_as_at_all_of_them_every_expert_is_applied_to_the_same() -> None:
    model = fresh()
    document = read_document(model, "a", "x", TEXTS[0], 12)
    rng = np.random.default_rng(3)
    some = output_sums(model, document, {1: None}, wanted=4, rng=rng)
    drawn = np.sort(np.random.default_rng(3).choice(12, 4, replace=False)).tolist()
    [(_, outputs)] = model.every_expert(document.ids, (1,), drawn)
    assert some.rows == 4 and some.tokens == 12
    expected = np.einsum("teh,tfh->ef", outputs, outputs)
    assert np.allclose(some.layers[0].gram, expected, rtol=1e-4)
    assert some.layers[0].across.shape == (8, 0)


def test_a_planted_router_of_one_direction_and_experts_of_one_mould_are_found() -> None:
    model = fresh()
    site = model.architecture.sites[1]
    rng = np.random.default_rng(0)
    one = np.outer(rng.normal(size=8), rng.normal(size=64)).astype(np.float32)
    site.router["weight"] = mx.array(one)
    gate = site.bank.gate_proj
    shared = np.array(gate["weight"])[:1] + 0.01 * np.array(gate["weight"])
    gate["weight"] = mx.array(shared)
    ranks = [
        layer_ranks(model, layer, 3, experts=range(8), others=range(8), energy=0.95)
        for layer in (1, 2)
    ]
    found = matrix_ranks(ranks, energy=0.95, seed=0)
    assert found.of(ROUTER_CENTRED)[0].rank.value == 1
    assert found.of(ROUTER)[0].rank.value == 1
    random = found.of(ROUTER)[1]
    assert random.rank.null_low is not None and random.rank.null_high is not None
    assert random.rank.null_low <= (random.rank.value or 0) <= random.rank.null_high
    planted, plain = found.shares("gate_proj")
    assert (planted.share.value or 0) > 0.99 and abs(plain.share.value or 1) < 0.05
    assert abs(planted.share.null_mean or 0) < 0.3
    # Random matrices of one shape have the rank of random matrices, whatever they are called.
    for name in ("up_proj", "down_proj", difference_name("up_proj")):
        assert all(r.relative == pytest.approx(1, abs=0.06) for r in found.of(name))


def by_hand(matrix: np.ndarray) -> int:
    squares = np.linalg.svd(matrix, compute_uv=False) ** 2
    return int(np.searchsorted(np.cumsum(squares) / squares.sum(), 0.95) + 1)


@pytest.mark.parametrize("name", ["gpt_oss", "phixtral", "llama4", "nemotron_h (latent)"])
def test_ranks_of_other_architectures_are_numpys(name: str) -> None:
    found_subject = subject_of(name)
    assert not isinstance(found_subject, str)
    model = found_subject.model
    layer = model.info.moe_layers[0]
    found = layer_ranks(model, layer, None, experts=(0, 3), others=(), energy=0.95)
    matrices = model.expert_matrices(layer, (0, 3))
    for key, stack in {**matrices.into, **matrices.out_of}.items():
        assert found.ranks[key][2] == tuple(by_hand(one) for one in stack)
    assert found.ranks[ROUTER][2] == (by_hand(model.router_matrix(layer)),)
