"""Inputs that wake an expert, on a model whose routing follows from the token by hand."""

from __future__ import annotations

import numpy as np

from moetui.analyses.waking_tokens import NEVER, tokens_to_try, waking_tokens
from tests.fake_forward import FakeForward

# Token i goes to the experts i + l and i + l + 1 at layer l; there are 10 tokens, so at layer 1
# experts 1 … 11 of 16 can be reached.
MODEL = FakeForward(layers=3, experts=16, k=2, vocabulary=10)
CONTEXTS = [np.array([1, 2, 3], np.int32), np.array([4, 4, 5], np.int32)]
CHECKS = [np.array([n % 10, 2], np.int32) for n in range(25)]


def test_a_token_that_wakes_an_expert_is_found_and_does_so_elsewhere() -> None:
    found = waking_tokens(MODEL, [((1, 7), 0.01, True)], CONTEXTS, CHECKS, range(10))
    (one,) = found.experts
    assert (one.woken_by, one.dead) == (2, False)
    assert one.token_id in (5, 6) and one.token == f" w{one.token_id}"
    assert one.success.value == 1.0 and one.success.n_documents == 25
    assert one.success.ci_low is not None and 0.8 < one.success.ci_low < 1 == one.success.ci_high
    assert one.success.null_mean == 2 / 10


def test_an_expert_that_no_token_reaches_is_dead_only_if_no_document_used_it() -> None:
    targets = [((1, 14), 0.0, False), ((1, 15), 0.01, True)]
    found = waking_tokens(MODEL, targets, CONTEXTS, CHECKS, range(10))
    assert [one.dead for one in found.experts] == [True, False]
    for one in found.experts:
        assert one.token_id is None and one.woken_by == 0
        assert one.success.value is None and one.success.caveat == NEVER


def test_what_works_in_the_search_alone_fails_elsewhere() -> None:
    """At layer 1 the expert is chosen one further on where expert 4 of layer 0 was steered."""

    class Contextual(FakeForward):
        """Expert 9 of layer 1 answers only behind token 5."""

        def trace(self, text_or_ids, **options):  # type: ignore[no-untyped-def]
            found = super().trace(text_or_ids, **options)
            if 5 in list(text_or_ids)[:-1]:
                found.expert_ids[-1, 1] = [9, 10]
            return found

    model = Contextual(layers=3, experts=16, k=2, vocabulary=10)
    checks = [np.array([n % 5, 2], np.int32) for n in range(25)]
    one = waking_tokens(model, [((1, 9), 0.0, True)], [CONTEXTS[1]], checks, range(3)).experts[0]
    assert one.woken_by == 3 and one.success.value == 0.0
    assert one.success.ci_high is not None and one.success.ci_high < 0.2
    assert one.success.null_mean == 1.0


def test_few_contexts_give_no_interval() -> None:
    one = waking_tokens(MODEL, [((0, 3), 0.0, True)], CONTEXTS, CHECKS[:5], range(10)).experts[0]
    assert one.success.value == 1.0 and one.success.ci_low is None


def test_tokens_are_all_where_they_are_few_and_else_those_seen_and_random_ones() -> None:
    assert tokens_to_try(10, [3], 10, seed=0).tolist() == list(range(10))
    tried = tokens_to_try(1000, [7, 7, 3, 999], 20, seed=0)
    assert len(tried) == len(set(tried.tolist())) == 20 and {3, 7, 999} <= set(tried.tolist())
    crowded = tokens_to_try(1000, list(range(100)), 20, seed=0)
    assert set(range(10)) <= set(crowded.tolist()) and len(crowded) == 20
    assert (tried == tokens_to_try(1000, [7, 7, 3, 999], 20, seed=0)).all()
