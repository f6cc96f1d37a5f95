"""A tuned lens reads what a raw lens cannot, and where it is judged it is never the worse one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from moetui.errors import UsageError
from moetui.model import Model
from moetui.model.tuned_lens import Recipe, States, fit, translate
from moetui.trace import TunedLens
from tests.model.test_capture import plain_logits, some_ids

ModelOf = Callable[[str], Model]
H, V = 12, 40
QUICK = Recipe(rank=4, steps=300, tokens=64, rate=2e-2, check=20, held_out=200, patience=20)


class LinearHead:
    """Logits are hidden · W, and no more."""

    def __init__(self, seed: int = 0) -> None:
        self.weight = mx.array(np.random.default_rng(seed).normal(size=(H, V)).astype(np.float32))

    def logits(self, hidden: mx.array) -> mx.array:
        return hidden @ self.weight


def planted(rows: int, seed: int) -> States:
    """Layer 0 holds the last layer's states with two planes turned by 90° (I + rank 4), layer 1
    the same shifted by 5, layer 2 is the last."""
    last = np.random.default_rng(seed).normal(size=(rows, H))
    turned = last.copy()
    turned[:, [0, 1, 2, 3]] = np.stack([-last[:, 1], last[:, 0], -last[:, 3], last[:, 2]], axis=1)
    hidden = np.stack([turned, last + 5 * np.eye(H)[0], last], axis=1)
    return States(hidden.astype(np.float32), documents=rows)


def noise(rows: int, seed: int) -> States:
    """Layers that know nothing of each other, near 0 below: every map off 0 does harm."""
    hidden = np.random.default_rng(seed).normal(size=(rows, 3, H))
    hidden[:, :2] *= 1e-3
    return States(hidden.astype(np.float32), documents=rows)


def kl_reference(head: LinearHead, hidden: np.ndarray, last: np.ndarray) -> float:
    """Mean KL(last ‖ hidden) in nats, in float64."""

    def logprobs(states: np.ndarray) -> np.ndarray:
        z = states.astype(np.float64) @ np.array(head.weight, np.float64)
        return z - np.log(np.exp(z).sum(-1, keepdims=True))

    p, q = logprobs(last), logprobs(hidden)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def test_a_planted_rotation_and_a_shift_are_found_on_states_that_were_never_seen() -> None:
    head = LinearHead()
    lens = fit(head, planted(2000, 1), planted(500, 2), digest="x", seed=0, recipe=QUICK)
    new = planted(400, 3).hidden
    read = np.array(translate(mx.array(new), lens))
    for layer in (0, 1):
        raw = kl_reference(head, new[:, layer], new[:, 2])
        tuned = kl_reference(head, read[:, layer], new[:, 2])
        assert raw > 2 and tuned < 0.02 * raw


def test_no_layer_is_worse_than_raw_on_what_was_held_out_and_the_last_one_is_untouched() -> None:
    head, held_out = LinearHead(), noise(300, 5)
    lens = fit(
        head, noise(30, 4), held_out, digest="x", seed=0, recipe=replace(QUICK, held_out=300)
    )
    read = np.array(translate(mx.array(held_out.hidden), lens))
    for layer in range(2):
        raw = kl_reference(head, held_out.hidden[:, layer], held_out.hidden[:, 2])
        tuned = kl_reference(head, read[:, layer], held_out.hidden[:, 2])
        assert lens.kl_raw[layer] == pytest.approx(raw, rel=1e-4)
        assert lens.kl_tuned[layer] == pytest.approx(tuned, rel=1e-4)
        assert tuned <= raw * (1 + 1e-6)
    assert np.array_equal(read[:, 2], held_out.hidden[:, 2])
    assert (lens.kl_raw[2], lens.kl_tuned[2], lens.steps[2]) == (0, 0, 0)


def test_a_layer_for_which_nothing_helps_keeps_the_identity() -> None:
    hidden = np.random.default_rng(0).normal(size=(300, 2, H)).astype(np.float32)
    hidden[:, 0] = hidden[:, 1]
    same = States(hidden, documents=300)
    lens = fit(LinearHead(), same, same, digest="x", seed=0, recipe=QUICK)
    assert lens.steps.tolist() == [0, 0]
    assert np.array_equal(np.array(translate(mx.array(hidden), lens)), hidden)


def test_the_same_seed_gives_the_same_translators() -> None:
    first, again, other = (
        fit(LinearHead(), planted(100, 1), planted(50, 2), digest="x", seed=seed,
            recipe=replace(QUICK, steps=20))
        for seed in (0, 0, 1)
    )  # fmt: skip
    for name in ("down", "up", "bias", "kl_tuned"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.up, other.up)


@pytest.mark.parametrize("name", ["demo", "mixtral"])
def test_through_identities_words_read_bit_for_bit_as_raw(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    streams, words = leaving(model, some_ids(model, 7)), [0, 5, 17]
    raw = model.read_words(streams, words, in_full=True)
    tuned = model.read_words(streams, words, tuned=identity(model), in_full=True)
    for field in ("logprobs", "ranks", "kl"):
        assert np.array_equal(getattr(raw, field), getattr(tuned, field))


def test_words_read_as_norm_and_head_by_hand(model_of: ModelOf) -> None:
    model = model_of("mixtral")
    ids, words = some_ids(model, 6), [3, 40, 7]
    streams = leaving(model, ids)
    hidden = streams.astype(np.float64)
    network = model.network
    rms = np.sqrt((hidden**2).mean(-1, keepdims=True) + network.model.norm.eps)
    z = hidden / rms * np.array(network.model.norm.weight, np.float64)
    z = z @ np.array(network.lm_head.weight, np.float64).T
    logprobs = z - np.log(np.exp(z).sum(-1, keepdims=True))
    own = plain_logits(model, ids).astype(np.float64)
    own -= np.log(np.exp(own).sum(-1, keepdims=True))
    kl = (np.exp(own)[:, None] * (own[:, None] - logprobs)).sum(-1)
    rows, layers = [5, 2], [1, 0]
    read = model.read_words(streams[rows], words, layers=layers, in_full=True)
    expected = logprobs[rows][:, layers]
    of_words = expected[:, :, words]
    np.testing.assert_allclose(read.logprobs, of_words, atol=1e-4)
    assert read.ranks is not None and read.kl is not None
    assert np.array_equal(read.ranks, (expected[..., None] > of_words[:, :, None]).sum(2))
    np.testing.assert_allclose(read.kl, kl[rows][:, layers], atol=1e-4)
    brief = model.read_words(streams[rows], words, layers=layers)
    assert np.array_equal(brief.logprobs, read.logprobs)
    assert brief.ranks is None and brief.kl is None


def test_a_long_reading_in_pieces_is_the_whole(
    demo: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = leaving(demo, some_ids(demo, 9))
    whole = demo.read_words(streams, [1, 2], in_full=True)
    monkeypatch.setattr(type(demo.lens_reader), "chunk", lambda *sizes: 2)
    pieces = demo.read_words(streams, [1, 2], in_full=True)
    for field in ("logprobs", "ranks", "kl"):
        np.testing.assert_allclose(getattr(whole, field), getattr(pieces, field), atol=1e-5)


def test_fitted_to_texts_a_tuned_lens_is_nearer_to_the_demo_models_output(demo: Model) -> None:
    texts = [some_ids(demo, 24, seed) for seed in range(12)]
    recipe = Recipe(steps=8, tokens=8, check=4, held_out=32, rank=8)
    lens = demo.fit_tuned_lens(texts[:8], texts[8:], seed=0, recipe=recipe)
    assert lens.fit_documents == 8 and lens.fit_tokens == 8 * 24 and lens.held_out_documents == 4
    assert (lens.kl_tuned <= lens.kl_raw).all() and lens.kl_tuned[0] < lens.kl_raw[0]
    assert lens.digest == demo.info.digest


def test_words_streams_and_lenses_that_do_not_fit_are_refused(model_of: ModelOf) -> None:
    demo, other = model_of("demo"), model_of("mixtral")
    streams = leaving(demo, [1, 2])
    with pytest.raises(UsageError, match="no token"):
        demo.read_words(streams, [4096])
    with pytest.raises(UsageError, match="streams of shape"):
        demo.read_words(streams[0], [4])
    with pytest.raises(UsageError, match="another model"):
        demo.read_words(streams, [4], tuned=identity(other))
    with pytest.raises(UsageError, match="held out"):
        demo.fit_tuned_lens([[1, 2]] * 5, [[3]], seed=0)


def test_a_word_is_the_token_that_reads_exactly_so(demo: Model) -> None:
    for text in ("add", " add", " plus", "+", "×", "127", " 127"):
        found = demo.token_id(text)
        assert found is not None and demo.token_text(found) == text
        assert demo.tokenizer.decode([found]) == text
    assert demo.token_id("multiplicationally") is None


def leaving(model: Model, ids: list[int]) -> np.ndarray:
    """The streams that leave every layer, [T, N, H]."""
    streams = model.trace(ids, lens=0, streams=True).streams
    assert streams is not None
    return streams.leaving


def identity(model: Model) -> TunedLens:
    """Translators that add nothing."""
    N, width = model.info.num_layers, model.info.hidden_size
    return TunedLens(
        digest=model.info.digest,
        down=np.ones((N, width, 2), np.float32),
        up=np.zeros((N, 2, width), np.float32),
        bias=np.zeros((N, width), np.float32),
        steps=np.zeros(N, np.int32),
        kl_raw=np.zeros(N),
        kl_tuned=np.zeros(N),
        fit_documents=0,
        fit_tokens=0,
        held_out_documents=0,
        held_out_tokens=0,
        seed=0,
    )
