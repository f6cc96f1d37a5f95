"""mlx-lm on the bundled weights gives the figures that torch and Transformers gave."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import product

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models.cache import make_prompt_cache

from moetui.demo import DOMAINS, NAMES

ANSWER_TOKENS = 3
SIGNS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
}


def mean_losses(model, tokenizer, documents, limit):
    """Mean cross-entropy by domain over the first ``limit`` tokens of each document."""
    sums, counts = defaultdict(float), defaultdict(int)
    for document in documents:
        ids = mx.array([tokenizer.encode(document.text).ids[:limit]])
        losses = nn.losses.cross_entropy(model(ids[:, :-1]), ids[:, 1:])
        sums[document.domain] += losses.sum().item()
        counts[document.domain] += losses.size
    return {domain: sums[domain] / counts[domain] for domain in DOMAINS}


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_on_held_out_text_is_the_cards(models, tokenizer, evaluation, card, name):
    spot = card["spot_check"]
    documents = [
        document
        for domain in DOMAINS
        for document in [d for d in evaluation if d.domain == domain][
            : spot["documents_per_domain"]
        ]
    ]
    losses = mean_losses(models[name], tokenizer, documents, spot["tokens_per_document"])
    assert losses == pytest.approx(spot["cross_entropy"][name], abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_on_the_whole_evaluation_split_is_the_cards(
    models, tokenizer, evaluation, card, name
):
    losses = mean_losses(models[name], tokenizer, evaluation, 512)
    assert losses == pytest.approx(card["cross_entropy"][name], abs=0.01)


def one_digit_problems(sign):
    pairs = list(product(range(10), repeat=2))
    if sign == "/":
        return [(a * b, b) for a, b in pairs if b > 0]
    if sign == "-":
        return [(a, b) for a, b in pairs if a >= b]
    return pairs


def right_answers(model, tokenizer, sign, ending):
    """How many of the one-digit problems the greedy continuation answers, and of how many."""
    problems = one_digit_problems(sign)
    prompts = [tokenizer.encode(f"{a} {sign} {b} ={ending}").ids for a, b in problems]
    assert len({len(prompt) for prompt in prompts}) == 1
    cache = make_prompt_cache(model)
    tokens, written = mx.array(prompts), []
    for _ in range(ANSWER_TOKENS):
        tokens = model(tokens, cache=cache)[:, -1:].argmax(-1)
        written.append(tokens[:, 0].tolist())
    right = 0
    for (a, b), answer in zip(problems, zip(*written, strict=True), strict=True):
        number = re.match(r"\s*(-?\d+)", tokenizer.decode(list(answer)))
        right += number is not None and int(number.group(1)) == SIGNS[sign](a, b)
    return right, len(problems)


@pytest.mark.parametrize("ending", ["", " "])
@pytest.mark.parametrize("name", NAMES)
def test_one_digit_arithmetic_is_as_right_as_the_card_says(models, tokenizer, card, name, ending):
    measured = {sign: right_answers(models[name], tokenizer, sign, ending) for sign in SIGNS}
    figures = card["arithmetic"][name]["one_digit"][f"={ending}"]
    assert measured == {sign: (figures[sign]["correct"], figures[sign]["n"]) for sign in SIGNS}


def test_trained_loss_is_far_below_the_untrained_one(card):
    for domain in DOMAINS:
        losses = {name: card["cross_entropy"][name][domain] for name in (*NAMES, "untrained")}
        assert max(losses["demo"], losses["demo-dense"]) < 0.6 * losses["untrained"]
