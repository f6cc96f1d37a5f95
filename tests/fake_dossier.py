"""A model whose experts write one token each, and the dossier of an expert that all is known of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moetui.analyses.documents_read import Text
from moetui.analyses.expert_dossier import DossierRequest, DossierSoFar, expert_dossier
from moetui.trace import ModelInfo, Prompt, Trace, WordReadout
from moetui.trace.types import Floats, Ints
from tests.fake_forward import FakeForward, log_probabilities


class WritingForward(FakeForward):
    """A `FakeForward` that reads texts of token numbers. The stream has a direction for each
    expert; expert e puts out 2 along its own, and the head reads direction e as token e."""

    def __init__(self, **shape: Any) -> None:
        super().__init__(hidden_size=shape.get("experts", 24), **shape)

    def tokenize(self, text: str) -> Ints:
        return np.array([int(word) for word in text.split()], np.int32)

    def trace(self, text_or_ids: Prompt, **options: Any) -> Trace:  # type: ignore[override]
        trace = super().trace(text_or_ids, **{**options, "expert_outputs": False})
        eye = 2 * np.eye(self.info.num_experts, dtype=np.float32)
        return replace(trace, expert_outputs=eye[trace.expert_ids.astype(int)])

    def read_words(
        self, streams: Floats, token_ids: Sequence[int] | Ints, *, layers: Any, **_: Any
    ) -> WordReadout:
        words = np.asarray(token_ids, np.int32)
        logits = np.zeros((len(streams), self.info.vocab_size))
        logits[:, : self.info.num_experts] = streams[:, layers[0]]
        found = log_probabilities(logits)[:, None, words].astype(np.float32)
        at = np.array(layers, np.int32)
        return WordReadout(layers=at, token_ids=words, logprobs=found, ranks=None, kl=None)


def texts(count: int, length: int, tokens: int, seed: int) -> list[Text]:
    """Documents of random token numbers, of two domains in turn."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, tokens, (count, length)).tolist()
    return [
        Text(id=f"{i}", domain=("code", "prose")[i % 2], text=" ".join(map(str, row)))
        for i, row in enumerate(rows)
    ]


def request(layer: int = 0, expert: int = 1, *, documents: int = 24, **changes: Any) -> Any:
    """A request on random documents of 12 tokens, of 16 different ones."""
    fields = {
        "layer": layer,
        "expert": expert,
        "evaluation": texts(documents, 12, 16, seed=1),
        "calibration": texts(documents, 12, 16, seed=2),
    }
    return DossierRequest(**{**fields, **changes})


def make_dossier(model: ModelInfo, *, at: int = -1) -> DossierSoFar:
    """A dossier of expert 0 of the first routing layer of a model of that shape; with `at`, not
    finished, after that many of four documents without the expert."""
    forward = WritingForward(
        layers=model.num_layers,
        experts=model.num_experts,
        k=model.top_k,
        moe_layers=model.moe_layers,
        vocabulary=max(96, model.num_experts),
        push=np.random.default_rng(0).normal(size=(model.num_layers, model.num_experts)),
    )
    asked = request(model.moe_layers[0], 0, documents=4)
    found = [one for one in expert_dossier(forward, asked) if one.dossier is not None]
    return found[at]
