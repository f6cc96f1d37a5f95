"""Attention and routing over contexts: planted, explained by the token before, and absent."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from moetui.analyses.attention_profiles import BINS, ContextRead, TargetContexts
from moetui.analyses.context_attention_routing import context_attention_routing
from moetui.analyses.context_relations import over_targets, relations
from moetui.analyses.context_uses import ContextUse
from moetui.stats import document_groups, rank_correlation, shared_mean

E, K, H, HEADS = 16, 3, 12, 2


def target(rng, kind, *, contexts=30, layers=1, no_attention=()):
    """A token whose experts follow its attention ("attention"), whose attention and experts follow
    the token before ("previous"), whose are drawn apart ("independent"), or both follow its
    hidden state ("hidden")."""
    to_routing = rng.normal(size=(HEADS * len(BINS), E))
    looks, goes = rng.normal(size=(6, HEADS * len(BINS))), rng.normal(size=(6, E))
    to_look, to_go = rng.normal(size=(H, HEADS * len(BINS))), rng.normal(size=(H, E))
    read = []
    for number in range(contexts):
        previous, hidden = int(rng.integers(6)), rng.normal(size=(layers, H))
        look = {
            "previous": looks[previous] + 0.3 * rng.normal(size=HEADS * len(BINS)),
            "hidden": hidden[0] @ to_look / 2,
        }.get(kind, rng.normal(size=HEADS * len(BINS)))
        scores = {
            "attention": look @ to_routing / 3,
            "previous": goes[previous] + 0.3 * rng.normal(size=E),
            "hidden": hidden[0] @ to_go / 2,
        }.get(kind, rng.normal(size=E))
        ids = np.argsort(-scores)[:K]
        weights = np.exp(scores[ids]) / np.exp(scores[ids]).sum()
        heads = np.exp(look).reshape(HEADS, len(BINS))
        profiles = np.tile(heads / heads.sum(-1, keepdims=True), (layers, 1, 1))
        length = int(rng.integers(9, 60))
        attention = np.tile(rng.dirichlet(np.ones(length)), (layers, 1))
        profiles[list(no_attention)] = attention[list(no_attention)] = np.nan
        use = ContextUse(
            context=f"context {number}", document=f"document {number}",
            ids=np.tile(ids, (layers, 1)).astype(np.int16), weights=np.tile(weights, (layers, 1)),
            shuffled_ids=np.empty((0, layers, K), np.int16),
            shuffled_weights=np.empty((0, layers, K)),
        )  # fmt: skip
        read.append(
            ContextRead(
                use=use, length=length, previous=previous, profiles=profiles,
                attention=attention, hidden=hidden.astype(np.float32),
            )
        )  # fmt: skip
    return TargetContexts(
        word="w", token_id=1, token_text=" w", experts=E, contexts=tuple(read), dropped=()
    )


def run(kind, *, targets=20, seed=0, layers=(3,), **how):
    rng = np.random.default_rng(seed)
    mined = [target(rng, kind, layers=len(layers), **how) for _ in range(targets)]
    return context_attention_routing(
        target(rng, kind, contexts=16, layers=len(layers)), mined, layers,
        permutations=999, seed=seed,
    )  # fmt: skip


def test_experts_that_follow_attention_are_found_beyond_all_the_rest():
    found = run("attention")
    assert found.reason is None and len(found.targets) == 20 and found.fewest == 30
    assert found.mean.raw.ci_low > 0.1 and found.mean.partial.ci_low > 0.1
    assert found.mean.partial.p < 0.001
    single = [one.layers[0].partial.p for one in found.targets]
    assert np.mean(np.array(single) <= 0.05) > 0.8
    assert "below the minimum" in found.seed.corrected[0].raw.caveat  # 16 contexts of 30


@pytest.mark.parametrize("kind", ["previous", "hidden"])
def test_what_the_token_before_or_the_hidden_state_brings_about_vanishes_beyond_them(kind):
    found = run(kind)
    raw, partial = found.mean.raw, found.mean.partial
    assert raw.ci_low > 0.1
    assert abs(partial.value) < 0.25 * raw.value
    if kind == "previous":
        assert partial.ci_low < 0 < partial.ci_high


def test_independent_tables_give_uniform_p_values():
    raw, partial = [], []
    for seed in range(60):
        one = target(np.random.default_rng(seed), "independent", contexts=12)
        (found,) = relations(one, (0,), (0,), permutations=999, seed=seed)
        raw.append(found.raw.p)
        partial.append(found.partial.p)
    for ps in (raw, partial):
        assert stats.kstest(ps, "uniform").pvalue > 0.01


def sharing(rng, effect, *, tokens=20, contexts=10, documents=30):
    """Tokens whose contexts are from some of the documents, with attention and routing that have
    nothing in common; effect: how much of both is the document's. Fisher's z [n], [n, G]."""
    of_document = rng.normal(size=(2, documents, 6))
    groups = document_groups([str(d) for d in range(documents)], seed=int(rng.integers(1 << 30)))
    z, without = np.empty(tokens), np.empty((tokens, groups.size))
    for token in range(tokens):
        drawn = rng.choice(documents, contexts, replace=False)
        own = rng.normal(size=(2, contexts, 6))
        places = np.sqrt(effect) * of_document[:, drawn] + np.sqrt(1 - effect) * own
        tables = [squareform(pdist(one)) for one in places]
        mine = np.array([groups.of[str(d)] for d in drawn])
        z[token] = np.arctanh(rank_correlation(*tables))
        for group in range(groups.size):
            left = np.ix_(*2 * [np.flatnonzero(mine != group)])
            without[token, group] = np.arctanh(rank_correlation(*(one[left] for one in tables)))
    return z, without


@pytest.mark.slow
@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_over_targets_nothing_is_found_where_documents_alone_are_alike(effect):
    """In 200 such runs 0 lay outside the interval in 3 to 5 of 100; by the spread between tokens
    alone in 41 where documents do all."""
    outside, by_tokens = [], []
    for seed in range(40):
        z, without = sharing(np.random.default_rng(seed), effect)
        found = over_targets(z, without, documents=30, seed=seed)
        outside.append(not found.ci_low < 0 < found.ci_high)
        assert outside[-1] == (found.p < 0.05)
        by_tokens.append(stats.ttest_1samp(z, 0).pvalue < 0.05)
    assert np.mean(outside) <= 0.1
    assert (np.mean(by_tokens) > 0.2) == (effect > 0)


def test_the_mean_over_targets_is_that_of_fishers_z():
    z = np.arctanh(np.linspace(-0.2, 0.6, 25))
    same = np.tile([*z, np.nan], (25, 1)).T  # documents that do nothing
    found = over_targets(np.array([*z, np.nan]), same, documents=60, seed=0)
    half = stats.t.interval(0.95, 24, loc=z.mean(), scale=stats.sem(z))
    assert found.value == pytest.approx(np.tanh(z.mean()))
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(np.tanh(half)))
    assert found.p == pytest.approx(stats.ttest_1samp(z, 0).pvalue)
    assert "1 targets have no such correlation" in found.caveat
    assert "approximate interval: 60 documents" in found.caveat and found.n_documents == 60


@pytest.mark.parametrize(
    ("targets", "documents", "unknown", "told"),
    [
        (19, 60, False, "19 targets, 20 needed"),
        (25, 19, False, "19 documents, 20 needed"),
        (25, 60, True, "undefined without some"),
    ],
)
def test_an_interval_takes_targets_documents_and_what_is_left_without_them(
    targets, documents, unknown, told
):
    z = np.linspace(-0.2, 0.6, targets)
    without = np.tile(z, (20, 1)).T
    without[0, 0] = np.nan if unknown else without[0, 0]
    found = over_targets(z, without, documents=documents, seed=0)
    assert found.value == pytest.approx(np.tanh(z.mean()))
    assert found.ci_low is None and found.p is None and told in found.caveat


def test_the_interval_is_that_of_tokens_read_again_without_groups_of_documents():
    rng = np.random.default_rng(2)
    mined = [target(rng, "attention", contexts=int(rng.integers(8, 25))) for _ in range(20)]
    found = context_attention_routing(mined[0], mined, (3,), permutations=999, seed=4).mean.raw
    names = {one.use.document for each in mined for one in each.contexts}
    groups = document_groups(list(names), seed=4)

    def z(contexts):
        dense = np.zeros((len(contexts), E))
        for row, one in zip(dense, contexts, strict=True):
            row[one.use.ids[0]] = one.use.weights[0]
        looks = np.stack([one.profiles[0] for one in contexts])
        pairs = [(a, b) for a in range(len(contexts)) for b in range(a)]
        attention = [np.abs(looks[a] - looks[b]).sum(-1).mean() / 2 for a, b in pairs]
        routing = [np.abs(dense[a] - dense[b]).sum() / 2 for a, b in pairs]
        return np.arctanh(stats.spearmanr(np.round(attention, 6), np.round(routing, 6)).statistic)

    values = np.array([z(one.contexts) for one in mined])
    without = np.array([
        [z([c for c in one.contexts if groups.of[c.use.document] != g]) for g in range(groups.size)]
        for one in mined
    ])  # fmt: skip
    mean, error, degrees = shared_mean(values, without)
    limits = np.tanh(mean + np.array([-1, 1]) * stats.t.ppf(0.975, degrees) * error)
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(limits), abs=1e-6)
    assert found.value == pytest.approx(np.tanh(mean)) and found.n_documents == len(names)


def test_too_few_contexts_warn_and_far_too_few_are_inconclusive():
    warned = run("attention", contexts=20)
    assert warned.reason is None
    assert "20 contexts: below the minimum" in warned.targets[0].layers[0].raw.caveat
    for contexts in (2, 3):
        found = run("attention", contexts=contexts)
        assert found.targets == () and found.mean.raw.value is None
        assert "contexts" in found.reason
    assert "2 contexts: below a tenth" in run("attention", contexts=2).reason


def test_too_few_targets_are_inconclusive():
    assert "1 targets" in run("attention", targets=1).reason
    assert run("attention", targets=0).reason is not None


def test_layers_without_attention_are_named_and_the_others_read():
    found = run("attention", layers=(3, 5), no_attention=(1,))
    assert found.without_attention == (5,) and [one.layer for one in found.layers] == [3]
    assert found.reason is None
    none = run("attention", layers=(3,), no_attention=(0,), targets=3)
    assert none.reason == "no layer that was asked for has attention over tokens"
    assert none.targets == ()


def test_the_mean_of_layers_is_over_the_layers_of_every_target():
    found = run("attention", layers=(3, 5))
    assert found.mean.raw.value == pytest.approx(found.layers[0].raw.value)  # both are alike here


def test_layer_0_where_attention_is_all_that_differs_counts_only_where_there_is_no_other():
    found = run("attention", layers=(0, 5), targets=4)
    assert found.mean_layers == (5,)
    assert run("attention", layers=(0,), targets=4).mean_layers == (0,)


def test_the_seeds_number_is_the_correlation_of_two_cosines():
    rng = np.random.default_rng(1)
    one = target(rng, "attention", contexts=16)
    found = context_attention_routing(one, (), (0,), permutations=999, seed=0).seed
    rows = np.zeros((16, 60))  # shorter ones end in zeros
    for row, c in zip(rows, one.contexts, strict=True):
        row[: c.length] = c.attention[0]
    dense = np.zeros((16, E))
    for row, c in zip(dense, one.contexts, strict=True):
        row[c.use.ids[0]] = c.use.weights[0]
    pairs = [(a, b) for a in range(16) for b in range(a)]
    cosines = [
        [x[a] @ x[b] / np.linalg.norm(x[a]) / np.linalg.norm(x[b]) for a, b in pairs]
        for x in (rows, dense)
    ]
    assert found.layers[0].correlation.value == pytest.approx(np.corrcoef(cosines)[0, 1])
    assert found.layers[0].correlation.p is None
