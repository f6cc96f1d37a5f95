import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from moetui.analyses.attention_router import (
    corrected_decomposition,
    prompt_sums,
    seed_decomposition,
)
from moetui.analyses.router_evidence import document_sums
from moetui.analyses.router_margin import layer_margin
from tests.builders import make_model_info, make_trace

NAMES = ("embedding", "attention", "routed experts")


def trace_of(parts, *, k=2, seed_parts=None, scores=None, names=NAMES, shift_invariant=True):
    """A trace whose logits are the sum of parts [T, L, G, E], chosen by score (logit if None)."""
    T, L, _, E = parts.shape
    logits = parts.sum(axis=2)
    ranked = logits if scores is None else scores
    ids = np.argsort(-ranked, axis=-1, kind="stable")[..., :k]
    model = make_model_info(
        num_layers=L, num_experts=E, top_k=k, part_names=names, shift_invariant=shift_invariant
    )
    return replace(
        make_trace(T, L, E, k),
        model=model,
        router_logits=logits.astype(np.float32),
        selection_scores=None if scores is None else scores.astype(np.float32),
        expert_ids=ids.astype(np.int16),
        router_parts=parts.astype(np.float32),
        seed_parts=None if seed_parts is None else seed_parts.astype(np.float32),
    )


def decompose(traces, layers=(0,), *, last=False, seed=0):
    take = prompt_sums if last else document_sums
    return corrected_decomposition(
        traces[0].model,
        [take(trace, layers) for trace in traces],
        layers,
        positions="all tokens",
        seed=seed,
    )


def values(found, measure, layer=0):
    return {p.part: getattr(p, measure).value for p in found.layers[layer].parts}


def test_seed_metric_by_hand():
    embed, delta = np.array([3.0, 4.0, 0.0, 0.0]), np.array([0.0, 5.0, 12.0, 0.0])
    seed_parts = np.zeros((2, 1, 2, 4))
    seed_parts[0] = 100.0  # only the last token counts
    seed_parts[1, 0] = [embed, delta]
    trace = trace_of(np.ones((2, 1, 3, 4)), seed_parts=seed_parts)
    layer = seed_decomposition([("p", trace)], [0]).layers[0]
    prompt = layer.prompts[0]
    assert (prompt.embed_norm, prompt.attention_norm) == pytest.approx((5, 13))
    assert prompt.ratio == pytest.approx(13 / 18)
    assert prompt.cosine == pytest.approx(20 / 65)
    assert (prompt.embed_expert, prompt.attention_expert, prompt.agree) == (1, 2, False)
    assert layer.ratio == pytest.approx(13 / 18) and layer.ratio_std == 0.0


def test_seed_summary_is_mean_and_population_deviation_over_prompts():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(1, 2, 2, 8)) for _ in range(5)]
    traces = [(f"p{i}", trace_of(np.ones((1, 2, 3, 8)), seed_parts=p)) for i, p in enumerate(parts)]
    found = seed_decomposition(traces, [0, 1])
    for layer in (0, 1):
        ratios = []
        for p in parts:
            e, d = math.hypot(*p[0, layer, 0]), math.hypot(*p[0, layer, 1])
            ratios.append(d / (e + d))
        assert found.layers[layer].ratio == pytest.approx(statistics.fmean(ratios), rel=1e-5)
        assert found.layers[layer].ratio_std == pytest.approx(statistics.pstdev(ratios), rel=1e-4)
        assert found.layers[layer].n_prompts == 5
    means = [layer.ratio for layer in found.layers]
    assert found.mean_ratio == pytest.approx(statistics.fmean(means))
    assert found.label == "seed"


def test_seed_mean_leaves_out_a_layer_whose_ratio_is_zero():
    seed_parts = np.ones((1, 2, 2, 4))
    seed_parts[0, 0, 1] = 0.0  # nothing was added before layer 0
    found = seed_decomposition(
        [("p", trace_of(np.ones((1, 2, 3, 4)), seed_parts=seed_parts))], [0, 1]
    )
    first = found.layers[0]
    assert first.ratio == 0.0 and first.cosine is None and first.agreement == 0.0
    assert first.prompts[0].attention_expert is None
    assert found.mean_ratio == pytest.approx(0.5)


def test_seed_metric_without_data_is_missing():
    found = seed_decomposition([("p", trace_of(np.ones((1, 1, 3, 4))))], [0])
    assert found.mean_ratio is None and found.layers[0].ratio is None
    assert found.layers[0].n_prompts == 0


def test_shares_equal_covariances_over_all_tokens_of_all_documents():
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(T, 2, 3, 6)) * np.array([1, 2, 0.5])[:, None] for T in (4, 9, 30)]
    found = decompose([trace_of(p) for p in parts], layers=(0, 1))
    tokens = np.concatenate(parts)
    for layer in (0, 1):
        here = tokens[:, layer]
        z = here - here.mean(axis=-1, keepdims=True)
        total = z.sum(axis=1)
        variance = sum(np.var(total[:, e]) for e in range(6))
        for c, name in enumerate(NAMES):
            covariance = sum(
                np.cov(z[:, c, e], total[:, e], ddof=0)[0, 1] for e in range(6)
            )  # fmt: skip
            per_token = [np.dot(z[t, c], total[t]) / np.dot(total[t], total[t]) for t in range(43)]
            across = values(found, "across_tokens", layer)[name]
            assert across == pytest.approx(covariance / variance, rel=1e-5)
            assert values(found, "per_token", layer)[name] == pytest.approx(
                np.mean(per_token), rel=1e-4
            )
        sizes = [sum(np.linalg.norm(z[t], axis=1)) / np.linalg.norm(total[t]) for t in range(43)]
        assert found.layers[layer].cancellation.value == pytest.approx(np.mean(sizes), rel=1e-5)
    assert found.tokens == 43 and found.documents == 3


def test_the_mean_is_over_the_layers_above_layer_0_as_in_the_seed():
    rng = np.random.default_rng(1)
    found = decompose([trace_of(rng.normal(size=(9, 3, 3, 6)))], layers=(0, 1, 2))
    each = [values(found, "across_tokens", layer)["attention"] for layer in (1, 2)]
    mean = next(p for p in found.mean.parts if p.part == "attention")
    assert found.mean_layers == (1, 2)
    assert mean.across_tokens.value == pytest.approx(np.mean(each))


def test_attention_that_gives_all_experts_alike_has_a_high_seed_ratio_and_no_corrected_share():
    rng = np.random.default_rng(2)
    traces = []
    for _ in range(30):
        parts = np.zeros((12, 2, 3, 8))
        parts[:, :, 0] = rng.normal(size=(12, 2, 8))  # the embedding decides
        parts[:, :, 1] = rng.normal(50, 10, size=(12, 2, 1))  # the same for every expert
        seed_parts = parts[:, :, :2]
        traces.append(trace_of(parts, seed_parts=seed_parts))
    seed = seed_decomposition([("p", trace) for trace in traces], [0, 1])
    assert seed.mean_ratio > 0.95
    found = decompose(traces, layers=(0, 1))
    for measure in ("per_token", "across_tokens", "margin"):
        assert values(found, measure)["attention"] == pytest.approx(0, abs=1e-5)
        assert values(found, measure)["embedding"] == pytest.approx(1, abs=1e-5)


def test_without_shift_invariance_a_common_part_counts():
    rng = np.random.default_rng(3)
    parts = np.zeros((12, 1, 3, 8))
    parts[:, :, 0] = rng.normal(size=(12, 1, 8))
    parts[:, :, 1] = rng.normal(0, 10, size=(12, 1, 1))
    found = decompose([trace_of(parts, shift_invariant=False)])
    assert values(found, "across_tokens")["attention"] > 0.9


def test_a_static_bias_has_a_share_of_each_decision_but_none_of_what_varies():
    rng = np.random.default_rng(4)
    parts = rng.normal(size=(40, 1, 3, 8)) * 0.2
    parts[:, :, 2] = np.arange(8.0)
    names = ("embedding", "attention", "static bias")
    found = decompose([trace_of(parts, names=names)])
    assert values(found, "per_token")["static bias"] > 0.9
    assert values(found, "across_tokens")["static bias"] == pytest.approx(0, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_shares_of_all_parts_sum_to_one(seed):
    rng = np.random.default_rng(seed)
    found = decompose([trace_of(rng.normal(size=(5, 1, 3, 6))) for _ in range(3)])
    for measure in ("per_token", "across_tokens", "margin"):
        assert sum(values(found, measure).values()) == pytest.approx(1, abs=1e-5)


def test_margin_is_the_gap_of_lowest_selected_and_highest_unselected():
    rng = np.random.default_rng(5)
    parts = rng.normal(size=(20, 1, 3, 8))
    found = decompose([trace_of(parts, k=3)])
    gaps = np.zeros(3)
    for t in range(20):
        order = sorted(range(8), key=lambda e: -parts[t, 0, :, e].sum())
        gaps += parts[t, 0, :, order[2]] - parts[t, 0, :, order[3]]
    expected = gaps / gaps.sum()
    for c, name in enumerate(NAMES):
        assert values(found, "margin")[name] == pytest.approx(expected[c], rel=1e-4)
    assert found.layers[0].margin_unit == "router logit"


def test_margin_is_undefined_where_every_expert_is_selected():
    found = decompose([trace_of(np.random.default_rng(0).normal(size=(5, 1, 3, 4)), k=4)])
    assert values(found, "margin")["attention"] is None
    assert found.layers[0].margin_unit == "undefined"


def test_a_correction_bias_is_a_part_of_the_margin():
    rng = np.random.default_rng(6)
    parts = rng.normal(size=(50, 1, 3, 8))
    bias = rng.normal(0, 0.3, 8)
    z = parts.sum(axis=2)
    scores = expit(z) + bias
    trace = trace_of(parts, k=2, scores=scores)
    margin = layer_margin(trace, 0)
    assert margin.link == "sigmoid + bias"
    expected_bias, total = 0.0, 0.0
    for t in range(50):
        order = np.argsort(-scores[t, 0])
        i, j = order[1], order[2]
        assert margin.parts[t].sum() == pytest.approx(scores[t, 0, i] - scores[t, 0, j], abs=1e-5)
        assert margin.parts[t, 3] == pytest.approx(bias[i] - bias[j], abs=1e-4)
        slope = (expit(z[t, 0, i]) - expit(z[t, 0, j])) / (z[t, 0, i] - z[t, 0, j])
        expected = slope * (parts[t, 0, :, i] - parts[t, 0, :, j])
        assert margin.parts[t, :3] == pytest.approx(expected, abs=1e-4)
        expected_bias += bias[i] - bias[j]
        total += scores[t, 0, i] - scores[t, 0, j]
    found = decompose([trace])
    assert values_of_margin(found)["correction bias"] == pytest.approx(
        expected_bias / total, abs=1e-3
    )


def values_of_margin(found):
    return {part.part: part.margin.value for part in found.layers[0].parts}


def test_experts_masked_out_by_their_group_are_not_eligible():
    parts = np.zeros((1, 1, 3, 6))
    parts[0, 0, 0] = [5, 4, 3, 2, 1, 0]
    scores = parts.sum(axis=2).copy()
    scores[0, 0, 2] = -np.inf  # expert 2 would be the next best
    trace = trace_of(parts, k=2, scores=scores)
    assert layer_margin(trace, 0).parts[0] == pytest.approx([4 - 2, 0, 0, 0])


def test_a_gap_to_the_zero_of_a_group_mask_has_no_parts():
    # A correction bias makes all scores negative, so that masked experts rank first: every other
    # token masks experts 4 and 5, and the boundary lies between one of their zeros and the rest.
    rng = np.random.default_rng(11)
    parts = rng.normal(size=(20, 1, 3, 6))
    scores = expit(parts.sum(axis=2)) - 1.5
    scores[::2, 0, 4:] = 0
    margin = layer_margin(trace_of(parts, k=2, scores=scores), 0)
    assert margin.link == "monotone"
    assert np.isnan(margin.parts[::2]).all()
    ranked = np.argsort(-scores[1::2, 0], axis=-1)
    z, row = parts.sum(axis=2)[1::2, 0], np.arange(10)
    gaps = z[row, ranked[:, 1]] - z[row, ranked[:, 2]]
    assert margin.parts[1::2].sum(axis=-1) == pytest.approx(gaps)


def test_a_token_without_a_gap_adds_no_correction_bias_to_the_margin():
    rng = np.random.default_rng(12)
    parts, bias = rng.normal(size=(30, 1, 3, 8)), np.linspace(0.1, 0.8, 8)
    scores = expit(parts.sum(axis=2)) + bias
    full = layer_margin(trace_of(parts, k=2, scores=scores), 0)
    assert full.link == "sigmoid + bias"
    unchosen = np.argsort(-scores[0, 0], axis=-1)[2:]
    scores[0, 0, unchosen] = 0  # one token whose groups leave no alternative
    margin = layer_margin(trace_of(parts, k=2, scores=scores), 0)
    assert np.isnan(margin.parts[0]).all()
    assert margin.parts[1:] == pytest.approx(full.parts[1:])


def test_scores_that_follow_from_no_known_link_give_no_margin():
    rng = np.random.default_rng(7)
    parts = rng.normal(size=(10, 1, 3, 8))
    trace = trace_of(parts, scores=rng.normal(size=(10, 1, 8)))
    assert layer_margin(trace, 0).link == "undefined"
    assert np.isnan(layer_margin(trace, 0).parts).all()


def test_gaps_in_different_units_are_never_added():
    rng = np.random.default_rng(13)
    parts = rng.normal(size=(20, 1, 3, 8))
    biased = trace_of(parts, scores=expit(parts.sum(axis=2)) + rng.normal(0, 0.3, 8))
    found = decompose([trace_of(parts), biased])
    assert set(values_of_margin(found).values()) == {None}
    assert values(found, "per_token")["attention"] is not None


def test_missing_tokens_are_dropped_and_counted_and_nothing_left_is_none():
    rng = np.random.default_rng(8)
    parts = rng.normal(size=(10, 1, 3, 6))
    holed = parts.copy()
    holed[3, 0, 1, 2] = np.nan
    found = decompose([trace_of(holed)])
    without = decompose([trace_of(np.delete(parts, 3, axis=0))])
    assert found.layers[0].missing_tokens == 1 and found.tokens == 9
    assert any("1 tokens a layer missing" in caveat for caveat in found.caveats)
    for measure in ("per_token", "across_tokens"):
        assert values(found, measure) == pytest.approx(values(without, measure))
    lost = trace_of(np.full_like(parts, np.nan))
    assert decompose([lost]) is None
    both = decompose([lost, trace_of(parts)])
    assert both.documents == 1 and both.layers[0].missing_tokens == 10
    assert "1 documents dropped: no usable token" in both.caveats


def test_padded_experts_of_a_smaller_layer_change_nothing():
    rng = np.random.default_rng(9)
    parts = rng.normal(size=(10, 1, 3, 6))
    small = trace_of(parts)
    padded = np.concatenate([parts, np.zeros((10, 1, 3, 2))], axis=-1)
    wide = replace(
        trace_of(padded),
        router_logits=np.pad(small.router_logits, ((0, 0), (0, 0), (0, 2)), constant_values=np.nan),
        expert_ids=small.expert_ids,
    )
    for measure in ("per_token", "across_tokens", "margin"):
        a, b = values(decompose([small]), measure), values(decompose([wide]), measure)
        assert a == pytest.approx(b, rel=1e-5)


def test_prompts_alone_have_no_interval_and_a_corpus_has_one():
    rng = np.random.default_rng(10)
    prompts = [trace_of(rng.normal(size=(5, 1, 3, 8))) for _ in range(9)]
    few = decompose(prompts, last=True).layers[0].parts[1]
    for statistic in (few.per_token, few.across_tokens, few.margin):
        assert statistic.value is not None and statistic.ci_low is None
        assert "20 needed" in statistic.caveat and statistic.n_documents == 9
    documents = [trace_of(rng.normal(size=(10, 1, 3, 8))) for _ in range(120)]
    many = decompose(documents).layers[0].parts[1]
    for statistic in (many.per_token, many.across_tokens, many.margin):
        assert statistic.ci_low < statistic.value < statistic.ci_high
        # Three parts drawn alike share the decision equally.
        assert statistic.ci_low < 1 / 3 < statistic.ci_high
        assert statistic.caveat is None and statistic.n_tokens == 1200
    assert 900 < many.per_token.n_effective <= 1200  # independent tokens


def test_documents_that_differ_widen_the_interval():
    rng = np.random.default_rng(11)

    def corpus(between):
        for _ in range(100):
            parts = rng.normal(size=(20, 1, 3, 8))
            parts[:, :, 1] *= math.exp(rng.normal(0, between))
            yield trace_of(parts)

    alike, unlike = (decompose(list(corpus(b))).layers[0].parts[1].per_token for b in (0.0, 1.0))
    assert unlike.n_effective < 0.3 * alike.n_effective
    assert unlike.ci_high - unlike.ci_low > 2 * (alike.ci_high - alike.ci_low)


def test_parts_that_do_not_add_up_are_reported():
    parts = np.random.default_rng(12).normal(size=(5, 1, 3, 6))
    trace = trace_of(parts)
    wrong = replace(trace, router_parts=trace.router_parts * np.float32(1.01))
    assert not any("miss" in c for c in decompose([trace]).caveats)
    assert any("miss" in c for c in decompose([wrong]).caveats)


def test_one_token_has_no_variance_across_tokens():
    found = decompose([trace_of(np.random.default_rng(0).normal(size=(1, 1, 3, 6)))])
    assert values(found, "across_tokens")["attention"] is None
    assert values(found, "per_token")["attention"] is not None


def test_logits_that_are_all_zero_are_no_mask():
    trace = trace_of(np.zeros((2, 1, 3, 4)), scores=np.zeros((2, 1, 4)))
    margin = layer_margin(trace, 0)
    assert margin.link == "monotone"
    assert (margin.parts == 0).all()
