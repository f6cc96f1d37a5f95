import msgspec
import numpy as np
import pytest

from moetui.errors import UsageError
from moetui.stats import Statistic
from moetui.suites import run_suite
from moetui.suites.attention_router import CONTEXTS, PROMPTS, Parameters
from moetui.suites.attention_router_verdict import corrected_outcome, seed_outcome
from tests.suites.fake import FakeModel, opener


def run(model, **parameters):
    return run_suite(
        "attention_router",
        models=["fake"],
        parameters=parameters,
        open_model=opener(fake=model),
    )


def cell(result, analysis, model="fake"):
    return next(c for c in result.cells if (c.model, c.analysis) == (model, analysis))


def test_defaults_are_the_seeds():
    given = Parameters()
    assert len(given.prompts) == 9 and given.prompts[0] == "127 + 45 ="
    assert given.prompts[-1] == "In Python, compute 45 * 37:"
    assert list(given.contexts) == ["127", "+", "def"]
    assert all(len(texts) == 4 for texts in given.contexts.values())
    assert given.contexts["def"][1] == "class Foo:\n    def"
    assert given.corpus_documents == 200 and given.models == ("demo",) and given.layers is None
    assert given.prompts == PROMPTS and given.contexts == CONTEXTS


@pytest.mark.parametrize(
    ("lowest", "outcome"),
    [(0.96, "H1"), (0.85, "unclear"), (0.82, "unclear"), (0.8, "H2"), (0.5, "H2"), (0.49, "H3")],
)
def test_the_seeds_rule(lowest, outcome):
    assert seed_outcome(lowest) == outcome


@pytest.mark.parametrize(
    ("intervals", "outcome"),
    [
        ([(0.86, 0.9, 0.95)], "H1"),
        ([(0.84, 0.9, 0.95)], "unclear"),
        ([(0.55, 0.6, 0.7)], "H2"),
        ([(0.45, 0.6, 0.7)], "unclear"),
        ([(0.1, 0.2, 0.3)], "H3"),
        ([(0.1, 0.2, 0.3), (0.9, 0.95, 0.99)], "H3"),
        ([(0.86, 0.9, 0.95), (0.8, 0.91, 0.99)], "unclear"),
    ],
)
def test_the_corrected_rule_reads_intervals(intervals, outcome):
    shares = [Statistic(ci_low=low, value=v, ci_high=high) for low, v, high in intervals]
    assert corrected_outcome(shares) == outcome


def test_a_common_component_gives_the_seed_h1_and_the_corrected_h3():
    result = run(FakeModel(attention=0.01, common=200.0), corpus_documents=30)
    assert result.verdict.seed.label == "seed rule" and result.verdict.seed.outcome == "H1"
    assert result.verdict.corrected.outcome == "H3"
    share = result.verdict.corrected.evidence[0].statistic
    assert share.value == pytest.approx(0, abs=0.01)
    assert result.verdict.seed.evidence[0].statistic.value > 0.95
    # The rest is named, so that it is not taken for whatever one likes.
    named = {e.measure.split(":")[0]: e.statistic.value for e in result.verdict.corrected.evidence}
    assert named.keys() == {"attention", "embedding", "routed experts"}
    assert sum(named.values()) == pytest.approx(1, abs=1e-5)
    assert f"embedding {named['embedding']:.2f}" in result.verdict.why_they_differ


def test_attention_that_really_decides_is_h1_for_both():
    result = run(FakeModel(attention=30.0), corpus_documents=30)
    assert result.verdict.seed.outcome == result.verdict.corrected.outcome == "H1"


def test_the_lowest_model_decides_the_seed_rule():
    models = {"a": FakeModel("a", attention=30.0), "b": FakeModel("b", attention=0.3)}
    result = run_suite(
        "attention_router",
        models=list(models),
        parameters={"corpus_documents": 30},
        open_model=opener(**models),
    )
    ratios = [e.statistic.value for e in result.verdict.seed.evidence]
    assert min(ratios) < 0.5 and max(ratios) > 0.85
    assert result.verdict.seed.outcome == "H3"


def test_reported_seed_ratio_is_the_mean_over_prompts_of_the_last_token():
    model = FakeModel()
    result = run(model, corpus_documents=0, layers=[1])
    ratios = []
    for prompt in PROMPTS:
        e, d = model.trace(prompt).seed_parts[-1, 1].astype(float)
        ratios.append(np.sqrt((d**2).sum()) / (np.sqrt((e**2).sum()) + np.sqrt((d**2).sum())))
    layer = cell(result, "decomposition").result.seed.layers[0]
    assert layer.layer == 1
    assert layer.ratio == pytest.approx(np.mean(ratios), rel=1e-5)
    assert layer.ratio_std == pytest.approx(np.std(ratios), rel=1e-4)


def test_nine_prompts_alone_carry_no_corrected_verdict():
    result = run(FakeModel(), corpus_documents=0)
    assert result.verdict.seed.outcome in {"H1", "H2", "H3", "unclear"}
    assert result.verdict.corrected.outcome == "inconclusive"
    assert "9 documents" in result.verdict.corrected.statement
    assert cell(result, "corpus_decomposition").status == "inconclusive"


def test_a_small_corpus_is_judged_but_marked_as_below_the_minimum():
    statistic = run(FakeModel(), corpus_documents=25, corpus_tokens=30).verdict.corrected
    assert statistic.outcome != "inconclusive"
    assert "below the minimum size" in statistic.evidence[0].statistic.caveat


class Holed(FakeModel):
    def trace(self, text_or_ids, *, lens=5, residuals=True):
        trace = super().trace(text_or_ids, lens=lens, residuals=residuals)
        for array in (trace.router_parts, trace.seed_parts, trace.expert_weights):
            if array is not None:
                array[...] = np.nan
        return trace


def test_missing_data_is_inconclusive_everywhere_and_never_a_number():
    result = run(Holed(), corpus_documents=20, corpus_tokens=10)
    assert result.verdict.seed.outcome == result.verdict.corrected.outcome == "inconclusive"
    assert {c.status for c in result.cells} == {"inconclusive"}
    assert all(c.reason for c in result.cells)
    assert b"NaN" not in msgspec.json.encode(result)


@pytest.mark.parametrize("other", [FakeModel("b", moe_layers=()), Holed("b"), RuntimeError("boom")])
def test_a_model_without_a_ratio_is_named_beside_the_seeds_verdict(other):
    result = run_suite(
        "attention_router",
        models=["a", "b"],
        parameters={"corpus_documents": 0},
        open_model=opener(a=FakeModel("a", attention=30.0), b=other),
    )
    assert result.verdict.seed.outcome == "H1"
    assert result.verdict.seed.statement.endswith("in every model; not measured: b")


class HoledPrompts(FakeModel):
    """Without seed data for texts that hold a digit: 4 of the 9 prompts."""

    def trace(self, text_or_ids, *, lens=5, residuals=True):
        trace = super().trace(text_or_ids, lens=lens, residuals=residuals)
        if trace.seed_parts is not None and any(c.isdigit() for t in trace.tokens for c in t):
            trace.seed_parts[...] = np.nan
        return trace


def test_the_seeds_ratio_counts_only_prompts_that_have_one():
    result = run(HoledPrompts(), corpus_documents=0)
    assert result.verdict.seed.evidence[0].statistic.n_documents == 9 - 4


class PartlyHoled(FakeModel):
    def trace(self, text_or_ids, *, lens=5, residuals=True):
        trace = super().trace(text_or_ids, lens=lens, residuals=residuals)
        if residuals and len(trace) > 5:
            trace.router_parts[::4, 2:] = np.nan
        return trace


def test_a_quarter_of_the_data_missing_is_inconclusive():
    result = run(PartlyHoled(), corpus_documents=30, corpus_tokens=20)
    assert result.verdict.corrected.outcome == "inconclusive"
    assert "are missing" in result.verdict.corrected.statement


def test_a_model_whose_decomposition_failed_its_self_test_says_why():
    class Undecomposed(FakeModel):
        def trace(self, text_or_ids, *, lens=5, residuals=True):
            return super().trace(text_or_ids, lens=lens, residuals=False)

    model = Undecomposed(decomposition_error="the parts do not add up")
    result = run(model, corpus_documents=20, corpus_tokens=10)
    assert "the parts do not add up" in cell(result, "decomposition").reason
    assert result.verdict.corrected.outcome == "inconclusive"
    assert cell(result, "context_sensitivity").status == "done"  # needs no parts


def test_a_dense_model_has_no_router_and_that_is_the_answer():
    result = run(FakeModel("dense", moe_layers=()))
    assert {c.status for c in result.cells} == {"inconclusive"}
    assert result.failures == ()
    assert result.verdict.seed.outcome == result.verdict.corrected.outcome == "inconclusive"
    assert "no router" in result.verdict.seed.statement
    assert "no router" in result.verdict.corrected.statement


def test_documents_are_cut_and_sampled_by_seed():
    def sampled(seed):
        model = FakeModel()
        result = run_suite(
            "attention_router",
            models=["fake"],
            parameters={"corpus_documents": 20, "corpus_tokens": 16},
            seed=seed,
            open_model=opener(fake=model),
        )
        assert max(len(ids) for ids in model.traced) <= 16
        found = cell(result, "corpus_decomposition").result
        assert found.sampled == 20 and found.corrected.documents == 20
        return found.documents_digest, found.corrected

    assert sampled(1) == sampled(1)
    assert sampled(1)[0] != sampled(2)[0]


def test_a_layer_that_does_not_route_is_refused_by_name():
    with pytest.raises(UsageError, match="layer 9 of fake does not route"):
        run(FakeModel(), layers=[9])


def test_contexts_with_other_token_ids_are_dropped():
    result = run(FakeModel(), corpus_documents=0)
    words = {w.word: w for w in cell(result, "context_sensitivity").result.words}
    assert words["def"].token_text in ("def", " def")
    assert [d.context for d in words["def"].dropped] == ["class Foo:\n    def", "f = lambda: def"]
