"""Likelihood and divergence are those of the model's plain logits."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from moetui.errors import UsageError
from moetui.model import Model, likelihood
from moetui.trace import Ban, Drop, Merge, TopK
from tests.model.conftest import FAMILIES
from tests.model.intervened import IDS, changed, plain
from tests.model.test_capture import some_ids
from tests.model.test_lens import log_softmax

ModelOf = Callable[[str], Model]
CHECKPOINTS = ("demo", "demo-dense", *FAMILIES)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_nll_is_the_log_softmax_of_the_plain_logits(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    ids = some_ids(model, 40)
    logprobs = log_softmax(plain(model.network, ids))
    expected = -logprobs[np.arange(39), ids[1:]]
    ours = model.nll(ids)
    assert ours.dtype == np.float32 and ours.shape == (39,)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_nll_of_a_text_is_that_of_its_tokens(demo: Model) -> None:
    text = "The capital of France is"
    assert np.array_equal(demo.nll(text), demo.nll(demo.tokenize(text)))


@pytest.mark.parametrize("name", ["demo", *FAMILIES])
def test_kl_is_the_divergence_of_two_plain_softmaxes(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    ids = some_ids(model, 40)
    for one in (TopK(k=1), Ban(experts=(0, 1)), Merge(experts=(2, 3))):
        p, q = log_softmax(plain(model.network, ids)), log_softmax(changed(model, ids, one))
        ours = model.kl(ids, [one])
        assert ours.dtype == np.float32 and ours.shape == (40,) and (ours >= 0).all()
        np.testing.assert_allclose(ours, (np.exp(p) * (p - q)).sum(-1), atol=1e-10, rtol=1e-4)
        expected = -q[np.arange(39), ids[1:]]
        np.testing.assert_allclose(model.nll(ids, [one]), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["demo", *FAMILIES])
def test_kl_of_what_changes_nothing_is_exactly_zero(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    assert not model.kl(IDS, []).any()
    assert not model.kl(IDS, [TopK(k=model.info.top_k), Drop(experts=())]).any()


def test_a_long_text_in_several_passes_is_the_same_text(
    demo: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    nll, kl = demo.nll(IDS), demo.kl(IDS, [TopK(k=1)])
    lengths: list[int] = []
    original = type(demo.network).__call__

    def counted(self: object, inputs: mx.array, **kwargs: object) -> mx.array:
        lengths.append(inputs.shape[1])
        return original(self, inputs, **kwargs)

    monkeypatch.setattr(type(demo.network), "__call__", counted)
    # As with a large vocabulary: logits of 7 rows at once.
    monkeypatch.setattr(likelihood, "_LOGITS_AT_ONCE", 7 * demo.vocab_size + 1)
    np.testing.assert_allclose(demo.nll(IDS), nll, atol=1e-5)
    assert lengths == [7, 7, 7, 7, 1]
    np.testing.assert_allclose(demo.kl(IDS, [TopK(k=1)]), kl, atol=1e-5)


def test_a_block_around_both_is_in_both(demo: Model) -> None:
    with demo.intervene(TopK(k=1)):
        inside = demo.kl(IDS, [Drop(experts=(3,))])
        likely = demo.nll(IDS)
    p = log_softmax(changed(demo, IDS, TopK(k=1)))
    q = log_softmax(changed(demo, IDS, TopK(k=1), Drop(experts=(3,))))
    np.testing.assert_allclose(inside, (np.exp(p) * (p - q)).sum(-1), atol=1e-10, rtol=1e-4)
    assert np.array_equal(likely, demo.nll(IDS, [TopK(k=1)]))


@pytest.mark.parametrize("size", [1e-5, 1e-3, 1.0, 30.0, 300.0])
def test_divergences_are_exact_from_the_smallest_to_the_largest(size: float) -> None:
    draw = np.random.default_rng(8)
    z = (10 * draw.normal(size=(50, 400))).astype(np.float32)
    changed = (z + 5 + size * draw.normal(size=z.shape)).astype(np.float32)
    p, q = log_softmax(z), log_softmax(changed)
    ours = np.array(likelihood.divergence(mx.array(z), mx.array(changed)))
    np.testing.assert_allclose(ours, (np.exp(p) * (p - q)).sum(-1), rtol=1e-3, atol=1e-15)
    assert not np.array(likelihood.divergence(mx.array(z), mx.array(z))).any()


def test_what_a_model_rules_out_counts_as_it_must() -> None:
    """A logit of -inf has no share in the divergence; one that P' alone allows takes from it."""
    inf = -np.inf
    z = mx.array([[0.0, 1.0, inf], [0.0, 1.0, inf]])
    changed = mx.array([[1.0, 0.0, inf], [0.0, 1.0, 0.5]])
    p = np.array([1, np.e]) / (1 + np.e)
    expected = [(p * np.log(p / p[::-1])).sum(), np.log1p(np.exp(0.5) / (1 + np.e))]
    ours = np.array(likelihood.divergence(z, changed))
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_one_token_predicts_nothing_that_is_known(demo: Model) -> None:
    assert demo.nll([7]).shape == (0,)
    assert demo.kl([7], [TopK(k=1)]).shape == (1,)
    with pytest.raises(UsageError, match="empty"):
        demo.nll("")
