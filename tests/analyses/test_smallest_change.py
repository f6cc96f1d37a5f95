"""The smallest change: against brute force over all kept sets, and another solver."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize

from moetui.analyses.smallest_change import pair_change, smallest_change


def router(seed: int, E: int, H: int):
    rng = np.random.default_rng(seed)
    G = rng.normal(size=(E, H))
    s = G @ rng.normal(size=H)
    return s, G, np.argsort(-s)


def by_another_solver(s, G, expert, kept, margin=0.0):
    """SLSQP on the primal, for one kept set."""
    j = [i for i in range(len(s)) if i != expert and i not in kept]
    A, b = G[expert] - G[j], s[j] - s[expert] + margin
    found = minimize(
        lambda x: 0.5 * x @ x,
        np.linalg.pinv(A) @ np.maximum(b, 0) * 1.1,
        jac=lambda x: x,
        constraints={"type": "ineq", "fun": lambda x: A @ x - b, "jac": lambda x: A},
        options={"ftol": 1e-13, "maxiter": 500},
    )
    return np.linalg.norm(found.x) if found.success else np.inf


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("E", "k", "H"), [(6, 2, 8), (7, 3, 4), (5, 1, 6)])
def test_no_kept_set_gives_a_shorter_change(seed: int, E: int, k: int, H: int) -> None:
    s, G, order = router(seed, E, H)
    expert = int(order[-1])
    found = smallest_change(s, G, expert, k)
    others = [i for i in range(E) if i != expert]
    brute = min(by_another_solver(s, G, expert, kept) for kept in combinations(others, k - 1))
    assert found is not None and found.exact
    assert found.norm == pytest.approx(brute, rel=1e-4)
    after = s + G @ found.delta
    assert (after > after[expert] + 1e-7).sum() <= k - 1


@pytest.mark.parametrize("seed", range(8))
def test_the_pair_bound_is_never_above_the_solution(seed: int) -> None:
    s, G, order = router(seed, 16, 24)
    for expert in order[4:].tolist():
        found = smallest_change(s, G, expert, 4)
        pair = pair_change(s, G, expert, order[:4].tolist())
        assert found is not None
        assert pair.least <= found.norm * (1 + 1e-6)
        formula = (s[order[3]] - s[expert]) / np.linalg.norm(G[expert] - G[order[3]])
        assert np.linalg.norm(pair.last) == pytest.approx(formula)
        assert pair.least <= formula * (1 + 1e-12)


def test_displacing_another_than_the_last_expert_may_be_shorter_than_the_pair_formula() -> None:
    """Expert 1 scores more than expert 2, the k-th, but gives way five times as fast."""
    s = np.array([3.0, 1.1, 1.0, 0.0])
    G = np.array([[0.0, 0, 0], [-1.0, 0, 0], [0, 0, 0.0], [0.1, 0.1, 0]])
    found = smallest_change(s, G, 3, 3)
    pair = pair_change(s, G, 3, (0, 1, 2))
    assert found is not None
    assert found.norm < np.linalg.norm(pair.last)
    assert pair.least <= found.norm * (1 + 1e-9)


def test_a_chosen_expert_needs_no_change_and_a_shadowed_one_has_none() -> None:
    s, G, order = router(0, 6, 8)
    best = int(order[0])
    found = smallest_change(s, G, best, 2)
    assert found is not None and found.norm == 0
    G[order[-1]] = G[best]  # always behind the best, and k = 1
    assert smallest_change(s, G, int(order[-1]), 1) is None
    assert smallest_change(s, G, int(order[-1]), 2) is not None


def test_a_margin_is_kept_and_ineligible_experts_do_not_count() -> None:
    s, G, order = router(3, 8, 10)
    expert = int(order[-1])
    found = smallest_change(s, G, expert, 2, margin=0.5)
    assert found is not None
    after = s + G @ found.delta
    assert (after > after[expert] - 0.5 + 1e-7).sum() - 1 <= 1
    two = np.isin(np.arange(8), [expert, order[0]])
    alone = smallest_change(s, G, expert, 1, eligible=two)
    gap = G[expert] - G[order[0]]
    assert alone is not None
    assert alone.norm == pytest.approx((s[order[0]] - s[expert]) / np.linalg.norm(gap))
    with pytest.raises(ValueError, match="eligible"):
        smallest_change(s, G, expert, 1, eligible=~two)


def test_a_search_cut_short_still_does_it_and_says_how_far_it_may_be_off() -> None:
    s, G, order = router(1, 40, 60)
    expert = int(order[-1])
    whole, cut = (smallest_change(s, G, expert, 8, programmes=n) for n in (100_000, 5))
    assert whole is not None and cut is not None and whole.exact and not cut.exact
    assert cut.lowest <= whole.norm * (1 + 1e-6) <= cut.norm * (1 + 2e-6)
    after = s + G @ cut.delta
    assert (after > after[expert] + 1e-7).sum() <= 7


def test_with_a_margin_the_pair_formula_puts_the_expert_so_far_above_the_last_one():
    rng = np.random.default_rng(8)
    s, G = rng.normal(size=6), rng.normal(size=(6, 4))
    order = np.argsort(-s)
    last, expert = int(order[1]), int(order[3])
    for margin in (0.0, 0.3):
        delta = pair_change(s, G, expert, order[:2].tolist(), margin=margin).last
        after = s + G @ delta
        assert after[expert] - after[last] == pytest.approx(margin, abs=1e-9)
