"""An expert that goes along with the task's words is found; prompts that merely differ are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from moetui.analyses import expert_words as module
from moetui.analyses.expert_words import (
    ExpertRows,
    arrangements,
    dense_weights,
    expert_rows,
    expert_words,
    joined_experts,
    seed_experts,
)
from moetui.analyses.task_words import Prompt, lexicon, said_words
from tests.builders import make_trace
from tests.fake_words import WordForward

PROMPTS, LENGTH, L, E = 60, 5, 3, 4


def prompts(count: int = PROMPTS) -> list[Prompt]:
    return [
        Prompt(text=f"{i}", task="a" if i % 2 else "b", template="t", cluster=str(i))
        for i in range(count)
    ]


def rows(seed: int, count: int = PROMPTS) -> ExpertRows:
    """Tokens of a prompt are all but equal: weights and words depend on the prompt alone."""
    rng = np.random.default_rng(seed)
    T = count * LENGTH
    weights = np.repeat(rng.gamma(1.0, size=(count, L, E)), LENGTH, axis=0)
    words = np.repeat(rng.normal(size=(count, L)), LENGTH, axis=0)
    return ExpertRows(
        weights=(weights + 1e-3 * rng.normal(size=(T, L, E))).astype(np.float32),
        log_odds=(words + 1e-3 * rng.normal(size=(T, L))).astype(np.float32),
        lengths=np.full(count, LENGTH, np.int64),
        layers=np.array([1, 2, 5]),
        seed=rng.uniform(size=(count, L)),
    )


def planted(seed: int, row: int, expert: int) -> ExpertRows:
    found = rows(seed)
    weights = found.weights.copy()
    noise = np.random.default_rng(seed + 1).normal(size=PROMPTS * LENGTH)
    weights[:, row, expert] = found.log_odds[:, row] + 0.5 * noise
    return ExpertRows(
        weights=weights, log_odds=found.log_odds, lengths=found.lengths, layers=found.layers,
        seed=found.seed,
    )  # fmt: skip


def test_independent_experts_are_discovered_no_more_often_than_the_level_allows() -> None:
    families = [expert_words(prompts(), rows(seed), None, seed=seed) for seed in range(40)]
    wrong = sum((found.discoveries.value or 0) > 0 for found in families)
    # Every discovery is false, so at q ≤ .05 a family has any with probability ≤ .05: with 40 of
    # them 7 or more happen in less than 0.4 %.
    assert wrong < 7
    assert all(found.tests == L * E and found.permutations >= L * E / 0.05 for found in families)


def test_permuting_tokens_instead_of_prompts_would_have_found_what_is_not_there() -> None:
    found = rows(3)
    naive = [
        spearmanr(found.weights[:, row, expert], found.log_odds[:, row]).pvalue
        for row in range(L)
        for expert in range(E)
    ]
    assert min(naive) < 0.05 / (L * E)
    assert expert_words(prompts(), found, None, seed=0).discoveries.value == 0


def test_a_planted_expert_is_found_at_its_layer_and_no_other() -> None:
    rows_ = planted(5, row=1, expert=2)
    found = expert_words(prompts(), rows_, None, seed=0)
    discovered = [(one.layer, one.expert) for one in found.experts if one.discovered]
    assert discovered == [(2, 2)] and found.discoveries.value == 1
    top = found.experts[0]
    expected = spearmanr(rows_.weights[:, 1, 2], rows_.log_odds[:, 1]).statistic
    assert top.rho.value == pytest.approx(expected, abs=1e-9)
    assert top.rho.q is not None and top.rho.q <= 0.05
    assert found.largest.p is not None and found.largest.p <= 0.001
    assert found.largest.value == pytest.approx(abs(expected))
    assert len(found.experts) == L * E


def test_experts_of_a_wording_are_found_only_where_numbers_count_as_independent() -> None:
    rng = np.random.default_rng(2)
    of = [
        Prompt(text=f"{t}{c}{n}", task=c, template=t, cluster=t + c)
        for t in "tuvwx" for c in "abcd" for n in range(12)
    ]  # fmt: skip
    weights = np.repeat(rng.gamma(1.0, size=(20, L, E)), 12, axis=0)
    words = np.repeat(rng.normal(size=(20, L)), 12, axis=0)
    answering = ExpertRows(
        weights=weights.astype(np.float32), log_odds=words.astype(np.float32),
        lengths=np.ones(240, np.int64), layers=np.arange(L), seed=np.zeros((240, L)),
    )  # fmt: skip
    found = expert_words(of, answering, None, seed=0)
    assert found.arrangements == 24**5
    assert found.discoveries.value == 0
    assert found.discoveries_by_prompt.value is not None and found.discoveries_by_prompt.value > 2


def test_a_large_family_is_judged_by_its_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PERMUTATIONS", 100)
    found = expert_words(prompts(), planted(5, row=0, expert=1), None, seed=0)
    assert found.permutations == 999 and "family-wise" in found.test
    assert [(one.layer, one.expert) for one in found.experts if one.discovered] == [(1, 1)]
    none = expert_words(prompts(), rows(6), None, seed=0)
    assert none.discoveries.value == 0


def test_an_expert_that_is_never_chosen_is_not_tested() -> None:
    found = rows(0)
    found.weights[:, 1, 3] = 0
    result = expert_words(prompts(), found, None, seed=0)
    assert (result.tests, result.untested) == (L * E - 1, 1)
    never = next(one for one in result.experts if (one.layer, one.expert) == (2, 3))
    assert (never.rho.value, never.rho.q, never.discovered) == (0, 1, False)


def test_only_wordings_with_as_many_tokens_change_words_and_do_so_as_a_whole() -> None:
    of = [
        Prompt(text=f"{c}{n}", task=c, template=t, cluster=f"{t}{c}")
        for t, c in (("t", "a"), ("t", "b"), ("t", "c"), ("u", "a"))
        for n in range(2)
    ]
    lengths = [5, 6, 5, 6, 6, 6, 5, 6]
    assert arrangements(of, lengths) == 2
    orders = module._orders(of, np.array(lengths), 200, 0)
    assert (orders[:, 4:] == np.arange(4, 8)).all()
    assert {tuple(order) for order in orders[:, :4].tolist()} == {(0, 1, 2, 3), (2, 3, 0, 1)}


def test_weights_stand_at_their_expert_and_nowhere_else() -> None:
    trace = make_trace(T=5, N=3, E=6, k=2, seed=1)
    dense = dense_weights(trace)
    assert dense.shape == (5, 3, 6)
    for t in range(5):
        for row in range(3):
            own = dict(
                zip(trace.expert_ids[t, row].tolist(), trace.expert_weights[t, row], strict=True)
            )
            assert [dense[t, row, e] for e in range(6)] == [own.get(e, 0.0) for e in range(6)]


def test_the_seeds_table_sums_an_expert_over_layers() -> None:
    weights = np.zeros((4, 2, 3), np.float32)
    weights[1, 0, 2] = weights[3, 1, 2] = 1  # last tokens of two prompts of two tokens
    weights[1, 1, 0] = weights[3, 0, 0] = 1
    weights[0] = 1
    table = seed_experts(
        ExpertRows(
            weights=weights,
            log_odds=np.zeros((4, 2), np.float32),
            lengths=np.array([2, 2]),
            layers=np.array([0, 1]),
            seed=np.array([[0.8, 0.1], [0.2, 0.6]]),
        )
    )
    assert [one.chosen for one in table] == [2, 0, 2]
    assert table[2].probability.value == pytest.approx((0.8 + 0.6) / 2)
    assert table[0].probability.value == pytest.approx((0.1 + 0.2) / 2)
    assert table[1].probability.value is None and table[1].correlation.value is None
    expected = np.corrcoef([1, 0, 0, 1], [0.8, 0.1, 0.2, 0.6])[0, 1]
    assert table[2].correlation.value == pytest.approx(expected)


def test_every_token_is_read_with_the_words_of_its_prompts_task() -> None:
    vocabulary = ["<end>", " alpha", " beta", *(f" f{i}" for i in range(400))]
    words = {"a": ("alpha",), "b": ("beta",)}
    rng = np.random.default_rng(0)
    z = rng.normal(size=(9, 4, len(vocabulary)))
    given = rng.uniform(size=(9, 2, 6))
    model = WordForward(
        vocabulary, lambda prompt: z, weights=lambda prompt: given[:3], moe_layers=(1, 3)
    )
    prompt = Prompt(text="x y z", task="b", template="t", cluster="1")
    said = said_words([prompt], words)
    counts = np.ones(len(vocabulary), np.int64)
    found = lexicon(model, words, counts, seed=0)
    read = expert_rows(model, model.trace(prompt.text, streams=True), 1, found, said["t"])
    logprobs = z - np.log(np.exp(z).sum(-1, keepdims=True))
    references = found.token_ids[found.references[1]]
    mean = np.log(np.exp(logprobs[:3][:, [1, 3]][..., references]).mean(-1))
    expected = logprobs[:3][:, [1, 3], vocabulary.index(" beta")] - mean
    np.testing.assert_allclose(read.log_odds, expected, atol=1e-5)
    assert read.lengths.tolist() == [3] and read.layers.tolist() == [1, 3]
    both = joined_experts([read, read])
    assert both.weights.shape == (6, 2, 6) and both.lengths.tolist() == [3, 3]
