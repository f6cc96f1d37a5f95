"""Forcing experts: routers whose rule is known are forced as it says, and chance is not success."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from moetui.analyses.manipulation import manipulation
from moetui.analyses.manipulation_check import (
    AT,
    BEFORE,
    FORCED,
    INPUTS,
    RAISED,
    STREAM,
    TOKENS,
    Fitted,
    check_contexts,
)
from moetui.analyses.manipulation_targets import (
    SEQUENCE,
    Cell,
    Target,
    TokenChange,
    boundary_experts,
    cells_reached,
    choose_targets,
)
from moetui.analyses.token_search import (
    Search,
    best_token,
    fitted_dose,
    raised,
    scan_counts,
    search_tokens,
)
from tests.analyses.steered import RuledRouters, by_chance, by_nothing, by_token, contexts

POSITION = 4
SEARCH = Search(rows=(-2, -1), steps=2, candidates=8, contexts=2)


def found_for(model, targets, *, n=30, seed=0, candidates=None):
    """Fitted to 6 contexts, judged in n others."""
    fit, held_out, donors = contexts(6, seed=1), contexts(n, seed=2 + seed), contexts(40, seed=3)
    tokens = np.arange(40, dtype=np.int32) if candidates is None else candidates
    fitted = []
    for target in targets:
        changes = []
        for row in (0, -1):
            counts = scan_counts(model, fit, POSITION, row, tokens, [target])
            changes.append(best_token(counts[0], tokens, row))
        changes.append(search_tokens(model, fit, POSITION, target, SEARCH, seed=seed))
        dose = fitted_dose(model, fit, POSITION, target)
        fitted.append(
            Fitted(
                target=target,
                changes=tuple(changes),
                fit=(1.0,) * 3,
                raised=tuple(raised(model, fit, POSITION, target, dose)),
            )
        )
    checked = check_contexts(model, held_out, POSITION, fitted, donors, seed=seed)
    return manipulation(
        checked, fitted, [("", "", "")] * len(fitted), model.info.num_experts,
        tokens=POSITION + 1, after=1, too_short=0, corpus=None, seed=seed,
    )  # fmt: skip


def effects(found):
    return {effect.method: effect for effect in found.mean}


def one(layer, expert, role="random"):
    return Target(role=role, cells=(Cell(layer, expert),))


def test_a_router_that_reads_its_token_is_forced_by_a_scan_in_every_context() -> None:
    found = found_for(RuledRouters(by_token(0)), [one(0, 5), one(1, 2)])
    at, before = effects(found)[AT], effects(found)[BEFORE]
    assert at.success.value == 1 and at.success.ci_low == pytest.approx(0.9)
    assert at.success.null_mean == pytest.approx(2 / 8, abs=0.1)
    assert at.success.p <= 0.05
    assert at.excess.value == pytest.approx(1 - at.success.null_mean)
    assert before.success.value == pytest.approx(found.untouched.value)
    assert at.gain.value == pytest.approx(1 - found.untouched.value)
    # Of the other experts some come in by the same token and others go; on average nothing.
    assert at.gain.null_mean < 0.2


def test_a_router_that_reads_the_token_before_is_forced_from_there_only() -> None:
    found = effects(found_for(RuledRouters(by_token(-1)), [one(0, 5)]))
    assert found[BEFORE].success.value == 1 and found[TOKENS].success.value == 1
    assert found[AT].success.value < 0.6
    # The next token is expected by the position's own token alone, which was left alone.
    assert found[BEFORE].kl.value == 0 and found[AT].kl.value > 1


def test_a_router_that_reads_nothing_cannot_be_steered_and_no_success_is_made_up() -> None:
    found = found_for(RuledRouters(by_nothing()), [one(0, 7), one(1, 6)])
    for method in INPUTS:
        effect = effects(found)[method]
        assert effect.success.value == 0 and effect.success.p == 1
        assert effect.excess.value == 0 and effect.gain.value == 0
    assert effects(found)[FORCED].success.value == 1
    assert effects(found)[RAISED].success.value == 1
    assert effects(found)[STREAM].success is None
    assert effects(found)[STREAM].missing == "no stream here"


@pytest.mark.slow
def test_the_best_of_many_tokens_is_no_better_in_new_contexts_where_tokens_say_nothing() -> None:
    """Simulation: p of chance routing is at most 0.05 no more often than it should be."""
    small, p = 0, []
    few = np.arange(0, 40, 2, dtype=np.int32)
    for seed in range(24):
        model = RuledRouters(by_chance(seed))
        found = effects(found_for(model, [one(0, 3)], n=24, seed=seed, candidates=few))
        p += [found[method].success.p for method in (AT, BEFORE, TOKENS)]
        small += sum(found[m].excess.ci_low > 0 for m in (AT, BEFORE))
    # Binomial(72, 1/21): more than 9 are one in a hundred.
    assert sum(value <= 0.05 for value in p) <= 9
    assert small <= 8
    assert 0.3 < np.mean(p) < 0.75


def test_a_sequence_counts_only_where_all_its_experts_are_chosen() -> None:
    target = Target(role=SEQUENCE, cells=(Cell(0, 5), Cell(1, 1)))
    # Token 5 chooses 5, 6 in layer 0 and 8 mod 8 = 0, 1 in layer 1.
    found = found_for(RuledRouters(by_token(0)), [one(0, 0), target])
    whole = found.targets[-1]
    assert whole.name == "L0-E5 → L1-E1"
    assert whole.effects[0].success.value == 1
    assert whole.effects[-1].missing == "it changes the router of one layer"
    experts = np.array([[[5, 6], [0, 2]], [[5, 6], [0, 1]]], np.int16)
    assert cells_reached(experts, (0, 1), target).tolist() == [[True, False], [True, True]]


def test_contexts_in_parts_and_in_one_piece_are_the_same() -> None:
    model = RuledRouters(by_token(-1))
    target = one(0, 4)
    change = TokenChange(rows=(0,), tokens=(4,))
    fitted = [
        Fitted(target=target, changes=(change,) * 3, fit=(1.0,) * 3,
               raised=tuple(raised(model, contexts(4), POSITION, target, 1.0)))
    ]  # fmt: skip
    held_out, donors = contexts(10, seed=5), contexts(30, seed=6)
    whole = check_contexts(model, held_out, POSITION, fitted, donors, seed=0)
    parts = [
        check_contexts(model, some, POSITION, fitted, donors, seed=0)
        for some in (held_out[:4], held_out[4:])
    ]
    for name, axis in (("reached", 0), ("random", 1), ("prompts", 1), ("kl", 0)):
        joined = np.concatenate([getattr(part, name) for part in parts], axis=axis)
        assert np.array_equal(joined, getattr(whole, name), equal_nan=True)


def test_gradients_find_the_tokens_that_a_linear_router_likes_best() -> None:
    rng = np.random.default_rng(0)
    table, W = rng.normal(size=(40, 32)), rng.normal(size=(8, 32))
    table[17] = 3 * W[6] - W.mean(axis=0)  # what expert 6 reads

    def rule(given, position):
        read = table[given[:, : position + 1]].mean(axis=1)
        return np.stack([read @ W.T] * 2, axis=1)

    def slope(ids, layer, expert, position):
        found = np.zeros((len(ids), 32))
        found[: position + 1] = W[expert] / (position + 1)
        return found

    model = RuledRouters(rule, table=table, slope=slope)
    guided = search_tokens(model, contexts(4), POSITION, one(0, 6), SEARCH, seed=0)
    assert 17 in guided.tokens
    held_out = guided.applied(contexts(20, seed=9), POSITION)
    experts = model.read_contexts(held_out, POSITION).experts
    assert (experts[:, 0] == 6).any(axis=1).all()


def test_the_smallest_dose_is_taken() -> None:
    model = RuledRouters(by_nothing())  # logits 8 … 1: expert 7 lacks 6 to the second
    target = one(0, 7)
    dose, spread = fitted_dose(model, contexts(3), POSITION, target), np.arange(1, 9).std()
    assert dose * spread > 6 and dose / 2 * spread < 6


def test_whom_an_expert_has_to_beat() -> None:
    z = np.array([[4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 2.0, np.nan]])
    chosen = np.array([[0, 1], [0, 1]], np.int16)
    assert boundary_experts(z, chosen, 3).tolist() == [1, 1]
    assert boundary_experts(z, chosen, 0).tolist() == [2, 2]


def test_targets_are_the_rarest_expert_that_the_layer_has_and_others() -> None:
    loads = np.array([[0.5, 0.1, 0.4, 0.0], [0.1, 0.3, 0.3, 0.3]])
    there = np.array([[True, True, True, False], [True] * 4])
    found = choose_targets(loads, there, (1, 5), (0, 1), 3, seed=0)
    assert [str(t) for t in found if t.role == "rarest"] == ["L1-E1", "L5-E0"]
    assert len(found) == 6 and len({str(t) for t in found}) == 6
    assert "L1-E3" not in map(str, found)


def test_a_result_survives_its_json() -> None:
    found = found_for(RuledRouters(by_token(0)), [one(0, 5)], n=5)
    again = msgspec.json.decode(msgspec.json.encode(found), type=type(found))
    assert again == found
    assert found.reason is None and effects(found)[AT].excess.ci_low is None
