"""Naming the task counts; repeating the prompt, or naming every task alike, does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from moetui.analyses.task_labels import (
    Labels,
    labels,
    mean_of_own,
    median_of_own,
    own_scores,
)
from moetui.analyses.task_prompts import SEED_PROMPTS, TASK_WORDS, TASKS, crossed_prompts
from moetui.analyses.task_words import (
    REFERENCES,
    Prompt,
    lexicon,
    of_operands,
    of_wordings,
    said_words,
    surface_forms,
)
from moetui.analyses.vocabulary_alignment import (
    PromptSetAlignment,
    prompt_set_alignment,
    specificities,
)
from moetui.analyses.vocabulary_reading import (
    LensScores,
    VocabularyRows,
    joined_rows,
    seed_layers,
    word_rows,
)
from tests.fake_words import WordForward

N = 4
FORMS = [form for words in TASK_WORDS.values() for word in words for form in surface_forms(word)]
FILLER = [f" filler{i}" for i in range(1500)]
# What "multiply" has of forms: none.
VOCABULARY = ["<end>", *(f for f in dict.fromkeys(FORMS) if "multiply" not in f.lower()), *FILLER]
NAMES = {"addition": "plus", "subtraction": "minus", "multiplication": "times",
         "division": "quotient"}  # fmt: skip
PROMPTS = of_wordings(crossed_prompts(20, seed=0))
TASK_OF = {prompt.text: prompt.task for prompt in PROMPTS}


def counts() -> np.ndarray:
    """Token i occurs about 10 · 1.003^i times."""
    return np.round(10 * 1.003 ** np.arange(len(VOCABULARY))).astype(np.int64)


def saying(says: Callable[[str], dict[str, float]], layer: int) -> Callable[[str], np.ndarray]:
    """Logits with which, after `layer`, the named tokens have the given probabilities, the rest
    equal ones; after the others all are equal."""

    def logits(prompt: str) -> np.ndarray:
        T = 40
        given = says(prompt)
        p = np.full(len(VOCABULARY), (1 - sum(given.values())) / (len(VOCABULARY) - len(given)))
        for text, probability in given.items():
            p[VOCABULARY.index(text)] = probability
        z = np.zeros((T, N, len(VOCABULARY)))
        z[:, layer] = np.log(p)
        return z

    return logits


def aligned(model: WordForward, prompts: tuple[Prompt, ...]) -> PromptSetAlignment:
    words = lexicon(model, TASK_WORDS, counts(), seed=0)
    said = said_words(prompts, TASK_WORDS)
    rows = [
        word_rows(
            model, model.trace(p.text, streams=True).streams.leaving, words, said[p.template],
            layers=range(N), tuned=None,
        )
        for p in prompts
    ]  # fmt: skip
    return prompt_set_alignment(
        "set", prompts, TASKS, joined_rows(rows), said, num_layers=N, seed=0
    )


def test_a_model_that_names_the_task_in_words_is_found_at_its_layer() -> None:
    def sure(prompt: str) -> float:
        return 0.5 if "2" in prompt else 0.7

    model = WordForward(
        VOCABULARY, saying(lambda prompt: {NAMES[TASK_OF[prompt]]: sure(prompt)}, 2)
    )
    # "question" says "plus", "minus" and "times", "noun first" says "quotient": leave them out.
    prompts = tuple(p for p in PROMPTS if p.template in ("symbol", "noun last", "story"))
    found = aligned(model, prompts)
    raw = found.layers[2].lenses[0]
    words = lexicon(model, TASK_WORDS, counts(), seed=0)
    expected = []
    for prompt in prompts:
        task, own = TASKS.index(prompt.task), sure(prompt.text)
        other = (1 - own) / (len(VOCABULARY) - 1)
        symbol = prompt.template == "symbol"
        unsaid = [f for f in words.tasks[task].forms if not (symbol and f.word in "+-*/")]
        mean = (own + (len(unsaid) - 1) * other) / len(unsaid)
        expected.append((mean * len(unsaid), np.log(mean / other)))
    assert raw.probability.value == pytest.approx(np.mean([p for p, _ in expected]), rel=1e-4)
    assert raw.log_odds.value == pytest.approx(np.mean([o for _, o in expected]), rel=1e-3)
    # Three templates have 24³ = 13,824 arrangements.
    for found_p in (raw.specificity.p, raw.log_odds.p):
        assert found_p is not None and found_p < 0.002
    # Half of the wordings in place give the same median.
    assert raw.median_rank.value == 0 and raw.median_rank.p is not None
    assert raw.median_rank.p < 0.05
    assert raw.log_odds.n_documents == 12 and raw.log_odds.n_tokens == 240
    for layer in (0, 1, 3):
        other_layer = found.layers[layer].lenses[0]
        assert other_layer.specificity.value == pytest.approx(0, abs=1e-5)
        assert other_layer.specificity.p == 1
    assert found.peak_layer == 2
    assert found.peak.value == pytest.approx(np.mean([sure(p.text) for p in prompts]), rel=1e-4)
    assert [mean.lens for mean in found.means] == ["raw"]
    assert found.means[0].specificity.value == pytest.approx(raw.specificity.value / 4, rel=1e-4)


def test_what_repeats_the_operator_of_its_prompt_is_aligned_by_the_seed_only() -> None:
    def repeats(prompt: str) -> dict[str, float]:
        return {sign: 0.9 for sign in "+-*/" if sign in prompt}

    model = WordForward(VOCABULARY, saying(repeats, 1))
    found = aligned(model, of_operands(SEED_PROMPTS))
    assert found.peak.value == pytest.approx(0.9, rel=1e-4)
    raw = found.layers[1].lenses[0]
    assert raw.probability.value is not None and raw.probability.value < 0.01
    assert raw.specificity.value == pytest.approx(0, abs=0.01)
    assert set(found.said["seed"]) == {"+", "-", "*", "/"}


def test_what_names_every_task_alike_beats_random_tokens_but_not_permuted_tasks() -> None:
    model = WordForward(VOCABULARY, saying(lambda prompt: dict.fromkeys(NAMES.values(), 0.2), 2))
    found = aligned(model, tuple(p for p in PROMPTS if p.template == "story"))
    raw = found.layers[2].lenses[0]
    assert raw.log_odds.value is not None and raw.log_odds.value > 3
    assert raw.log_odds.p is not None and raw.log_odds.p > 0.5
    assert found.peak.value == pytest.approx(0.2, rel=1e-4)


def test_twelve_prompts_have_values_and_a_null_but_no_interval() -> None:
    model = WordForward(VOCABULARY, saying(lambda prompt: {" plus": 0.5}, 2))
    found = aligned(model, of_operands(SEED_PROMPTS))
    raw = found.layers[2].lenses[0]
    for statistic in (found.peak, raw.probability, raw.log_odds, raw.kl):
        assert statistic.value is not None and statistic.ci_low is None
        assert statistic.n_documents == 12
    assert len(found.prompts) == 12 and found.prompts[0].prompt == "5 + 3 = "
    # " plus" is no word exactly as the seed gives it.
    assert found.prompts[0].seed[2] == pytest.approx(0.5 / (len(VOCABULARY) - 1), rel=1e-3)


def test_words_are_all_forms_that_are_tokens_and_those_without_are_named() -> None:
    model = WordForward(VOCABULARY, saying(lambda prompt: {}, 0))
    words = lexicon(model, TASK_WORDS, counts(), seed=0)
    addition, multiplication = words.tasks[0], words.tasks[2]
    texts = {form.text for form in addition.forms if form.word == "plus"}
    assert texts == {"plus", " plus", "Plus", " Plus", "PLUS", " PLUS"}
    assert multiplication.missing == ("multiply",) and addition.missing == ()
    assert [form.text for form in addition.forms if form.plain] == list(TASK_WORDS["addition"])


def test_references_are_as_frequent_as_the_words_and_name_nothing() -> None:
    model = WordForward(VOCABULARY, saying(lambda prompt: {}, 0))
    words, table = lexicon(model, TASK_WORDS, counts(), seed=0), np.log(counts())
    for task in range(4):
        own = words.token_ids[words.forms[task]]
        drawn = words.token_ids[words.references[task]]
        assert len(set(drawn)) == REFERENCES
        assert all(VOCABULARY[i].startswith(" filler") for i in drawn)
        assert abs(np.median(table[own]) - np.median(table[drawn])) < 0.75
    again = lexicon(model, TASK_WORDS, counts(), seed=0)
    other = lexicon(model, TASK_WORDS, counts(), seed=1)
    assert np.array_equal(words.token_ids, again.token_ids)
    assert not np.array_equal(words.token_ids, other.token_ids)


def test_a_template_says_the_words_that_its_prompts_have_in_any_form() -> None:
    said = said_words(PROMPTS, TASK_WORDS)
    assert set(said["symbol"]) == {"+", "-", "*", "/"}
    assert {"plus", "minus", "times"} <= set(said["question"])
    assert {"add", "addition", "subtract", "subtraction", "multiply", "multiplication", "divide",
            "divided", "division"} == set(said["imperative"])  # fmt: skip
    assert said["story"] == ()


def test_layers_are_the_seeds_depths_without_the_models_own_output() -> None:
    assert seed_layers(16) == (4, 6, 8, 10, 12, 14)
    assert seed_layers(8) == (2, 3, 4, 5, 6)
    assert seed_layers(48) == (12, 18, 24, 30, 36, 42)
    assert seed_layers(2) == (0,)


def test_specificity_knows_neither_prompts_nor_words_that_are_likely_in_a_whole_template() -> None:
    rng = np.random.default_rng(0)
    prompt, word = rng.normal(size=(40, 2, 1)), np.repeat(rng.normal(size=(2, 2, 4)), 20, axis=0)
    own = np.zeros((40, 2, 4))
    own[np.arange(40), :, np.arange(40) % 4] = 0.8
    found = specificities(prompt + word + own, np.repeat([0, 1], 20))
    # 0.8 for the own task, less its share in the means over tasks and over prompts.
    expected = own - 0.2 - 0.2 + 0.2
    np.testing.assert_allclose(found, expected, atol=1e-12)


def prompts_of(tasks: list[str], templates: int = 25, numbers: int = 3) -> list[Prompt]:
    return [
        Prompt(text=f"{t} {n} {task}", task=task, template=str(t), cluster=f"{t} {task}")
        for t in range(templates)
        for task in tasks
        for n in range(numbers)
    ]


def clustered(rng: np.random.Generator, wordings: int, numbers: int, columns: int) -> np.ndarray:
    """Scores of 3 tasks that depend on the wording alone but for a little noise."""
    own = np.repeat(rng.normal(size=(wordings, columns, 3)), numbers, axis=0)
    return own + 0.01 * rng.normal(size=own.shape)


def test_without_an_effect_permuted_tasks_reject_at_their_level_however_many_numbers() -> None:
    of: Labels = labels(prompts_of(["a", "b", "c"]), ["a", "b", "c"], seed=0)
    scores = clustered(np.random.default_rng(1), 75, 3, 200)
    p = np.array([one.p for one in mean_of_own(scores, of)])
    # 200 tests at 5 %: 99.9 % of binomial counts are below 22.
    assert (p <= 0.05).sum() < 22 and 0.35 < p.mean() < 0.65


def test_tasks_move_within_a_template_with_all_numbers_of_a_wording() -> None:
    of = labels(prompts_of(["a", "b"]), ["a", "b"], seed=0)
    wordings = of.permuted.reshape(-1, 25, 2, 3)
    assert (wordings == wordings[..., :1]).all()
    assert (wordings[..., 0].sum(-1) == 1).all() and 0.4 < wordings[:, :, 0].mean() < 0.6
    assert of.documents == 50
    with pytest.raises(ValueError, match="one task"):
        labels([Prompt(text=t, task=t, template="t", cluster="c") for t in "ab"], "ab", seed=0)


def test_medians_and_their_null_are_those_of_the_scores() -> None:
    of = labels(prompts_of(["a", "b"], numbers=1), ["a", "b"], seed=0)
    scores = np.zeros((50, 1, 2))
    scores[:, 0, 0] = np.where(of.own == 0, np.arange(50), 100)
    scores[:, 0, 1] = np.where(of.own == 1, np.arange(50), 100)
    (found,) = median_of_own(scores, of)
    assert found.value == np.median(np.arange(50))
    # The lower half stays in place with a chance of 2^-12.
    assert found.p is not None and found.p < 0.002
    assert found.ci_low is not None and found.ci_low < 24.5 < (found.ci_high or 0)


def test_what_words_have_everywhere_is_no_uncertainty_of_what_names_the_task() -> None:
    """Words of one task are likelier than those of another in every prompt alike; on top of that
    lies 0.1 for the prompt's own task, and noise of 0.05 a wording."""
    prompts = of_wordings(crossed_prompts(5, seed=0))
    of = labels(prompts, TASKS, seed=0)
    rng = np.random.default_rng(0)
    noise = 0.05 * rng.normal(size=(28, 1, 4))[of.clusters]
    scores = np.array([2.0, 0.5, -1.0, -1.5]) + 0.1 * np.eye(4)[of.own][:, None] + noise
    own = specificities(scores, of.templates)
    assert own_scores(own, of).mean() == pytest.approx(
        own_scores(scores - scores.mean(-1, keepdims=True), of).mean()
    )
    (found,) = mean_of_own(own, of)
    # 0.1 · (1 − 1/4), and two centrings of four leave 3/4 of the noise's variance twice.
    assert found.value == pytest.approx(0.075, abs=0.03)
    half = 1.96 * 0.05 * 0.75 / np.sqrt(28)
    assert half / 2 < found.value - (found.ci_low or 0) < 3 * half
    assert found.p is not None and found.p < 0.001


def test_the_largest_of_many_layers_is_compared_with_the_largest_of_many() -> None:
    """Forty layers of nothing: the best of them mostly beats the chance of one layer."""
    prompts = of_operands(SEED_PROMPTS)
    rng = np.random.default_rng(0)
    alone, together = [], []
    for seed in range(12):
        score = rng.uniform(size=(12, 40, 4))
        lens = LensScores(
            probability=score, said=score, log_odds=score, rank=score, kl=score[..., 0]
        )
        rows = VocabularyRows(layers=np.arange(40), seed=score, raw=lens, tuned=None)
        found = prompt_set_alignment("set", prompts, TASKS, rows, {}, num_layers=40, seed=seed)
        alone.append(found.layers[found.peak_layer].seed.p)
        together.append(found.peak.p)
        assert found.peak.value == found.layers[found.peak_layer].seed.value
        assert found.peak.null_mean > found.layers[found.peak_layer].seed.null_mean
    assert np.mean(np.array(alone) <= 0.05) > 0.5
    assert np.mean(np.array(together) <= 0.05) <= 0.25 and 0.2 < np.mean(together) < 0.8


def test_a_task_without_a_word_left_has_no_number() -> None:
    bare = ["<end>", *FILLER, " plus", " minus", " times"]
    model = WordForward(bare, lambda prompt: np.zeros((40, N, len(bare))))
    words = lexicon(model, TASK_WORDS, np.ones(len(bare), np.int64), seed=0)
    prompts = tuple(p for p in PROMPTS if p.template == "story")
    said = said_words(prompts, TASK_WORDS)
    rows = [
        word_rows(
            model, model.trace(p.text, streams=True).streams.leaving, words, said[p.template],
            layers=[1], tuned=None,
        )
        for p in prompts
    ]  # fmt: skip
    found = prompt_set_alignment(
        "set", prompts, TASKS, joined_rows(rows), said, num_layers=N, seed=0
    )
    specificity = found.layers[0].lenses[0].specificity
    assert specificity.value is None and "no word" in (specificity.caveat or "")
    assert words.tasks[3].missing == TASK_WORDS["division"]
