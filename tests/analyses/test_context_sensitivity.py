from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from moetui.analyses.context_sensitivity import (
    context_sensitivity as of_uses,
)
from moetui.analyses.context_sensitivity import (
    word_contexts as of_word,
)
from moetui.analyses.context_uses import uses_in
from moetui.stats import expected_jaccard
from tests.builders import make_trace

E, K = 8, 3


def context(tokens, ids, sets, *, weights=None):
    """A trace of `tokens`; the experts of its last token are `sets` [L, K], best first."""
    sets = np.asarray(sets, np.int16)
    trace = make_trace(len(tokens), len(sets), E, K, tokens=tokens)
    experts, mixed = trace.expert_ids.copy(), trace.expert_weights.copy()
    experts[-1] = sets
    mixed[-1] = 1 / K if weights is None else weights
    return replace(
        trace,
        token_ids=np.array(ids, np.int32),
        expert_ids=experts,
        expert_weights=mixed.astype(np.float32),
    )


def word_contexts(word, contexts, layers, *, seed):
    return of_word(uses_in(word, contexts, layers), layers, seed=seed)


def context_sensitivity(words, layers, *, seed):
    uses = [uses_in(word, contexts, layers) for word, contexts in words]
    return of_uses(uses, [], layers, seed=seed)


def named(traces):
    return [("".join(trace.tokens), trace) for trace in traces]


def test_a_context_whose_token_id_differs_is_dropped_and_named():
    spaced = [context(["x", " 127"], [n, 75], [[0, 1, 2]]) for n in (1, 2, 3)]
    bare = context(["127"], [71], [[5, 6, 7]])  # a substring search would have compared this one
    split = context(["1", "27"], [4, 5], [[5, 6, 7]])
    found = word_contexts("127", named([bare, *spaced, split]), [0], seed=0)
    assert found.token_id == 75 and found.token_text == " 127"
    assert len(found.kept) == 3
    assert [d.context for d in found.dropped] == ["127", "127"]
    assert found.dropped[0].reason == "'127' is token id 71 here, compared is 75"
    assert found.dropped[1].reason == "no single token spells '127' here"
    assert found.layers[0].sensitive is False  # the dropped ones would have made it True
    assert found.layers[0].sets.between.value == 0.0


def test_a_token_that_only_contains_the_word_is_another_token():
    longer = [context(["x", " 1127"], [1, 60], [[5, 6, 7]]) for _ in range(3)]
    exact = [context(["x", " 127"], [1, 75], [[0, 1, 2]]) for _ in range(2)]
    found = word_contexts("127", named([*longer, *exact]), [0], seed=0)
    assert found.token_id == 75 and len(found.kept) == 2 and len(found.dropped) == 3


def test_among_equally_common_ids_the_first_is_compared():
    traces = [context(["a", w], [1, i], [[0, 1, 2]]) for w, i in (("def", 5), (" def", 6))]
    found = word_contexts("def", named([*traces, *traces]), [0], seed=0)
    assert found.token_id == 5 and len(found.kept) == len(found.dropped) == 2


@pytest.mark.parametrize("usable", [0, 1])
def test_fewer_than_two_usable_contexts_are_inconclusive_without_a_number(usable):
    traces = [context(["127"], [70], [[0, 1, 2]])] * usable + [context(["x"], [1], [[0, 1, 2]])]
    found = context_sensitivity([("127", named(traces))], [0], seed=0)
    word = found.words[0]
    assert word.verdict == found.verdict == "inconclusive"
    assert f"{usable} usable contexts" in word.reason
    assert word.layers == () and found.seed_cells == 0
    assert found.seed_rate.value is None and found.set_distance.value is None


def test_seed_rate_counts_cells_with_more_than_one_top_expert():
    first = [
        context(["w"], [1], [[0, 1, 2], [3, 4, 5]]),
        context(["w"], [1], [[0, 2, 1], [4, 3, 5]]),
    ]
    second = [context(["v"], [2], [[7, 1, 2], [7, 4, 5]]) for _ in range(2)]
    found = context_sensitivity([("w", named(first)), ("v", named(second))], [0, 1], seed=0)
    assert (found.seed_sensitive, found.seed_cells) == (1, 4)
    assert found.seed_rate.value == pytest.approx(0.25)
    assert found.seed_rate.ci_low is None  # two words carry no interval
    assert found.words[0].layers[1].top_experts == (3, 4)


def test_distances_are_means_over_all_pairs():
    rng = np.random.default_rng(0)
    sets = [rng.permutation(E)[:K] for _ in range(5)]
    weights = [rng.dirichlet(np.ones(K)) * 0.7 for _ in range(5)]  # need not sum to 1
    traces = [context(["w"], [1], [s], weights=[w]) for s, w in zip(sets, weights, strict=True)]
    layer = word_contexts("w", named(traces), [0], seed=0).layers[0]
    jaccards, variations = [], []
    for a, b in combinations(range(5), 2):
        x, y = set(sets[a].tolist()), set(sets[b].tolist())
        jaccards.append(1 - len(x & y) / len(x | y))
        p = dict(zip(sets[a].tolist(), weights[a] / weights[a].sum(), strict=True))
        q = dict(zip(sets[b].tolist(), weights[b] / weights[b].sum(), strict=True))
        variations.append(sum(abs(p.get(e, 0) - q.get(e, 0)) for e in range(E)) / 2)
    assert layer.sets.between.value == pytest.approx(np.mean(jaccards))
    assert layer.weights.between.value == pytest.approx(np.mean(variations), rel=1e-5)


def test_chance_is_that_of_random_sets_of_the_same_size():
    rng = np.random.default_rng(1)
    sets = [rng.permutation(E)[:K] for _ in range(4)]
    layer = word_contexts("w", named([context(["w"], [1], [s]) for s in sets]), [0], seed=0).layers[
        0
    ]
    # Enumerated over all K-sets that the second of a pair can be.
    fixed = set(range(K))
    every = [1 - len(fixed & set(s)) / len(fixed | set(s)) for s in combinations(range(E), K)]
    null = layer.sets.between
    assert null.null_mean == pytest.approx(np.mean(every))
    assert null.null_mean == pytest.approx(1 - expected_jaccard(E, K, K))
    assert null.null_low < null.null_mean < null.null_high
    # With even weights total variation is 1 − |A ∩ B| / K, so chance is 1 − K/E.
    assert layer.weights.between.null_mean == pytest.approx(1 - K / E, abs=0.02)


def test_equal_sets_are_closer_than_chance_and_random_ones_are_not():
    same = [context(["w"], [1], [[0, 1, 2]]) for _ in range(6)]
    assert word_contexts("w", named(same), [0], seed=0).layers[0].sets.between.p == 1 / 1000
    rng = np.random.default_rng(2)
    ps = []
    for seed in range(60):
        mixed = [context(["w"], [1], [rng.permutation(E)[:K]]) for _ in range(6)]
        ps.append(word_contexts("w", named(mixed), [0], seed=seed).layers[0].sets.between.p)
    assert 0.3 < np.mean(ps) < 0.7


def test_twenty_contexts_have_an_interval():
    rng = np.random.default_rng(3)
    traces = [context(["w"], [1], [rng.permutation(E)[:K]]) for _ in range(25)]
    distance = word_contexts("w", named(traces), [0], seed=0).layers[0].sets.between
    assert distance.ci_low < distance.value < distance.ci_high
    assert "approximate" in distance.caveat and distance.n_documents == 25
    # The jackknife's standard error of the same mean over pairs: every pair has two contexts.
    sets = [set(trace.expert_ids[-1, 0].tolist()) for trace in traces]

    def mean_without(left_out):
        rest = [s for i, s in enumerate(sets) if i != left_out]
        return np.mean([1 - len(a & b) / len(a | b) for a, b in combinations(rest, 2)])

    without = np.array([mean_without(i) for i in range(25)])
    error = np.sqrt(24 / 25 * ((without - without.mean()) ** 2).sum())
    width = distance.ci_high - distance.ci_low
    assert width == pytest.approx(2 * 1.96 * error, rel=0.3)


def test_missing_routing_data_drops_the_context():
    whole = [context(["w"], [1], [[0, 1, 2]]) for _ in range(2)]
    holed = context(["w"], [1], [[0, 1, 2]], weights=[[np.nan] * K])
    found = word_contexts("w", named([*whole, holed]), [0], seed=0)
    assert len(found.kept) == 2 and found.dropped[0].reason == "routing data is missing"
