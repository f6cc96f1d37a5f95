"""Two checkpoints side by side: counted by hand, and against two routers that share nothing."""

from dataclasses import replace
from itertools import product
from math import comb

import msgspec
import numpy as np
import pytest

from moetui.analyses.fidelity import (
    HIDDEN,
    ONE_PROMPT,
    Sample,
    fidelity,
    incomparable,
    prompt_fidelity,
)
from moetui.analyses.routing_pairs import Pairs, Routing, chance_jaccard
from moetui.stats import expected_jaccard
from tests.builders import make_model_info, make_trace

E, K = 8, 3
INFO = make_model_info(num_layers=2, num_experts=E, top_k=K)
SAMPLE = Sample(corpus="made up", sampled=0, available=0, max_tokens=0, documents_digest="", seed=0)


def routing(sets, logits=None, scores=None):
    """A text whose tokens use the experts `sets` [T, L, K], best first."""
    ids = np.asarray(sets, np.int16)
    if logits is None:  # those of a router that chose them, in that order
        logits = np.zeros((*ids.shape[:2], E))
        np.put_along_axis(logits, ids.astype(int), np.arange(K, 0, -1.0), axis=-1)
    return Routing(np.arange(len(ids), dtype=np.int32), ids, np.float32(logits), scores)


def by_logits(logits):
    """A text routed to the K best of `logits` [T, L, E]."""
    ids = np.argsort(-np.asarray(logits), axis=-1, kind="stable")[..., :K]
    return routing(ids, logits)


def compared(pairs, info=INFO):
    return fidelity(
        info, info, pairs, prompt_fidelity(["x"] * len(pairs[0][0].token_ids), pairs[0]), SAMPLE
    )


def drawn(rng, documents=25, tokens=10, layers=2):
    return [by_logits(rng.normal(size=(tokens, layers, E))) for _ in range(documents)]


def test_a_checkpoint_against_itself_differs_nowhere():
    texts = drawn(np.random.default_rng(0))
    found = compared([(text, text) for text in texts])
    for layer in (found.overall, *found.layers):
        assert layer.differs.value == layer.top_differs.value == 0
        assert layer.jaccard.value == 1
        # A document counts as one token where the data hold no variance: 3/25.
        assert layer.differs.ci_high == pytest.approx(3 / 25)
        assert layer.near_ties.value is None and layer.near_ties.caveat == "nothing differs"
    assert found.any_layer.value == 0
    assert found.prompt.hits == 0 and not np.any(found.prompt.differs)


def test_two_unrelated_routers_differ_as_much_as_the_chance_level_says():
    rng = np.random.default_rng(1)
    found = compared(list(zip(drawn(rng, 100), drawn(rng, 100), strict=True)))
    assert found.tokens == 1000
    for layer in found.layers:
        # Uniform random sets: every chance level has a closed form.
        assert layer.differs.null_mean == pytest.approx(1 - 1 / comb(E, K), abs=0.002)
        assert layer.top_differs.null_mean == pytest.approx(1 - 1 / E, abs=0.005)
        assert layer.jaccard.null_mean == pytest.approx(expected_jaccard(E, K, K), abs=0.005)
        for measured in (layer.differs, layer.top_differs, layer.jaccard):
            assert measured.ci_low <= measured.null_mean <= measured.ci_high


def test_chance_levels_are_means_over_all_pairs_of_different_tokens():
    rng = np.random.default_rng(2)
    # Loads far from even, so that closed forms for random sets would be wrong.
    bias = np.array([4.0, 3, 2, 0, 0, 0, 0, 0])
    ours, theirs = (
        [by_logits(rng.normal(size=(4, 2, E)) + bias) for _ in range(3)] for _ in range(2)
    )
    found = compared(list(zip(ours, theirs, strict=True)))
    for index, layer in enumerate(found.layers):
        one = [ids[index].tolist() for text in ours for ids in text.expert_ids]
        other = [ids[index].tolist() for text in theirs for ids in text.expert_ids]
        pairs = [(a, b) for (i, a), (j, b) in product(enumerate(one), enumerate(other)) if i != j]
        differ = np.mean([set(a) != set(b) for a, b in pairs])
        first = np.mean([a[0] != b[0] for a, b in pairs])
        overlap = np.mean([len({*a} & {*b}) / len({*a} | {*b}) for a, b in pairs])
        assert layer.differs.null_mean == pytest.approx(differ)
        assert layer.top_differs.null_mean == pytest.approx(first)
        assert layer.jaccard.null_mean == pytest.approx(overlap)
    assert found.overall.differs.null_mean == pytest.approx(
        np.mean([layer.differs.null_mean for layer in found.layers])
    )


def test_long_samples_are_thinned_for_the_chance_level_of_the_overlap():
    rng = np.random.default_rng(8)
    one, other = (rng.permuted(np.tile(np.arange(E) < K, (7000, 1)), axis=-1) for _ in range(2))
    assert chance_jaccard(one, other) == pytest.approx(expected_jaccard(E, K, K), abs=0.002)


def test_changes_are_counted_by_token_layer_and_document():
    same, other, order = [0, 1, 2], [0, 1, 7], [1, 0, 2]
    # 30 documents of 4 tokens. Layer 0: one token's set differs in every document. Layer 1: the
    # first two tokens' in every third document, the last token's only in its order.
    pairs = []
    for document in range(30):
        moved = other if document % 3 == 0 else same
        ours = routing([[other, moved], [same, moved], [same, same], [same, order]])
        pairs.append((ours, routing([[same, same]] * 4)))
    found = compared(pairs)
    first, second = found.layers
    assert first.differs.value == pytest.approx(1 / 4)
    assert second.differs.value == pytest.approx(1 / 6)
    assert found.overall.differs.value == pytest.approx(5 / 24)
    # Token 0 always, token 1 in a third of the documents.
    assert found.any_layer.value == pytest.approx(1 / 3)
    assert first.top_differs.value == 0
    assert second.top_differs.value == pytest.approx(1 / 4)  # the order that the set does not see
    # Sets that share 2 of 3 experts: Jaccard 2/4.
    assert first.jaccard.value == pytest.approx(3 / 4 + 1 / 4 / 2)
    assert second.jaccard.value == pytest.approx(5 / 6 + 1 / 6 / 2)
    assert second.differs.ci_low < 1 / 6 < second.differs.ci_high
    assert "approximate" in second.differs.caveat
    # Two hits or none a document: residuals 4/3 in 10 documents and -2/3 in 20, against 120
    # independent tokens with variance 1/6 · 5/6.
    effect = 30 / 29 * (10 * 16 / 9 + 20 * 4 / 9) / (120 * 5 / 36 * 120 / 119)
    assert second.differs.n_effective == pytest.approx(120 / effect)
    # There a token's Jaccard overlap is 1/2 where its set differs, so it varies alike.
    assert second.jaccard.n_effective == pytest.approx(120 / effect)
    assert found.prompt.differs == [[True, True], [False, True], [False, False], [False, False]]
    assert (found.prompt.hits, found.prompt.n, found.prompt.caveat) == (3, 8, ONE_PROMPT)


def test_below_twenty_documents_there_is_no_interval():
    rng = np.random.default_rng(3)
    found = compared(list(zip(drawn(rng, 19), drawn(rng, 19), strict=True)))
    for measured in (
        found.any_layer, found.overall.differs, found.overall.jaccard, found.layers[0].top_differs,
        found.overall.near_ties,
    ):  # fmt: skip
        assert measured.value is not None and measured.n_documents == 19
        assert measured.ci_low is None and measured.ci_high is None
        assert "19 documents, 20 needed" in measured.caveat


def near_tie_texts(margins, changes):
    """One layer; the reference's third and fourth expert are `margins` apart, and the model
    raises the fourth by `changes`."""
    T = len(margins)
    logits = np.tile(np.array([9.0, 8, 5, 0, -5, -6, -7, -8]), (T, 1, 1))
    logits[:, 0, 3] = 5 - np.asarray(margins)
    ours = logits.copy()
    ours[:, 0, 3] += changes
    return by_logits(ours), by_logits(logits)


def test_near_ties_are_margins_below_the_typical_change():
    # The typical change is 1. Margins of 0.5 are near ties and flip, but for the one that grows;
    # the margin of 2 flips by the large change; the margin of 3 holds.
    pair = near_tie_texts([0.5, 0.5, 3.0, 2.0, 0.5], [1.0, 1.0, 1.0, 4.0, -1.0])
    info = make_model_info(num_layers=1, num_experts=E, top_k=K)
    (layer,) = compared([pair] * 20, info).layers
    assert layer.differs.value == pytest.approx(3 / 5)
    assert layer.typical_change.value == pytest.approx(1, abs=1e-5)
    assert layer.gap_unit == "router logit"
    assert layer.near_ties.value == pytest.approx(2 / 3)
    assert layer.near_ties.n_tokens == 60  # changes, not tokens
    assert layer.near_ties.null_mean == pytest.approx(3 / 5)


def test_a_common_shift_of_all_logits_is_no_change_of_a_gap():
    _, reference = near_tie_texts([0.5, 1.0], [0, 0])
    shifted = replace(reference, router_logits=reference.router_logits + 100)
    edge = Pairs.of([(shifted, reference)]).edge(0)
    assert edge.typical_change == pytest.approx(0, abs=1e-4)


def test_where_a_bias_takes_part_in_the_choice_gaps_are_those_of_the_scores():
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(40, 1, E))
    scores = 1 / (1 + np.exp(-logits)) + np.linspace(0, 1, E)
    ids = np.argsort(-scores, axis=-1)[..., :K]
    text = routing(ids, logits, np.float32(scores))
    edge = Pairs.of([(text, text)]).edge(0)
    assert edge.unit == "selection score"
    ranked = -np.sort(-scores[:, 0], axis=-1)
    np.testing.assert_allclose(edge.margin, ranked[:, K - 1] - ranked[:, K], atol=1e-6)
    assert edge.known.all()


def test_experts_outside_the_chosen_groups_are_no_alternative():
    scores = np.tile(np.array([0.9, 0.8, 0.7, 0.6, 0.0, 0.0, 0.0, 0.0]), (5, 1, 1))
    logits = np.tile(np.array([1.0, 0.9, 0.8, 0.5, 3, 3, 3, 3]), (5, 1, 1))
    text = routing(np.tile([0, 1, 2], (5, 1, 1)), logits, np.float32(scores))
    edge = Pairs.of([(text, text)]).edge(0)
    np.testing.assert_allclose(edge.margin, 0.1, atol=1e-6)
    scores[..., 3] = 0  # and where there is none left, no margin
    whole = routing(np.tile([0, 1, 2], (5, 1, 1)), logits, np.float32(scores))
    assert not Pairs.of([(whole, whole)]).edge(0).known.any()


def test_a_boundary_expert_that_the_other_checkpoint_masks_has_no_change_of_its_gap():
    scores = np.tile(np.array([0.9, 0.8, 0.7, 0.6, 0.0, 0.0, 0.0, 0.0]), (6, 1, 1))
    logits = np.tile(np.array([1.0, 0.9, 0.8, 0.5, 3, 3, 3, 3]), (6, 1, 1))
    reference = routing(np.tile([0, 1, 2], (6, 1, 1)), logits, np.float32(scores))
    other = scores.copy()
    other[:, :, 3] += 0.05
    other[:4, :, 3] = 0  # its group lost there
    model = routing(np.tile([0, 1, 2], (6, 1, 1)), logits, np.float32(other))
    edge = Pairs.of([(model, reference)]).edge(0)
    assert edge.known.tolist() == [False] * 4 + [True] * 2
    assert edge.typical_change == pytest.approx(0.05, abs=1e-6)


def test_where_the_scores_are_hidden_near_ties_are_unknown_and_the_rest_is_not():
    rng = np.random.default_rng(5)
    sets = [rng.permuted(np.tile(np.arange(E), (2, 6, 1)), axis=-1)[..., :K] for _ in range(50)]
    logits = rng.normal(size=(6, 1, E))  # they say nothing about the choice
    info = make_model_info(num_layers=1, num_experts=E, top_k=K)
    pairs = [(routing(a[:, None], logits), routing(b[:, None], logits)) for a, b in sets]
    found = compared(pairs, info)
    assert found.layers[0].differs.value > 0.9
    assert found.layers[0].near_ties.value is None and found.layers[0].gap_unit is None
    assert found.layers[0].near_ties.caveat == HIDDEN
    assert HIDDEN in found.caveats


def test_layers_with_fewer_experts_keep_their_own_numbers():
    traces = [
        make_trace(8, 2, E, K, seed=seed, layer_experts={1: 4}, with_lens=False) for seed in (0, 1)
    ]
    small = [np.where(t.expert_ids[:, 1] < 2, t.expert_ids[:, 1], -1) for t in traces]
    texts = []
    for trace, ids in zip(traces, small, strict=True):
        whole = trace.expert_ids.copy()
        whole[:, 1] = np.sort(ids, axis=-1)[:, ::-1]  # padding last
        whole[:, 1, 0] = np.maximum(whole[:, 1, 0], 0)
        texts.append(replace(Routing.of(trace), expert_ids=whole))
    pairs = Pairs.of([tuple(texts)])
    for row in range(8):
        one, other = ({int(i) for i in text.expert_ids[row, 1] if i >= 0} for text in texts)
        assert pairs.changed[row, 1] == (one != other)
        assert pairs.jaccard[row, 1] == pytest.approx(len(one & other) / len(one | other))


def test_texts_that_were_read_as_other_tokens_are_refused():
    text = by_logits(np.random.default_rng(6).normal(size=(4, 2, E)))
    other = replace(text, token_ids=text.token_ids + 1)
    with pytest.raises(ValueError, match="other tokens"):
        compared([(text, other)])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "mixtral"}, "architecture is olmoe in synthetic and mixtral in other"),
        ({"num_experts": 4}, "num_experts is 8"),
        ({"top_k": 2}, "top_k is 3"),
        ({"moe_layers": (1,)}, "moe_layers is (0, 1)"),
        ({"num_layers": 3}, "num_layers is 2"),
        ({"vocab_size": 95}, "vocab_size is 96"),
        ({"hidden_size": 33}, "hidden_size is 32"),
    ],
)
def test_what_makes_two_models_incomparable_is_named(changes, says):
    other = msgspec.structs.replace(INFO, name="other", **changes)
    assert says in incomparable(INFO, other)


def test_what_quantising_changes_does_not_make_models_incomparable():
    packed = msgspec.structs.replace(
        INFO, name="q4", digest="f" * 16, quantization="4-bit affine", router_bits=4,
        weight_bytes=1, dtype="bfloat16",
    )  # fmt: skip
    assert incomparable(packed, INFO) is None


def test_models_without_routing_have_nothing_to_compare():
    dense = make_model_info(moe_layers=())
    assert "is a dense model" in incomparable(dense, dense)
    unread = msgspec.structs.replace(dense, routing_error="its experts are a list")
    assert "its experts are a list" in incomparable(unread, unread)


def test_the_result_is_json_and_names_both_models():
    rng = np.random.default_rng(7)
    found = compared(list(zip(drawn(rng, 20), drawn(rng, 20), strict=True)))
    document = msgspec.json.decode(msgspec.json.encode(found))
    assert document["reference"]["name"] == document["model"]["name"] == "synthetic"
    assert len(document["layers"]) == 2 and document["overall"]["layer"] is None
    assert "0" in document["null"] and "unrelated routing" in document["null"]
