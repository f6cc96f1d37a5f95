from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference
from sklearn.preprocessing import StandardScaler

from moetui.analyses.expert_ranks import by_document, multi_hot, ranks, recalled
from moetui.analyses.ridge import FOLDS, PENALTIES, Predictor, Ridge, Sample
from tests.analyses.worlds import E, H, K, V, world


def drawn(seed=0, n=300):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 7)) * np.arange(1, 8) + 3
    return x, rng.normal(size=(n, 4)), rng


@pytest.mark.parametrize("penalty", PENALTIES)
def test_weights_are_those_of_an_independent_ridge_regression(penalty):
    x, y, rng = drawn()
    other = rng.normal(size=(50, 7))
    scaler = StandardScaler().fit(x)
    reference = Reference(alpha=penalty * len(x)).fit(scaler.transform(x), y)
    ridge = Ridge(x)
    told = ridge.standardised(other) @ ridge.factor(penalty).weights(y) + y.mean(axis=0)
    np.testing.assert_allclose(told, reference.predict(scaler.transform(other)), atol=1e-9)


def test_elimination_solves_the_joint_system():
    x, y, rng = drawn(1)
    known = rng.random((300, 4)) + y * 0.3
    ridge, penalty = Ridge(x), 1e-2
    alone, features, weights = ridge.factor(penalty).both(known, y)
    s, t = known - known.mean(axis=0), y - y.mean(axis=0)
    whole = np.concatenate([ridge.x, s], axis=1)
    penalties = np.diag([penalty * 300] * 7 + [1e-6 * 300] * 4)
    joint = np.linalg.solve(whole.T @ whole + penalties, whole.T @ t)
    np.testing.assert_allclose(np.concatenate([features, weights]), joint, atol=1e-9)
    np.testing.assert_allclose(alone, ridge.factor(penalty).weights(t), atol=1e-9)


def test_a_feature_that_does_not_vary_counts_for_nothing():
    x, y, _ = drawn(2)
    constant = np.concatenate([x, np.full((300, 1), 5.0)], axis=1)
    plain, more = Ridge(x).factor(0.1).weights(y), Ridge(constant).factor(0.1).weights(y)
    np.testing.assert_allclose(more[:7], plain, atol=1e-9)
    assert np.abs(more[7]).max() == 0


def sides(kind, seed=0, documents=24):
    both = []
    for start in (0, 1000):
        some = world(kind, documents, seed=seed, first=start)
        experts = np.concatenate([d.experts for d in some])
        numbers = np.repeat(np.arange(documents), [len(d.ids) for d in some])
        features = np.concatenate([d.attention for d in some])
        known = np.random.default_rng(start).random((len(experts), E))
        tokens = np.concatenate([d.ids for d in some])
        sample = Sample(experts=experts, known=known, documents=numbers, tokens=tokens)
        both.append((features, sample))
    return both


EXCHANGES = (Sample.within_documents, Sample.among_equals)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_exchanging_all_else_is_exchanging_the_features(exchange):
    (x, fit), (asked, judge) = sides("attention")
    rng = np.random.default_rng(3)
    left, right = exchange(fit, rng), exchange(judge, rng)
    predictor = Predictor(x, asked, fit.documents, [fit.experts], E=E, size=K)
    moved = predictor.told(left, right, sizes=(K,), shuffles=0, seed=0)
    # The same exchange, made to the features: where row i took row j's experts, j has i's features.
    rng = np.random.default_rng(3)
    orders = [np.argsort(order_of(side, rng, exchange)) for side in (fit, judge)]
    again = Predictor(x[orders[0]], asked[orders[1]], fit.documents, [fit.experts], E=E, size=K)
    again.penalty = predictor.penalty
    again._factor = Ridge(x[orders[0]]).factor(predictor.penalty)
    told = again.told(fit, judge, sizes=(K,), shuffles=0, seed=0)
    assert recalled(moved.beside, (K,)).sum() == recalled(told.beside, (K,)).sum()
    np.testing.assert_allclose(moved.scores[orders[1]], told.scores, atol=1e-9)


def order_of(side, rng, exchange):
    return exchange(replace(side, experts=np.arange(len(side.experts))[:, None]), rng).experts[:, 0]


@pytest.mark.parametrize(("exchange", "kept"), zip(EXCHANGES, ("documents", "tokens"), strict=True))
def test_an_exchange_stays_within_documents_or_equal_tokens(exchange, kept):
    (_, fit), _ = sides("chance")
    order = order_of(fit, np.random.default_rng(0), exchange)
    assert sorted(order) == list(range(len(order))) and (order != np.arange(len(order))).any()
    groups = getattr(fit, kept)
    assert (groups[order] == groups).all()
    # What is exchanged takes its document along.
    moved = exchange(fit, np.random.default_rng(0))
    assert (moved.documents == fit.documents[order]).all()


def test_features_of_equal_tokens_recall_what_the_token_tells_and_no_more():
    """By hand: each draw fits and judges features that were moved among equal tokens."""
    (x, fit), (asked, judge) = sides("attention")
    predictor = Predictor(x, asked, fit.documents, [fit.experts], E=E, size=K)
    told = predictor.told(fit, judge, sizes=(K,), shuffles=4, seed=0)
    assert told.equal_beside.shape == (4, 24, 1)
    # The experts follow from attention, which is another at every place of a token.
    real = recalled(told.beside, (K,)).sum() / judge.experts.size
    equal = told.equal_beside.sum(axis=(1, 2)) / judge.experts.size
    assert real > 0.7 and equal.max() < 0.45
    # Features that are the token's own stay as they are, in every document.
    table = np.random.default_rng(4).normal(size=(V, H))
    own = Predictor(
        table[fit.tokens], table[judge.tokens], fit.documents, [fit.experts], E=E, size=K
    ).told(replace_known(fit, table), replace_known(judge, table), sizes=(K,), shuffles=4, seed=0)
    assert (own.equal_beside.sum(axis=(1, 2)) == recalled(own.beside, (K,)).sum()).all()
    # And what one draw says of each token stands at that token.
    np.testing.assert_allclose(own.scores_equal, own.scores_beside, atol=1e-9)
    found = recalled(ranks(told.scores_equal, judge.experts), (K,))
    assert (by_document(found, judge.documents, 24) == told.equal_beside[0]).all()


def replace_known(side, table):
    """What is known of a token, as a function of it."""
    return replace(side, known=table[side.tokens][:, :E])


def test_planted_routing_is_recalled_and_its_null_is_not():
    (x, fit), (asked, judge) = sides("attention")
    predictor = Predictor(x, asked, fit.documents, [fit.experts], E=E, size=K)
    told = predictor.told(fit, judge, sizes=(K, E), shuffles=5, seed=0)
    share = recalled(told.alone, (K,)).sum() / judge.experts.size
    null = told.null[:, 0] / judge.experts.size
    assert share > 0.75 and null.max() < 0.4
    assert (told.null[:, 1] == judge.experts.size).all()  # all of E are among E


def test_the_penalty_is_that_of_least_loss_on_documents_left_out():
    rng = np.random.default_rng(5)
    documents = np.repeat(np.arange(12), 10)
    x = rng.normal(size=(120, 90))  # nearly as many directions as tokens: a large penalty is best
    experts = np.argsort(-(x[:, :E] + 2 * rng.normal(size=(120, E))), axis=1)[:, :K]
    experts = experts.astype(np.int16)
    found = Predictor(x, x, documents, [experts], E=E, size=K).penalty
    from sklearn.model_selection import GroupKFold

    reached = []
    for penalty in PENALTIES:
        hits = 0.0
        for fit, held in GroupKFold(FOLDS).split(x, groups=documents):
            assert not set(documents[fit]) & set(documents[held])
            scaler = StandardScaler().fit(x[fit])
            model = Reference(alpha=penalty * len(fit)).fit(
                scaler.transform(x[fit]), multi_hot(experts[fit], E)
            )
            told = model.predict(scaler.transform(x[held]))
            hits += recalled(ranks(told, experts[held]), (K,)).sum()
        reached.append(hits)
    assert found == PENALTIES[int(np.argmax(reached))] and found > PENALTIES[0]


def test_fewer_documents_than_folds_take_the_middle_penalty():
    x = np.random.default_rng(0).normal(size=(20, H))
    experts = np.zeros((20, 1), np.int16)
    found = Predictor(x, x, np.repeat([0, 1], 10), [experts], E=E, size=1)
    assert found.penalty == PENALTIES[2]
