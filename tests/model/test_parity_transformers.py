"""moetui's trace equals what transformers with torch computes, field by field.

The other side is committed (see `tests/reference`), so that torch is not needed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import moetui
from moetui.trace import Trace
from tests.conftest import LargestErrors
from tests.reference import values
from tests.reference.values import Array, Prompt, Reference

# The largest allowed difference, relative to the largest value of the field in the prompt.
# Both sides compute in float32 (unit roundoff 6e-8) and sum up to a few hundred products per
# layer in another order; over the layers of the residual stream that grows to about 1e-6.
# A wrong RoPE base, a missing mask or a forgotten bias shows above 1e-2.
TOLERANCE = {
    "logits": 1e-5,
    "router_logits": 1e-5,
    "selection_scores": 1e-5,
    # Probabilities: absolute, since their scale is 1 whatever the prompt.
    "expert_weights": 1e-5,
    "attention": 1e-5,
    "entering": 1e-5,
    "at_router": 1e-5,
    "leaving": 1e-5,
    "router_input": 1e-5,
    "expert_outputs": 1e-5,
    "lens_logprobs": 1e-5,
}


@dataclass
class Pair:
    """A reference and moetui's own traces of the same prompts, everything captured."""

    reference: Reference
    model: Any
    traces: list[Trace]
    errors: LargestErrors

    def __iter__(self) -> Iterator[tuple[Prompt, Trace]]:
        return iter(zip(self.reference.prompts, self.traces, strict=True))

    def assert_close(self, name: str, ours: Array | None, theirs: Array) -> None:
        assert ours is not None, f"{name} was not captured"
        assert ours.shape == theirs.shape, name
        # NaN stands for what a layer does not have: attention, where it mixes in another way.
        absent = np.isnan(theirs)
        assert np.array_equal(absent, np.isnan(ours)), name
        ours, theirs = ours[~absent], theirs[~absent]
        assert np.isfinite(ours).all(), name
        scale = np.abs(theirs).max(initial=1e-9)
        error = float(np.abs(ours - theirs).max(initial=0.0) / scale)
        self.errors.note(self.reference.name, name, error)
        assert error <= TOLERANCE[name], f"{name}: {error:.1e} of its largest value"


@pytest.fixture(scope="module", params=values.names())
def pair(request: pytest.FixtureRequest, errors: LargestErrors) -> Pair:
    reference = values.reference(request.param)
    model = moetui.load(str(reference.folder))
    traces = [
        model.trace(prompt.ids, streams=True, attention=True, expert_outputs=reference.is_moe)
        for prompt in reference.prompts
    ]
    return Pair(reference, model, traces, errors)


def test_reference_belongs_to_these_weights(pair: Pair) -> None:
    assert pair.reference.belongs_to_weights(), (
        "values and weights differ: python tests/reference/make.py --only " + pair.reference.name
    )


def test_the_same_layers_route(pair: Pair) -> None:
    for prompt, trace in pair:
        assert trace.layers.tolist() == prompt["layers"].tolist()
        assert pair.model.info.moe_layers == tuple(prompt["layers"])
        assert trace.token_ids.tolist() == prompt.ids


def test_logits_of_the_last_token(pair: Pair) -> None:
    for prompt, trace in pair:
        pair.assert_close("logits", trace.logits, prompt["logits"][-1])


def test_logits_after_every_third_token_of_the_longest_prompt(pair: Pair) -> None:
    prompt = max(pair.reference.prompts, key=len)
    for length in range(1, len(prompt), 3):
        trace = pair.model.trace(prompt.ids[:length])
        pair.assert_close("logits", trace.logits, prompt["logits"][length - 1])


def test_generation_token_by_token_goes_where_full_passes_go(pair: Pair) -> None:
    """With a cache, past the end of a sliding window; transformers ran without one."""
    for prompt in (p for p in pair.reference.prompts if p.generated):
        start = len(prompt) - prompt.generated
        generation = pair.model.generate(prompt.ids[:start], prompt.generated)
        steps = list(generation)
        assert [int(step.token_ids[0]) for step in steps] == prompt.ids[start:]
        pair.assert_close("logits", generation.prompt.logits, prompt["logits"][start - 1])
        for row, step in enumerate(steps, start):
            pair.assert_close("logits", step.logits, prompt["logits"][row])
            if pair.reference.is_moe:
                logits, ids = prompt["router_logits"][[row]], prompt["expert_ids"][[row]]
                pair.assert_close("router_logits", step.router_logits, logits)
                assert np.array_equal(step.expert_ids, ids)


def test_residual_streams(pair: Pair) -> None:
    for prompt, trace in pair:
        assert trace.streams is not None
        pair.assert_close("entering", trace.streams.entering, prompt["entering"])
        pair.assert_close("at_router", trace.streams.at_router, prompt["at_router"])
        pair.assert_close("leaving", trace.streams.leaving, prompt["leaving"])


def test_attention_probabilities(pair: Pair) -> None:
    for prompt, trace in pair:
        pair.assert_close("attention", trace.attention, prompt["attention"])


def test_lens_reads_what_norm_and_head_give_after_every_layer(pair: Pair) -> None:
    compared = cells = 0
    for prompt, trace in pair:
        assert trace.lens is not None
        top = trace.lens.token_ids.shape[-1]
        best, ids = prompt["lens_logprobs"], prompt["lens_token_ids"]
        pair.assert_close("lens_logprobs", trace.lens.logprobs, best[..., :top])
        # Two tokens may be equally probable; where they are not, the order is the same.
        apart = (-np.diff(best[..., : top + 1], axis=-1)).min(-1) > values.CLEAR
        assert np.array_equal(trace.lens.token_ids[apart], ids[..., :top][apart])
        compared, cells = compared + apart.sum(), cells + apart.size
    assert compared > 0.9 * cells


def test_text_becomes_the_tokens_that_transformers_makes(pair: Pair) -> None:
    for text, prompt in zip(pair.reference.texts, pair.reference.prompts, strict=False):
        assert pair.model.trace(text).token_ids.tolist() == prompt.ids


def test_dense_model_has_no_routing(pair: Pair) -> None:
    if pair.reference.is_moe:
        assert pair.model.info.is_moe
        return
    for _, trace in pair:
        assert not pair.model.info.is_moe
        assert trace.router_logits.shape[1] == trace.expert_ids.shape[1] == 0


def test_routers_receive_and_return_the_same(pair: Pair) -> None:
    for prompt, trace in _routed(pair):
        assert trace.streams is not None
        pair.assert_close("router_input", trace.streams.router_input, prompt["router_input"])
        pair.assert_close("router_logits", trace.router_logits, prompt["router_logits"])


def test_scores_that_rank_experts_otherwise_than_their_logits(pair: Pair) -> None:
    """A correction bias, or groups of experts that are passed over as a whole."""
    for prompt, trace in _routed(pair):
        if "selection_scores" not in prompt.arrays:
            continue
        ours, theirs = trace.selection_scores, prompt["selection_scores"]
        assert ours is not None
        # The two mark a group that is passed over in different ways; both rank it last.
        eligible = np.isfinite(theirs)
        pair.assert_close("selection_scores", ours[eligible], theirs[eligible])
        selected = np.take_along_axis(ours, prompt["expert_ids"].astype(int), -1)
        passed_over = np.where(eligible, -np.inf, ours)
        assert (passed_over.max(-1) < selected.min(-1)).all()


def test_the_same_experts_in_the_same_order(pair: Pair) -> None:
    for prompt, trace in _routed(pair):
        clear = prompt.clear_cut
        # The random families are made so that every choice is clear; training makes no promise.
        assert clear.all() or (pair.reference.name == "demo" and clear.mean() > 0.8)
        assert trace.expert_ids.shape == prompt["expert_ids"].shape
        assert np.array_equal(trace.expert_ids[clear], prompt["expert_ids"][clear])


def test_the_same_weights_on_the_same_experts(pair: Pair) -> None:
    for prompt, trace in _routed(pair):
        clear = prompt.clear_cut
        ours, theirs = trace.expert_weights[clear], prompt["expert_weights"][clear]
        pair.assert_close("expert_weights", ours, theirs)


def test_each_selected_expert_gives_the_same_output(pair: Pair) -> None:
    for prompt, trace in _routed(pair):
        if "expert_outputs" in prompt.arrays:
            pair.assert_close("expert_outputs", trace.expert_outputs, prompt["expert_outputs"])


def _routed(pair: Pair) -> list[tuple[Prompt, Trace]]:
    return list(pair) if pair.reference.is_moe else []
