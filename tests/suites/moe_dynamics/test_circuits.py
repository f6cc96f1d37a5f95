"""The study of circuits, from parameters to verdicts, on models whose routing is known."""

import msgspec
import pytest

from moetui.analyses.causal_edges import CausalEdges
from moetui.analyses.expert_edges import ExpertEdges
from moetui.analyses.seed_circuits import SeedCircuits
from moetui.stats import Statistic
from moetui.suites import result_json, run_suite, suite
from moetui.suites.moe_dynamics.circuits_causes import edges_from
from moetui.suites.moe_dynamics.circuits_parameters import Parameters
from moetui.suites.moe_dynamics.circuits_verdict import outcome
from moetui.suites.results import read_result, results_of
from moetui.suites.sections import sections
from tests.suites.fake import Opened
from tests.suites.moe_dynamics.writing import WritingModel

SMALL = {
    "documents": 26,
    "calibration_documents": 26,
    "tokens": 40,
    "lift": 1.2,
    "causal_edges": 2,
    "causal_controls": 3,
    "causal_documents": 22,
    "layers": "all",
}


def run(model, **parameters):
    return run_suite(
        "circuits",
        models=["fake"],
        parameters={**SMALL, **parameters},
        source=Opened(fake=model),
    )


@pytest.fixture(scope="module")
def by_token():
    """Every token has its experts, the same in all layers: nothing but token identity."""
    return run(WritingModel(attention=0.0, layers=3))


def cell(result, analysis):
    return next(c for c in result.cells if c.analysis == analysis)


def test_defaults_are_the_seeds():
    given = Parameters()
    assert given.circuit_prompts[0] == "127 * 89 = " and len(given.circuit_prompts) == 6
    assert given.correlation == 0.3
    assert (given.lift, given.edge_level, given.edge_permutations) == (2.0, 0.01, 999)


def test_what_tokens_determine_is_called_token_identity(by_token):
    (found,) = by_token.verdicts
    assert found.corrected.outcome == "token identity"
    assert "not shown to do so beyond what equal tokens explain" in found.corrected.statement
    (edges,) = results_of(by_token, "fake", ExpertEdges)
    assert edges.only_documents > 0 and edges.beyond_both.value == 0
    assert {edge.beaten for edge in edges.edges} == {"within documents"}


def test_edges_beyond_token_and_document_each_by_itself_are_called_token_and_document(by_token):
    (edges,) = results_of(by_token, "fake", ExpertEdges)
    apart = msgspec.structs.replace(edges, beyond_both=Statistic(value=3.0))
    assert outcome(apart, None) == "token and document"
    beyond = msgspec.structs.replace(apart, beyond_together=Statistic(value=1.0))
    assert outcome(beyond, None) == "correlated"


def test_causes_count_of_edges_beyond_token_and_document_alone(by_token):
    (edges,) = results_of(by_token, "fake", ExpertEdges)
    (causes,) = results_of(by_token, "fake", CausalEdges)
    tried, other = causes.edges
    replace = msgspec.structs.replace
    causes = replace(
        causes, edges=(replace(tried, verdict="causal"), replace(other, verdict="not causal"))
    )

    def beaten_by(one):
        """All three shuffles beaten by the edge that is `one`, and by no other that was tried."""
        key = (one.source_layer, one.source, one.target_layer, one.target)
        told = (
            replace(e, beaten="all three")
            if (e.source_layer, e.source, e.target_layer, e.target) == key
            else e
            for e in edges.edges
        )
        some = Statistic(value=1.0)
        return replace(edges, edges=tuple(told), beyond_both=some, beyond_together=some)

    # One edge makes no path.
    assert outcome(beaten_by(tried), causes) == "causal edges"
    assert outcome(beaten_by(other), causes) == "correlated"


def test_the_seeds_rule_calls_the_same_strong_structure(by_token):
    (found,) = by_token.verdicts
    assert found.seed.outcome == "strong structure"
    (seed,) = results_of(by_token, "fake", SeedCircuits)
    # Layers that choose alike are matched with correlation 1.
    assert seed.consistency.value == pytest.approx(1.0)


def test_edges_whose_source_adds_nothing_are_not_causal(by_token):
    (causes,) = results_of(by_token, "fake", CausalEdges)
    assert len(causes.edges) == 2
    assert {edge.verdict for edge in causes.edges} <= {"not causal", "inconclusive"}
    assert all(edge.effect.value == 0.0 for edge in causes.edges)
    (edges,) = results_of(by_token, "fake", ExpertEdges)
    eligible, keys = edges_from(edges, (0, 1), 2)
    own = [edge for edge in edges.edges if edge.source_layer < 2]
    assert eligible == len(own)
    most = max(own, key=lambda edge: edge.evaluation.g2)
    assert keys[0] == (most.source_layer, most.source, most.target_layer, most.target)
    tested = [(e.source_layer, e.source, e.target_layer, e.target) for e in causes.edges]
    assert tuple(tested) == keys


def test_a_result_is_read_back_as_it_was_written(by_token, tmp_path):
    path = tmp_path / "result.json"
    path.write_bytes(result_json(by_token))
    assert result_json(read_result(path)) == result_json(by_token)
    headings = [section.heading for section in sections(by_token)]
    assert "Circuits: edges between experts of two layers" in headings
    assert "Circuits: does the source bring about the target?" in headings


def test_one_routing_layer_or_none_is_inconclusive_with_the_reason():
    result = run(WritingModel(moe_layers=(1,)))
    assert "only layer 1 routes" in cell(result, "circuits_edges").reason
    assert result.verdicts[0].corrected.outcome == "inconclusive"
    dense = run(WritingModel(moe_layers=()))
    assert dense.verdicts[0].seed.outcome == "inconclusive"
    assert dense.verdicts[0].corrected.outcome == "inconclusive"


def test_too_few_tokens_are_inconclusive():
    result = run(WritingModel(layers=2), documents=20, calibration_documents=20, tokens=20)
    found = result.verdicts[0].corrected
    assert found.outcome == "inconclusive"
    assert "below a tenth of the minimum size of 20,000 tokens" in found.statement


def test_the_plan_counts_no_less_than_the_passes_that_are_made(by_token):
    plan = suite("circuits", {**SMALL, "models": ["fake"]})
    causes = next(a for a in plan.analyses if a.name == "circuits_causes")
    planned = sum(part.tokens for part in causes.parts(seed=0))
    (found,) = results_of(by_token, "fake", CausalEdges)
    # Two sources and three controls of at most two layers.
    assert planned >= found.n_tokens * (2 + 3)
