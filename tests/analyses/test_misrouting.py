"""Attacks, noise and wordings, where what they do is known."""

from __future__ import annotations

import numpy as np
import pytest

from moetui.analyses.misrouting import misrouting, set_change, try_swaps
from moetui.analyses.paraphrase import Worded, paraphrase
from moetui.analyses.routing_robustness import other_documents, typo
from moetui.stats import jaccard
from tests.analyses.steered import RuledRouters, by_nothing, by_token, contexts


def test_change_is_one_less_jaccard_and_padding_is_no_expert() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.stack([rng.permutation(9)[:4] for _ in range(20)]) for _ in range(2))
    expected = [1 - jaccard(x, y) for x, y in zip(a, b, strict=True)]
    assert np.allclose(set_change(a.astype(np.int16), b.astype(np.int16)), expected)
    padded = np.array([[-1, 3, 4]], np.int16), np.array([[-1, 4, 5]], np.int16)
    assert set_change(*padded)[0] == pytest.approx(2 / 3)


def test_where_no_token_moves_the_router_no_attack_does() -> None:
    swaps = try_swaps(RuledRouters(by_nothing()), contexts(25), 4, 0, 6, seed=0)
    found = misrouting([swaps], 0.1, corpus=None, seed=0)
    assert found.attack.value == 0 and found.beyond.value == 0 and found.within.value == 1


def test_the_attack_is_the_largest_change_within_the_bound() -> None:
    swaps = try_swaps(RuledRouters(by_token(-1)), contexts(25), 4, 0, 40, seed=0)
    assert (swaps.rows < 4).all()  # never the position itself
    found = misrouting([swaps], 0.1, corpus=None, seed=0)
    moved = swaps.rows == 3
    assert (swaps.change[~moved] == 0).all()
    assert found.attack.value == pytest.approx(swaps.change.max(axis=1).mean())
    assert found.typical.value == pytest.approx(swaps.change.mean())
    assert found.beyond.ci_low > 0
    swaps.kl[:] = np.where(swaps.change > 0, 1.0, 0.0)
    bounded = misrouting([swaps], 0.1, corpus=None, seed=0)
    assert bounded.attack.value == 0 and bounded.none == 0
    swaps.kl[:] = 1.0
    assert misrouting([swaps], 0.1, corpus=None, seed=0).none == 25


def test_a_typing_error_exchanges_two_letters_and_leaves_the_last_word() -> None:
    for seed in range(20):
        changed = typo("The quick brown fox", np.random.default_rng(seed))
        assert changed is not None and changed != "The quick brown fox"
        assert sorted(changed) == sorted("The quick brown fox") and changed.endswith(" fox")
    assert typo("aa b c", np.random.default_rng(0)) is None


def test_other_documents_are_never_the_same_document() -> None:
    last = [np.array([[2 * i, 2 * i + 1]], np.int16) for i in range(6)]
    assert (other_documents(last, seed=0) == 1).all()


def wordings(rule, problems=24, words=5):
    ids = [[[rule(p, w)] for w in range(words)] for p in range(problems)]
    return Worded(np.array(ids, np.int16))


def test_a_routing_of_the_problem_alone_survives_another_wording() -> None:
    found = paraphrase(wordings(lambda p, w: (p, p + 100)), seed=0)
    assert found.change.value == 0 and found.change.p <= 0.05
    assert found.change.null_mean > 0.9


def test_a_routing_of_the_wording_alone_says_nothing_of_the_problem() -> None:
    found = paraphrase(wordings(lambda p, w: (w, w + 100)), seed=0)
    assert found.change.value == 1 and found.excess.value == 0 and found.change.p == 1


def test_chance_is_not_taken_for_meaning() -> None:
    rng = np.random.default_rng(0)
    small = sum(
        paraphrase(wordings(lambda p, w: rng.permutation(12)[:3]), seed=s).change.p <= 0.05
        for s in range(20)
    )
    assert small <= 4
