"""The interference index: known angles, other experts by brute force, planted and absent order."""

from __future__ import annotations

import numpy as np
import pytest

from moetui.analyses.expert_interference import (
    derangements,
    expert_interference,
    interference_index,
    layer_targets,
    output_sums,
    substituted_index,
)
from moetui.analyses.routed import RoutedDocument


def index_of(weights, outputs):
    """(I, maximum, first) of one token."""
    weights, outputs = np.asarray(weights, float), np.asarray(outputs, float)
    norms = np.linalg.norm(outputs, axis=-1)
    mixture = np.linalg.norm(weights @ outputs)
    found = interference_index(weights[None, None], norms[None, None], np.array([[mixture]]))
    return tuple(float(one[0, 0]) for one in found)


def test_outputs_at_right_angles_give_one():
    index, greatest, first = index_of([0.5, 0.3, 0.2], np.diag([2.0, 5.0, 1.0]))
    assert index == pytest.approx(1)
    assert greatest == pytest.approx((1 + 1.5 + 0.2) ** 2 / (1 + 2.25 + 0.04))
    assert first == pytest.approx(1 / np.sqrt(1 + 2.25 + 0.04))


def test_equal_outputs_give_the_maximum_and_opposite_ones_nothing():
    f = np.array([1.0, 2.0, -1.0])
    index, greatest, _ = index_of([0.7, 0.3], [f, f])
    assert index == pytest.approx(greatest) == pytest.approx(1 / (0.49 + 0.09))
    assert index_of([0.5, 0.5], [f, -f])[0] == pytest.approx(0)
    assert np.isnan(index_of([0.5, 0.5], [0 * f, 0 * f])[0])


def test_no_expert_keeps_its_place_and_all_arrangements_are_as_likely():
    drawn = derangements(4, 9000, np.random.default_rng(0))
    assert (np.sort(drawn, axis=1) == np.arange(4)).all() and (drawn != np.arange(4)).all()
    kinds, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(kinds) == 9  # !4
    # Each is binomial with mean 1,000 and a standard deviation of 30.
    assert np.abs(counts - 1000).max() < 5 * 30
    with pytest.raises(ValueError, match="two experts"):
        derangements(1, 3, np.random.default_rng(0))


def test_other_experts_give_what_their_own_mixture_gives():
    rng = np.random.default_rng(1)
    T, E, k, H, J = 6, 7, 3, 5, 4
    every = rng.normal(size=(T, E, H)).astype(np.float32)
    experts = np.stack([rng.permutation(E)[:k] for _ in range(T)]).astype(np.int16)
    weights = rng.random((T, k)).astype(np.float32)
    experts[0, 2], weights[0, 2] = -1, np.nan  # a layer with fewer
    targets = derangements(E, J, rng)
    found = substituted_index(every, experts, weights, targets)
    for j in range(J):
        for t in range(T):
            parts = [
                float(w) * every[t, targets[j, e]].astype(float)
                for w, e in zip(weights[t], experts[t], strict=True)
                if e >= 0
            ]
            squares = sum((p**2).sum() for p in parts)
            expected = np.sum(np.sum(parts, axis=0) ** 2) / squares
            assert found[0, j, t] == pytest.approx(expected, rel=1e-6)
            greatest = sum(np.linalg.norm(p) for p in parts) ** 2 / squares
            assert found[1, j, t] == pytest.approx(greatest, rel=1e-6)


def documents(rng, *, common, count=30, T=20, E=12, k=3, H=24):
    """Each token's input x and experts; the chosen experts' outputs share `common` of x."""
    found, outputs = [], []
    for name in range(count):
        every = rng.normal(size=(T, E, H))
        experts = np.stack([rng.permutation(E)[:k] for _ in range(T)])
        x = rng.normal(size=(T, 1, H))
        rows = np.arange(T)[:, None]
        every[rows, experts] += common * x
        weights = rng.dirichlet(np.ones(k), size=T)
        chosen = every[rows, experts]
        mixture = np.einsum("tk,tkh->th", weights, chosen)
        top = (chosen[:, 0] * mixture).sum(-1) / (
            np.linalg.norm(chosen[:, 0], axis=-1) * np.linalg.norm(mixture, axis=-1)
        )
        found.append(
            RoutedDocument(
                id=str(name), domain="prose", ids=np.zeros(T, np.int32),
                experts=experts[:, None].astype(np.int16),
                weights=weights[:, None].astype(np.float32), nll=np.zeros(T - 1, np.float32),
                output_norms=np.linalg.norm(chosen, axis=-1)[:, None].astype(np.float32),
                mixture_norms=np.linalg.norm(mixture, axis=-1)[:, None].astype(np.float32),
                top_cosines=top[:, None].astype(np.float32),
            )
        )  # fmt: skip
        outputs.append(every.astype(np.float32))
    return found, outputs


def measured(rng, *, common, seed=0):
    docs, outputs = documents(rng, common=common)
    targets = layer_targets(2, 12, 99, seed=seed)
    sums = [output_sums(d, [o], [0], [targets]) for d, o in zip(docs, outputs, strict=True)]
    return docs, expert_interference(sums, [2], [2], not_substituted=None, seed=seed)


def test_experts_that_share_a_direction_are_found_against_others_in_their_place():
    docs, found = measured(np.random.default_rng(2), common=0.5)
    (layer,) = found.layers
    natural = np.concatenate(
        [interference_index(d.weights, d.output_norms, d.mixture_norms)[0][:, 0] for d in docs]
    )
    assert layer.index.value == pytest.approx(natural.mean())
    assert layer.index.value > layer.index.null_high and layer.index.p == 2 / 100
    assert layer.excess.value == pytest.approx(layer.index.value - layer.index.null_mean)
    assert layer.excess.ci_low > 0
    assert layer.share.value > layer.share.null_high and layer.share.null_mean == pytest.approx(
        0, abs=0.05
    )
    assert layer.top_cosine.value > layer.top_cosine_at_right_angles.value
    assert found.mean.index.value == pytest.approx(layer.index.value)


def test_experts_like_all_others_are_not_told_apart_from_them():
    ps = [measured(np.random.default_rng(s), common=0.0, seed=s)[1].mean.index.p for s in range(40)]
    # At a level of 0.1 four in forty are expected; ten have a chance of 0.5 %.
    assert sum(p <= 0.1 for p in ps) < 10
    assert np.mean(ps) > 0.3


def test_without_other_experts_there_is_no_null():
    docs, _ = documents(np.random.default_rng(3), common=0.0)
    sums = [output_sums(d, [], [], []) for d in docs]
    found = expert_interference(sums, [2], [], not_substituted="no bank", seed=0)
    assert found.mean.index.p is None and found.mean.excess is None
    assert found.mean.index.ci_low is not None and found.not_substituted == "no bank"


def test_longer_outputs_at_the_same_angles_change_the_index_but_not_the_cosine():
    """Every expert is as oblique to every other; the chosen ones' lengths are more even."""
    rng = np.random.default_rng(4)
    E, T, k = 8, 30, 3
    oblique = np.linalg.cholesky(np.full((E, E), 0.5) + 0.5 * np.eye(E))
    every = np.tile(oblique, (T, 1, 1))
    experts = np.stack([rng.permutation(E)[:k] for _ in range(T)])
    uneven = np.exp(rng.normal(0, 1, size=(T, E)))
    uneven[np.arange(T)[:, None], experts] = 1.0
    every *= uneven[..., None]
    weights = np.full((T, k), 1 / k, np.float32)
    targets = derangements(E, 50, rng)
    natural = np.arange(E)[None]
    own = substituted_index(every, experts.astype(np.int16), weights, natural)[:, 0]
    other = substituted_index(every, experts.astype(np.int16), weights, targets)
    assert own[0].mean() > other[0].mean() + 0.1
    shares = [(i - 1).sum() / (m - 1).sum() for i, m in (own, other)]
    assert shares == pytest.approx([0.5, 0.5])
