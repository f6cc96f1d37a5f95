"""Fixtures for the demo model: its card's figures and its checkpoints under plain mlx-lm."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
import yaml
from mlx_lm import load
from tokenizers import Tokenizer

from moetui.demo import Document, checkpoint, corpus, model_card


@pytest.fixture(scope="session")
def card() -> dict[str, Any]:
    """Figures that torch and Transformers measured: the independent reference of these tests."""
    _, front, _ = model_card().read_text("utf-8").split("---\n", 2)
    figures: dict[str, Any] = yaml.safe_load(front)
    return figures


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(checkpoint("demo") / "tokenizer.json"))


@pytest.fixture(scope="session")
def evaluation() -> list[Document]:
    return list(corpus("evaluation"))


@pytest.fixture(scope="session")
def models() -> dict[str, Any]:
    loaded = {}
    for name in ("demo", "demo-dense"):
        model, _ = load(str(checkpoint(name)))
        model.set_dtype(mx.float32)  # gather_mm has no bfloat16 on a CPU
        loaded[name] = model
    return loaded
