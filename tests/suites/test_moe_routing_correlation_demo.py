"""The suite on the bundled models, small: what it says of a prompt is what its layers hold."""

from __future__ import annotations

import mlx.core as mx
import msgspec
import numpy as np
import pytest

import moetui
from moetui.analyses.expert_words import ExpertWords
from moetui.analyses.task_prompts import TASK_WORDS
from moetui.analyses.tuned_lens import LensFidelity
from moetui.analyses.vocabulary_alignment import VocabularyAlignment
from moetui.suites import SuiteResult, result_json, run_suite
from moetui.suites.results import results_of
from moetui.suites.sections import sections

pytestmark = pytest.mark.slow

SMALL = {
    "operand_pairs": 2, "problems_per_task": 2, "calibration_documents": 40, "fit_documents": 8,
    "fit_tokens": 16, "evaluation_documents": 3, "evaluation_tokens": 12, "evaluation_positions": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> SuiteResult:
    return run_suite("moe_routing_correlation", models=["demo"], parameters=SMALL)


def test_the_seeds_score_is_read_through_norm_and_embedding_of_the_demo_model(result) -> None:
    model = moetui.load("demo")
    (found,) = results_of(result, "demo", VocabularyAlignment)
    network = model.network.model
    weight = np.array(network.embed_tokens.weight.astype(mx.float32), np.float64)
    gain = np.array(network.norm.weight.astype(mx.float32), np.float64)
    for row in found.sets[0].prompts[:4]:
        streams = model.trace(row.prompt, lens=0, streams=True).streams
        assert streams is not None
        hidden = streams.leaving[-1].astype(np.float64)
        z = hidden / np.sqrt((hidden**2).mean(-1, keepdims=True) + 1e-5) * gain @ weight.T
        p = np.exp(z - z.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        words = [model.token_id(word) for word in TASK_WORDS[row.task]]
        expected = p[[layer.layer for layer in found.sets[0].layers]][:, words].max(-1)
        np.testing.assert_allclose(row.seed, expected, rtol=1e-3)


def test_mixture_and_dense_model_are_read_and_only_one_of_them_has_experts(result) -> None:
    assert [record.name for record in result.models] == ["demo", "demo-dense"]
    assert not result.failures
    (moe,), (dense,) = (
        results_of(result, name, VocabularyAlignment) for name in ("demo", "demo-dense")
    )
    assert (moe.routers, dense.routers) == (True, False)
    for found in (moe, dense):
        assert [layer.layer for layer in found.sets[0].layers] == [2, 3, 4, 5, 6]
        assert [len(one.prompts) for one in found.sets] == [12, 56]
        assert all(not words.missing for words in found.words)
    (experts,) = results_of(result, "demo", ExpertWords)
    assert experts.tests + experts.untested == 8 * 16
    assert not results_of(result, "demo-dense", ExpertWords)
    cell = next(c for c in result.cells if (c.model, c.analysis) == ("demo-dense", "expert_words"))
    assert cell.status == "inconclusive" and "dense model" in (cell.reason or "")


def test_every_number_of_few_prompts_and_documents_is_without_an_interval(result) -> None:
    (found,) = results_of(result, "demo", VocabularyAlignment)
    seed = found.sets[0]
    for layer in seed.layers:
        assert layer.seed.ci_low is None and layer.seed.null_mean is not None
    (fidelity,) = results_of(result, "demo", LensFidelity)
    assert all(layer.raw.ci_low is None for layer in fidelity.layers)
    assert fidelity.layers[-1].raw.value == fidelity.layers[-1].saved.value == 0


def test_the_document_reads_back_and_is_shown_whole(result) -> None:
    assert msgspec.json.decode(result_json(result), type=SuiteResult) == result
    headings = [section.heading for section in sections(result)]
    for heading in (
        "Task words by layer", "The seed's prompts one by one", "Raw and tuned lens",
        "Experts and task words", "Probes of the operation", "Task accuracy",
    ):  # fmt: skip
        assert heading in headings
    for section in sections(result):
        for table in section.tables:
            assert all(len(row) == len(table.columns) for row in table.rows)


def test_the_verdicts_name_both_models_and_why_they_differ(result) -> None:
    models = {measure.model for measure in result.verdicts[0].corrected.evidence}
    assert {"demo", "demo-dense", "demo − demo-dense"} <= models
    assert "norm and head" in result.verdicts[0].why_they_differ
    assert result.verdicts[0].seed.outcome == "rejected"
