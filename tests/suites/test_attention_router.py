import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from moetui.errors import UsageError
from moetui.stats import Statistic
from moetui.suites import result_json, run_suite
from moetui.suites.attention_router import CONTEXTS, PROMPTS, Parameters
from moetui.suites.attention_router_corpus import CorpusPlan
from moetui.suites.attention_router_prompts import token_of_rank
from moetui.suites.attention_router_verdict import corrected_outcome, seed_outcome
from moetui.suites.layers import routing_layers
from tests.suites.fake import FakeModel, Opened

# Small beside the suite's own; what a test is about it sets itself.
SMALL = {
    "source_documents": 0,
    "causal_documents": 20,
    "causal_tokens": 3,
    "mined_tokens": 1,
    "mined_contexts": 20,
}


def run(model, **parameters):
    return run_suite(
        "attention_router",
        models=["fake"],
        parameters={**SMALL, **parameters},
        source=Opened(fake=model),
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
    assert given.corpus_documents == 200 and given.models == ("demo",)
    assert given.layers == ("first", "mid", "last")
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
    assert result.verdicts[0].seed.label == "seed rule" and result.verdicts[0].seed.outcome == "H1"
    assert result.verdicts[0].corrected.outcome == "H3"
    share = result.verdicts[0].corrected.evidence[0].statistic
    assert share.value == pytest.approx(0, abs=0.01)
    assert result.verdicts[0].seed.evidence[0].statistic.value > 0.95
    # The rest is named, so that it is not taken for whatever one likes.
    named = {
        e.name.split(":")[0]: e.statistic.value
        for e in result.verdicts[0].corrected.evidence
        if "share of the logits' variance" in e.name
    }
    assert named.keys() == {"attention", "embedding", "routed experts"}
    assert sum(named.values()) == pytest.approx(1, abs=1e-5)
    assert f"embedding {named['embedding']:.2f}" in result.verdicts[0].why_they_differ


def test_attention_that_really_decides_is_h1_for_both():
    result = run(FakeModel(attention=30.0, blind=128), corpus_documents=30)
    assert result.verdicts[0].seed.outcome == result.verdicts[0].corrected.outcome == "H1"


def test_the_lowest_model_decides_the_seed_rule():
    models = {"a": FakeModel("a", attention=30.0), "b": FakeModel("b", attention=0.3)}
    result = run_suite(
        "attention_router",
        models=list(models),
        parameters={**SMALL, "corpus_documents": 30},
        source=Opened(**models),
    )
    ratios = [e.statistic.value for e in result.verdicts[0].seed.evidence]
    assert min(ratios) < 0.5 and max(ratios) > 0.85
    assert result.verdicts[0].seed.outcome == "H3"


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
    assert result.verdicts[0].seed.outcome in {"H1", "H2", "H3", "unclear"}
    assert result.verdicts[0].corrected.outcome == "inconclusive"
    assert "9 documents" in result.verdicts[0].corrected.statement
    assert cell(result, "corpus_decomposition").status == "inconclusive"


def test_a_small_corpus_is_judged_but_marked_as_below_the_minimum():
    statistic = run(FakeModel(), corpus_documents=25, corpus_tokens=30).verdicts[0].corrected
    assert statistic.outcome != "inconclusive"
    assert "below the minimum size" in statistic.evidence[0].statistic.caveat


class Holed(FakeModel):
    def trace(self, text_or_ids, *, residuals=True, sources=(), **given):
        trace = super().trace(text_or_ids, residuals=residuals, sources=sources, **given)
        for array in (trace.router_parts, trace.seed_parts, trace.expert_weights):
            if array is not None:
                array[...] = np.nan
        return trace


def test_missing_data_is_inconclusive_everywhere_and_never_a_number():
    result = run(Holed(), corpus_documents=20, corpus_tokens=10)
    assert result.verdicts[0].seed.outcome == result.verdicts[0].corrected.outcome == "inconclusive"
    of_parts = [c for c in result.cells if c.analysis not in ("sanity", "causal_check")]
    assert {c.status for c in of_parts} == {"inconclusive"} and all(c.reason for c in of_parts)
    assert b"NaN" not in msgspec.json.encode(result)


@pytest.mark.parametrize("other", [FakeModel("b", moe_layers=()), Holed("b"), RuntimeError("boom")])
def test_a_model_without_a_ratio_is_named_beside_the_seeds_verdict(other):
    result = run_suite(
        "attention_router",
        models=["a", "b"],
        parameters={"corpus_documents": 0},
        source=Opened(a=FakeModel("a", attention=30.0), b=other),
    )
    assert result.verdicts[0].seed.outcome == "H1"
    assert result.verdicts[0].seed.statement.endswith("in every model; not measured: b")


class HoledPrompts(FakeModel):
    """Without seed data for texts that hold a digit: 4 of the 9 prompts."""

    def trace(self, text_or_ids, *, residuals=True, sources=(), **given):
        trace = super().trace(text_or_ids, residuals=residuals, sources=sources, **given)
        if trace.seed_parts is not None and any(c.isdigit() for t in trace.tokens for c in t):
            trace.seed_parts[...] = np.nan
        return trace


def test_the_seeds_ratio_counts_only_prompts_that_have_one():
    result = run(HoledPrompts(), corpus_documents=0)
    assert result.verdicts[0].seed.evidence[0].statistic.n_documents == 9 - 4


class PartlyHoled(FakeModel):
    def trace(self, text_or_ids, *, residuals=True, sources=(), **given):
        trace = super().trace(text_or_ids, residuals=residuals, sources=sources, **given)
        if residuals and len(trace) > 5:
            trace.router_parts[::4, 2:] = np.nan
        return trace


def test_a_quarter_of_the_data_missing_is_inconclusive():
    result = run(PartlyHoled(), corpus_documents=30, corpus_tokens=20)
    assert result.verdicts[0].corrected.outcome == "inconclusive"
    assert "are missing" in result.verdicts[0].corrected.statement


@pytest.mark.parametrize(("kept", "outcome"), [(1.0, "H1"), (0.99, "H1"), (0.7, "inconclusive")])
def test_shares_of_parts_that_are_not_the_logits_carry_no_verdict(kept, outcome):
    class Leaky(FakeModel):
        def trace(self, text_or_ids, **given):
            found = super().trace(text_or_ids, **given)
            parts = found.router_parts
            return replace(found, router_parts=None if parts is None else parts * np.float32(kept))

    result = run(Leaky(attention=30.0, blind=128), corpus_documents=30)
    assert result.verdicts[0].corrected.outcome == outcome
    assert outcome == "H1" or "the parts miss up to 30%" in result.verdicts[0].corrected.statement


def test_a_model_whose_decomposition_failed_its_self_test_says_why():
    class Undecomposed(FakeModel):
        def trace(self, text_or_ids, *, residuals=True, sources=(), **given):
            return super().trace(text_or_ids, residuals=False, **given)

    model = Undecomposed(decomposition_error="the parts do not add up")
    result = run(model, corpus_documents=20, corpus_tokens=10)
    assert "the parts do not add up" in cell(result, "decomposition").reason
    assert result.verdicts[0].corrected.outcome == "inconclusive"
    assert cell(result, "context_sensitivity").status == "done"  # needs no parts


def test_a_dense_model_has_no_router_and_that_is_the_answer():
    result = run(FakeModel("dense", moe_layers=()))
    assert {c.status for c in result.cells} == {"inconclusive"}
    assert result.failures == ()
    assert result.verdicts[0].seed.outcome == result.verdicts[0].corrected.outcome == "inconclusive"
    assert "no router" in result.verdicts[0].seed.statement
    assert "no router" in result.verdicts[0].corrected.statement


def test_documents_are_cut_and_sampled_by_seed():
    def sampled(seed):
        model = FakeModel()
        result = run_suite(
            "attention_router",
            models=["fake"],
            parameters={**SMALL, "corpus_documents": 20, "corpus_tokens": 16, "mined_tokens": 0},
            seed=seed,
            source=Opened(fake=model),
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


def test_layers_are_numbers_words_or_both():
    def read(layers):
        result = run(FakeModel(layers=7), corpus_documents=0, layers=layers)
        return [layer.layer for layer in cell(result, "decomposition").result.seed.layers]

    assert read(["first", "mid", "last"]) == [0, 3, 6]  # n // 2, as the seed has it
    assert read("all") == list(range(7))
    assert read("last") == [6]
    assert read([2, "last", 2]) == [2, 6]
    with pytest.raises(UsageError, match="layers"):
        read(["middle"])


def test_the_seeds_default_layers_of_olmoe_are_first_middle_and_last():
    info = FakeModel(layers=16).info
    assert routing_layers(("first", "mid", "last"), info) == (0, 8, 15)
    sparse = FakeModel(layers=16, moe_layers=(3, 5, 7, 9)).info
    assert routing_layers(("first", "mid", "last"), sparse) == (3, 7, 9)
    assert routing_layers("first", FakeModel(moe_layers=(2,)).info) == (2,)


class Deaf(FakeModel):
    """Its router, asked about a stream, always answers the same."""

    def routes(self, layer, streams):
        return np.tile(np.array([0, 1], np.int16), (len(streams), 1))


def test_a_large_share_without_an_effect_is_not_h1():
    result = run(Deaf(attention=30.0), corpus_documents=30)
    assert result.verdicts[0].seed.outcome == "H1"
    assert result.verdicts[0].corrected.outcome == "unclear"
    assert "the causal check does not show" in result.verdicts[0].corrected.statement
    assert "attention does not matter most" in result.verdicts[0].why_they_differ
    sanity = cell(result, "sanity")
    assert sanity.status == "inconclusive" and "follow from their stream" in sanity.reason


def test_causes_and_identity_stand_among_the_evidence():
    result = run(FakeModel(attention=1e-5), corpus_documents=30)
    assert result.verdicts[0].corrected.outcome == "H3"
    effects = {m.name: m.statistic.value for m in result.verdicts[0].corrected.evidence}
    replaced = [
        name
        for name in effects
        if name == "attention resampled: change of the sets beyond random directions"
    ]
    assert [effects[name] for name in replaced] == [0]
    assert effects["η² of the token's identity, mean of layers > 0"] > 0.99
    assert "attention 0.00 (random 0.00)" in result.verdicts[0].why_they_differ
    assert set(effects) <= {m.name for m in result.measures}


def test_the_causal_check_asks_about_every_domain_of_the_sample():
    """The bundled corpus is sorted by domain; its first 60 documents are arithmetic and code."""
    plan = CorpusPlan(None, documents=200, max_tokens=8, layers=("last",))

    def domains(limit):
        texts = [text for part in plan.parts(seed=0, limit=limit) for text in part.inputs.documents]
        return [text.id.split("/")[0] for text in texts]

    every, asked = domains(None), domains(60)
    assert len(every) == 200 and len(asked) == 60 and sorted(asked) == asked
    assert min(asked.count(domain) for domain in set(every)) >= 4


def test_contexts_of_a_token_are_drawn_from_all_documents_that_hold_it():
    documents = [(f"{i:02}", np.full(20, 7, np.int32)) for i in range(90)]
    [(token, chosen)] = token_of_rank(0, documents, 30, seed=0)
    names = [int(name) for name, _ in chosen]
    assert token == 7 and len(set(names)) == 30 and sorted(names) == names
    assert all(any(start <= n < start + 30 for n in names) for start in (0, 30, 60))
    assert token_of_rank(0, documents, 30, seed=0)[0][1] == chosen


def test_no_passes_are_spent_on_token_identity_and_one_on_each_document():
    model = FakeModel()
    run(model, corpus_documents=20, causal_documents=5, mined_tokens=0, contexts={})
    documents = [ids for ids in model.traced if len(ids) > 20]
    assert len(documents) == 20 + 5


def document(model, **parameters):
    """The result as a reader of the file has it."""
    return json.loads(result_json(run(model, **parameters)))


def result_of(found, analysis):
    return next(c["result"] for c in found["cells"] if c["analysis"] == analysis)


def test_the_seeds_table_of_prompts_can_be_rebuilt_from_the_file():
    """Appendix A: prompt, ratio at every layer; and the mean ± standard deviation below it."""
    model = FakeModel()
    seed = result_of(document(model, corpus_documents=0), "decomposition")["seed"]
    table = {
        rows[0]["prompt"]: [f"{100 * row['ratio']:.1f}%" for row in rows]
        for rows in zip(*(layer["prompts"] for layer in seed["layers"]), strict=True)
    }
    assert list(table) == list(PROMPTS)
    ratios = []
    for prompt in PROMPTS:
        norms = np.linalg.norm(model.trace(prompt).seed_parts[-1, [0, 2, 3]].astype(float), axis=-1)
        ratios.append(norms[:, 1] / norms.sum(axis=-1))
        assert table[prompt] == [f"{100 * ratio:.1f}%" for ratio in ratios[-1]]
    for row, layer in enumerate(seed["layers"]):
        own = [ratio[row] for ratio in ratios]
        assert [layer["ratio"], layer["ratio_std"]] == pytest.approx([np.mean(own), np.std(own)])


def test_the_seeds_tables_of_contexts_can_be_rebuilt_from_the_file():
    """Appendix B: by word, context and layer the expert; beside it all of them, with weights."""
    model = FakeModel()
    found = result_of(document(model, corpus_documents=0), "context_sensitivity")
    for word in found["words"]:
        by_layer = [[c["experts"][0] for c in layer["contexts"]] for layer in word["layers"]]
        table = dict(zip(word["kept"], zip(*by_layer, strict=True), strict=True))
        dropped = [one["context"] for one in word["dropped"]]
        assert sorted([*table, *dropped]) == sorted(CONTEXTS[word["word"]])
        for context, experts in table.items():
            trace = model.trace(context)
            position = np.flatnonzero(trace.token_ids == word["token_id"])[-1]
            assert list(experts) == trace.expert_ids[position, [0, 2, 3], 0].tolist()
        for layer in word["layers"]:
            assert layer["distinct_top_experts"] == len(
                {c["experts"][0] for c in layer["contexts"]}
            )
            assert all(len(c["experts"]) == len(c["weights"]) == 2 for c in layer["contexts"])
