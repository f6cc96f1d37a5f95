"""What `--full` promises: the sizes that verdicts rest on, on the bundled corpus."""

import numpy as np
import pytest

import moetui
from moetui.analyses.cold_load import cold_load
from moetui.analyses.routed import routed_document
from moetui.stats.minimum import ABLATION, ANSWERS, LAYER_INFORMATION, LOAD, PREDICTION, SIMILARITY
from moetui.suites.documents import Documents
from moetui.suites.moe_dynamics import preset, suite


@pytest.fixture(scope="module")
def full():
    return preset("moe_dynamics", "full")


@pytest.fixture(scope="module")
def documents(full):
    return Documents(
        None, "evaluation", documents=full["documents"], tokens=full["tokens"]
    ).sample(0).documents  # fmt: skip


def test_there_are_as_many_documents_tokens_and_contexts_as_the_minima_ask(full, documents):
    needed = ABLATION.needs["documents"]
    assert len(documents) >= max(needed, PREDICTION.needs["documents"])
    for study, names in {
        "merging": ["control_documents"],
        "interference": ["kl_documents", "pair_documents"],
        "circuits": ["causal_documents"],
        "manipulation": ["misrouting_contexts", "robustness_documents"],
    }.items():
        for name in names:
            assert full[study][name] >= needed, (study, name)
    assert full["context_attention_routing"]["mined_contexts"] >= SIMILARITY.needs["contexts"]
    problems = suite(full).parameters.generation.problems_per_task
    assert 4 * problems >= sum(ANSWERS.needs.values())
    assert len(documents) * full["tokens"] >= LAYER_INFORMATION.needs["tokens"]


@pytest.mark.slow
def test_the_load_of_every_layer_of_the_demo_model_reaches_the_minimum(full, documents):
    model = moetui.load("demo")
    read = []
    for one in documents:
        ids = model.tokenize(one.text)[: full["tokens"]]
        trace = model.trace(ids, lens=0, residuals=False)
        read.append(routed_document(model, one.id, one.domain, ids, trace, likelihood=False))
    found = cold_load(read, model.info, seed=0)
    assert found.mix_given and [one.caveat for one in found.layers] == [None] * 8
    effective = [np.median([e.share.n_effective for e in found.experts if e.layer == layer])
                 for layer in model.info.moe_layers]  # fmt: skip
    assert min(effective) >= LOAD.needs["effective tokens"]
