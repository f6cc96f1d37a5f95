"""Generation with capture is mlx-lm's own greedy generation, row by row."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.generate import generate_step

import moetui
from moetui.demo import checkpoint
from moetui.model import Model
from moetui.trace import Ending, join
from tests.model.conftest import FAMILIES
from tests.model.test_capture import margins, plain_logits, scale, some_ids, state_of

ModelOf = Callable[[str], Model]
PROMPTS = ("127 + 45 =", "def fibonacci(n):", "The capital of France is", "What is 6 * 7?")


def plain_generation(model: Model, ids: list[int], count: int) -> list[int]:
    steps = generate_step(mx.array(ids), model.network, max_tokens=count)
    tokens: list[int] = []
    for token, _ in steps:
        tokens.append(int(token))
        if token in model.tokenizer.eos_token_ids:
            break
    return tokens


@pytest.mark.parametrize("name", ["demo", "demo-dense"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_capture_generates_exactly_the_tokens_of_plain_mlx_lm(
    model_of: ModelOf, name: str, prompt: str
) -> None:
    model = model_of(name)
    traced = [int(step.token_ids[0]) for step in model.generate(prompt, 40)]
    assert traced == plain_generation(model, model.tokenize(prompt).tolist(), 40)


@pytest.mark.parametrize("name", FAMILIES)
def test_so_it_does_on_random_checkpoints(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    ids = some_ids(model, 6)
    traced = [int(step.token_ids[0]) for step in model.generate(ids, 12)]
    assert traced == plain_generation(model, ids, 12)


@pytest.mark.parametrize("name", ["demo", *FAMILIES])
def test_cached_decoding_shows_what_a_full_forward_shows(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    generation = model.generate(some_ids(model, 5), 12)
    stepwise = join([generation.prompt, *generation])
    whole = model.trace(stepwise.token_ids)
    for field in ("router_logits", "expert_weights", "router_parts", "logits"):
        one, other = getattr(stepwise, field), getattr(whole, field)
        np.testing.assert_allclose(one, other, atol=1e-4 * scale(other), err_msg=field)
    clear = margins(whole) > 1e-4 * scale(whole.router_logits)
    assert np.array_equal(stepwise.expert_ids[clear], whole.expert_ids[clear])
    assert stepwise.lens is not None and whole.lens is not None
    np.testing.assert_allclose(stepwise.lens.logprobs, whole.lens.logprobs, atol=2e-3)


def test_a_continuation_is_the_text_of_mlx_lms_greedy_tokens(demo: Model) -> None:
    for prompt in PROMPTS:
        ids = plain_generation(demo, demo.tokenize(prompt).tolist(), 12)
        assert demo.continuation(prompt, 12) == demo.tokenizer.decode(ids)


def test_a_continuation_ends_as_soon_as_it_may(demo: Model) -> None:
    whole = demo.continuation("The capital of France is", 12)
    ended = demo.continuation("The capital of France is", 12, until=lambda text: "." in text)
    assert ended == whole[: whole.index(".") + 1] == " Paris."


def test_a_token_that_ends_the_text_is_no_part_of_the_continuation(
    demo: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The full stop after "Paris", declared to end the text.
    stop = demo.tokenize(" Paris.").tolist()[-1]
    monkeypatch.setattr(demo.tokenizer, "_eos_token_ids", {stop})
    assert demo.continuation("The capital of France is", 12) == " Paris"


def test_each_row_predicts_the_token_that_follows(demo: Model) -> None:
    steps = list(demo.generate("5 + 3 =", 10))
    for one, following in pairwise(steps):
        assert int(one.logits.argmax()) == int(following.token_ids[0])


def test_the_prompts_trace_is_that_of_trace(demo: Model) -> None:
    prompt = demo.generate(PROMPTS[0], 0).prompt
    trace = demo.trace(PROMPTS[0])
    assert np.array_equal(prompt.router_logits, trace.router_logits)
    assert np.array_equal(prompt.logits, trace.logits)
    assert prompt.prompt_tokens == len(prompt) == len(trace)


def test_no_tokens_asked_is_none_generated(demo: Model) -> None:
    generation = demo.generate("5 + 3 =", 0)
    assert list(generation) == []
    assert generation.ending is Ending.LENGTH


def test_cancelling_ends_a_generation_before_the_next_token(demo: Model) -> None:
    stop = threading.Event()
    generation = demo.generate("Once upon a time", 50, cancel=stop)
    seen = []
    for step in generation:
        seen.append(step)
        if len(seen) == 3:
            stop.set()
    assert len(seen) == 3
    assert generation.ending is Ending.CANCELLED


def test_the_end_of_text_token_ends_a_generation(
    demo: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = int(list(demo.generate("5 + 3 =", 3))[-1].token_ids[0])
    before = [int(step.token_ids[0]) for step in demo.generate("5 + 3 =", 20)]
    monkeypatch.setattr(demo, "tokenizer", _WithEnd(demo.tokenizer, {third}))
    generation = demo.generate("5 + 3 =", 20)
    tokens = [int(step.token_ids[0]) for step in generation]
    assert tokens == before[: before.index(third) + 1]
    assert generation.ending is Ending.END_OF_TEXT


class _WithEnd:
    """A tokenizer with other end-of-text tokens."""

    def __init__(self, tokenizer: object, ends: set[int]) -> None:
        self._tokenizer, self.eos_token_ids = tokenizer, ends

    def __getattr__(self, name: str) -> object:
        return getattr(self._tokenizer, name)


def test_a_generation_that_is_abandoned_leaves_the_model_untouched(demo: Model) -> None:
    before = state_of(demo)
    steps = iter(demo.generate("The quick brown fox", 30))
    next(steps)
    next(steps)
    assert state_of(demo) == before
    assert np.array_equal(demo.trace([9, 8, 7]).logits, plain_logits(demo, [9, 8, 7])[-1])
    following = next(steps)  # and it can go on
    assert len(following) == 1


def test_a_prompt_longer_than_one_prefill_pass_is_traced_whole(
    demo: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moetui.model import model as model_module

    ids = some_ids(demo, 50)
    whole = demo.trace(ids)
    monkeypatch.setattr(model_module, "PREFILL", 16)
    parts = demo.trace(ids)
    assert len(parts) == 50 and parts.prompt_tokens == 50
    np.testing.assert_allclose(
        parts.router_logits, whole.router_logits, atol=1e-4 * scale(whole.router_logits)
    )
    assert parts.lens is not None
    assert parts.lens.positions.tolist() == list(range(50))
    monkeypatch.setattr(model_module, "LENS_LIMIT", 20)
    last = demo.trace(ids).lens
    assert last is not None and last.positions.tolist() == [49]
    kept = demo.trace(ids, streams=True, attention=True)
    assert kept.streams is not None and kept.streams.leaving.shape[0] == 50
    assert kept.attention is not None and kept.attention.shape[-2:] == (50, 50)


def test_every_token_that_the_checkpoint_says_ends_a_text_ends_it(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(checkpoint("demo"), folder)
    plain = moetui.load("demo").generate("127 + 45 =", 8)
    written = [int(step.token_ids[0]) for step in plain]
    third = written[2]
    settings = {"eos_token_id": [0, third], "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    ended = moetui.load(folder).generate("127 + 45 =", 8)
    assert [int(step.token_ids[0]) for step in ended] == written[: written.index(third) + 1]
    assert ended.ending is Ending.END_OF_TEXT


@pytest.mark.parametrize("name", ["demo", *FAMILIES])
def test_a_generated_text_is_its_prompt_and_its_steps(model_of: ModelOf, name: str) -> None:
    model = model_of(name)
    ids = some_ids(model, 5)
    found = model.generated(ids, 6)
    generation = model.generate(ids, 6)
    stepwise = [generation.prompt, *generation]
    assert found.prompt_tokens == 5
    assert found.token_ids.tolist() == [int(i) for step in stepwise for i in step.token_ids]
    np.testing.assert_array_equal(
        found.expert_ids, np.concatenate([step.expert_ids for step in stepwise])
    )
    np.testing.assert_array_equal(found.logits, stepwise[-1].logits)
