"""Shares of single experts: by definition, on planted contributions, and against their layer's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

import moetui
from moetui.analyses.single_sources import PERMUTATIONS, permuted_powers, single_sums
from moetui.analyses.source_experts import ExpertShare, ExpertShares, expert_shares
from moetui.analyses.source_shares import source_sums
from moetui.trace import NO_EXPERT, ExpertSources

LAYERS, X, E, K = (1, 4), 5, 6, 2


def document(seed: int, tokens: int = 9) -> ExpertSources:
    """Random choices and contributions; other parts add as much again, layer 4 uses one slot."""
    rng = np.random.default_rng(seed)
    ids = np.stack([[rng.permutation(X)[:K] for _ in LAYERS] for _ in range(tokens)])
    logits = rng.normal(size=(tokens, len(LAYERS), K, E)) + rng.normal(size=E)
    ids[:, 1, 1], logits[:, 1, 1] = NO_EXPERT, 0
    routed = logits.sum(axis=2)
    return ExpertSources(
        layer=6,
        layers=np.array(LAYERS, np.int32),
        router_logits=(routed.sum(axis=1) + rng.normal(size=(tokens, E))).astype(np.float32),
        expert_ids=ids.astype(np.int16),
        logits=logits.astype(np.float32),
        routed=routed.astype(np.float32),
    )


def measured(found: Sequence[ExpertSources], **options: bool) -> ExpertShares:
    permuted = sum(
        (permuted_powers(one, X, f"d{i}", seed=0, **options) for i, one in enumerate(found)),
        np.zeros((PERMUTATIONS, len(LAYERS), X)),
    )
    return expert_shares(
        [single_sums(one, X, **options) for one in found], permuted, 6, LAYERS, seed=0
    )


def by_expert(shares: ExpertShares) -> dict[tuple[int, int], ExpertShare]:
    return {(one.layer, one.expert): one for one in shares.experts}


def dense(found: Sequence[ExpertSources], row: int, expert: int) -> NDArray[np.float64]:
    """[n, E]: what one expert added at every token of all documents, 0 where it did not run."""
    mine = np.concatenate([one.expert_ids[:, row] == expert for one in found])[..., None]
    added = np.concatenate([one.logits[:, row] for one in found]).astype(float)
    total: NDArray[np.float64] = np.where(mine, added, 0).sum(axis=1)
    return total


def covariance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(((a - a.mean(axis=0)) * (b - b.mean(axis=0))).mean(axis=0).sum())


@pytest.mark.parametrize("invariant", [True, False])
def test_shares_of_experts_are_covariances_over_variances(invariant: bool) -> None:
    found = [document(seed) for seed in range(22)]
    shares = measured(found, shift_invariant=invariant)
    centre = np.eye(E) - (1 / E if invariant else 0)
    z = np.concatenate([one.router_logits for one in found]).astype(float) @ centre
    together = np.zeros_like(z)
    assert len(shares.experts) == len(LAYERS) * X and shares.never_chosen == 0
    for (layer, expert), one in by_expert(shares).items():
        part = dense(found, LAYERS.index(layer), expert) @ centre
        together += part
        expected = covariance(part, z) / covariance(z, z)
        assert one.across_tokens.value == pytest.approx(expected, abs=1e-6)
        of_token = ((part * z).sum(axis=1) / (z**2).sum(axis=1)).mean()
        assert one.per_token.value == pytest.approx(of_token, abs=1e-6)
        ran = sum((d.expert_ids[:, LAYERS.index(layer)] == expert).sum() for d in found)
        assert one.chosen == ran
        assert one.across_tokens.n_tokens == len(z) == shares.tokens
    expected = covariance(together, z) / covariance(z, z)
    assert shares.together.value == pytest.approx(expected, abs=1e-6)
    sizes = [abs(one.across_tokens.value or 0) for one in shares.experts]
    assert sizes == sorted(sizes, reverse=True)


def planted(seed: int) -> ExpertSources:
    """Expert 3 of layer 1 adds ±v at every other token; expert 0 of layer 4 the same all through
    a document, ±v by the document; nothing else is added."""
    rng = np.random.default_rng(seed)
    v, T = np.array([1.0, -1, 0, 0, 0, 0]), 12
    ids = np.tile(np.array([[3, 1], [0, NO_EXPERT]], np.int16), (T, 1, 1))
    ids[1::2, 0, 0] = 2
    logits = np.zeros((T, 2, K, E), np.float32)
    logits[0::2, 0, 0] = rng.permutation([1, 1, 1, -1, -1, -1])[:, None] * v
    logits[:, 1, 0] = (1 if seed % 2 else -1) * v
    routed = logits.sum(axis=2)
    return ExpertSources(
        layer=6, layers=np.array(LAYERS, np.int32), router_logits=routed.sum(axis=1) + 1e-3 * v,
        expert_ids=ids, logits=logits, routed=routed,
    )  # fmt: skip


def test_a_planted_expert_is_found_and_one_of_the_documents_is_not_taken_for_it() -> None:
    """Var(z) is 1/2 by expert 3 and 1 by the document's constant: shares 1/3 and 2/3."""
    shares = by_expert(measured([planted(seed) for seed in range(24)]))
    token, constant = shares[1, 3].across_tokens, shares[4, 0].across_tokens
    assert token.value == pytest.approx(1 / 3, abs=1e-6)
    assert constant.value == pytest.approx(2 / 3, abs=1e-6)
    assert token.null_mean == pytest.approx(0, abs=0.01)
    assert token.p == token.q == 1 / (1 + PERMUTATIONS)
    assert token.null_low is not None and token.null_high is not None
    assert token.null_low < 0 < token.null_high < 0.1
    # What is the same at every token of a document stays where it is when tokens change places.
    assert constant.p is None and constant.null_mean is None
    assert shares[1, 1].across_tokens.value == shares[1, 2].across_tokens.value == 0
    assert shares[1, 3].chosen == 24 * 6 and shares[4, 0].chosen == 24 * 12


def test_the_null_exchanges_the_tokens_of_a_document() -> None:
    """Of two tokens there are two orders: the one that is there, and the other."""
    found = document(3, tokens=2)
    powers = permuted_powers(found, X, "d", seed=0, shift_invariant=False)
    z = found.router_logits.astype(float)
    for expert in np.unique(found.expert_ids[:, 0]).tolist():
        part = dense([found], 0, expert)
        both = [(part * z).sum(), (part * z[::-1]).sum()]
        seen = np.unique(powers[:, 0, expert].round(6))
        np.testing.assert_allclose(seen, np.sort(both), atol=1e-5)
    assert not np.array_equal(powers, permuted_powers(found, X, "e", seed=0, shift_invariant=False))


def test_tokens_without_all_their_data_do_not_count() -> None:
    whole, holed = document(1), document(1)
    holed.router_logits[4, 2] = np.nan
    holed.logits[6, 1, 0] = np.nan
    sums, all_of_it = single_sums(holed, X), single_sums(whole, X)
    assert (sums.tokens, all_of_it.tokens) == (7, 9)
    rows = [t for t in range(9) if t not in (4, 6)]
    kept = single_sums(
        ExpertSources(
            layer=6, layers=whole.layers, router_logits=whole.router_logits[rows],
            expert_ids=whole.expert_ids[rows], logits=whole.logits[rows],
            routed=whole.routed[rows],
        ), X,
    )  # fmt: skip
    np.testing.assert_allclose(sums.power, kept.power)
    np.testing.assert_allclose(sums.mean, kept.mean, atol=1e-6)
    assert np.isfinite(permuted_powers(holed, X, "d", seed=0)).all()


def test_few_documents_have_shares_and_nothing_to_judge_them_by() -> None:
    share = measured([document(seed) for seed in range(19)]).experts[0].across_tokens
    assert share.value is not None
    assert (share.ci_low, share.null_mean, share.p, share.q) == (None, None, None, None)
    with pytest.raises(ValueError, match="documents"):
        expert_shares([], np.zeros((PERMUTATIONS, 2, X)), 6, LAYERS, seed=0)


def test_the_experts_of_a_layer_sum_to_its_share_on_the_demo_model() -> None:
    model = moetui.load("demo")
    for text in ("The dog has a ball, and 12 + 7 =", "Once upon a time there was a king."):
        sums = single_sums(model.expert_sources(text, 7), model.info.num_experts)
        trace = model.trace(text, lens=0, sources=(7,))
        layers = source_sums(trace)
        assert trace.sources is not None and sums.tokens == layers.tokens[0]
        for layer in range(7):
            at = trace.sources.names.index(("routed experts", layer))
            scale = np.abs(layers.power[0]).max()
            assert abs(sums.power[layer].sum() - layers.power[0, at]) < 1e-5 * scale
            scale = np.abs(layers.mean[0]).max()
            assert np.abs(sums.mean[layer].sum(0) - layers.mean[0, at]).max() < 1e-5 * scale
