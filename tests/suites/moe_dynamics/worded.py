"""A model that reads words and routes by hand, and documents made of such words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moetui.suites.models import ModelRef
from moetui.trace import ExpertSources, Prompt
from moetui.trace.types import Ints
from tests.fake_forward import FakeForward


class WordedForward(FakeForward):
    """The fake with words: “w7” is token 7, any other word one of the tokens 0 … 3."""

    routes_error = expert_sources_error = None  # type: ignore[assignment]

    def tokenize(self, text: str) -> Ints:
        ids = [
            int(word[1:]) if word[0] == "w" and word[1:].isdigit() else len(word) % 4
            for word in text.split() or ["w0"]
        ]
        return np.array(ids, np.int32)

    def _ids(self, text_or_ids: Prompt) -> list[int]:
        ids = self.tokenize(text_or_ids) if isinstance(text_or_ids, str) else text_or_ids
        return [int(i) for i in ids]

    def routes(self, layer: int, streams: Any) -> Any:
        return np.zeros((len(streams), self.info.top_k), np.int16)

    def expert_sources(self, text_or_ids: Prompt, layer: int) -> ExpertSources:
        raise NotImplementedError


class Only:
    """A source of one model, whatever is asked for."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def identity(self, ref: ModelRef) -> str:
        return ref.name

    def nulls(self, name: str, *, seed: int) -> Sequence[ModelRef]:
        return ()

    def open(self, ref: ModelRef) -> Any:
        return self._model

    def free(self) -> None:
        pass


def corpus(path: Path, shares: dict[int, float], *, count: int = 120, length: int = 24) -> Path:
    """Documents of words, each word as often as `shares` says."""
    rng = np.random.default_rng(0)
    words, p = list(shares), np.array(list(shares.values()))
    lines = []
    for number in range(count):
        drawn = rng.choice(words, length, p=p / p.sum())
        text = " ".join(f"w{word}" for word in drawn)
        domain = ("prose", "code")[number % 2]
        lines.append(json.dumps({"id": str(number), "domain": domain, "text": text}))
    path.write_text("\n".join(lines))
    return path
