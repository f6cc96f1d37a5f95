"""Trains the demo checkpoints: ``python -m moetui.demo.train --out DIR``.

Needs the extra ``train`` (torch, safetensors, tokenizers and the packages whose docstrings are part
of the training text).  Both checkpoints together take about an hour on two CPU cores with bfloat16
matrix units.  The networks compute what Transformers' ``OlmoeForCausalLM`` and ``LlamaForCausalLM``
compute, written as one flat function over a dictionary of tensors so that ``torch.compile`` can
fuse it; all experts of a layer are one matrix product, which at this size is faster than choosing.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from moetui.demo import checkpoint, sources
from moetui.demo.architecture import DENSE, MOE, ROPE_THETA, Shape
from moetui.demo.corpus_build import documents, training_texts
from moetui.demo.rows import MIX, Rows

Parameters = Mapping[str, Tensor]
Rotation = tuple[Tensor, Tensor]

STEPS: Final = 8_000
TOKENS_PER_STEP: Final = 2_048
# (tokens in a row, share of the steps): mostly short rows, and enough long ones that the whole
# context of 512 is trained
ROW_LENGTHS: Final = ((128, 0.7), (256, 0.2), (512, 0.1))
PEAK_RATE: Final = 3e-3
LAST_RATE: Final = 0.02  # of the peak
WARM_UP: Final = 100
WEIGHT_DECAY: Final = 0.1
BALANCE: Final = 0.001
ROUTER_Z: Final = 0.001
STATE_EVERY: Final = 500
REPORT_EVERY: Final = 100


def initialise(shape: Shape, seed: int) -> dict[str, Tensor]:
    """Float32 parameters before training, drawn as ``Shape.initial`` says."""
    generator = torch.Generator().manual_seed(seed)
    parameters: dict[str, Tensor] = {}
    for name, size in shape.training_tensors().items():
        mean, std = shape.initial(name)
        noise = torch.randn(size, generator=generator) * std if std else torch.zeros(size)
        parameters[name] = noise + mean
    return parameters


def _rotated(x: Tensor, rotation: Rotation) -> Tensor:
    cos, sin = rotation
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def _attention(p: Parameters, at: str, shape: Shape, x: Tensor, rotation: Rotation) -> Tensor:
    """Causal self-attention of x: [rows, tokens, hidden], in OLMoE with normalised q and k."""
    rows, tokens, hidden = x.shape
    q, k, v = (functional.linear(x, p[f"{at}self_attn.{c}_proj.weight"]) for c in "qkv")
    if shape.experts:
        q = functional.rms_norm(q, (hidden,), p[f"{at}self_attn.q_norm.weight"], shape.norm_eps)
        k = functional.rms_norm(k, (hidden,), p[f"{at}self_attn.k_norm.weight"], shape.norm_eps)
    q, k, v = (t.view(rows, tokens, shape.heads, -1).transpose(1, 2) for t in (q, k, v))
    q, k = _rotated(q, rotation), _rotated(k, rotation)
    mask = torch.full((tokens, tokens), -1e9, dtype=x.dtype).triu(1)
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask).float().softmax(-1)
    mixed = (weights.to(x.dtype) @ v).transpose(1, 2).reshape(rows, tokens, hidden)
    return functional.linear(mixed, p[f"{at}self_attn.o_proj.weight"])


def _experts(p: Parameters, at: str, shape: Shape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Routed output for x: [tokens, hidden], the load-balance loss and the squared router z."""
    logits = functional.linear(x, p[f"{at}mlp.gate.weight"]).float()
    probabilities = logits.softmax(-1)
    chosen = probabilities.topk(shape.active_experts, -1).indices
    selected = torch.zeros_like(probabilities).scatter(1, chosen, 1.0)
    gate, up = functional.linear(x, p[f"{at}mlp.experts.gate_up"]).chunk(2, -1)
    weights = (probabilities * selected).to(x.dtype)
    inner = (functional.silu(gate) * up).view(-1, shape.experts, shape.intermediate) * weights[
        :, :, None
    ]
    output = functional.linear(inner.flatten(1), p[f"{at}mlp.experts.down"])
    balance = shape.experts * (probabilities.mean(0) * selected.mean(0)).sum()
    return output, balance, logits.logsumexp(-1).square().mean()


def _dense(p: Parameters, at: str, x: Tensor) -> Tensor:
    gate = functional.silu(functional.linear(x, p[f"{at}mlp.gate_proj.weight"]))
    return functional.linear(
        gate * functional.linear(x, p[f"{at}mlp.up_proj.weight"]), p[f"{at}mlp.down_proj.weight"]
    )


def losses(p: Parameters, shape: Shape, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy in nats, and load balance and router z as means over layers.

    ids: [rows, tokens + 1]; row by row, each token but the first is a target.
    """
    inputs, targets = ids[:, :-1], ids[:, 1:]
    embedding = p["model.embed_tokens.weight"]
    h = functional.embedding(inputs, embedding)
    rows, tokens, hidden = h.shape
    steps = torch.arange(0, hidden // shape.heads, 2).float() / (hidden // shape.heads)
    angles = torch.arange(tokens).float()[:, None] * ROPE_THETA**-steps
    angles = torch.cat((angles, angles), -1)
    rotation = angles.cos().to(h.dtype), angles.sin().to(h.dtype)
    balance, z = torch.zeros(()), torch.zeros(())
    for layer in range(shape.layers):
        at = f"model.layers.{layer}."
        x = functional.rms_norm(h, (hidden,), p[f"{at}input_layernorm.weight"], shape.norm_eps)
        h = h + _attention(p, at, shape, x, rotation)
        x = functional.rms_norm(
            h, (hidden,), p[f"{at}post_attention_layernorm.weight"], shape.norm_eps
        )
        if shape.experts:
            routed, layer_balance, layer_z = _experts(p, at, shape, x.view(-1, hidden))
            h = h + routed.view(rows, tokens, hidden)
            balance, z = balance + layer_balance, z + layer_z
        else:
            h = h + _dense(p, at, x)
    h = functional.rms_norm(h, (hidden,), p["model.norm.weight"], shape.norm_eps)
    logits = functional.linear(h, embedding).view(-1, shape.vocabulary).float()
    return (
        functional.cross_entropy(logits, targets.reshape(-1)),
        balance / shape.layers,
        z / shape.layers,
    )


class Training:
    """One training run: float32 masters, their bfloat16 copies, the optimiser and the rows."""

    def __init__(self, shape: Shape, rows: Rows, steps: int, seed: int) -> None:
        self.shape, self.rows, self.steps = shape, rows, steps
        self.step, self.seconds = 0, 0.0
        self.masters = initialise(shape, seed)
        for master in self.masters.values():
            master.requires_grad_(True)
        self._copies = {
            name: master.detach().bfloat16().requires_grad_(True)
            for name, master in self.masters.items()
        }
        matrices = [m for m in self.masters.values() if m.dim() > 1]
        gains = [m for m in self.masters.values() if m.dim() == 1]
        self._optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": WEIGHT_DECAY},
                {"params": gains, "weight_decay": 0.0},
            ],
            lr=PEAK_RATE,
            betas=(0.9, 0.95),
            fused=True,
        )
        self._losses = torch.compile(losses, dynamic=False)

    def rate(self) -> float:
        """Learning rate of the current step: a warm-up, then a cosine down to its last share."""
        warm = min(1.0, (self.step + 1) / WARM_UP)
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / max(self.steps, 1)))
        return PEAK_RATE * warm * (LAST_RATE + (1 - LAST_RATE) * cosine)

    def advance(self) -> float:
        """Do one step and return its cross-entropy."""
        began = time.monotonic()
        length = self.rows.draw_length(ROW_LENGTHS)
        ids = torch.from_numpy(self.rows.batch(TOKENS_PER_STEP // length, length))
        entropy, balance, z = self._losses(self._copies, self.shape, ids)
        (entropy + BALANCE * balance + ROUTER_Z * z).backward()
        for name, copy in self._copies.items():
            assert copy.grad is not None
            self.masters[name].grad = copy.grad.float()
            copy.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters.values(), 1.0)
        for group in self._optimiser.param_groups:
            group["lr"] = self.rate()
        self._optimiser.step()
        self._refresh_copies()
        self.step += 1
        self.seconds += time.monotonic() - began
        return float(entropy.detach())

    def _refresh_copies(self) -> None:
        with torch.no_grad():
            for name, copy in self._copies.items():
                copy.copy_(self.masters[name])

    def save_state(self, path: Path) -> None:
        """Write everything that is needed to go on from here."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "masters": {name: master.detach() for name, master in self.masters.items()},
            "optimiser": self._optimiser.state_dict(),
            "rows": self.rows.state,
        }
        unfinished = path.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(path)

    def load_state(self, path: Path) -> None:
        """Go on from a state written by :meth:`save_state`."""
        state: dict[str, Any] = torch.load(path, weights_only=False)
        self.step, self.seconds = state["step"], state["seconds"]
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(state["masters"][name])
        self._optimiser.load_state_dict(state["optimiser"])
        self.rows.state = state["rows"]
        self._refresh_copies()


def run(training: Training, state: Path) -> None:
    """Train to the end, reporting the smoothed loss and saving the state now and then."""
    smooth: float | None = None
    while training.step < training.steps:
        entropy = training.advance()
        smooth = entropy if smooth is None else 0.98 * smooth + 0.02 * entropy
        if training.step % REPORT_EVERY == 0 or training.step == training.steps:
            speed = TOKENS_PER_STEP * training.step / training.seconds
            print(
                f"{training.shape.folder} step {training.step} loss {smooth:.3f} "
                f"{training.seconds:.0f} s, {speed:.0f} tokens/s",
                flush=True,
            )
        if training.step % STATE_EVERY == 0:
            training.save_state(state)


def export(training: Training, folder: Path) -> None:
    """Write the checkpoint in bfloat16 as Hugging Face files, and the run's figures beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = training.shape
    named = shape.published({name: m.detach().bfloat16() for name, m in training.masters.items()})
    tensors = {name: tensor.contiguous().clone() for name, tensor in named}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", shape.config())
    _write_json(folder / "generation_config.json", shape.generation_config())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(checkpoint("demo") / name, folder / name)
    figures = {
        "steps": training.step,
        "tokens": training.step * TOKENS_PER_STEP,
        "seconds": round(training.seconds),
        "training_tokens_by_domain": training.rows.sizes,
        "mix": MIX,
        "parameters": shape.parameters(),
    }
    _write_json(folder.with_suffix(".training.json"), figures)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Command line: train one of the demo checkpoints or both, and write them to a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "--sources",
        type=Path,
        default=Path("demo-sources"),
        help="folder with the unpacked Debian packages; downloaded there when missing",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and states")
    parser.add_argument("--kind", choices=("moe", "dense", "both"), default="both")
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="0 writes the checkpoint as initialised"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the initialisation and the rows")
    arguments = parser.parse_args()
    try:
        sources.fetch(arguments.sources)
        texts = training_texts(documents(arguments.sources))
    except sources.SourcesMissingError as missing:
        parser.exit(1, f"{missing}\n")
    tokenizer = Tokenizer.from_file(str(checkpoint("demo") / "tokenizer.json"))
    torch.set_num_threads(2)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for shape in {"moe": (MOE,), "dense": (DENSE,), "both": (MOE, DENSE)}[arguments.kind]:
        rows = Rows(texts, tokenizer, arguments.seed)
        training = Training(shape, rows, arguments.steps, arguments.seed)
        state = arguments.out / f"{shape.folder}.state.pt"
        if state.is_file():
            training.load_state(state)
        run(training, state)
        export(training, arguments.out / shape.folder)


if __name__ == "__main__":
    main()
