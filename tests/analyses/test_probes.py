"""Probes on features whose truth is known: nothing, a subspace, wordings only, operator words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import StratifiedGroupKFold

from moetui.analyses.one_thread import one_thread
from moetui.analyses.probe_features import (
    ProbeFeatures,
    chosen_experts,
    joined_features,
    nearest_routing,
    probe_layers,
    read_features,
    router_logits,
    token_counts,
)
from moetui.analyses.probe_fit import (
    Chance,
    Controls,
    Items,
    accuracy,
    against_controls,
    chances,
    fitted,
    operand_folds,
    predict,
    seen,
    unseen,
)
from moetui.analyses.probes import (
    CHOSEN,
    EMBEDDING,
    LOGITS,
    RESIDUAL,
    TOKENS,
    coded_items,
    most_frequent,
    probes,
)
from moetui.analyses.seed_probe import seed_probe
from moetui.analyses.task_prompts import SEED_PROMPTS, TASKS, TEMPLATES, TaskPrompt, crossed_prompts
from moetui.stats import permutation_p
from tests.builders import make_model_info
from tests.fake_tasks import TaskForward

H, PAIRS = 12, 6


def items_of(templates: int = 7, pairs: int = PAIRS, classes: int = 4) -> Items:
    t, k, p = np.meshgrid(range(templates), range(classes), range(pairs), indexing="ij")
    return Items(k.ravel(), t.ravel(), p.ravel(), classes)


def features_of(hidden: np.ndarray, experts: int = 0) -> ProbeFeatures:
    """Residual features [n, H] at layer 1; a router that sees the first `experts` of them."""
    n, z = len(hidden), hidden[:, None, :experts].astype(np.float32)
    return ProbeFeatures(
        layers=np.array([1], np.int32),
        routing_layers=np.array([1] if experts else [], np.int32),
        token_ids=np.zeros((n, 1), np.int32),
        embedding=np.ones((n, H), np.float32),
        residual=hidden[:, None].astype(np.float32),
        router_logits=z,
        expert_ids=np.argsort(-z, axis=-1)[..., : 2 if experts else 0].astype(np.int16),
    )


def probed(hidden: np.ndarray, items: tuple[TaskPrompt, ...], experts: int = 0, seed: int = 0):  # type: ignore[no-untyped-def]
    info = make_model_info(moe_layers=(1,) if experts else (), hidden_size=H)
    of_seed = features_of(np.random.default_rng(seed).normal(size=(len(SEED_PROMPTS), H)))
    return probes(info, SEED_PROMPTS, of_seed, items, features_of(hidden, experts),
                  depths=(0.25,), seed=seed)  # fmt: skip


def by_wording(items: tuple[TaskPrompt, ...], rng: np.random.Generator, noise: float) -> np.ndarray:
    """A direction of its own for every wording, and noise."""
    coded = coded_items(items)
    centres = rng.normal(size=(len(TEMPLATES) * 4, H))
    return centres[coded.wordings] + noise * rng.normal(size=(len(items), H))


def test_a_tested_prompt_shares_neither_template_nor_operands_nor_numbers_with_the_trained() -> (
    None
):
    items = crossed_prompts(8, seed=1)
    coded = coded_items(items)
    tested = np.zeros(len(items), int)
    for train, test in unseen(coded, operand_folds(coded, seed=0)):
        tested[test] += 1
        assert not set(coded.templates[train]) & set(coded.templates[test])
        numbers = [
            {number for i in side for number in items[i].operands.split(",")}
            for side in (train, test)
        ]
        assert not numbers[0] & numbers[1]
        assert set(coded.labels[train]) == set(coded.labels[test]) == {0, 1, 2, 3}
    assert (tested == 1).all()


def test_where_wordings_are_seen_operands_are_not() -> None:
    coded = items_of()
    folds = operand_folds(coded, seed=0)
    for train, test in seen(folds):
        assert set(coded.wordings[train]) == set(coded.wordings[test])
        assert not set(coded.operands[train]) & set(coded.operands[test])


@pytest.mark.slow
def test_labels_that_features_know_nothing_of_are_not_recognised() -> None:
    """Also where every wording has a direction of its own, which is what prompts look like."""
    coded, found, p = items_of(), [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(28, 8))
        X = centres[coded.wordings] + 0.3 * rng.normal(size=(len(coded.labels), 8))
        folds = operand_folds(coded, seed=seed)
        chance, _ = chances(X, coded, unseen(coded, folds), np.ones(len(X), bool), seed=seed)
        found.append(chance.observed)
        p.append(permutation_p(chance.observed, chance.null))
    assert np.mean(found) == pytest.approx(0.25, abs=0.03)
    # Binomial(60, .05) exceeds 7 once in 200.
    assert sum(value <= 0.05 for value in p) <= 7
    assert np.quantile(p, 0.25) > 0.1


def test_a_planted_subspace_is_found_through_unseen_words_and_numbers() -> None:
    items, rng = crossed_prompts(PAIRS, seed=0), np.random.default_rng(0)
    hidden = by_wording(items, rng, 0.3)
    hidden[:, :4] += 6 * np.eye(4)[[TASKS.index(item.task) for item in items]]
    found = probed(hidden, items, experts=6)
    residual, bag = found.probe(RESIDUAL, 0.25), found.probe(TOKENS)
    assert residual.unseen.value > 0.95 and residual.unseen.p <= 0.001
    assert residual.without_symbol.value > 0.95
    assert residual.gain.value == pytest.approx(residual.unseen.value - bag.unseen.value)
    assert residual.gain.ci_low > 0.5
    # The router sees the planted directions too; its choice of two of six keeps most of it.
    assert found.probe(LOGITS, 0.25).unseen.value > 0.95
    assert found.probe(CHOSEN, 0.25).unseen.value > 0.5
    assert found.no_routing is None
    assert bag.unseen.q is None
    tests = [probe.unseen for probe in found.probes if probe.depth is not None]
    expected = scipy_stats.false_discovery_control([test.p for test in tests])
    assert [test.q for test in tests] == pytest.approx(expected)


def test_features_that_hold_only_the_wording_are_of_use_only_where_it_was_seen() -> None:
    items = crossed_prompts(PAIRS, seed=0)
    coded = coded_items(items)
    one_hot = np.eye(28)[coded.wordings]
    rng = np.random.default_rng(0)
    hidden = one_hot @ rng.normal(size=(28, H)) + 0.01 * rng.normal(size=(len(items), H))
    residual = probed(hidden, items).probe(RESIDUAL, 0.25)
    assert residual.seen.value > 0.9
    # Any label of a wording can be remembered: so says the control task.
    assert residual.seen.null_mean > 0.85 and abs(residual.selectivity.value) < 0.06
    assert residual.unseen.value < 0.45 and residual.unseen.p > 0.05


def test_tokens_that_name_the_operation_are_of_no_use_in_templates_without_them() -> None:
    items = crossed_prompts(PAIRS, seed=0)
    model = TaskForward(moe_layers=())
    features = read_features(model, [item.prompt for item in items])
    coded = coded_items(items)
    folds = operand_folds(coded, seed=0)
    counts = token_counts(features).astype(float)
    familiar = predict(counts, coded.labels, seen(folds))
    novel = predict(counts, coded.labels, unseen(coded, folds))
    assert (familiar.labels == coded.labels).mean() == 1.0
    chance, _ = chances(counts, coded, unseen(coded, folds), np.ones(len(items), bool), seed=0)
    assert permutation_p(chance.observed, chance.null) > 0.05
    assert (novel.labels == coded.labels).mean() < 0.45


def test_what_is_the_same_for_all_operations_gives_exactly_chance() -> None:
    items = crossed_prompts(PAIRS, seed=0)
    found = probed(np.random.default_rng(0).normal(size=(len(items), H)), items)
    embedding = found.probe(EMBEDDING)
    assert embedding.unseen.value == embedding.seen.value == 0.25
    assert found.most_frequent.value == 0.25
    assert found.no_routing is not None and "dense" in found.no_routing


def test_dealing_operations_anew_keeps_one_of_each_in_every_template() -> None:
    """With the labels of two templates only, 24 dealings each: chance is known exactly."""
    coded = items_of(templates=2, pairs=2)
    X = np.eye(4)[coded.labels]  # the same feature for an operation in both templates
    chance, _ = chances(
        X, coded, unseen(coded, operand_folds(coded, seed=0)), np.ones(len(X), bool), seed=0
    )
    assert chance.observed == 1.0
    # Both templates must be dealt alike for 1.0: one of 24; agreement in none: 9 of 24.
    assert (chance.null == 1.0).mean() == pytest.approx(1 / 24, abs=0.02)
    assert (chance.null == 0.0).mean() == pytest.approx(9 / 24, abs=0.05)


def test_the_interval_is_over_wordings_and_the_size_is_told() -> None:
    items = crossed_prompts(PAIRS, seed=0)
    found = probed(np.random.default_rng(1).normal(size=(len(items), H)), items)
    unseen_accuracy = found.probe(RESIDUAL, 0.25).unseen
    assert unseen_accuracy.n_documents == 28 and unseen_accuracy.n_tokens == len(items)
    assert "approximate" in unseen_accuracy.caveat
    assert found.verdict == "measured" and "42 items" in found.warnings[0]
    scores = found.probe(RESIDUAL, 0.25).by_wording
    right = sum(
        p == i.task for p, i in zip(found.probe(RESIDUAL, 0.25).predicted, items, strict=True)
    )
    assert sum(s.right for s in scores) == right
    assert unseen_accuracy.value == pytest.approx(right / len(items))


def test_what_lies_within_its_own_null_is_not_significant() -> None:
    """The least-squares probe may be lucky where the probe that is reported is not."""
    items = items_of()
    predicted = np.where(np.arange(len(items.labels)) % 10 < 3, items.labels, -1)
    null = np.random.default_rng(0).normal(0.25, 0.05, 999)
    for of_squares in (0.30, 0.45):
        found = accuracy(items, predicted, Chance(of_squares, null), seed=0)
        assert found.value == pytest.approx(0.30, abs=0.01)
        assert found.p == pytest.approx((null >= 0.30).mean(), abs=0.03)
    assert accuracy(items, predicted, Chance(0.20, null), seed=0).p > 0.8


def test_selectivity_is_as_uncertain_as_the_wordings_make_it() -> None:
    """Controls that all reach 0.25 say nothing of how much accuracy differs between wordings."""
    items = items_of()
    solved = np.random.default_rng(0).permutation(28)[:14]
    predicted = np.where(np.isin(items.wordings, solved), items.labels, (items.labels + 1) % 4)
    reached = Controls(np.full(20, 0.25), np.full(len(items.labels), 0.25), 40, 0)
    seen_accuracy, selectivity = against_controls(items, predicted, reached, seed=0)
    assert (seen_accuracy.value, selectivity.value) == (0.5, 0.25)
    assert seen_accuracy.null_mean == 0.25 and seen_accuracy.p == pytest.approx(1 / 21)
    # 14 of 28 independent wordings: ± 1.96 · √(0.25 / 28) = 0.185.
    assert selectivity.ci_low == pytest.approx(0.25 - 0.185, abs=0.06)
    assert selectivity.ci_high == pytest.approx(0.25 + 0.185, abs=0.06)


def test_the_fixed_answer_is_the_dummy_classifier_of_sklearn() -> None:
    items = (*crossed_prompts(3, seed=0), *SEED_PROMPTS[:3])
    labels = coded_items(items).labels
    nothing = np.zeros((len(labels), 1))
    dummy = DummyClassifier(strategy="most_frequent").fit(nothing, labels)
    assert most_frequent(coded_items(items), seed=0).value == dummy.score(nothing, labels)


@pytest.mark.parametrize(("pairs", "templates"), [(1, 7), (3, 3), (20, 1)])
def test_too_few_prompts_are_no_finding(pairs: int, templates: int) -> None:
    items = crossed_prompts(pairs, seed=0, templates=TEMPLATES[:templates])
    found = probed(np.zeros((len(items), H)), items)
    assert found.verdict == "inconclusive" and found.reason and found.probes == ()


def test_the_minimum_size_is_reached_by_the_default_set() -> None:
    coded = coded_items(crossed_prompts(seed=0))
    assert np.bincount(coded.labels).min() >= 100 and len(set(coded.templates)) >= 5


def test_a_fit_that_does_not_converge_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
    assert fitted(X, y)[1]
    monkeypatch.setattr("moetui.analyses.probe_fit.MAX_ITERATIONS", 2)
    assert not fitted(X, y)[1]


def test_operand_folds_are_those_of_stratified_group_k_fold() -> None:
    coded = items_of()
    folds = operand_folds(coded, seed=3)
    expected = StratifiedGroupKFold(2, shuffle=True, random_state=3)
    for index, (_, test) in enumerate(expected.split(coded.labels, coded.labels, coded.operands)):
        assert (folds[test] == index).all()


def test_the_least_squares_probe_is_a_ridge_regression() -> None:
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    from moetui.analyses.probe_fit import _least_squares

    rng = np.random.default_rng(0)
    train, test, targets = (
        rng.normal(size=(30, 7)),
        rng.normal(size=(9, 7)),
        np.eye(4)[rng.integers(0, 4, 30)],
    )
    scaler = StandardScaler().fit(train)
    ridge = Ridge(alpha=7.0).fit(scaler.transform(train), targets)
    np.testing.assert_allclose(
        _least_squares(train, test) @ targets, ridge.predict(scaler.transform(test)), atol=1e-10
    )


def test_the_seeds_probe_fits_random_labels_of_nine_prompts_as_well() -> None:
    tasks = [item.task for item in SEED_PROMPTS]
    hidden = np.random.default_rng(0).normal(size=(12, 128))
    found = seed_probe(hidden, tasks, depth=0.25, layer=4, seed=0).accuracy
    assert found.value == 1.0 and found.n_documents == 9
    assert found.null_mean == 1.0 and found.p == 1.0 and found.ci_low is None


def test_the_seeds_probe_is_gradient_descent_on_its_weights() -> None:
    tasks = [item.task for item in SEED_PROMPTS]
    hidden = np.random.default_rng(3).normal(size=(12, 2))  # too narrow to fit everything
    X = hidden[:9]
    X = np.c_[(X - X.mean(0)) / X.std(0), np.full(9, np.sqrt(2))]
    Y, W = np.eye(3)[np.repeat(range(3), 3)], np.zeros((3, 3))
    for _ in range(50):
        z = np.exp(X @ W)
        W += X.T @ (Y - z / z.sum(1, keepdims=True)) / 9 / 2
    expected = (X @ W).argmax(1)
    names = ("addition", "subtraction", "multiplication")
    found = seed_probe(hidden, tasks, depth=0.25, layer=4, seed=0)
    assert found.predicted == tuple(names[i] for i in expected)
    assert found.accuracy.value == pytest.approx((expected == np.repeat(range(3), 3)).mean())


def test_the_layers_are_the_seeds_for_sixteen() -> None:
    assert probe_layers(16) == (4, 8)
    assert probe_layers(8) == (2, 4)
    assert probe_layers(1) == (0,)
    assert nearest_routing(2, (0, 3, 4)) == 3
    assert nearest_routing(5, (0, 3, 4)) == 4


def test_features_are_those_of_the_last_token_at_their_layers() -> None:
    def hidden(prompt: str) -> np.ndarray:
        return np.arange(4)[:, None] + len(prompt) * np.ones((4, 8))

    model = TaskForward(hidden=hidden, logits=lambda prompt: np.arange(12.0).reshape(2, 6),
                        moe_layers=(1, 3))  # fmt: skip
    found = read_features(model, ["a b", "a b c d"])
    assert found.layers.tolist() == [1, 2] and found.routing_layers.tolist() == [1, 3]
    assert found.residual[:, :, 0].tolist() == [[4, 5], [8, 9]]
    assert router_logits(found, 1).tolist() == [list(range(6, 12))] * 2
    assert chosen_experts(found, 0).tolist() == [[0, 0, 0, 0, 1, 1]] * 2
    assert token_counts(found).tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    again = joined_features([found, found])
    assert again.token_ids.tolist() == found.token_ids.tolist() * 2


def test_padding_of_uneven_layers_is_no_feature() -> None:
    base = features_of(np.random.default_rng(0).normal(size=(5, H)), experts=6)
    z, ids = base.router_logits.copy(), base.expert_ids.copy()
    z[..., 4:], ids[..., 1] = np.nan, -1
    padded = replace(base, router_logits=z, expert_ids=ids)
    assert router_logits(padded, 0).shape == (5, 4)
    assert chosen_experts(padded, 0).sum(axis=1).tolist() == [1] * 5


def test_one_thread_is_set_only_inside() -> None:
    from threadpoolctl import threadpool_info

    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    with one_thread():
        assert set(threads()) == {1}
    assert threads() == before
