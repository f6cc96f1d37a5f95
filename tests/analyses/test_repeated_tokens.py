"""Predictions exchanged among equal tokens of a document."""

import numpy as np
import pytest

from moetui.analyses.repeated_tokens import Repeated

E, K = 6, 2


def drawn(seed=0, n=400, D=40):
    rng = np.random.default_rng(seed)
    documents, tokens = np.sort(rng.integers(0, D, n)), rng.integers(0, 4, n).astype(np.int32)
    experts = np.argsort(rng.random((n, E)), axis=1)[:, :K].astype(np.int16)
    return rng.random((n, E)), experts, documents, tokens


def counted(scores, experts, documents, tokens):
    """Own and equals' recall of every token with an equal in its document, pair by pair."""
    own, other = [], []
    for t in range(len(tokens)):
        equals = [
            i
            for i in range(len(tokens))
            if i != t and (documents[i], tokens[i]) == (documents[t], tokens[t])
        ]
        hits = [
            len(set(np.argsort(-scores[i])[:K].tolist()) & set(experts[t].tolist()))
            for i in (t, *equals)
        ]
        if equals:
            own.append(hits[0] / K)
            other.append(np.mean(hits[1:]) / K)
    return np.mean(own) - np.mean(other)


def test_what_is_lost_is_what_counting_pairs_gives():
    scores, experts, documents, tokens = drawn()
    scores[np.arange(400), experts[:, 0]] += 0.5
    found = Repeated.of(scores, experts, documents, tokens).lost(seed=0)
    assert found.value == pytest.approx(counted(scores, experts, documents, tokens))
    assert found.ci_low > 0.05 and found.null_mean == 0
    pairs = list(zip(documents.tolist(), tokens.tolist(), strict=True))
    assert found.n_tokens == sum(pairs.count(pair) > 1 for pair in pairs) < 400


def test_experts_of_token_and_document_lose_nothing_and_have_no_interval():
    scores, experts, documents, tokens = drawn(1)
    same = np.unique(np.stack([documents, tokens]), axis=1, return_inverse=True)[1].reshape(-1)
    found = Repeated.of(scores, experts[same], documents, tokens)
    lost = found.lost(seed=0)
    # Not even by rounding: a third of a hit, three times, is a hit.
    assert lost.value == 0 and lost.ci_low is None


def test_without_repeats_there_is_no_value():
    scores, experts, documents, _ = drawn(2)
    tokens = np.arange(400, dtype=np.int32)
    assert Repeated.of(scores, experts, documents, tokens).lost(seed=0).value is None


def test_layers_are_pooled():
    one, other = (Repeated.of(*drawn(seed)) for seed in (3, 3))
    both = Repeated.over([one, other])
    assert both.totals.sum() == 2 * one.totals.sum()
    assert both.lost(seed=0).value == one.lost(seed=0).value
