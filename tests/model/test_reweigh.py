"""Fewer or more experts, measured by the usual mixture: by numpy, and by blocks built so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import moetui
from moetui.errors import UsageError
from moetui.model import Model
from moetui.trace import Drop, Reweigh, TopK
from tests.model.intervened import IDS, ROUTING, Array, changed, often, plain, tiny, with_k
from tests.reference.values import DATA

ModelOf = Callable[[str], Model]
REFUSED = {
    "bailing_moe", "bailing_moe (groups)", "llama4", "longcat_flash", "longcat_flash_ngram",
}  # fmt: skip
MATCHES = ("each", "sum", "norm")


def by_hand(weights: Array, outputs: Array, keep: int, native: int, match: str, c: Array) -> Array:
    """The weights that a definition in words gives: sorted best first, by loops, in float64.

    c: [T], what natively every weight would be larger by.
    """
    expected = np.zeros(weights.shape)
    for t, (row, f) in enumerate(zip(weights.astype(float), outputs.astype(float), strict=True)):
        usual, kept = c[t] * row[:native], c[t] * row[:keep]
        factor = {
            "each": 1.0,
            "sum": usual.sum() / kept.sum(),
            "norm": np.linalg.norm(usual @ f[:native]) / np.linalg.norm(kept @ f[:keep]),
        }[match]
        expected[t, :keep] = factor * kept
    return expected


@pytest.mark.parametrize("name", often(sorted(set(ROUTING) - REFUSED)))
@pytest.mark.parametrize("match", MATCHES)
def test_fewer_experts_weigh_as_numpy_says_in_every_architecture(name: str, match: Any) -> None:
    model = tiny(name)
    k, layer = model.info.top_k, model.info.moe_layers[0]
    if k == 1:
        pytest.skip("one expert a token")
    before = model.trace(IDS, lens=0, expert_outputs=True)
    one = Reweigh(keep=k - 1, native=k, match=match, layers=(layer,))
    after = model.trace(IDS, lens=0, expert_outputs=True, interventions=[one])
    assert before.expert_outputs is not None
    by_weight = np.argsort(-before.expert_weights[:, 0], axis=-1, kind="stable")
    weights = np.take_along_axis(before.expert_weights[:, 0], by_weight, -1)
    outputs = np.take_along_axis(before.expert_outputs[:, 0], by_weight[..., None], -2)
    expected = by_hand(weights, outputs, k - 1, k, match, np.ones(len(IDS)))
    here = np.take_along_axis(after.expert_weights[:, 0], _places(after, before, by_weight), -1)
    clear = weights[:, k - 2] > weights[:, k - 1] * (1 + 1e-5)
    assert clear.any()
    np.testing.assert_allclose(here[clear], expected[clear], rtol=1e-4, atol=1e-7)


def _places(after: Any, before: Any, by_weight: Array) -> Array:
    """Where the experts, in the order of their former weights, stand now."""
    ids = np.take_along_axis(before.expert_ids[:, 0], by_weight, -1)
    return np.array(
        [[row.tolist().index(e) for e in wanted]
         for row, wanted in zip(after.expert_ids[:, 0], ids, strict=True)]
    )  # fmt: skip


@pytest.mark.parametrize("name", ["demo", "olmoe", "mixtral", "qwen3_moe", "gpt_oss"])
@pytest.mark.parametrize("match", MATCHES)
def test_more_experts_are_measured_by_the_mixture_of_the_usual_number(
    model_of: ModelOf, name: str, match: Any
) -> None:
    """The usual mixture is read from a pass with the usual number, whose weights these models
    make smaller (or do not) when more experts share them."""
    model = model_of(name)
    k, layer = model.info.top_k, model.info.moe_layers[0]
    usual = model.trace(IDS, lens=0, expert_outputs=True)
    changes = [TopK(k=k + 2), Reweigh(keep=k + 2, native=k, match=match, layers=(layer,))]
    wide = model.trace(IDS, lens=0, expert_outputs=True, interventions=changes[:1])
    after = model.trace(IDS, lens=0, expert_outputs=True, interventions=changes)
    assert usual.expert_outputs is not None and wide.expert_outputs is not None
    c = usual.expert_weights[:, 0].sum(-1) / wide.expert_weights[:, 0, :k].sum(-1)
    expected = by_hand(
        wide.expert_weights[:, 0], wide.expert_outputs[:, 0], k + 2, k, match, c.astype(float)
    )
    np.testing.assert_allclose(after.expert_weights[:, 0], expected, rtol=1e-4)
    if match == "norm":
        mixture = np.einsum("tk,tkh->th", after.expert_weights[:, 0], wide.expert_outputs[:, 0])
        native = np.einsum("tk,tkh->th", usual.expert_weights[:, 0], usual.expert_outputs[:, 0])
        lengths = np.linalg.norm(native, axis=-1)
        np.testing.assert_allclose(np.linalg.norm(mixture, axis=-1), lengths, rtol=1e-4)


class Rebuilt:
    """An OLMoE block written anew, which keeps the best experts and scales what they put out."""

    def __init__(self, block: Any, keep: int, match: str) -> None:
        self.block, self.keep, self.match = block, keep, match

    def __call__(self, x: mx.array) -> mx.array:
        flat = x.reshape(-1, x.shape[-1])
        p = mx.softmax(self.block.gate(flat), axis=1, precise=True)
        k = self.block.top_k
        chosen = mx.stop_gradient(mx.argpartition(-p, kth=k - 1, axis=-1)[..., :k])
        w = mx.take_along_axis(p, chosen, axis=-1)
        f = self.block.switch_mlp(flat, chosen)
        least = np.sort(np.array(w), axis=-1)[:, [k - self.keep]]
        kept = mx.array(np.where(np.array(w) >= least, np.array(w), np.float32(0)))
        if self.match == "sum":
            kept = kept * (w.sum(-1, keepdims=True) / kept.sum(-1, keepdims=True))
        if self.match == "norm":
            whole, rest = (v[..., None] * f for v in (w, kept))
            whole, rest = whole.sum(-2), rest.sum(-2)
            kept = kept * (
                mx.sqrt((whole * whole).sum(-1, keepdims=True))
                / mx.sqrt((rest * rest).sum(-1, keepdims=True))
            )
        return (f * kept[..., None]).sum(-2).reshape(x.shape)


@pytest.mark.parametrize("match", MATCHES)
@pytest.mark.parametrize("keep", [1, 3])
def test_it_is_bit_for_bit_a_model_whose_blocks_were_written_so(keep: int, match: Any) -> None:
    model, network = moetui.load("demo"), moetui.load("demo").network
    for layer in network.layers:
        layer.mlp = Rebuilt(layer.mlp, keep, match)
    expected = plain(network, IDS)
    assert not np.array_equal(expected, plain(model.network, IDS))
    assert np.array_equal(changed(model, IDS, Reweigh(keep=keep, native=4, match=match)), expected)


@pytest.mark.parametrize(("name", "match"), [("olmoe", "each"), ("mixtral", "sum")])
def test_what_a_family_does_with_fewer_experts_is_one_of_the_matches(
    model_of: ModelOf, name: str, match: Any
) -> None:
    """OLMoE leaves the weights as they are, Mixtral makes them add up to 1 again."""
    model = tiny(name)
    expected = plain(with_k(name, 1), IDS)
    ours = changed(model, IDS, Reweigh(keep=1, native=2, match=match))
    np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())


def test_where_nothing_is_left_nothing_is_scaled(model_of: ModelOf) -> None:
    model = model_of("mixtral")
    everything = Drop(experts=tuple(range(8)))
    for match in MATCHES:
        one = Reweigh(keep=1, native=2, match=match)  # type: ignore[arg-type]
        assert np.array_equal(changed(model, IDS, everything, one), changed(model, IDS, everything))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_mixtures_that_are_no_weighted_sum_of_a_bank_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not seen there"):
        tiny(name).trace(IDS, interventions=[Reweigh(keep=1, native=2, match="sum")])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (Reweigh(keep=0, native=2, match="sum"), "from 1 on"),
        (Reweigh(keep=1, native=2.5, match="sum"), "from 1 on"),  # type: ignore[arg-type]
        (Reweigh(keep=1, native=2, match="all"), "each, sum or norm"),  # type: ignore[arg-type]
        (Reweigh(keep=1, native=2, match="sum", layers=(99,)), "does not route"),
    ],
)
def test_what_makes_no_sense_is_refused(model_of: ModelOf, change: Reweigh, complaint: str) -> None:
    with pytest.raises(UsageError) as refused:
        model_of("olmoe").trace(IDS, interventions=[change])
    assert complaint in f"{refused.value} {refused.value.hint}"


def test_every_checkpoint_is_told_apart_by_the_sum_of_its_weights(model_of: ModelOf) -> None:
    for name, adds_up in (("olmoe", False), ("mixtral", True), ("demo", False)):
        model = model_of(name)
        sums = model.trace(IDS, lens=0).expert_weights.sum(-1)
        assert (np.ptp(sums) < 1e-5) == adds_up
        assert (DATA / "olmoe").is_dir()
