"""Random checkpoints in Hugging Face format, large enough to measure on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.olmoe import Model, ModelArgs

from moetui.demo import checkpoint


def random_olmoe(folder: Path, *, layers: int, experts: int, hidden: int) -> Path:
    """An untrained OLMoE (float32, N(0, 1/fan_in)) with the demo's tokenizer, in `folder`."""
    config = json.loads((checkpoint("demo") / "config.json").read_text())
    config.update(
        num_hidden_layers=layers, num_experts=experts, num_experts_per_tok=8, hidden_size=hidden,
        intermediate_size=hidden // 2, num_attention_heads=8, num_key_value_heads=8,
    )  # fmt: skip
    mx.random.seed(0)
    model = Model(ModelArgs.from_dict(config))
    weights = {
        name: mx.random.normal(array.shape) * array.shape[-1] ** -0.5 if array.ndim > 1 else array
        for name, array in tree_flatten(model.parameters())
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoint("demo") / name, folder)
    return folder
