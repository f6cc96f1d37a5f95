"""The study of generation, from parameters to verdicts, on models whose routing is known."""

import pytest

from moetui.analyses.answer_routing import AnswersRouting
from moetui.analyses.generated_routing import GeneratedRouting, NaturalRouting
from moetui.suites import result_json, run_suite
from moetui.suites.moe_dynamics.generation import Parameters
from moetui.suites.results import read_result, results_of
from moetui.suites.sections import sections
from tests.suites.fake import Opened
from tests.suites.moe_dynamics.writing import WritingModel

SMALL = {
    "documents": 24,
    "tokens": 24,
    "texts": 24,
    "prompt_tokens": 6,
    "new_tokens": 16,
    "compared": 20,
    "segments": [4, 8, 64],
    "window": 5,
    "phase_texts": 20,
    "problems_per_task": 5,
    "problem_pairs": 0,
    "generation_tokens": 12,
}


def run(model, **parameters):
    return run_suite(
        "generation",
        models=["fake"],
        parameters={**SMALL, **parameters},
        source=Opened(fake=model),
    )


@pytest.fixture(scope="module")
def by_token():
    return run(WritingModel(attention=0.0, layers=3))


def test_defaults_are_the_seeds():
    given = Parameters()
    assert given.generation_prompts == (
        "127 * 89 = ",
        "def fibonacci(n):",
        "The capital of France is",
        "Once upon a time",
        "To solve this problem, we need to",
    )
    assert given.segments == (4, 8, 16, 32, 64, 128, 256)


def test_routing_by_tokens_alone_is_neither_persistent_nor_in_phases(by_token):
    (found,) = by_token.verdicts
    assert found.corrected.outcome in ("token identity, no phases", "chance, no phases")
    (written,) = results_of(by_token, "fake", GeneratedRouting)
    assert written.texts == 24 and written.tokens == 24 * 16
    assert abs(written.persistence.layers[0].over_tokens.value) < 1e-9
    assert written.phases.texts == 20 and written.phases.changes == ()


def test_decoding_that_is_prefill_agrees_in_all_tokens(by_token):
    (written,) = results_of(by_token, "fake", GeneratedRouting)
    assert written.decode.tokens == 20 * 16
    assert written.decode.overall.differs.value == 0
    assert "decoding chooses as prefill does, in all 320 tokens" in (
        by_token.verdicts[0].corrected.statement
    )


def test_the_documents_are_those_of_the_shared_passes(by_token):
    (natural,) = results_of(by_token, "fake", NaturalRouting)
    assert natural.texts == 24
    assert natural.persistence.steps == natural.tokens - 24
    assert natural.segments[-1].reason == "no text has 64 tokens"


def test_wrong_answers_alone_are_inconclusive(by_token):
    (answers,) = results_of(by_token, "fake", AnswersRouting)
    assert answers.right + answers.wrong == 20
    assert answers.verdict == "inconclusive" and "100 items" in answers.reason


def test_a_result_is_read_back_as_it_was_written(by_token, tmp_path):
    path = tmp_path / "result.json"
    path.write_bytes(result_json(by_token))
    assert result_json(read_result(path)) == result_json(by_token)
    headings = [section.heading for section in sections(by_token)]
    for wanted in ("phases", "decoding against prefill", "local routing consistency"):
        assert f"Generation: {wanted}" in headings


def test_few_texts_and_dense_models_are_inconclusive():
    few = run(WritingModel(layers=2), texts=6, documents=6)
    assert few.verdicts[0].corrected.outcome == "inconclusive"
    assert "6 texts, 20 needed" in few.verdicts[0].corrected.statement
    dense = run(WritingModel(moe_layers=()))
    assert dense.verdicts[0].seed.outcome == "inconclusive"
