"""Edges between experts of neighbouring layers: what is planted is found, what chance or tokens
make is not."""

from functools import cache

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from moetui.analyses.edge_halves import Half, judged_halves
from moetui.analyses.edge_tests import blocks, counted, shuffle_test, testable
from moetui.analyses.expert_edges import expert_edges, layer_pairs
from moetui.analyses.routed import RoutedDocument

testable.__test__ = False  # a function of the package, not a test

E, L, K = 8, 4, 2


def documents(n, tokens, choose, seed=0, vocabulary=8, domains=("arithmetic", "code")):
    """n documents whose experts [T, L, K] are `choose(rng, ids, domain)`."""
    rng = np.random.default_rng(seed)
    found = []
    for d in range(n):
        ids = rng.integers(0, vocabulary, tokens).astype(np.int32)
        domain = domains[d % len(domains)]
        experts = choose(rng, ids, domain).astype(np.int16)
        found.append(
            RoutedDocument(
                id=f"{seed}-{d}", domain=domain, ids=ids, experts=experts,
                weights=np.full(experts.shape, 0.5, np.float32),
                nll=np.zeros(tokens - 1, np.float32),
                output_norms=None, mixture_norms=None, top_cosines=None,
            )
        )  # fmt: skip
    return found


def best(scores):
    return np.argsort(-scores, axis=-1)[..., :K]


def independent(rng, ids, domain):
    return best(rng.random((len(ids), L, E)))


def by_token(rng, ids, domain):
    """Every token has a favourite in each layer, which it takes four times of five."""
    scores = rng.random((len(ids), L, E))
    for layer in range(L):
        taken = rng.random(len(ids)) < 0.8
        scores[np.arange(len(ids)), layer, (ids * 3 + layer) % E] += np.where(taken, 1.0, -1.0)
    return best(scores)


def by_token_and_document(rng, ids, domain):
    """Every document has favourites of its own for every token, the same in all layers; given
    both, the layers choose without regard to each other."""
    favourites = rng.normal(size=(ids.max() + 1, 1, E))
    return best(favourites[ids] + 0.7 * rng.gumbel(size=(len(ids), L, E)))


def coupled_beside(rng, ids, domain):
    """The same, but where expert 1 of layer 1 was chosen, expert 5 of layer 2 is, mostly."""
    chosen = by_token_and_document(rng, ids, domain)
    taken = (chosen[:, 1] == 1).any(axis=-1) & (rng.random(len(ids)) < 0.6)
    taken &= (chosen[:, 2] != 5).all(axis=-1)
    chosen[taken, 2, 1] = 5
    return chosen


def coupled(rng, ids, domain):
    """Where expert 1 of layer 1 was chosen, expert 5 of layer 2 is, mostly; then 6 of layer 3."""
    scores = rng.random((len(ids), L, E))
    scores[:, 1, 1] += 0.2 * rng.random(len(ids)) if domain == "code" else -0.2
    for layer, source, target in ((1, 1, 5), (2, 5, 6)):
        chosen = (best(scores)[:, layer] == source).any(axis=-1)
        scores[:, layer + 1, target] = np.where(chosen & (rng.random(len(ids)) < 0.8), 2, 0.5)
    return best(scores)


@cache
def edges(choose, n=40, tokens=40, seed=0, vocabulary=8, **options):
    halves = (
        documents(n, tokens, choose, seed=2 * seed + half, vocabulary=vocabulary) for half in (0, 1)
    )
    return expert_edges(*halves, [0, 1, 2, 3], E, seed=seed, **options)


def named(found):
    return {(e.source_layer, e.source, e.target_layer, e.target) for e in found.edges}


def test_planted_edges_are_found_and_nothing_else():
    found = edges(coupled)
    assert named(found) == {(1, 1, 2, 5), (2, 5, 3, 6)}
    assert all(edge.beaten == "all three" for edge in found.edges)
    assert (found.beyond_both.value, found.only_documents, found.only_tokens) == (2.0, 0, 0)
    assert [one.beyond_both for one in found.layers] == [0, 1, 1]
    assert found.beyond_together.value == 2.0
    assert [one.beyond_together for one in found.layers] == [0, 1, 1]


def test_what_token_and_document_bring_about_together_is_beyond_each_but_not_beyond_both():
    found = edges(by_token_and_document, lift=1.2)
    assert found.beyond_both.value > 5
    assert found.beyond_together.value == 0 and found.paths.paths == ()
    assert {edge.beaten for edge in found.edges} == {"both"}
    # 40 tokens of 8 ids: hardly any is alone in its document.
    assert 0.9 < found.movable_together < 1


def test_an_edge_beyond_token_and_document_is_found_beside_what_they_bring_about():
    found = edges(coupled_beside, lift=1.2)
    (edge,) = [e for e in found.edges if e.beaten == "all three"]
    assert (edge.source_layer, edge.source, edge.target_layer, edge.target) == (1, 1, 2, 5)
    assert edge.evaluation.together_q <= 0.01
    assert edge.evaluation.over_together > 1.3


def test_edges_beyond_token_and_document_are_listed_before_others(monkeypatch):
    lifts = [e.evaluation.over_tokens for e in edges(coupled_beside, lift=1.2).edges]
    assert lifts[0] < max(lifts)  # others stand out more from equal tokens
    monkeypatch.setattr("moetui.analyses.expert_edges.LISTED", 1)
    (edge,) = edges.__wrapped__(coupled_beside, lift=1.2).edges
    assert edge.beaten == "all three"


def test_the_third_shuffle_compares_tokens_that_a_document_has_twice():
    found = edges(coupled, tokens=20, vocabulary=16, n=80)
    edge = next(e for e in found.edges if e.source_layer == 1)
    expected, together, movable, tokens = 0.0, 0, 0, 0
    for document in documents(80, 20, coupled, seed=1, vocabulary=16):
        source = (document.experts[:, 1] == 1).any(-1)
        target = (document.experts[:, 2] == 5).any(-1)
        tokens += len(document.ids)
        for token in set(document.ids.tolist()):
            same = document.ids == token
            if same.sum() > 1:
                movable += same.sum()
                together += (source & target)[same].sum()
                expected += source[same].sum() * target[same].sum() / same.sum()
    assert edge.evaluation.over_together == pytest.approx(together / expected)
    assert found.movable_together == pytest.approx(movable / tokens)


def test_an_edges_numbers_are_those_of_its_table():
    found = edges(coupled)
    edge = next(e for e in found.edges if e.source_layer == 1)
    whole = documents(40, 40, coupled, seed=1)
    source = np.concatenate([(d.experts[:, 1] == 1).any(-1) for d in whole])
    target = np.concatenate([(d.experts[:, 2] == 5).any(-1) for d in whole])
    lift = (source & target).mean() / (source.mean() * target.mean())
    assert edge.evaluation.together == (source & target).sum()
    assert edge.evaluation.lift == pytest.approx(lift)
    assert edge.evaluation.pmi == pytest.approx(np.log(lift))
    assert edge.lift.value == pytest.approx(lift)
    assert edge.lift.ci_low < lift < edge.lift.ci_high
    assert edge.evaluation.tokens_q == 0.001


def test_the_edge_belongs_to_the_domain_in_which_its_source_is_used():
    edge = next(e for e in edges(coupled).edges if e.source_layer == 1)
    assert edge.domain.domain == "code"
    assert edge.domain.rate.q <= 0.01
    assert edge.domain.rate.value > edge.domain.rate.null_mean
    assert edge.domain.lift_inside > 2


def test_the_planted_edges_make_one_path():
    (path,) = edges(coupled).paths.paths
    assert [(p.layer, p.expert) for p in path.places] == [(1, 1), (2, 5), (3, 6)]
    whole = documents(40, 40, coupled, seed=1)
    all_three = np.concatenate(
        [
            (d.experts[:, 1] == 1).any(-1)
            & (d.experts[:, 2] == 5).any(-1)
            & (d.experts[:, 3] == 6).any(-1)
            for d in whole
        ]
    )
    assert path.tokens.value == pytest.approx(all_three.mean())
    assert path.tokens.ci_low > path.tokens.null_mean


def test_what_tokens_determine_is_no_edge_among_equal_tokens():
    found = edges(by_token, lift=1.4)
    # Documents do not explain it, so there is a coupling; equal tokens do.
    assert found.only_documents > 5
    assert found.beyond_both.value == 0 and found.only_tokens == 0
    assert all(edge.beaten == "within documents" for edge in found.edges)
    assert found.information.held_out.ci_low > 0.01
    assert found.information.beyond_documents.ci_low > 0.01
    assert abs(found.information.beyond_tokens.value) < 0.005


def test_independent_layers_have_no_edges_and_no_information():
    found = edges(independent)
    assert found.edges == () and found.paths.paths == ()
    assert found.information.held_out.ci_low < 0
    assert abs(found.information.held_out.value) < 0.01
    assert found.layers[0].information.mutual.p > 0.01


def test_information_learnt_elsewhere_stays_below_the_plug_in_value():
    found = edges(coupled)
    for one in found.layers[1:]:
        assert one.information.held_out.ci_low > 0
        assert one.information.mutual.p == 0.001
        assert one.information.held_out.value < one.information.mutual.value + 0.005


def test_few_tokens_carry_no_verdict():
    found = edges(coupled, n=10, tokens=20)
    assert found.reason is not None and "below a tenth" in found.reason
    assert edges(coupled, n=25).reason is None


def test_layers_in_blocks_give_what_they_give_at_once(monkeypatch):
    half = Half.of(documents(20, 30, coupled), E)
    pairs = layer_pairs(L, 2)
    assert pairs == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    found = counted(half.members, pairs)
    options = {"permutations": 99, "seed": 3}
    whole = shuffle_test(half.members, found, half.token, pairs, testable(found), **options)
    monkeypatch.setattr("moetui.analyses.edge_tests.COLUMNS", 3 * E)
    assert len(list(blocks(pairs, E))) > 1
    parts = shuffle_test(half.members, found, half.token, pairs, testable(found), **options)
    np.testing.assert_array_equal(whole.q, parts.q)
    np.testing.assert_allclose(whole.information, parts.information)


@pytest.mark.slow
def test_layers_that_answer_to_token_and_document_alone_rarely_have_a_cell_beyond_both():
    """Each half's family-wise error by itself, over the few cells that the other half picked."""
    wrong = 0
    for seed in range(60):
        halves = [
            Half.of(documents(20, 40, by_token_and_document, seed=s), E)
            for s in (2 * seed, 2 * seed + 1)
        ]
        judged = judged_halves(
            halves, layer_pairs(L, 1), lift=1.2, level=0.05, permutations=199, seed=seed
        )
        picked = [np.isfinite(one.together.q) for one in judged]
        assert picked[0].any() and picked[1].any()
        wrong += sum(bool(np.nanmin(one.together.q) <= 0.05) for one in judged)
    # Expected are 6 of 120; more than 12 has a chance of 0.8 %.
    assert wrong <= 12


@pytest.mark.slow
def test_independent_layers_rarely_have_a_cell_beyond_either_shuffle():
    """Each half's family-wise error by itself; both halves together err far less often."""
    wrong = {"document": 0, "token": 0}
    for seed in range(100):
        half = Half.of(documents(20, 40, independent, seed=seed), E)
        pairs = layer_pairs(L, 1)
        found = counted(half.members, pairs)
        for name in wrong:
            test = shuffle_test(
                half.members, found, getattr(half, name), pairs, testable(found),
                permutations=199, seed=seed,
            )  # fmt: skip
            wrong[name] += bool(np.nanmin(test.q) <= 0.05)
    # Expected are 5 of 100; more than 11 has a chance of 0.4 %.
    assert max(wrong.values()) <= 11


def test_the_many_small_products_are_done_by_one_thread():
    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    halves = (documents(12, 20, independent, seed=half) for half in (0, 1))
    seen = []
    with threadpool_limits(limits=2):
        before = threads()
        expert_edges(
            *halves, [0, 1, 2, 3], E, permutations=19, seed=0, step=lambda: seen.append(threads())
        )
        assert threads() == before
    assert seen and all(found <= {1} for found in seen)
