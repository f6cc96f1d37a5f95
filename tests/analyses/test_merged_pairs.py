"""What merging costs: planted costs are found, exact zeros are none, unused pairs say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from moetui.analyses.merge_front import FREQUENCY, OUTPUTS, RANDOM, REAP, Removal, merge_front
from moetui.analyses.merged_pairs import (
    Measured,
    Trial,
    costs,
    foretold,
    judged,
    mean_change,
    merged_pair,
)

D, TOKENS = 200, 50


def measured(costs: list[float], *, controls: int = 40, whole: int = 1, seed: int = 0) -> Measured:
    """Documents whose NLL rises by `costs` nats a token on average; all but the first `whole`
    changes were tried on the first `controls` documents only."""
    rng = np.random.default_rng(seed)
    before = rng.normal(150, 20, D)
    noise = rng.normal(0, 0.2, (len(costs), D))
    after = before + TOKENS * np.array(costs)[:, None] + noise * (np.array(costs) != 0)[:, None]
    after[whole:, controls:] = np.nan
    return Measured(
        before=before,
        tokens=np.full(D, float(TOKENS)),
        after=after,
        moved=np.abs(after - before),
        used=np.full(after.shape, 9.0),
    )


def trials(n: int) -> list[Trial]:
    first = Trial(kind="similar", layer=2, experts=(0, 1))
    return [first, *(Trial(kind="random", layer=2, experts=(2, 3 + i)) for i in range(n))]


def test_a_pair_that_costs_nothing_is_equivalent_and_below_random_pairs_that_cost() -> None:
    found = merged_pair(measured([0.0001] + [0.05] * 20), trials(20), 0, 0.9, seed=0)
    assert found.equivalence.outcome == "equivalent"
    assert found.change.value == pytest.approx(0.0001, abs=0.001)
    assert found.beside.p == pytest.approx(1 / 21)
    assert found.beside.null_mean == pytest.approx(0.05, abs=0.002)
    assert found.beside.n_documents == 40 and found.change.n_documents == D
    # Of T tokens T − 1 are predicted.
    assert found.load.value == pytest.approx(9 / 51)


def test_a_pair_that_costs_is_different_and_no_better_than_random() -> None:
    found = merged_pair(measured([0.05] + [0.04, 0.06] * 10), trials(20), 0, 0.9, seed=0)
    assert found.equivalence.outcome == "different"
    assert (found.beside.p or 0) > 0.05


def test_the_seeds_pair_is_judged_by_pairs_merged_as_it_is_alone() -> None:
    """Merged as the seed merges, random pairs cost less than it; well merged ones cost more."""
    kinds = ["seed", *["random"] * 20, *["random, as the seed"] * 20]
    tried = [Trial(kind=kind, layer=2, experts=(0, at + 1)) for at, kind in enumerate(kinds)]
    found = merged_pair(measured([0.03] + [0.06] * 20 + [0.01] * 20), tried, 0, 0.2, seed=0)
    for beside in (found.beside, found.moved):
        assert beside.p == 1 and beside.null_mean == pytest.approx(0.01, abs=0.004)
        assert "20 random pairs" in (beside.caveat or "") and "draws" not in (beside.caveat or "")
    few = merged_pair(measured([0.03] + [0.06] * 4), trials(4), 0, 0.2, seed=0)
    assert "4 draws: p cannot be below 0.2" in (few.beside.caveat or "")


def test_without_controls_merged_as_it_is_the_seeds_pair_has_no_null() -> None:
    tried = [Trial(kind="seed", layer=2, experts=(0, 1)), *trials(20)[1:]]
    found = merged_pair(measured([0.03] + [0.06] * 20), tried, 0, 0.2, seed=0)
    for beside in (found.beside, found.moved):
        assert beside.value == pytest.approx(0.03, abs=0.004) and beside.n_documents == 40
        assert beside.p is None and beside.null_mean is None
        assert "no controls merged as it is" in (beside.caveat or "")


def test_exactly_nothing_in_every_document_is_no_cost() -> None:
    found = merged_pair(measured([0.0] + [0.05] * 20), trials(20), 0, 1.0, seed=0)
    assert found.change.value == 0 and found.equivalence.outcome == "equivalent"
    assert found.moved.value == 0


def test_a_merge_that_changes_nothing_moves_less_than_ones_that_help_and_harm_by_turns() -> None:
    """By ΔNLL half of the random pairs would be better than a perfect merge."""
    found = merged_pair(measured([0.0] + [0.02, -0.02] * 10), trials(20), 0, 1.0, seed=0)
    assert (found.beside.p or 0) > 0.4
    assert found.moved.p == pytest.approx(1 / 21)


def test_a_pair_that_hardly_a_document_uses_is_inconclusive() -> None:
    some = measured([0.0])
    found = judged(np.zeros(D), mean_change(some, [0], seed=0), users=3)
    assert found.outcome == "inconclusive" and "3 documents use" in (found.reason or "")
    few = judged(np.zeros(15), mean_change(some, [0], seed=0), users=15)
    assert few.outcome == "inconclusive" and "tenth" in (few.reason or "")


def test_costs_are_those_of_the_documents_that_all_share() -> None:
    some = measured([0.02, 0.03, 0.04])
    rows = slice(0, 40)
    expected = (some.after[:, rows] - some.before[rows]).sum(1) / some.tokens[rows].sum()
    assert np.allclose(costs(some, trials(2), moved=False), expected)
    expected = some.moved[:, rows].sum(1) / some.tokens[rows].sum()
    assert np.allclose(costs(some, trials(2), moved=True), expected)
    assert mean_change(some, [], seed=0).value is None


def test_a_similarity_that_foretells_is_told_from_one_that_does_not() -> None:
    rng = np.random.default_rng(5)
    layers = [0] * 20 + [1] * 20
    cost = rng.normal(size=40)
    foretells = foretold("x", layers, -cost + 0.1 * rng.normal(size=40), cost, seed=0)
    assert (foretells.rho.value or 0) < -0.9 and foretells.rho.p == 0.002
    p = [foretold("y", layers, rng.normal(size=40), cost, seed=s).rho.p or 0.0 for s in range(40)]
    assert np.mean(np.array(p) <= 0.05) <= 0.15
    # A difference between layers is not foretelling.
    shifted = np.array(layers) * 100.0 + rng.normal(size=40)
    between = foretold("z", layers, shifted, np.array(layers) * 9.0 + cost, seed=0)
    assert abs(between.rho.value or 0) < 0.6
    assert foretold("w", layers, np.full(40, np.nan), cost, seed=0).rho.value is None


def test_the_front_holds_what_nothing_as_small_beats() -> None:
    plan = [
        Removal(method=method, share=share, removed=4, bytes=size, draw=draw)
        for share, size in ((0.25, 100), (0.5, 200))
        for method, draw in ((OUTPUTS, None), (REAP, None), (FREQUENCY, None), (RANDOM, 0))
    ]
    values = [0.02, 0.01, 0.05, 0.2, 0.015, 0.1, 0.3, 0.4]
    some = measured(values, whole=8)
    some.after[3, 40:] = some.after[7, 40:] = np.nan
    found = merge_front(some, plan, (1, 2), (), seed=0)
    assert [(p.method, p.share) for p in found.points if p.on_front] == [
        (REAP, 0.25), (OUTPUTS, 0.5),
    ]  # fmt: skip
    point = found.at(OUTPUTS, 0.5)
    assert point is not None and point.against_reap is not None and point.beside is not None
    assert point.against_reap.value == pytest.approx(-0.085, abs=0.002)
    assert (point.against_reap.ci_high or 0) < 0
    assert point.beside.null_mean == pytest.approx(0.4, abs=0.002)
    assert found.control_documents == 40 and len(found.random) == 2
    assert point.beside.p == 0.5
    assert "1 random merges; 1 draws: p cannot be below 0.5" in (point.beside.caveat or "")
    reap = found.at(REAP, 0.25)
    assert reap is not None and reap.against_reap is None
