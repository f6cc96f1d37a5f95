"""Models that the engine's tests share: loading each once keeps the suite quick."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import moetui
from moetui.model import Model
from tests.reference.values import DATA

FAMILIES = ("olmoe", "mixtral", "qwen3_moe", "gpt_oss")


@pytest.fixture(scope="session")
def demo() -> Model:
    return moetui.load("demo")


@pytest.fixture(scope="session")
def model_of() -> Callable[[str], Model]:
    loaded: dict[str, Model] = {}

    def get(name: str) -> Model:
        if name not in loaded:
            loaded[name] = moetui.load(name if name.startswith("demo") else DATA / name)
        return loaded[name]

    return get
