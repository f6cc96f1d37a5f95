"""A tuned lens is fitted where it may be, to documents that nothing else is judged on."""

from __future__ import annotations

import numpy as np
import pytest

from moetui.analyses.tuned_lens import (
    FidelityRows,
    fidelity_rows,
    fitted_lens,
    lens_fidelity,
    tuned_lens_fit,
    why_not_tuned,
)
from tests.builders import make_model_info
from tests.fake_words import WordForward

VOCABULARY = ["<end>", *(f" {i}" for i in range(60))]
TEXTS = [f" {i} {i} 59" for i in range(40)]


def model(**options: object) -> WordForward:
    rng = np.random.default_rng(0)
    z, tuned = rng.normal(size=(2, 9, 4, len(VOCABULARY)))
    tuned[:, -1] = z[:, -1]
    return WordForward(VOCABULARY, lambda prompt: z, tuned=lambda prompt: tuned, **options)


def fit(of: WordForward, texts: list[str], **options: object) -> object:
    settings = {"fit_documents": 10, "tokens": 2, "asked": None, "seed": 0} | options
    return fitted_lens(of, texts, step=lambda done, total: None, **settings)


def test_wide_models_need_a_million_tokens_unless_it_is_asked_for() -> None:
    narrow, wide = make_model_info(hidden_size=512), make_model_info(hidden_size=513)
    assert why_not_tuned(narrow, 1000) is None
    assert "513 hidden units" in (why_not_tuned(wide, 999_999) or "")
    assert why_not_tuned(wide, 1_000_000) is None


def test_documents_that_stop_the_fit_are_not_fitted_to() -> None:
    of = model()
    found = fit(of, TEXTS)
    (documents, held_out) = of.fitted[0]
    assert len(documents) == 10 and len(held_out) == 3
    assert all(len(ids) == 2 for ids in (*documents, *held_out))
    firsts = [ids[0] for ids in (*documents, *held_out)]
    assert len(set(firsts)) == 13
    expected = np.bincount([1 + i for i in range(40) for _ in range(2)] + [60] * 40, minlength=61)
    assert np.array_equal(found.counts, expected)
    told = tuned_lens_fit(found, None)
    assert (told.corpus_documents, told.corpus_tokens, told.fit_documents) == (40, 120, 10)
    assert told.layers[0].tuned.value == 0.5 and told.layers[0].tuned.ci_low is None


@pytest.mark.parametrize(
    ("texts", "asked", "reason"),
    [(TEXTS, False, "no tuned lens was asked for"), (TEXTS[:19], True, "19 calibration documents")],
)
def test_without_a_fit_there_is_a_reason_and_the_counts(texts, asked, reason) -> None:
    of = model()
    found = fit(of, texts, asked=asked)
    assert found.lens is None and reason in found.reason and not of.fitted
    assert found.counts.sum() == 3 * len(texts)
    assert tuned_lens_fit(found, None).layers == ()


def test_fidelity_is_the_mean_divergence_of_the_positions_read() -> None:
    of = model()
    lens = fit(of, TEXTS).lens
    rows = fidelity_rows(
        of, TEXTS[:30], lens, tokens=3, positions=3, seed=0, step=lambda done, total: None
    )
    found = lens_fidelity([rows], None, seed=0)

    def kl(table: np.ndarray) -> np.ndarray:
        p, q = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (of._logits("")[:3], table))
        return (np.exp(p[:, -1:]) * (p[:, -1:] - q[:3])).sum(-1).mean(0)

    raw, tuned = kl(of._logits("")), kl(of._tuned(""))
    for layer in found.layers[:3]:
        assert layer.tuned is not None and layer.saved is not None
        assert layer.raw.value == pytest.approx(raw[layer.layer], rel=1e-4)
        assert layer.tuned.value == pytest.approx(tuned[layer.layer], rel=1e-4)
        assert layer.saved.value == pytest.approx((raw - tuned)[layer.layer], rel=1e-3)
        assert layer.raw.n_documents == 30 and layer.raw.n_tokens == 90
    assert found.layers[3].raw.value == pytest.approx(0, abs=1e-6)


def test_documents_count_by_their_positions_and_give_an_interval() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, 60)
    raw = rng.gamma(2, size=(60, 2)) * sizes[:, None]
    rows = FidelityRows(raw=raw, tuned=np.empty((0, 2)), positions=sizes)
    first = lens_fidelity([rows], None, seed=0).layers[0]
    assert first.raw.value == pytest.approx(raw[:, 0].sum() / sizes.sum())
    assert first.raw.ci_low is not None and first.raw.ci_low < first.raw.value
    assert first.tuned is None and first.saved is None
