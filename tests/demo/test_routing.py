"""The demo model's routers do different things in different domains, and some experts are rare."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from moetui.demo import DOMAINS

EXPERTS, ACTIVE = 16, 4
PERMUTATIONS = 199


class RecordingRouter(nn.Module):
    """A router that keeps the logits it gave."""

    def __init__(self, router, kept):
        super().__init__()
        self.router, self._kept = router, kept

    def __call__(self, x):
        logits = self.router(x)
        self._kept.append(logits)
        return logits


@pytest.fixture(scope="module")
def selections(models, tokenizer, evaluation, card):
    """Selection counts [documents, layers, experts], tokens [documents], domains [documents]."""
    spot, model, kept = card["spot_check"], models["demo"], []
    routers = [layer.mlp.gate for layer in model.layers]
    documents = [
        document
        for domain in DOMAINS
        for document in [d for d in evaluation if d.domain == domain][
            : spot["documents_per_domain"]
        ]
    ]
    counts, tokens = [], []
    for layer, router in zip(model.layers, routers, strict=True):
        layer.mlp.gate = RecordingRouter(router, kept)
    try:
        for document in documents:
            kept.clear()
            ids = tokenizer.encode(document.text).ids[: spot["tokens_per_document"]]
            mx.eval(model.model(mx.array([ids])))
            logits = np.stack([np.array(z).reshape(-1, EXPERTS) for z in kept])
            chosen = np.argsort(-logits, axis=-1)[..., :ACTIVE]
            counts.append([np.bincount(c.ravel(), minlength=EXPERTS) for c in chosen])
            tokens.append(len(ids))
    finally:
        for layer, router in zip(model.layers, routers, strict=True):
            layer.mlp.gate = router
    labels = np.array([DOMAINS.index(document.domain) for document in documents])
    return np.array(counts, dtype=float), np.array(tokens), labels


def information(counts, labels):
    """Mutual information of domain and expert in bits by layer, every domain weighing the same."""
    given = np.stack([counts[labels == d].sum(0) for d in range(len(DOMAINS))])
    given /= given.sum(-1, keepdims=True)
    overall = given.mean(0, keepdims=True)
    ratio = np.divide(given, overall, out=np.ones_like(given), where=given > 0)
    return (given * np.log2(ratio)).sum(-1).mean(0)


@pytest.fixture(scope="module")
def shuffled(selections):
    """Information with the documents' domains shuffled: [permutations, layers]."""
    counts, _, labels = selections
    rng = np.random.default_rng(0)
    draws = range(PERMUTATIONS)
    return np.stack([information(counts, rng.permutation(labels)) for _ in draws])


def test_routing_depends_on_the_domain_more_than_shuffled_documents_allow(selections, shuffled):
    counts, _, labels = selections
    # p = 1/200 in every layer: no shuffle of the documents comes near
    assert (information(counts, labels) > shuffled.max(0)).all()


def test_domain_information_is_near_the_cards_for_the_whole_split(selections, shuffled, card):
    counts, _, labels = selections
    figures = card["routing"]["demo"]["domain_information"]
    whole = np.array(figures["bits"]) - np.array(figures["permutation_mean"])
    # A few tokens of a few documents: biased upwards, which the mean of the shuffles takes off
    assert np.abs(information(counts, labels) - shuffled.mean(0) - whole).max() < 0.15


def test_some_experts_are_rare_while_others_are_busy(selections):
    counts, tokens, _ = selections
    shares = counts.sum(0) / tokens.sum()
    np.testing.assert_allclose(shares.sum(-1), ACTIVE)
    rare_and_busy = (shares.min(-1) < 0.01) & (shares.max(-1) > 1.5 * ACTIVE / EXPERTS)
    assert rare_and_busy.any()


def test_an_expert_that_is_cold_in_one_domain_is_in_use_in_another(selections):
    counts, tokens, labels = selections
    shares = np.stack(
        [counts[labels == d].sum(0) / tokens[labels == d].sum() for d in range(len(DOMAINS))]
    )
    conditional = (shares.min(0) < 0.01) & (shares.max(0) > ACTIVE / EXPERTS)
    assert conditional.any()


def test_the_trained_network_is_more_domain_dependent_than_the_untrained_one(card):
    trained, untrained = (
        np.array(card["routing"][name]["domain_information"]["bits"])
        for name in ("demo", "untrained")
    )
    assert trained.mean() > untrained.mean()
