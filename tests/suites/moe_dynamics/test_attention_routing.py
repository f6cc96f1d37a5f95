"""`moetui batch attention_routing` on the bundled model, and what its rules say."""

import msgspec
import numpy as np
import pytest

from moetui.analyses.attention_routing import AttentionRouting, Predicted
from moetui.analyses.seed_prediction import SeedAttention
from moetui.stats import Statistic
from moetui.suites import run_suite, sections
from moetui.suites.moe_dynamics import preset, study_suite
from moetui.suites.moe_dynamics.attention_routing import Parameters
from moetui.suites.moe_dynamics.attention_routing_verdict import (
    ADDS,
    INCONCLUSIVE,
    MORE,
    NOTHING,
    UNCLEAR,
    corrected_outcome,
)

SMALL = {
    "documents": 24,
    "calibration_documents": 24,
    "tokens": 24,
    "layers": ["mid"],
    "sampled_tokens": 12,
    "shuffles": 19,  # the fewest that a p of 0.05 can come of
}


@pytest.fixture(scope="module")
def result():
    return run_suite("attention_routing", models=["demo"], parameters=SMALL)


def found(result, kind):
    return next(cell.result for cell in result.cells if isinstance(cell.result, kind))


def predicted(
    gain, added, null=0.0, p=0.04, exchanged=-0.1, alone=(0.01, 0.05), p_equal=0.04,
    both=(0.01, 0.03),
):  # fmt: skip
    """added: beyond equal tokens; null: what is left of the addition within documents; both:
    beyond token and document."""

    def limits(pair):
        low, high = pair
        return {"value": (low + high) / 2, "ci_low": low, "ci_high": high, "n_documents": 100}

    return Predicted(
        predictor="attention output",
        recall=Statistic(value=0.5),
        gain=Statistic(**limits(gain), p=p, null_high=exchanged),
        added=Statistic(value=0.5, null_high=null),
        gain_beyond=Statistic(**limits(alone), p=p_equal),
        added_beyond=Statistic(**limits(added), p=p_equal),
        beyond_both=Statistic(**limits(both)),
    )


@pytest.mark.parametrize(
    ("one", "outcome"),
    [
        (predicted((0.01, 0.05), (0.1, 0.2)), MORE),
        (predicted((0.01, 0.05), (0.1, 0.2), p=0.2), ADDS),
        # What the document as a whole foretells is not attention's.
        (predicted((0.01, 0.05), (0.1, 0.2), exchanged=0.02), ADDS),
        (predicted((0.03, 0.05), (0.1, 0.2), exchanged=0.02), MORE),
        # Who does not add to the token foretells no more than it, whatever is gained.
        (predicted((0.01, 0.05), (0.1, 0.2), null=0.1), UNCLEAR),
        # A document that foretells as much is no proof that nothing else does.
        (predicted((0.01, 0.05), (0.1, 0.2), null=0.3), UNCLEAR),
        # Nor is what its equals foretell, whatever the table does not know.
        (predicted((0.01, 0.05), (0.1, 0.2), alone=(-0.01, 0.05)), ADDS),
        (predicted((0.01, 0.05), (0.1, 0.2), p_equal=0.2), UNCLEAR),
        (predicted((0.01, 0.05), (0.0, 0.0), alone=(-0.05, -0.01)), NOTHING),
        (predicted((-0.1, 0.05), (0.1, 0.2)), ADDS),
        (predicted((-0.1, 0.05), (0.1, 0.2), null=0.1), UNCLEAR),
        (predicted((-0.1, 0.05), (0.1, 0.2), null=0.3), UNCLEAR),
        (predicted((-0.1, 0.05), (-0.02, 0.005)), NOTHING),
        # What token and document bring about together is not attention's either.
        (predicted((0.01, 0.05), (0.1, 0.2), both=(-0.01, 0.03)), UNCLEAR),
        (predicted((-0.1, 0.05), (0.1, 0.2), both=(-0.01, 0.03)), UNCLEAR),
        (predicted((-0.1, 0.05), (0.1, 0.2), both=(-0.01, 0.005)), NOTHING),
        # A null below 0 is no licence to call an addition of nothing one.
        (predicted((-0.1, 0.05), (-0.02, 0.005), null=-0.1), NOTHING),
    ],
)
def test_the_corrected_rule_reads_intervals(one, outcome):
    assert corrected_outcome(one) == outcome


def test_the_same_prediction_everywhere_adds_nothing_and_few_documents_say_nothing():
    one = predicted((-0.1, 0.05), (0.0, 0.0))
    same = Statistic(value=0.0, null_high=0.0, n_documents=40)
    assert corrected_outcome(msgspec.structs.replace(one, added_beyond=same)) == NOTHING
    without = Statistic(value=0.1, n_documents=5)
    adds = predicted((-0.1, 0.05), (0.1, 0.2))
    assert corrected_outcome(msgspec.structs.replace(adds, beyond_both=without)) == UNCLEAR
    few = Statistic(value=0.0, null_high=0.0, n_documents=5)
    assert corrected_outcome(msgspec.structs.replace(one, added_beyond=few)) == INCONCLUSIVE


def test_the_run_is_whole(result):
    assert [cell.status for cell in result.cells] == ["done"] * 3
    one = found(result, AttentionRouting)
    assert [layer.layer for layer in one.layers] == [4] and one.missing == {}
    assert (one.documents, one.fit_documents, one.sampled) == (24, 24, 12)
    assert one.corpus.sampled == 24 and one.corpus.digest != one.fit_corpus.digest
    recalls = {p.predictor: p.recall.value for p in one.mean.predictors}
    # What the router reads says more than any other reading, and the token more than popularity.
    assert max(recalls, key=recalls.get) == "router input"
    assert recalls["token identity"] > recalls["popularity"] > one.chance


def test_scores_of_the_prompts_are_of_their_last_tokens(result):
    import moetui
    from moetui.analyses.attention_features import seed_features
    from moetui.analyses.seed_prediction import seed_prediction

    model = moetui.load("demo")
    features, experts = [], []
    for prompt in Parameters().prompts:
        trace = model.trace(prompt, lens=0, attention=True)
        features.append(seed_features(trace.attention[4], len(trace) - 1))
        experts.append(trace.expert_ids[-1, 4])
    again = seed_prediction(
        [np.array(features)], [np.array(experts)], [4], num_experts=16, correlate=True, seed=0
    )
    assert again == found(result, SeedAttention).scores and again.prompts == 20


def test_both_rules_speak_in_sentences(result):
    verdicts = result.verdicts[0]
    assert verdicts.topic == "attention_routing" and verdicts.seed.label == "seed rule"
    assert verdicts.seed.outcome in ("predictable", "not predictable", "complex mapping")
    assert "in demo 6 features of attention foretell" in verdicts.seed.statement
    assert verdicts.corrected.outcome in (MORE, ADDS, NOTHING, UNCLEAR)
    assert "of a token's 4 experts, a table of tokens alone" in verdicts.corrected.statement
    names = [measure.name for measure in result.measures]
    assert "attention_routing: gain over token identity, attention output" in names
    headings = [section.heading for section in sections.sections(result)]
    assert "What foretells the experts of a token" in headings
    assert "Prediction from attention as published" in headings


def test_a_dense_model_and_a_run_without_null_are_inconclusive_with_the_reason():
    dense = run_suite("attention_routing", models=["demo-dense"], parameters=SMALL)
    for verdict in (dense.verdicts[0].seed, dense.verdicts[0].corrected):
        assert verdict.outcome == INCONCLUSIVE and "dense model" in verdict.statement
    few = {**SMALL, "documents": 8, "shuffles": 0}
    small = run_suite("attention_routing", models=["demo"], parameters=few).verdicts[0].corrected
    assert small.outcome == INCONCLUSIVE and "below a tenth of the minimum" in small.statement
    short = run_suite("attention_routing", models=["demo"], parameters={**SMALL, "shuffles": 3})
    told = short.verdicts[0].corrected
    assert told.outcome == INCONCLUSIVE and "3 draws: p cannot be below 0.25" in told.statement


def test_the_plans_are_as_large_as_they_say():
    suite = study_suite("attention_routing", {})
    tokens = [part.tokens for one in suite.analyses for part in one.parts(seed=0) if part.tokens]
    assert sum(tokens) <= 80_000
    quick = study_suite("attention_routing", preset("attention_routing", "quick"))
    some = [part.tokens for one in quick.analyses for part in one.parts(seed=0) if part.tokens]
    assert sum(some) < sum(tokens) / 4


def test_what_is_kept_of_a_document_is_drawn_from_its_own_text():
    import moetui
    from moetui.suites.moe_dynamics.attention_routing import AttentionRoutingAnalysis
    from moetui.suites.plan import Part

    model = moetui.load("demo")
    suite = study_suite("attention_routing", SMALL)
    analysis = next(one for one in suite.analyses if isinstance(one, AttentionRoutingAnalysis))
    part = analysis.parts(seed=0)[0]
    few = msgspec.structs.replace(part.inputs, documents=part.inputs.documents[3:5])
    alone = Part(name="x", inputs=few)

    def rows(one):
        read = analysis.read(model, one, {}, seed=0, step=lambda done, of: None)
        return {d.id: d.rows.tolist() for d in read.documents}

    whole, some = rows(part), rows(alone)
    assert len(some) == 2 and all(whole[name] == kept for name, kept in some.items())
